"""The photographs in scikit-image's wheel: training data without a download.

Training (12 images, 3.7 million pixels): in colour an astronaut's portrait (512 x 512), a motorcycle from two
sides of a stereo camera (741 x 500 each), galaxies (1000 x 872), a retina (1411 x 1411) and a stained tissue
(512 x 512); in gray bricks, a cameraman, grass, gravel and the moon (512 x 512 each) and coins (384 x 303).
Validation (3 colour images of other subjects): a cat (451 x 300), a cup of coffee
(600 x 400) and a rocket (640 x 427). The wheel's drawings, pages of text, blurred and tiny images are left
out.
"""

import importlib.util
from pathlib import Path

from decloss_jax import checks
from decloss_jax.data.pairs import ImageFile, ImagePair

# Names in skimage/data of scikit-image 0.26; the list there has changed rarely since 0.20.
PHOTOGRAPHS = {
    "train": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
    ),
    "validation": ("chelsea.png", "coffee.png", "rocket.jpg"),
}


def find_photographs(split: str) -> list[ImagePair]:
    """Lists the packaged photographs of "train" or "validation", without LR images.

    Raises:
        UserError: scikit-image is not installed, or lacks one of the photographs.
    """
    names = checks.look_up(PHOTOGRAPHS, split, "split")
    files = [photograph_folder() / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    checks.check(
        not missing,
        "photographs of scikit-image",
        expected="those of release 0.26",
        got=f"no {', '.join(missing)}",
        remedy="install scikit-image>=0.26,<0.27 from its wheel",
    )
    return [ImagePair(file.stem, ImageFile(file)) for file in files]


def photograph_folder() -> Path:
    """Returns the folder skimage/data, without importing scikit-image."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        checks.fail(
            "data.source",
            expected="an installed scikit-image, which holds the source 'photographs'",
            got="no such package",
            remedy="install scikit-image>=0.26,<0.27, or choose another source",
        )
    return Path(spec.submodule_search_locations[0]) / "data"
