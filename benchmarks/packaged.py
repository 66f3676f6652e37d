"""Makes the training photographs of the packaged networks from Debian's packages.

    apt-get download budgie-backgrounds gnome-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    python benchmarks/packaged.py --packages . [--out data/packaged]

results/packaged/photographs.json lists the photographs with their packages, authors, licences and hashes.
Each is shrunk to a length of 2040 and of 1020 pixels and cut into squares of 240. The half of the squares
that bicubic upscaling reproduces worst is kept, because sky and blur teach little. Further images come with
scikit-image: an astronaut, bricks, grass and gravel for training, its colour photographs for validation.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SCALE = 4
LENGTHS = (2040, 1020)  # of the longer side, pixels; photographs are never enlarged
SQUARE = 240  # pixels
FROM_SCIKIT_IMAGE = ("astronaut", "brick", "grass", "gravel")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="folder of the .deb files")
    parser.add_argument("--out", type=Path, default=Path("data/packaged"), help="folder for the images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    squares: dict[str, np.ndarray] = {}
    for photograph in json.loads((ROOT / "results/packaged/photographs.json").read_text()):
        squares |= cut(Path(photograph["file"]).stem, read_member(options.packages, photograph))
    errors = {name: bicubic_error(square) for name, square in squares.items()}
    for name in sorted(errors, key=lambda name: errors[name])[len(errors) // 2 :]:
        Image.fromarray(squares[name]).save(options.out / f"{name}.png")
    write_packaged(options.out)


def read_member(packages: Path, photograph: dict[str, Any]) -> bytes:
    """Reads a photograph out of its package, and compares its hash; nothing else is unpacked."""
    name, version = photograph["package"].split()
    deb = packages / f"{name}_{version}_all.deb"
    if not deb.is_file():
        sys.exit(f"{deb} is missing; fetch version {version} of Debian's package {name}")
    listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(listing.stdout)) as archive:
        member = archive.extractfile("./" + photograph["file"])
        data = member.read() if member else b""
    if hashlib.sha256(data).hexdigest() != photograph["sha256"]:
        sys.exit(f"{photograph['file']} in {deb} is not the listed photograph (its SHA-256 differs)")
    return data


def cut(name: str, data: bytes) -> dict[str, np.ndarray]:
    """Cuts a photograph into squares, at each length of `LENGTHS` that it has."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    squares = {}
    for length in LENGTHS:
        factor = length / max(image.size)
        if factor > 1:
            continue
        width, height = (round(side * factor) for side in image.size)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        for top in range(0, height - SQUARE + 1, SQUARE):
            for left in range(0, width - SQUARE + 1, SQUARE):
                square = pixels[top : top + SQUARE, left : left + SQUARE]
                squares[f"{name}_{length}_{top}_{left}"] = square
    return squares


def bicubic_error(square: np.ndarray) -> float:
    """Returns the mean squared error after shrinking and bicubic upscaling."""
    from decloss_jax.ops.resize import bicubic_downscale, bicubic_upscale

    again = bicubic_upscale(bicubic_downscale(square, SCALE), SCALE)
    return float(np.mean((again.astype(float) - square) ** 2))


def write_packaged(out: Path) -> None:
    """Writes scikit-image's photographs; those for validation get the prefix `validation_`."""
    from decloss_jax.data.photographs import find_photographs

    for split, prefix in (("train", ""), ("validation", "validation_")):
        for pair in find_photographs(split):
            if split == "validation" or pair.name in FROM_SCIKIT_IMAGE:
                Image.fromarray(pair.load(SCALE)[1]).save(out / f"{prefix}{pair.name}.png")


if __name__ == "__main__":
    main()
