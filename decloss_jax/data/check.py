"""Tells what is wrong with folders of images, file by file, before training trips over it."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from decloss_jax import console
from decloss_jax.checks import UserError
from decloss_jax.data.folder import LAYOUTS, check_folder, find_low_folder, match_files, refuse_empty
from decloss_jax.data.images import list_images, read_image
from decloss_jax.data.pairs import check_sizes

SCALES = (2, 3, 4, 8)  # whose LR folders are looked for
ALL_LAYOUTS = tuple(dict.fromkeys(LAYOUTS["train"] + LAYOUTS["validation"]))

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one file."""

    file: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


def check_data(roots: Iterable[str | Path]) -> list[Finding]:
    """Checks every image of the roots: is it readable, is it paired, do the two sizes fit.

    Whatever there is of `folder.LAYOUTS` is checked, with the LR images of all `SCALES`.

    Args:
        roots: folders as `data.root`, `data.validation_root` and `evaluate.py --data` take them.

    Returns:
        What is wrong, root by root; empty where all is well.

    Raises:
        UserError: a root that does not exist, or holds no image in any layout.
    """
    return [finding for root in roots for finding in check_root(Path(root).expanduser())]


def check_root(root: Path) -> list[Finding]:
    """Checks the images of one root; see `check_data`."""
    check_folder(root, "folder to check")
    hr_files: list[Path] = []
    partners: list[tuple[Path, Path, int]] = []  # HR file, LR file, scale
    unpaired: dict[Path, str] = {}
    for layout in ALL_LAYOUTS:
        files = list_images(root / layout.hr)
        hr_files += files
        for scale in SCALES if files else ():
            matched, problems = match_files(files, find_low_folder(root, layout, scale), scale)
            partners += [(file, low.path, scale) for file, low in matched.items()]
            unpaired |= problems
    if not hr_files:
        refuse_empty(root, ALL_LAYOUTS, "folder to check")

    shapes, unreadable = read_shapes([*hr_files, *(low_file for _, low_file, _ in partners)])
    misfits = find_misfits(partners, shapes)
    problems_by_kind = (unpaired, unreadable, misfits)
    return [Finding(file, problem) for kind in problems_by_kind for file, problem in kind.items()]


def read_shapes(files: list[Path]) -> tuple[dict[Path, Shape], dict[Path, str]]:
    """Decodes every file, on all cores; returns the shapes, and what is wrong with files that have none."""
    shapes: dict[Path, Shape] = {}
    problems: dict[Path, str] = {}

    def read_shape(file: Path) -> None:
        try:
            shapes[file] = read_image(file).shape
        except UserError as error:
            problems[file] = str(error).removeprefix(f"{file}: ")

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        console.progress("checking images", len(files), unit="image") as advance,
    ):
        for _ in pool.map(read_shape, files):
            advance()
    return shapes, dict(sorted(problems.items()))


def find_misfits(partners: list[tuple[Path, Path, int]], shapes: dict[Path, Shape]) -> dict[Path, str]:
    """Returns the LR files whose size does not fit the HR image's, and what it should be."""
    problems = {}
    for hr_file, low_file, scale in partners:
        if hr_file in shapes and low_file in shapes:
            try:
                check_sizes(hr_file.stem, shapes[low_file], shapes[hr_file], scale)
            except UserError as error:
                problems[low_file] = str(error)
    return problems
