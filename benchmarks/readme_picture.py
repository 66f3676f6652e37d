"""Draws the picture of the README: details of held-out photographs, by bicubic and by the packaged network.

    python benchmarks/readme_picture.py [--out docs/picture.png]

The photographs are scikit-image's chelsea (CC0, by Stefan van der Walt) and coffee (CC0, by Rachel Michetti).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

NAMES = ("chelsea", "coffee")
SIDE, ENLARGED = 112, 224  # pixels of a detail: HR, and as drawn
LABELS = ("LR", "bicubic", "--detail 0", "default", "HR")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/picture.png"))
    options = parser.parse_args()
    rows = [draw_row(images) for images in details()]
    Image.fromarray(np.concatenate([labels(), *rows])).save(options.out, optimize=True)


def details() -> list[list[np.ndarray]]:
    """Returns the details of each photograph in the order of `LABELS`, uint8 [SIDE,SIDE,3]."""
    from decloss_jax.data.photographs import find_photographs
    from decloss_jax.inference import upscale
    from decloss_jax.ops.detail import find_detail
    from decloss_jax.ops.resize import bicubic_upscale
    from decloss_jax.weights.packaged import DETAIL, load_packaged

    networks = [load_packaged(detail)[:2] for detail in (0.0, DETAIL)]
    found = []
    for pair in find_photographs("validation"):
        if pair.name in NAMES:
            low, hr = pair.load(4)
            place = find_detail(hr, SIDE)
            pixels = low.repeat(4, axis=0).repeat(4, axis=1)
            sr = [upscale(model, params, low, dtype=np.uint8) for model, params in networks]
            found.append([image[place] for image in (pixels, bicubic_upscale(low, 4), *sr, hr)])
    return found


def draw_row(images: list[np.ndarray]) -> np.ndarray:
    """Enlarges details without interpolation and puts them side by side."""
    resized = [
        Image.fromarray(image).resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST) for image in images
    ]
    return np.concatenate([np.asarray(image) for image in resized], axis=1)


def labels() -> np.ndarray:
    """Writes the names of the columns, uint8 [24,W,3]."""
    strip = Image.new("RGB", (ENLARGED * len(LABELS), 24), "white")
    draw = ImageDraw.Draw(strip)
    for index, label in enumerate(LABELS):
        draw.text((ENLARGED * index + 6, 6), label, fill="black")
    return np.asarray(strip)


if __name__ == "__main__":
    main()
