"""Decodes images once into memory-mapped files, so that a crop costs no decoding.

The files of a pair are named by a digest of their sources: a pair that changes gets new files, and no name
from the user reaches the file system. Writes are atomic, and one process at a time writes, so that neither a
killed process nor a second one does harm. The folder may be deleted at any time; until then it keeps the
files of images that have changed.
"""

import contextlib
import hashlib
import mmap
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from decloss_jax import checks
from decloss_jax.data.images import DECODERS
from decloss_jax.data.pairs import ImagePair
from decloss_jax.host import console
from decloss_jax.host.files import expand, locked, regular, remove_abandoned, write_atomically

FORMAT = 1  # raise it when the decoding, or the making of LR images, changes
PROGRESS_FROM = 50  # pairs to decode; fewer take seconds
PAIR_OVERHEAD = 2 * 4096  # bytes on disk beyond the pixels: headers and the last block of both files


@dataclass(frozen=True)
class DecodedImage:
    """An image [H,W,3] uint8 in a file of the cache."""

    file: Path
    offset: int
    shape: tuple[int, ...]

    def map(self) -> np.ndarray:
        """Maps the file, read only."""
        # Takes a third of np.memmap's time, which would be half that of a crop. The array keeps the map open.
        with open(self.file, "rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, np.uint8, offset=self.offset).reshape(self.shape)


@dataclass(frozen=True)
class PairedImages:
    """Decoded pairs on disk; HR images are cut to multiples of the scale.

    Every access maps the file anew: thousands of images need no open files, and threads share nothing.

    Attributes:
        scale: s.
        names: names of the pairs, in the order of the source.
        stored: (LR image, HR image) of each pair.
    """

    scale: int
    names: tuple[str, ...]
    stored: tuple[tuple[DecodedImage, DecodedImage], ...]

    def __len__(self) -> int:
        return len(self.names)

    def low(self, index: int) -> np.ndarray:
        """Maps the LR image of a pair, [H/s,W/s,3] uint8, read only."""
        return self.stored[index][0].map()

    def hr(self, index: int) -> np.ndarray:
        """Maps the HR image of a pair, [H,W,3] uint8, read only."""
        return self.stored[index][1].map()

    def size(self, index: int) -> tuple[int, int]:
        """Returns (H, W) of the HR image of a pair."""
        height, width, _ = self.stored[index][1].shape
        return height, width


def open_cache(pairs: Sequence[ImagePair], *, scale: int, cache_dir: str | Path) -> PairedImages:
    """Opens the decoded images of `pairs`; first decodes those that are new or have changed, on all cores.

    LR images that were not given are made from the whole HR images by MATLAB's bicubic.

    Args:
        pairs: from `sources.build_source`.
        scale: s.
        cache_dir: folder of the decoded images (about 3 bytes per HR pixel), created if missing; data sets,
            scales and processes may share it.

    Raises:
        UserError: an image that cannot be read (by name), an LR image whose size does not fit, or a folder
            that cannot be written to or has no room.
    """
    folder = expand(cache_dir).absolute()
    files = [pair_files(folder, pair, scale) for pair in pairs]
    found = [open_pair(*pair) for pair in files]
    if None in found:
        with refuse_unwritable(folder), locked(folder / ".lock", lambda: say_waiting(folder)):
            remove_abandoned(folder, "*.npy")
            found = [images or open_pair(*pair) for images, pair in zip(found, files, strict=True)]
            missing = [i for i, images in enumerate(found) if images is None]
            check_room(folder, [pairs[i] for i in missing], scale)
            decode([(pairs[i], files[i]) for i in missing], scale)
    return PairedImages(
        scale=scale,
        names=tuple(pair.name for pair in pairs),
        stored=tuple(
            images or (open_decoded(low_file), open_decoded(hr_file))
            for images, (low_file, hr_file) in zip(found, files, strict=True)
        ),
    )


def pair_files(folder: Path, pair: ImagePair, scale: int) -> tuple[Path, Path]:
    """Returns the (LR file, HR file) of a pair in the cache."""
    made_from = (FORMAT, scale, pair.hr.identity(), pair.low and pair.low.identity())
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
    return folder / f"{digest}.low.npy", folder / f"{digest}.hr.npy"


def open_pair(low_file: Path, hr_file: Path) -> tuple[DecodedImage, DecodedImage] | None:
    """Opens a pair of the cache; None if one of its images is missing or damaged."""
    try:
        return open_decoded(low_file), open_decoded(hr_file)
    except Exception:  # a damaged header fails in many ways
        return None


def open_decoded(file: Path) -> DecodedImage:
    """Opens an image of the cache; raises an error of any kind if it is missing or damaged."""
    image = np.load(regular(file), mmap_mode="r", allow_pickle=False)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{file} holds {image.dtype} {image.shape}")
    return DecodedImage(file, image.offset, image.shape)


def check_room(folder: Path, pairs: Iterable[ImagePair], scale: int) -> None:
    """Raises `UserError` unless the decoded pairs will fit on the disk."""
    with ThreadPoolExecutor(DECODERS) as pool:
        sizes = list(pool.map(lambda pair: 3 * pair.pixels(scale) + PAIR_OVERHEAD, pairs))
    free = shutil.disk_usage(folder).free
    checks.check(
        sum(sizes) <= free,
        "data.cache_dir",
        expected=f"{sum(sizes):,} bytes of free space for {len(sizes)} decoded images",
        got=f"{free:,} in {str(folder)!r}",
        remedy="make room there, or set data.cache_dir to another folder",
    )


def decode(missing: Sequence[tuple[ImagePair, tuple[Path, Path]]], scale: int) -> None:
    """Decodes pairs into their (LR file, HR file), several at a time."""

    def decode_pair(task: tuple[ImagePair, tuple[Path, Path]]) -> None:
        pair, files = task
        for file, image in zip(files, pair.load(scale), strict=True):
            write_array(file, image)

    with show_progress(len(missing)) as advance, ThreadPoolExecutor(DECODERS) as pool:
        for _ in pool.map(decode_pair, missing):  # an error cancels the pairs after it
            advance()


def write_array(file: Path, array: np.ndarray) -> None:
    """Writes an array as a .npy file, whole or not at all."""
    content = BytesIO()
    np.save(content, array)
    write_atomically(file, content.getvalue())


def say_waiting(folder: Path) -> None:
    """Tells the user why the process waits."""
    console.say(f"waiting for another process that decodes images into {folder}")


@contextlib.contextmanager
def refuse_unwritable(folder: Path, field: str = "data.cache_dir") -> Iterator[None]:
    """Creates the folder of a config field; a failure to write into it becomes a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        checks.fail(
            field,
            expected="a folder that can be written to and has room",
            got=f"{str(folder)!r} ({error.strerror})",
            remedy=f"make room there, or set {field} to another folder",
        )


@contextlib.contextmanager
def show_progress(total: int):
    """Shows the progress of decoding many images; yields the function to call after each pair."""
    if total < PROGRESS_FROM:
        yield lambda: None
        return
    with console.progress("decoding images", total, unit="image") as advance:
        yield advance
