"""Finds the faults of image folders, file by file, before training fails on them."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from decloss_jax.checks import UserError
from decloss_jax.data.folder import LAYOUTS, check_folder, find_low_folder, match_files, refuse_empty
from decloss_jax.data.images import (
    DECODERS,
    IMAGE_SUFFIXES,
    list_images,
    list_other_pictures,
    open_image,
    read_image,
)
from decloss_jax.data.pairs import check_sizes
from decloss_jax.host import console
from decloss_jax.host.files import expand

SCALES = (2, 3, 4, 8)  # scales whose LR folders are checked
ALL_LAYOUTS = tuple(dict.fromkeys(LAYOUTS["train"] + LAYOUTS["validation"]))
KINDS = ("unpaired", "unreadable", "wrong mode", "wrong size", "duplicate")


@dataclass(frozen=True)
class Finding:
    """One fault of one file; `kind` is one of `KINDS`."""

    file: Path
    kind: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass(frozen=True)
class Report:
    """The result of a check: the number of image files, and their faults."""

    images: int
    findings: list[Finding]

    def summary(self) -> str:
        """Counts the findings by kind, in one line."""
        counts = Counter(finding.kind for finding in self.findings)
        named = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        total = f"{len(self.findings) or 'no'} problem{'s' if len(self.findings) != 1 else ''}"
        return f"{self.images} images checked, {total} found" + (f": {named}" if named else "")


@dataclass(frozen=True)
class Folder:
    """HR files of one layout, and its LR folders with their possible scales."""

    hr_files: list[Path]
    low: dict[Path, list[int]]


@dataclass(frozen=True)
class Content:
    """The shape and digest of a decoded image."""

    shape: tuple[int, ...]
    digest: bytes


def check_data(roots: Iterable[str | Path]) -> Report:
    """Checks that every image of the roots is readable, paired, of a fitting size, and not a duplicate.

    All layouts of `folder.LAYOUTS` that exist are checked, with the LR images of all `SCALES`.

    Args:
        roots: folders for `data.root`, `data.validation_root` or `evaluate.py --data`.

    Raises:
        UserError: a root that does not exist, or holds no image in any layout.
    """
    folders = [folder for root in roots for folder in find_folders(expand(root))]
    files = list(dict.fromkeys(file for folder in folders for file in list_files(folder)))
    others = list(dict.fromkeys(finding for folder in folders for finding in find_other_pictures(folder)))
    contents, findings = read_contents(files)
    for folder in folders:
        findings += check_pairs(folder, contents)
    findings += find_duplicates(contents) + others
    order = {file: place for place, file in enumerate([*files, *(other.file for other in others)])}
    return Report(len(order), sorted(findings, key=lambda finding: order[finding.file]))


def find_folders(root: Path) -> list[Folder]:
    """Lists the layouts of a root that hold HR images; raises `UserError` if there is none."""
    check_folder(root, "folder to check")
    found: dict[tuple[int, int], Folder] = {}  # by device and inode: HR and hr may be the same folder
    for layout in ALL_LAYOUTS:
        hr_files = list_images(root / layout.hr)
        if not hr_files:
            continue
        low: dict[Path, list[int]] = {}
        for scale in SCALES:
            low_folder = find_low_folder(root, layout, scale)
            if low_folder is not None:
                low.setdefault(low_folder, []).append(scale)
        status = (root / layout.hr).stat()
        found.setdefault((status.st_dev, status.st_ino), Folder(hr_files, low))
    if not found:
        refuse_empty(root, ALL_LAYOUTS, "folder to check")
    return list(found.values())


def list_files(folder: Folder) -> list[Path]:
    """Lists all image files of a layout."""
    return [*folder.hr_files, *(file for low_folder in folder.low for file in list_images(low_folder))]


def find_other_pictures(folder: Folder) -> list[Finding]:
    """Returns the pictures of a layout whose format is not read."""
    places = dict.fromkeys((folder.hr_files[0].parent, *folder.low))
    return [
        Finding(file, "unreadable", f"is left out, as only {', '.join(IMAGE_SUFFIXES)} are read")
        for place in places
        for file in list_other_pictures(place)
    ]


def read_contents(files: list[Path]) -> tuple[dict[Path, Content], list[Finding]]:
    """Decodes every file, several at a time, and keeps only the shape and the digest."""

    def read(file: Path) -> Content | Finding:
        try:
            image = read_image(file)
        except UserError as error:
            kind = "wrong mode" if is_decodable(file) else "unreadable"
            return Finding(file, kind, str(error).removeprefix(f"{file}: "))
        return Content(image.shape, hashlib.sha256(image.data).digest())

    contents: dict[Path, Content] = {}
    findings: list[Finding] = []
    with (
        ThreadPoolExecutor(DECODERS) as pool,
        console.progress("checking images", len(files), unit="image") as advance,
    ):
        for file, result in zip(files, pool.map(read, files), strict=True):
            if isinstance(result, Content):
                contents[file] = result
            else:
                findings.append(result)
            advance()
    return contents, findings


def is_decodable(file: Path) -> bool:
    """Tells whether a refused image can be decoded; if so, it was refused for its kind of pixels."""
    try:
        with open_image(file) as image:
            image.load()
    except Exception:  # Pillow's decoders raise errors of many kinds on damaged files
        return False
    return True


def check_pairs(folder: Folder, contents: dict[Path, Content]) -> list[Finding]:
    """Returns the files of a layout that have no partner, or a partner of the wrong size."""
    _, duplicates = match_files(folder.hr_files, None, SCALES[0])
    findings = [Finding(file, "unpaired", problem) for file, problem in duplicates.items()]
    for low_folder, scales in folder.low.items():
        by_scale = [check_low_folder(folder.hr_files, low_folder, scale, contents) for scale in scales]
        # If the folder's name has no scale, the scale with the fewest findings is taken.
        findings += [finding for finding in min(by_scale, key=len) if finding.file not in duplicates]
    return findings


def check_low_folder(
    hr_files: list[Path], low_folder: Path, scale: int, contents: dict[Path, Content]
) -> list[Finding]:
    """Returns the mismatches between HR files and an LR folder of one scale."""
    partners, unpaired = match_files(hr_files, low_folder, scale)
    findings = [Finding(file, "unpaired", problem) for file, problem in unpaired.items()]
    for hr_file, low in partners.items():
        if hr_file in contents and low.path in contents:
            try:
                check_sizes(hr_file.stem, contents[low.path].shape, contents[hr_file].shape, scale)
            except UserError as error:
                findings.append(Finding(low.path, "wrong size", str(error)))
    return findings


def find_duplicates(contents: dict[Path, Content]) -> list[Finding]:
    """Returns the files that have the same pixels as an earlier file."""
    first: dict[Content, Path] = {}
    for file, content in contents.items():
        first.setdefault(content, file)
    return [
        Finding(file, "duplicate", f"has the same content as {first[content]}")
        for file, content in contents.items()
        if first[content].resolve() != file.resolve()
    ]
