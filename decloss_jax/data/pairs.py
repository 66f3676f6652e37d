"""An HR image and its LR image: where they are stored, how they are read, and which sizes fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from decloss_jax import checks
from decloss_jax.data.images import count_pixels, read_image
from decloss_jax.ops.resize import bicubic_downscale, mod_crop


class StoredImage(Protocol):
    """An image somewhere on disk."""

    def load(self) -> np.ndarray:
        """Reads it as [H,W,3] uint8."""

    def pixels(self) -> int:
        """Returns H W without decoding it."""

    def identity(self) -> str:
        """Returns a string that changes whenever the stored image may have changed, without reading it."""


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own."""

    path: Path

    def load(self) -> np.ndarray:
        return read_image(self.path)

    def pixels(self) -> int:
        return count_pixels(self.path, str(self.path))

    def identity(self) -> str:
        # The time of the last status change (ctime) cannot be set back, so it reveals an image that was
        # replaced by one of equal size and modification time.
        try:
            status = self.path.stat()
        except OSError as error:
            checks.fail(
                str(self.path), expected="a readable image", got=error.strerror, remedy="restore the file"
            )
        return f"{self.path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


@dataclass(frozen=True)
class ImagePair:
    """An HR image and, if one was given, its LR image.

    Attributes:
        name: unique among the pairs of a source; the stem of the HR file.
        hr: the HR image.
        low: the LR image; None to make it from the whole HR image by MATLAB's bicubic.
    """

    name: str
    hr: StoredImage
    low: StoredImage | None = None

    def load(self, scale: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads (low, hr) as uint8 [h,w,3] and [s h,s w,3]; HR is cropped to multiples of s.

        Raises:
            UserError: an image that cannot be read (by name), or two sizes that do not fit each other.
        """
        hr = self.hr.load()
        checks.check(
            min(hr.shape[:2]) >= scale,
            f"HR image of {self.name}",
            expected=f"at least {scale} pixels on each side",
            got=f"{hr.shape[1]} x {hr.shape[0]}",
            remedy="remove it from the folder",
        )
        low = make_low(hr, scale) if self.low is None else self.low.load()
        check_sizes(self.name, low.shape, hr.shape, scale)
        return low, mod_crop(hr, scale)

    def pixels(self, scale: int) -> int:
        """Returns an upper bound of the number of pixels of both images together, without decoding them."""
        hr = self.hr.pixels()
        return hr + (self.low.pixels() if self.low else hr // scale**2)


def make_low(hr: np.ndarray, scale: int) -> np.ndarray:
    """Makes the LR image of a whole HR image, [H,W,3] -> [floor(H/s),floor(W/s),3] uint8."""
    return bicubic_downscale(mod_crop(hr, scale), scale)


def check_sizes(name: str, low_shape: tuple[int, ...], hr_shape: tuple[int, ...], scale: int) -> None:
    """Raises `UserError` unless the LR image is as large as the HR image divided by s, rounded down."""
    height, width = hr_shape[0] // scale, hr_shape[1] // scale
    checks.check(
        tuple(low_shape[:2]) == (height, width),
        f"LR image of {name}",
        expected=f"{width} x {height} pixels (the HR image's {hr_shape[1]} x {hr_shape[0]} over {scale})",
        got=f"{low_shape[1]} x {low_shape[0]}",
        remedy="make it from this HR image, or remove the LR folder to have it made",
    )
