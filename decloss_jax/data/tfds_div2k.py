"""DIV2K as a TensorFlow data set, prepared from its archives without TensorFlow and without a download.

TFDS's own builder needs TensorFlow to unpack the archives and, above 1 GB, to shuffle. This builder has the
same name, features, splits and version, but reads the archives in place, unpacks nothing, and keeps DIV2K's
order. `prepared` and `tfds.data_source("div2k/bicubic_x4", data_dir=...)` both read its output.
"""

import functools
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import tensorflow_datasets as tfds

from decloss_jax import checks
from decloss_jax.data.cache import refuse_unwritable
from decloss_jax.data.div2k_archives import ARCHIVES, Archive
from decloss_jax.data.images import open_image, refuse_unreadable
from decloss_jax.data.pairs import check_sizes
from decloss_jax.host import console
from decloss_jax.host.files import locked, sha256

HOME = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
SCALES = (2, 3, 4)
VERSION = "2.0.0"  # of TFDS's builder
NUMBERS = {"train": range(1, 801), "validation": range(801, 901)}  # of DIV2K's images
SHARD_IMAGES = 100  # pairs in one file, about 500 MB


def prepare(data_dir: Path, archives: Path, *, scale: int) -> None:
    """Prepares div2k/bicubic_x{s} under TFDS's data_dir, unless it exists.

    The data set appears whole or not at all. One process prepares it, and others wait.

    Args:
        data_dir: folder of prepared data sets, created if missing.
        archives: folder of DIV2K's .zip files: HR and LR, training and validation.
        scale: s.

    Raises:
        UserError: a scale that DIV2K does not have; archives that are missing, cut off, changed, or hold
            anything but DIV2K's images (all are named); a disk without room.
    """
    checks.check(
        scale in SCALES,
        "model.scale",
        expected="2, 3 or 4 for DIV2K",
        got=scale,
        remedy="choose one of these",
    )
    folder = data_dir / "div2k" / f"bicubic_x{scale}"
    with (
        refuse_unwritable(folder, "data.root"),
        locked(folder / ".lock", functools.partial(say_waiting, folder)),
    ):
        for left in folder.glob(f"{tfds.core.constants.INCOMPLETE_PREFIX}*"):  # from a killed process
            shutil.rmtree(left)
        if (folder / VERSION).exists():
            return
        check_archives(archives, scale)
        images = {split: list_pairs(archives, split, scale) for split in NUMBERS}
        check_room(folder, images.values())
        write(data_dir, images, scale)


def list_archives(scale: int) -> list[Archive]:
    """Lists the archives that a scale needs; for a scale outside `SCALES`, only those of the HR images."""
    keys = [(split, kind) for split in NUMBERS for kind in ("hr", scale)]
    return [ARCHIVES[key] for key in keys if key in ARCHIVES]


def check_archives(folder: Path, scale: int) -> None:
    """Raises `UserError` unless the folder holds the archives of a scale, unchanged."""
    needed = list_archives(scale)
    missing = [archive for archive in needed if not (folder / archive.name).is_file()]
    if missing:
        refuse_archives(folder, missing, f"no {', '.join(archive.name for archive in missing)}")
    sizes = {archive: (folder / archive.name).stat().st_size for archive in needed}
    wrong = [archive for archive in needed if sizes[archive] != archive.size]
    if wrong:
        found = ", ".join(f"{archive.name} with {sizes[archive]:,} bytes" for archive in wrong)
        refuse_archives(folder, wrong, f"{found} (cut off?)")
    digests = {}
    with console.progress("checking archives", len(needed), unit="archive") as advance:
        for archive in needed:
            digests[archive] = sha256(folder / archive.name)
            advance(archive.name)
    changed = [archive for archive in needed if digests[archive] != archive.sha256]
    if changed:
        found = ", ".join(f"{archive.name} with {digests[archive]}" for archive in changed)
        checks.fail(
            f"archives of DIV2K in {str(folder)!r}",
            expected=", ".join(f"{archive.name} with the SHA-256 {archive.sha256}" for archive in changed),
            got=found,
            remedy=f"fetch them again from {HOME}",
        )


def refuse_archives(folder: Path, archives: Sequence[Archive], found: str) -> NoReturn:
    """Raises `UserError` that names the needed archives, their sizes and where to get them."""
    checks.fail(
        f"archives of DIV2K in {str(folder)!r}",
        expected=", ".join(map(str, archives)),
        got=found,
        remedy=f"fetch them from {HOME} and set data.archives to their folder",
    )


def describe_archives(scale: int) -> str:
    """Names the archives that a scale needs and where to get them."""
    return f"{', '.join(map(str, list_archives(scale)))} from {HOME}"


@dataclass(frozen=True)
class PackedImage:
    """An image inside an archive; `size` is its file size in bytes."""

    archive: Path
    member: str
    size: int

    def read(self, opened: zipfile.ZipFile) -> tuple[bytes, tuple[int, int]]:
        """Returns the content of the image file, and (H, W) from its header."""
        name = f"{self.member} in {self.archive}"
        with refuse_unreadable(name):
            content = opened.read(self.member)
            with open_image(BytesIO(content)) as image:
                return content, (image.height, image.width)


Pairs = list[tuple[PackedImage, PackedImage]]  # (HR, LR), in DIV2K's order


