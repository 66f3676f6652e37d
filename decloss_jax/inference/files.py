"""Upscales picture files: colour by the network, alpha by MATLAB's bicubic."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from decloss_jax import checks
from decloss_jax.data.images import (
    IMAGE_SUFFIXES,
    is_other_picture,
    open_image,
    refuse_unreadable,
)
from decloss_jax.data.orientation import upright_size
from decloss_jax.host import console
from decloss_jax.inference.pictures import (
    Picture,
    check_color,
    check_writable,
    read_picture,
    without_idle_alpha,
    write_picture,
)
from decloss_jax.ops.padding import Size, shared_shapes
from decloss_jax.ops.quantize import dequantize, quantize
from decloss_jax.ops.resize import imresize

LISTED_NAMES = 5  # per error
ALPHA_ROWS = 256  # rows of alpha that are resized at once
ALPHA_OVERLAP = 4  # rows; more than the radius of the bicubic kernel, 2


class Upscale(Protocol):
    """Super-resolves one image, like `inference.upscale` with its network bound."""

    def __call__(
        self, low: np.ndarray, *, shape: Size, dtype: np.dtype, advance: Callable[[int], None]
    ) -> np.ndarray:
        """Returns [s h,s w,3] of `dtype` for [h,w,3], uint8, uint16 or floats in [0,1]."""


@dataclass(frozen=True)
class Job:
    """A picture to upscale: its source, its target, and the height and width in its header."""

    source: Path
    target: Path
    size: Size


def upscale_files(
    network: Upscale,
    source: Path,
    target: Path,
    *,
    scale: int,
    ending: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Upscales a picture, or every picture below a folder; a failure does not stop the others.

    Args:
        network: super-resolves one image.
        source: a picture or a folder.
        target: for a picture, a file or a folder; for a folder, a folder, in which the results get the same
            names and sub-folders.
        scale: s.
        ending: the suffix of the results, such as ".png"; by default that of `target` or of the picture.
        overwrite: whether existing files may be replaced.

    Returns:
        One sentence for each picture that failed or has an unsupported format.

    Raises:
        UserError: no picture in `source`, or two pictures with the same target.
    """
    jobs: list[Job] = []
    files = find_files(source, target)
    plan = plan_files(source, target, ending, files)
    problems: list[str | None] = [refuse_kind(path) for path in files if is_other_picture(path)]
    for folder in dict.fromkeys(goal.parent for _, goal in plan):
        check_place(folder, target if source.is_dir() else folder)
    for path, goal in plan:
        try:
            jobs.append(Job(path, goal, check_job(path, goal, scale, overwrite)))
        except checks.UserError as error:
            problems.append(str(error))
    shapes = shared_shapes(job.size for job in jobs) if jobs else {}
    total = sum(height * width for height, width in (job.size for job in jobs))
    with console.progress("upscaling", total, unit="pixel") as advance:
        for job in jobs:
            problems.append(upscale_file(network, job, scale, shapes[job.size], advance))
    return [problem for problem in problems if problem]


def upscale_file(
    network: Upscale, job: Job, scale: int, shape: Size, advance: Callable[..., None]
) -> str | None:
    """Upscales one picture file; returns the problem in one sentence, or None."""
    done, problem = 0, None

    def report(pixels: int) -> None:
        nonlocal done
        done += pixels
        advance(job.source.name, count=pixels)

    try:
        picture = without_idle_alpha(read_picture(job.source), job.target)
        height, width = picture.color.shape[:2]
        check_writable(job.target, scale * height, scale * width, alpha=picture.alpha is not None)
        check_color(job.target, picture)
        write_picture(job.target, upscale_picture(network, picture, scale, shape, report))
    except checks.UserError as error:
        problem = str(error)
    except OSError as error:
        problem = (
            f"{job.target}: expected a writable file, got {error.strerror or error}; free some disk space."
        )
    except MemoryError:
        problem = f"{job.source}: expected memory for the result, got too little; close other programs."
    report(job.size[0] * job.size[1] - done)
    return problem


def plan_files(source: Path, target: Path, ending: str | None, files: list[Path]) -> list[tuple[Path, Path]]:
    """Lists the pictures of `source`, each with its target."""
    if source.is_file():
        goal = target / source.name if target.is_dir() else target
        checks.check(
            bool(goal.suffix),
            str(target),
            expected="a file with a suffix, or an existing folder",
            got="neither",
            remedy="add the suffix, such as .png, or make the folder",
        )
        return [(source, goal.with_suffix(ending) if ending else goal)]
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        refuse_nothing(source, files)
    plan: dict[Path, Path] = {}
    for path in found:
        goal = target / path.relative_to(source)
        goal = goal.with_suffix(ending) if ending else goal
        checks.check(
            goal not in plan,
            str(path),
            expected="a result with a name of its own",
            got=f"{goal.name}, which is also the result of {plan.get(goal, path).name}",
            remedy="rename one of the two",
        )
        plan[goal] = path
    return [(path, goal) for goal, path in plan.items()]


