"""Reads image files as 8-bit RGB, the way people expect them to look, or refuses them by name.

Files may come from strangers: `open_image` is the one place that opens them.
"""

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from decloss_jax import checks
from decloss_jax.host import files

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value of the second
DECODERS = min(8, os.cpu_count() or 1)  # threads; each holds one image, and what is made of it
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow has more, and runs ghostscript on an EPS

# A picture may have 23,170 x 23,170 pixels; 4,096 x 4,096 in any file, and in a larger file more than deflate
# packs into a byte: 344 of RGB. So a file of a few bytes that promises many pixels costs nothing.
PIXEL_LIMIT = 2**29
PIXELS_IN_ANY_FILE = 2**24
PIXELS_PER_BYTE = 512


def list_images(folder: Path) -> list[Path]:
    """Lists the image files directly in a folder, by name, without hidden ones; [] without a folder.

    A link that leads nowhere, a pipe or a device is listed too, and refused by name when it is opened.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as 8-bit RGB.

    EXIF orientation is applied, gray is repeated three times, a palette is expanded, 16 bits are rounded to
    8. Transparency is refused unless every pixel is opaque: how a transparent pixel looks depends on a
    background that the file does not name. Colour profiles are not applied; of several frames the first is
    read.

    Args:
        path: a PNG, JPEG, BMP, TIFF or WebP file.

    Returns:
        [H,W,3] uint8.

    Raises:
        UserError: the file, by name, cannot be read, has transparent pixels or pixels of another kind (CMYK,
            floating point, 16-bit colour in planes).
    """
    return decode_image(path, str(path))


def decode_image(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """Decodes an image file or its bytes as `read_image` does; `name` stands for it in errors."""
    with refuse_unreadable(name):
        pixels = decode_pixels(source)
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.int32) + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255
    check_opaque(pixels, name)
    return np.ascontiguousarray(pixels[..., :3])


def count_pixels(source: Path | io.BytesIO, name: str) -> int:
    """Returns H W of an image file or its bytes, from the header alone; `name` stands for it in errors."""
    with refuse_unreadable(name), open_image(source) as image:
        return image.width * image.height


@contextlib.contextmanager
def open_image(source: Path | io.BytesIO) -> Iterator[ImageFile.ImageFile]:
    """Opens an image of one of `FORMATS`, whatever its file is called, without decoding it.

    Raises:
        ValueError: more pixels than are read of a file of its size.
        Exception: of many kinds, from Pillow; `refuse_unreadable` words both.
    """
    size = file_size(source)
    with Image.open(source, formats=FORMATS) as image:
        most = min(PIXEL_LIMIT, max(PIXELS_IN_ANY_FILE, PIXELS_PER_BYTE * size))
        if image.width * image.height > most:
            raise ValueError(
                f"{image.width} x {image.height} pixels, where at most {most:,} are read of {size:,} bytes"
            )
        yield image


def file_size(source: Path | io.BytesIO) -> int:
    """Returns the bytes of a file, or of one in memory; raises `OSError` for a pipe or a device."""
    if isinstance(source, io.BytesIO):
        return source.getbuffer().nbytes
    return files.regular(source).stat().st_size


def accept_large_images() -> None:
    """Lets Pillow, in the whole process, open what `open_image` accepts, and say nothing of its own.

    For programs, not for the package: Pillow's own limit is a third of ours.
    """
    Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
    warnings.filterwarnings("ignore", module=r"PIL\.")


@contextlib.contextmanager
def refuse_unreadable(name: str) -> Iterator[None]:
    """Words what goes wrong inside Pillow as a `UserError` about the image `name`."""
    try:
        yield
        return
    except checks.UserError:
        raise
    except UnidentifiedImageError:
        problem = f"a damaged file, or none of {', '.join(FORMATS)}"
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
    checks.fail(
        name,
        expected="a readable image with gray or RGB pixels",
        got=problem,
        remedy="replace the file, convert it to 8-bit RGB, or take it out of the folder",
    )


def decode_pixels(source: Path | io.BytesIO) -> np.ndarray:
    """Decodes and turns an image: [H,W,3] or, with alpha, [H,W,4]; uint8 or uint16."""
    with open_image(source) as image:
        layout = sixteen_bit_layout(image)
        ImageOps.exif_transpose(image, in_place=True)
        if layout is None:
            if image.has_transparency_data:
                return as_array(image, "RGBA")
            if image.mode in ("1", "L", "P", "RGB"):
                return as_array(image, "RGB")
        elif "transparency" in image.info:
            raise ValueError(f"{layout} pixels with a transparent colour")
        elif image.mode.startswith("I;16"):
            gray = np.asarray(image, np.uint16)
            if tiff_tags(image).get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns 8 bits round, not 16
                gray = np.iinfo(np.uint16).max - gray
            return np.repeat(gray[..., None], 3, axis=-1)
        elif image.format in ("PNG", "TIFF") and layout.partition(";")[0] in ("RGB", "RGBA"):
            return np.asarray(image) * np.uint16(256) + decode_low_bytes(source)
        raise ValueError(f"{layout or image.mode} pixels")


def as_array(image: Image.Image, mode: str) -> np.ndarray:
    """Returns the pixels in a mode; `convert` would copy those that are in it."""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def sixteen_bit_layout(image: ImageFile.ImageFile) -> str | None:
    """Returns how a file that is not decoded yet stores 16 bits per channel ("RGB;16B"), None if it does not.

    Pillow keeps 16 bits of gray ("I;16"), but cuts colour down to the upper 8 without a word.
    """
    layouts = re.findall(r"\w+;16[BLN]?", " ".join(str(tile.args) for tile in image.tile))
    if layouts:
        return layouts[0]
    planar = image.mode in ("RGB", "RGBA") and max(tiff_tags(image).get(BITS_PER_SAMPLE, (8,))) > 8
    return "planar;16" if planar else None


def tiff_tags(image: Any) -> Mapping[int, Any]:
    """Returns the tags of a TIFF file; nothing of another."""
    return getattr(image, "tag_v2", {})


def decode_low_bytes(source: Path | io.BytesIO) -> np.ndarray:
    """Decodes the lower 8 of 16 bits: read in the other order of bytes, they are what Pillow keeps."""
    native = "L" if sys.byteorder == "little" else "B"
    other = {"B": "L", "L": "B", "N": "L" if native == "B" else "B"}

    def swap(argument: Any) -> Any:
        if not isinstance(argument, str):
            return argument
        return re.sub(r";16([BLN])", lambda match: f";16{other[match[1]]}", argument)

    with open_image(source) as image:
        image.tile = [
            tile._replace(
                args=tuple(map(swap, tile.args)) if isinstance(tile.args, tuple) else swap(tile.args)
            )
            for tile in image.tile
        ]
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image)


def check_opaque(pixels: np.ndarray, name: str) -> None:
    """Raises `UserError` where the fourth channel of [H,W,C], if there is one, is below 255."""
    transparent = np.count_nonzero(pixels[..., 3:] != 255)
    checks.check(
        transparent == 0,
        name,
        expected="an opaque image",
        got=f"{transparent} transparent pixels",
        remedy="flatten it onto the background that it should have, or take it out of the folder",
    )