def list_pairs(folder: Path, split: str, scale: int) -> Pairs:
    """Lists the images of the two archives of a split."""
    hr = list_members(folder / ARCHIVES[split, "hr"].name, [f"{number:04}.png" for number in NUMBERS[split]])
    low_names = [f"{number:04}x{scale}.png" for number in NUMBERS[split]]
    return list(zip(hr, list_members(folder / ARCHIVES[split, scale].name, low_names), strict=True))


def list_members(archive: Path, names: Sequence[str]) -> list[PackedImage]:
    """Finds the PNG files with the given names in any folder of an archive; it must hold no others.

    Raises:
        UserError: not a .zip file; a member that points outside the archive or is a link; an image that is
            missing, duplicate, or not in `names`.
    """
    found: dict[str, PackedImage] = {}
    problems = []
    for member in list_all_members(archive):
        path = PurePosixPath(member.filename)
        if is_unsafe(member):
            problems.append(f"{member.filename} (outside the archive, or a link)")
        elif path.suffix.lower() == ".png" and not path.name.startswith("."):
            if path.name not in names or path.name in found:
                problems.append(f"{member.filename} (not expected)")
            found[path.name] = PackedImage(archive, member.filename, member.file_size)
    missing = [name for name in names if name not in found]
    problems += [f"no {name}" for name in missing]
    checks.check(
        not problems,
        str(archive),
        expected=f"the {len(names)} images {names[0]} to {names[-1]}",
        got=f"{', '.join(problems[:5])}{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}",
        remedy=f"fetch the archive again from {HOME}",
    )
    return [found[name] for name in names]


def list_all_members(archive: Path) -> list[zipfile.ZipInfo]:
    """Lists the members of an archive; raises `UserError` if it is not a .zip file."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.infolist()
    except zipfile.BadZipFile as error:
        checks.fail(
            str(archive), expected="a .zip file", got=str(error), remedy=f"fetch it again from {HOME}"
        )


def is_unsafe(member: zipfile.ZipInfo) -> bool:
    """Tells whether a member is a link, or would be unpacked outside the folder of its archive."""
    path = PurePosixPath(member.filename)
    is_absolute = path.is_absolute() or PureWindowsPath(member.filename).anchor != ""
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    return is_absolute or is_link or ".." in PureWindowsPath(member.filename).parts


def check_room(folder: Path, splits: Iterable[Pairs]) -> None:
    """Raises `UserError` unless the data set, which holds the image files unchanged, fits on the disk."""
    needed = sum(image.size for pairs in splits for pair in pairs for image in pair)
    needed += needed // 100  # the overhead of records
    free = shutil.disk_usage(folder).free
    checks.check(
        needed <= free,
        "data.root",
        expected=f"{needed:,} bytes of free space for the prepared data set",
        got=f"{free:,} in {str(folder)!r}",
        remedy="make room there, or set data.root to another folder",
    )


class Div2k(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes pairs of images from archives; see `prepare`."""

    url_infos = None  # nothing is fetched; TFDS would look for a list of addresses in this folder
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS reads it)
        tfds.core.BuilderConfig(
            name=f"bicubic_x{scale}", version=VERSION, description=f"LR images by MATLAB's bicubic, x{scale}."
        )
        for scale in SCALES
    ]

    def __init__(
        self, *, images: Mapping[str, Pairs], advance: Callable[[], None], scale: int, data_dir: Path
    ):
        self._images, self._advance, self._scale = images, advance, scale
        super().__init__(config=f"bicubic_x{scale}", data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"lr": tfds.features.Image(), "hr": tfds.features.Image()}  # TFDS's names
        return tfds.core.DatasetInfo(
            builder=self,
            description="DIV2K: 1000 photographs of 2K resolution, of which 900 are published in pairs.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("lr", "hr"),
            homepage=HOME,
            disable_shuffling=True,
        )

    def _log_download_bytes(self) -> None:
        """Keeps TFDS from printing that it downloads."""

    def _log_download_done(self) -> None:
        """Keeps TFDS from printing that it has downloaded."""

    def _shard_iterators_per_split(self, manager: Any) -> dict[str, list[Callable[[], Iterator[Any]]]]:
        return {
            split: [
                functools.partial(self._read, pairs[start : start + SHARD_IMAGES])
                for start in range(0, len(pairs), SHARD_IMAGES)
            ]
            for split, pairs in self._images.items()
        }

    def _read(self, pairs: Pairs) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yields (name, record) for some pairs of one split."""
        with (
            zipfile.ZipFile(pairs[0][0].archive) as hr_archive,
            zipfile.ZipFile(pairs[0][1].archive) as low_archive,
        ):
            for hr, low in pairs:
                hr_file, hr_size = hr.read(hr_archive)
                low_file, low_size = low.read(low_archive)
                check_sizes(PurePosixPath(hr.member).stem, low_size, hr_size, self._scale)
                yield low.member, {"hr": hr_file, "lr": low_file}
                self._advance()


def write(data_dir: Path, images: Mapping[str, Pairs], scale: int) -> None:
    """Writes the prepared data set, which appears when it is complete."""
    total = sum(map(len, images.values()))
    with (
        console.progress(f"preparing div2k/bicubic_x{scale}", total, unit="image") as advance,
        tempfile.TemporaryDirectory() as unused,  # TFDS creates a download folder in any case
    ):
        builder = Div2k(images=images, advance=advance, scale=scale, data_dir=data_dir)
        builder.download_and_prepare(
            download_dir=unused, download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def say_waiting(folder: Path) -> None:
    """Tells the user why the process waits."""
    console.say(f"waiting for another process that prepares {folder}")