def find_files(source: Path, target: Path) -> list[Path]:
    """Lists the files below a folder, including linked folders, except hidden ones and those in `target`.

    The list is empty if `source` is a file. A link to a folder that contains it is not followed.
    """
    inside = os.path.realpath(target)
    found: list[Path] = []
    above: dict[str, tuple[str, ...]] = {}  # folder -> the real paths of it and of its parents
    for folder, folders, names in os.walk(source, followlinks=True):
        here = os.path.realpath(folder)
        line = (*above.get(os.path.dirname(folder), ()), here)
        above[folder] = line
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and (real := os.path.realpath(os.path.join(folder, name))) not in line
            and (real != inside or inside == line[0])
        )
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    outside = inside == os.path.realpath(source)
    return sorted(
        path for path in found if outside or inside not in map(str, Path(os.path.realpath(path)).parents)
    )


def refuse_kind(path: Path) -> str:
    """Returns the sentence for a picture in an unsupported format."""
    return (
        f"{path}: expected a picture with one of the suffixes {', '.join(IMAGE_SUFFIXES)}, "
        f"got {path.suffix}; convert it to .png first."
    )


def refuse_nothing(source: Path, files: list[Path]) -> NoReturn:
    """Raises `UserError` for a source without pictures, and names the reason."""
    others = [path.name for path in files if is_other_picture(path)]
    if others:
        got = f"only pictures in other formats ({', '.join(others[:LISTED_NAMES])})"
    elif source.is_dir():
        got = "no picture"
    else:
        got = "a pipe or a device" if source.exists() else "no such file or folder"
    checks.fail(
        str(source),
        expected=f"a picture, or a folder of them ({', '.join(IMAGE_SUFFIXES)})",
        got=got,
        remedy="convert them to .png first" if others else "check the path",
    )


def check_place(folder: Path, root: Path) -> None:
    """Raises `UserError` unless a folder exists or can be made, is writable, and lies in `root`."""
    checks.check(
        Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root)),
        str(folder),
        expected=f"a folder in {root}",
        got=f"a link to {os.path.realpath(folder)}",
        remedy="remove the link, or write there directly",
    )
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    checks.check(
        there.is_dir() and os.access(there, os.W_OK),
        str(folder),
        expected="a folder that can be written to",
        got=f"{there}, which cannot" if there.is_dir() else f"{there}, which is not a folder",
        remedy="choose another folder",
    )


def check_job(source: Path, target: Path, scale: int, overwrite: bool) -> Size:
    """Checks source and target before any work; returns the picture's height and width.

    Raises:
        UserError: the target exists or cannot hold the picture, or the picture's header cannot be read.
    """
    checks.check(
        overwrite or not os.path.lexists(target),
        str(target),
        expected="a new file",
        got="an existing one",
        remedy="choose another name or give --overwrite",
    )
    with refuse_unreadable(str(source)), open_image(source) as image:
        height, width = upright_size(image)
    check_writable(target, scale * height, scale * width, alpha=False)  # its alpha is checked after decoding
    return height, width


def upscale_picture(
    network: Upscale, picture: Picture, scale: int, shape: Size, report: Callable[[int], None]
) -> Picture:
    """Upscales a picture; gray, alpha and 16 bits are preserved."""
    dtype = picture.color.dtype
    visible = picture.color
    if picture.alpha is not None:
        visible = fill_transparent(dequantize(picture.color), dequantize(picture.alpha))
    color = network(visible, shape=shape, dtype=dtype, advance=report)
    alpha = None if picture.alpha is None else upscale_alpha(picture.alpha, scale)
    return replace(picture, color=color, alpha=alpha)


def upscale_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Resizes [h,w] uint8 or uint16 by MATLAB's bicubic to [s h,s w], in strips to save memory."""
    height, width = alpha.shape
    resized = np.empty((scale * height, scale * width), alpha.dtype)
    for start in range(0, height, ALPHA_ROWS):
        end = min(start + ALPHA_ROWS, height)
        first = max(0, start - ALPHA_OVERLAP)
        strip = dequantize(alpha[first : end + ALPHA_OVERLAP])
        part = imresize(strip[..., None], scale)[scale * (start - first) : scale * (end - first), :, 0]
        resized[scale * start : scale * end] = quantize(part, alpha.dtype)
    return resized


def fill_transparent(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replaces the colours of transparent pixels by those of the visible surroundings.

    The colour under alpha 0 is arbitrary, often black, and the network would draw it into the visible edge as
    a dark fringe. So an invisible pixel takes its colour from a picture of half the size, which is filled in
    the same way. Below an alpha of 1/8, where stored colours are imprecise, a pixel is blended with it.

    Args:
        color: [H,W,3].
        alpha: [H,W] in [0,1].

    Returns:
        [H,W,3] float32; equal to `color` where alpha is 1/8 or more.
    """
    weight = alpha[..., None].astype(np.float32)
    own = np.minimum(8 * weight, np.float32(1))
    if own.min() == 1 or weight.size == 1:
        return color
    height, width = alpha.shape
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    weights = sum_of_quarters(np.pad(weight, odd))
    colors = sum_of_quarters(np.pad(weight * color, odd)) / np.maximum(weights, np.float32(1e-6))
    coarse = fill_transparent(colors, np.minimum(weights[..., 0], 1))
    surroundings = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return own * color + (1 - own) * surroundings


def sum_of_quarters(image: np.ndarray) -> np.ndarray:
    """Sums each 2x2 block: [2H,2W,C] -> [H,W,C]."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).sum(axis=(1, 3))
