"""Upscales people's picture files: colour by the network, alpha by MATLAB's bicubic."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from decloss_jax import checks, console
from decloss_jax.data.images import IMAGE_SUFFIXES
from decloss_jax.data.pictures import Picture, read_picture, write_picture
from decloss_jax.ops.resize import imresize

Upscale = Callable[[np.ndarray], np.ndarray]  # [h,w,3] in [0,1] -> [s h,s w,3]


def upscale_files(upscale: Upscale, source: Path, target: Path, *, overwrite: bool = False) -> list[str]:
    """Upscales a picture, or every picture below a folder; a failing one does not stop the others.

    Args:
        upscale: the network.
        source: a picture, or a folder.
        target: for a picture, the file to write or a folder to write it to; for a folder, a folder, in which
            the files get the same names and sub-folders.
        overwrite: whether existing files may be replaced.

    Returns:
        One sentence for each picture that failed.

    Raises:
        UserError: no picture in `source`.
    """
    problems = []
    jobs = plan_files(source, target)
    with console.progress("upscaling", len(jobs), unit="picture") as advance:
        for job in jobs:
            try:
                upscale_file(upscale, *job, overwrite=overwrite)
            except (checks.UserError, OSError) as error:
                problems.append(f"{job[0]}: {error}" if isinstance(error, OSError) else str(error))
            advance(job[0].name)
    return problems


def plan_files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Lists which file is to become which."""
    if source.is_file():
        return [(source, target / source.name if target.is_dir() else target)]
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    checks.check(
        bool(found),
        str(source),
        expected=f"a picture, or a folder of them ({', '.join(IMAGE_SUFFIXES)})",
        got="no picture" if source.is_dir() else "no such file or folder",
        remedy="check the path",
    )
    return [(path, target / path.relative_to(source)) for path in found]


def upscale_file(upscale: Upscale, source: Path, target: Path, *, overwrite: bool) -> None:
    """Upscales one picture file."""
    checks.check(
        overwrite or not target.exists(),
        str(target),
        expected="a new file",
        got="an existing one",
        remedy="choose another name or give --overwrite",
    )
    write_picture(target, upscale_picture(upscale, read_picture(source)))


def upscale_picture(upscale: Upscale, picture: Picture) -> Picture:
    """Upscales a picture and keeps what it is: gray stays gray, alpha stays, 16 bits stay."""
    if picture.alpha is None:
        return replace(picture, color=upscale(picture.color))
    color = upscale(fill_transparent(picture.color, picture.alpha))
    alpha = imresize(picture.alpha[..., None], color.shape[0] / picture.alpha.shape[0])[..., 0]
    return replace(picture, color=color, alpha=np.clip(alpha, 0.0, 1.0).astype(np.float32))


def fill_transparent(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replaces the colours under transparency by those of the visible surroundings.

    What lies under alpha 0 is arbitrary, often black, and the network would draw it into the visible edge
    as a dark fringe. Each pixel keeps `alpha` of its colour and takes the rest from a picture of half the
    size, filled in the same way.

    Args:
        color: [H,W,3].
        alpha: [H,W] in [0,1].

    Returns:
        [H,W,3] float32; equal to `color` where alpha is 1.
    """
    weight = alpha[..., None].astype(np.float32)
    if weight.min() == 1 or weight.size == 1:
        return color
    height, width = alpha.shape
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    weights = sum_of_quarters(np.pad(weight, odd))
    colors = sum_of_quarters(np.pad(weight * color, odd)) / np.maximum(weights, np.float32(1e-6))
    coarse = fill_transparent(colors, np.minimum(weights[..., 0], 1))
    surroundings = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return weight * color + (1 - weight) * surroundings


def sum_of_quarters(image: np.ndarray) -> np.ndarray:
    """Adds up each 2x2 block: [2H,2W,C] -> [H,W,C]."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).sum(axis=(1, 3))
