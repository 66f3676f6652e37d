"""Finds pairs of HR and LR images in the common folder layouts.

A layout is a folder of HR images and the possible folders of their LR images; {s} is the scale. The first
layout with an HR image is used. LR files have the HR file's name, or its stem with the suffix "x{s}"
(0001.png and 0001x4.png); the formats may differ. Without an LR folder, LR images are made from the HR ones.
A folder LR without a scale in its name serves any scale; images of the wrong size are refused when read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from decloss_jax import checks
from decloss_jax.data.images import IMAGE_SUFFIXES, list_images, list_other_pictures
from decloss_jax.data.pairs import ImageFile, ImagePair
from decloss_jax.host import console
from decloss_jax.host.files import expand

LISTED_NAMES = 5  # in one error; check-data lists all


@dataclass(frozen=True)
class Layout:
    """Folders relative to the root; `low` in order of preference."""

    hr: str
    low: tuple[str, ...] = ()


PLAIN_LAYOUTS = (
    Layout("HR", ("LRx{s}", "LR_bicubic/X{s}", "LR")),  # plain; EDSR-PyTorch's benchmark sets
    Layout("hr", ("lrx{s}", "lr")),
    Layout("GTmod12", ("LRbicx{s}",)),  # BasicSR's benchmark sets
    Layout("."),  # a folder of images
)
LAYOUTS = {
    "train": (
        Layout("DIV2K_train_HR", ("DIV2K_train_LR_bicubic/X{s}",)),  # DIV2K's archives, BasicSR
        Layout("DIV2K/DIV2K_train_HR", ("DIV2K/DIV2K_train_LR_bicubic/X{s}",)),  # EDSR-PyTorch
        # BasicSR's sub-images
        Layout("DIV2K_train_HR_sub", ("DIV2K_train_LR_bicubic/X{s}_sub", "DIV2K_train_LR_bicubic_X{s}_sub")),
        Layout("Flickr2K_HR", ("Flickr2K_LR_bicubic/X{s}",)),
        Layout("Flickr2K_HR_sub", ("Flickr2K_LR_bicubic/X{s}_sub", "Flickr2K_LR_bicubic_X{s}_sub")),
        Layout("DF2K_HR", ("DF2K_LR_bicubic/X{s}",)),  # both in one folder, by EDSR-PyTorch's names
        *PLAIN_LAYOUTS,
    ),
    "validation": (
        Layout("DIV2K_valid_HR", ("DIV2K_valid_LR_bicubic/X{s}",)),
        Layout("DIV2K/DIV2K_valid_HR", ("DIV2K/DIV2K_valid_LR_bicubic/X{s}",)),
        Layout("DIV2K_train_HR", ("DIV2K_train_LR_bicubic/X{s}",)),  # 801 to 900 in one folder with the rest
        Layout("DIV2K/DIV2K_train_HR", ("DIV2K/DIV2K_train_LR_bicubic/X{s}",)),
    ),
}

# EDSR-PyTorch's archive holds all 900 images in DIV2K_train_HR; 801 to 900 are DIV2K's validation images.
DIV2K_TRAINING_FOLDER = "DIV2K_train_HR"
DIV2K_TRAINING_IMAGES = 800


def find_pairs(root: Path, *, scale: int, split: str, field: str = "data.root") -> list[ImagePair]:
    """Lists the pairs of one split of a training folder: "train" or "validation".

    Args:
        root: a folder with one of `LAYOUTS`.
        scale: s.
        split: "train" or "validation"; returns [] if the layout has no validation images of its own.
        field: name of the folder in errors.

    Raises:
        UserError: no such folder, no training image in any layout (all are named), or HR and LR images
            without their partners (by name).
    """
    layouts = checks.look_up(LAYOUTS, split, "split")
    pairs = first_pairs(root, layouts, scale=scale, split=split, field=field)
    if not pairs and split == "train":
        refuse_empty(root, layouts, field)
    return pairs


def find_pairs_of_roots(roots: str, *, scale: int, split: str) -> list[ImagePair]:
    """Lists the pairs of one split of `data.root`: one folder, or several separated by commas, as for DF2K.

    Raises:
        UserError: as in `find_pairs`, or two roots with images of the same name.
    """
    pairs: dict[str, ImagePair] = {}
    for root in split_roots(roots):
        for pair in find_pairs(root, scale=scale, split=split):
            checks.check(
                pair.name not in pairs,
                "data.root",
                expected="images of different names in its folders",
                got=f"{pair.name} once more in {str(root)!r}",
                remedy="rename the images of one folder (check-data finds duplicates)",
            )
            pairs[pair.name] = pair
    return list(pairs.values())


def split_roots(roots: str) -> list[Path]:
    """Splits folders that are separated by commas."""
    return [expand(root.strip()) for root in roots.split(",")]


def find_all_pairs(root: Path, *, scale: int, field: str) -> list[ImagePair]:
    """Lists the pairs of a folder that serves only validation or evaluation, such as a benchmark set.

    Args:
        root: a folder with HR/ and optionally LRx{s}/, or another of `PLAIN_LAYOUTS`; in DIV2K's layouts, the
            validation images are used.
        scale: s.
        field: name of the folder in errors.

    Raises:
        UserError: no such folder, no image in any layout, or images without their partners.
    """
    layouts = (*LAYOUTS["validation"], *PLAIN_LAYOUTS)
    pairs = first_pairs(root, layouts, scale=scale, split="validation", field=field)
    if not pairs:
        refuse_empty(root, layouts, field)
    return pairs


def first_pairs(
    root: Path, layouts: tuple[Layout, ...], *, scale: int, split: str, field: str
) -> list[ImagePair]:
    """Returns the pairs of the first layout that has images of the split; [] if none has."""
    check_folder(root, field)
    for layout in layouts:
        hr_files = list_images(root / layout.hr)
        wanted = [file for file in hr_files if belongs_to(file, split)]
        if wanted:
            low_folder = find_low_folder(root, layout, scale)
            partners, problems = match_files(hr_files, low_folder, scale)
            if problems:
                refuse_unpaired(root / layout.hr, problems)
            for folder in (root / layout.hr, low_folder):
                name_other_pictures(folder)
            return [ImagePair(file.stem, ImageFile(file), partners.get(file)) for file in wanted]
    return []


def find_low_folder(root: Path, layout: Layout, scale: int) -> Path | None:
    """Returns the first LR folder of the layout that exists."""
    folders = [root / pattern.format(s=scale) for pattern in layout.low]
    return next((folder for folder in folders if folder.is_dir()), None)


def name_other_pictures(folder: Path | None) -> None:
    """Says which pictures of a folder are ignored because of their format."""
    others = list_other_pictures(folder) if folder else []
    if others:
        console.say(f"{folder}: ignored {name_some(others)}; only {', '.join(IMAGE_SUFFIXES)} are read")


def name_some(files: list[Path]) -> str:
    """Names the first few files, and counts the rest."""
    more = f" and {len(files) - LISTED_NAMES} more" if len(files) > LISTED_NAMES else ""
    return ", ".join(file.name for file in files[:LISTED_NAMES]) + more


def belongs_to(file: Path, split: str) -> bool:
    """Tells whether an HR file belongs to the split; in DIV2K's training folder its number decides."""
    if file.parent.absolute().name != DIV2K_TRAINING_FOLDER:
        return True
    if not file.stem.isdecimal():
        return split == "train"
    return (int(file.stem) <= DIV2K_TRAINING_IMAGES) == (split == "train")


