"""Reads TIFF files and tags that Pillow does not read or report."""

import sys
from collections.abc import Mapping
from typing import Any

from PIL import Image, TiffImagePlugin

# Tags of TIFF 6.0, and some of their values.
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, PLANES = 258, 262, 277, 284
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, UNASSOCIATED_ALPHA = 0, 1, 2, 2
HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COLOR_SPACES = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*"}
SAMPLE_FORMATS = {1: "integers", 2: "signed integers", 3: "floating point", 5: "complex", 6: "complex"}


class GrayAlphaTiff(TiffImagePlugin.TiffImageFile):
    """Reads 16-bit gray with alpha, which Pillow does not know, as RGBA: the four bytes of a pixel.

    Raises:
        SyntaxError: a TIFF of another kind; Pillow's plugins raise the same.
    """

    def _setup(self) -> None:
        tags: Any = self.tag_v2
        wanted = {PHOTOMETRIC: BLACK_IS_ZERO, BITS_PER_SAMPLE: (16, 16), EXTRA_SAMPLES: (UNASSOCIATED_ALPHA,)}
        if any(tags.get(tag) != value for tag, value in wanted.items()) or tags.get(PLANES, 1) != 1:
            raise SyntaxError("another kind of TIFF")
        tags[PHOTOMETRIC], tags[BITS_PER_SAMPLE], tags[SAMPLES_PER_PIXEL] = RGB, (8,) * 4, 4
        super()._setup()

    @property
    def high_byte_first(self) -> bool:
        """Whether the high byte of a sample comes first; libtiff returns the processor's order."""
        return self.tag_v2.prefix == b"MM" if self.tile[0].codec_name == "raw" else sys.byteorder == "big"


def open_gray_alpha(file: Any) -> Image.Image | None:
    """Opens a TIFF of 16-bit gray with alpha; None if it is anything else."""
    file.seek(0)
    if file.read(4) not in HEADERS:
        return None
    file.seek(0)
    try:
        return GrayAlphaTiff(file)
    except Exception:  # of many kinds, on damaged files
        return None


def describe_tiff(file: Any) -> str | None:
    """Describes the samples of a TIFF file; None if it is another file, or a damaged one."""
    file.seek(0)
    header = file.read(16)
    if header[:4] not in HEADERS:
        return None
    try:
        big = b"+" in header[2:4]
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(header if big else header[:8])
        file.seek(tags.next)
        tags.load(file)
        return describe_samples(tags)
    except Exception:  # of many kinds, on damaged files
        return None


def describe_samples(tags: Mapping[int, Any]) -> str:
    """Describes the samples of a TIFF, such as "RGB, 3 x 32-bit floating point"."""
    bits, form = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLE_FORMAT, (1,))
    color = COLOR_SPACES.get(tags.get(PHOTOMETRIC, -1), "unknown colour")
    samples = tags.get(SAMPLES_PER_PIXEL, len(bits))
    return f"{color}, {samples} x {max(bits)}-bit {SAMPLE_FORMATS.get(max(form), 'unknown')}"


def tiff_tags(image: Any) -> Mapping[int, Any]:
    """Returns the tags of a TIFF file; for any other image an empty mapping."""
    return getattr(image, "tag_v2", {})