def match_files(
    hr_files: list[Path], low_folder: Path | None, scale: int
) -> tuple[dict[Path, ImageFile], dict[Path, str]]:
    """Matches HR files with the LR files of a folder by their stems.

    Returns:
        The LR image of each HR file (none without a folder), and the problem of each faulty file: the stem of
        another file, or no partner.
    """
    hr_by_stem, problems = by_stem(hr_files)
    if low_folder is None:
        return {}, problems

    low_by_stem, duplicates = by_stem(list_images(low_folder))
    problems |= duplicates
    # One ending for the whole folder: with HR files a and ax4, the LR file ax4 must not serve both.
    ending = f"x{scale}" if any(f"{stem}x{scale}" in low_by_stem for stem in hr_by_stem) else ""
    partners = {}
    for stem, file in hr_by_stem.items():
        low_file = low_by_stem.pop(stem + ending, None)
        if low_file is None:
            problems[file] = f"has no LR image {stem}{ending} in {low_folder}"
        else:
            partners[file] = ImageFile(low_file)
    problems |= dict.fromkeys(low_by_stem.values(), "has no HR image")
    return partners, problems


def by_stem(files: list[Path]) -> tuple[dict[str, Path], dict[Path, str]]:
    """Returns the first file of each stem, and the problem of the others."""
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(file.stem, file)
    duplicates = {
        file: f"has the same name as {first[file.stem].name}" for file in files if first[file.stem] != file
    }
    return first, duplicates


def check_folder(root: Path, field: str) -> None:
    """Raises `UserError` unless the folder exists."""
    checks.check(
        root.is_dir(),
        field,
        expected="a folder of images",
        got=f"no such folder {str(root)!r}",
        remedy=f"correct {field}",
    )


def refuse_unpaired(folder: Path, problems: dict[Path, str]) -> NoReturn:
    """Raises `UserError` with the first few problems."""
    named = [f"{file.name} {problem}" for file, problem in list(problems.items())[:LISTED_NAMES]]
    more = f" and {len(problems) - LISTED_NAMES} more" if len(problems) > LISTED_NAMES else ""
    checks.fail(
        f"images of {folder}",
        expected="one LR image for each HR image",
        got=", ".join(named) + more,
        remedy="add or remove files until all are paired, or remove the LR folder to have LR images made",
    )


def refuse_empty(root: Path, layouts: tuple[Layout, ...], field: str) -> NoReturn:
    """Raises `UserError` with the folders that were searched."""
    others = [file for layout in layouts for file in list_other_pictures(root / layout.hr)]
    found = f", only {name_some(others)}" if others else ""
    places = ", ".join(layout.hr if layout.hr != "." else "the folder itself" for layout in layouts)
    checks.fail(
        field,
        expected=f"images ({', '.join(IMAGE_SUFFIXES)}) in one of: {places}",
        got=f"none in {str(root)!r}{found}",
        remedy=f"correct {field}, or arrange the images in one of these ways",
    )
