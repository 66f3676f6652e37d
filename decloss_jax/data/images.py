"""Reads image files as 8-bit RGB, as viewers show them, or refuses them by name.

Files may come from strangers; only `open_image` opens them.
"""

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from decloss_jax import checks
from decloss_jax.data.orientation import turn_upright
from decloss_jax.data.tiff import (
    BITS_PER_SAMPLE,
    PHOTOMETRIC,
    WHITE_IS_ZERO,
    GrayAlphaTiff,
    describe_samples,
    describe_tiff,
    open_gray_alpha,
    tiff_tags,
)
from decloss_jax.host import files

DECODERS = min(8, os.cpu_count() or 1)  # threads; each holds one image and its results
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo"),
    *(".bmp", ".dib", ".tif", ".tiff", ".webp"),
)
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow has more, and runs ghostscript on an EPS
# Endings of other formats: such files in a folder are reported, not ignored silently.
OTHER_SUFFIXES = (
    *(".gif", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".wdp", ".hdp"),
    *(
        ".tga",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pfm",
        ".exr",
        ".hdr",
        ".qoi",
        ".dds",
        ".pcx",
        ".ico",
        ".icns",
    ),
    *(".psd", ".psb", ".xcf", ".svg", ".eps", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".arw", ".orf", ".rw2"),
    *(
        ".raf",
        ".pef",
        ".srw",
        ".sgi",
        ".ras",
        ".fits",
        ".xbm",
        ".xpm",
        ".jls",
        ".bpg",
        ".flif",
        ".cur",
        ".emf",
    ),
)

GRAY_STEPS = {"L;2": 85, "L;4": 17}  # layout of a PNG -> 255 over its largest gray

# A picture may have up to 23,170 x 23,170 pixels: 4,096 x 4,096 in a file of any size, and in a larger file
# 512 for each byte (deflate packs at most 344 RGB pixels into one). So a tiny file that claims many pixels is
# refused before it is decoded.
PIXEL_LIMIT = 2**29
PIXELS_IN_ANY_FILE = 2**24
PIXELS_PER_BYTE = 512


def list_images(folder: Path) -> list[Path]:
    """Lists the image files directly in a folder, by name, without hidden ones; [] without a folder.

    A broken link, a pipe or a device is listed too, and refused by name when it is opened.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def is_other_picture(path: Path) -> bool:
    """Tells by its ending whether a file is a picture in a format that is not read."""
    return path.suffix.lower() in OTHER_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def list_other_pictures(folder: Path) -> list[Path]:
    """Lists the pictures directly in a folder whose format is not read; [] without a folder."""
    return sorted(filter(is_other_picture, folder.iterdir())) if folder.is_dir() else []


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as 8-bit RGB.

    EXIF orientation is applied, gray is repeated three times, a palette is expanded, 16 bits are rounded to
    8. Transparency is refused unless every pixel is opaque: how a transparent pixel looks depends on a
    background that the file does not name. Colour profiles are not applied; only the first frame is read.

    Args:
        path: a PNG, JPEG, BMP, TIFF or WebP file.

    Returns:
        [H,W,3] uint8.

    Raises:
        UserError: the file cannot be read, or has transparent pixels or pixels of another kind (CMYK,
            floating point, 16-bit colour in planes).
    """
    return decode_image(path, str(path))


def decode_image(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """Decodes an image file or its bytes as `read_image` does; errors call it `name`."""
    with refuse_unreadable(name):
        pixels = decode_pixels(source)
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.int32) + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255
    check_opaque(pixels, name)
    return np.ascontiguousarray(pixels[..., :3])


def count_pixels(source: Path | io.BytesIO, name: str) -> int:
    """Returns H W of an image file or its bytes, from the header alone; errors call it `name`."""
    with refuse_unreadable(name), open_image(source) as image:
        return image.width * image.height


@contextlib.contextmanager
def open_image(source: Path | io.BytesIO) -> Iterator[ImageFile.ImageFile]:
    """Opens an image of one of `FORMATS`, for any file name, without decoding it.

    Pillow gets an open file, never a path: from a path it would memory-map an uncompressed TIFF whose
    orientation exchanges height and width with the sides exchanged, which scrambles the pixels.

    Raises:
        ValueError: more pixels than the limit for the file's size, or a kind of TIFF that is not read.
        Exception: many kinds, from Pillow; `refuse_unreadable` turns both into a `UserError`.
    """
    size = file_size(source)
    with contextlib.ExitStack() as stack:
        file = source if isinstance(source, io.BytesIO) else stack.enter_context(open(source, "rb"))
        try:
            image: Any = stack.enter_context(Image.open(file, formats=FORMATS))
        except UnidentifiedImageError:
            image = open_gray_alpha(file)
            samples = None if image else describe_tiff(file)
            if samples is not None:
                raise ValueError(f"{samples} pixels") from None
            if image is None:
                raise
        most = min(PIXEL_LIMIT, max(PIXELS_IN_ANY_FILE, PIXELS_PER_BYTE * size))
        if image.width * image.height > most:
            raise ValueError(
                f"{image.width} x {image.height} pixels, more than the {most:,} allowed for {size:,} bytes"
            )
        yield image


def file_size(source: Path | io.BytesIO) -> int:
    """Returns the size in bytes of a file, or of one in memory; raises `OSError` for a pipe or a device."""
    if isinstance(source, io.BytesIO):
        return source.getbuffer().nbytes
    return files.regular(source).stat().st_size


def accept_large_images() -> None:
    """Sets Pillow's pixel limit to that of `open_image` and silences its warnings, in the whole process.

    Only programs may call it, not the package. Pillow's own limit is a third of ours.
    """
    Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
    warnings.filterwarnings("ignore", module=r"PIL\.")


@contextlib.contextmanager
def refuse_unreadable(name: str) -> Iterator[None]:
    """Turns errors from Pillow into a `UserError` about the image `name`."""
    try:
        yield
        return
    except checks.UserError:
        raise
    except UnidentifiedImageError:
        problem = f"a damaged file, or one in none of the formats {', '.join(FORMATS)}"
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
    checks.fail(
        name,
        expected="a readable image with gray or RGB pixels",
        got=problem,
        remedy="replace the file, convert it to 8-bit RGB, or remove it from the folder",
    )


def decode_pixels(source: Path | io.BytesIO) -> np.ndarray:
    """Decodes an image and turns it upright: [H,W,3] or, with alpha, [H,W,4]; uint8 or uint16.

    If the file names a transparent colour, there is an alpha channel only if some pixel has that colour.
    """
    with open_image(source) as image:
        layout = sixteen_bit_layout(image)
        return decode_8_bits(image) if layout is None else decode_16_bits(image, layout, source)


def decode_8_bits(image: ImageFile.ImageFile) -> np.ndarray:
    """Decodes and turns an image with at most 8 bits per channel."""
    key = image.info.get("transparency")
    if isinstance(key, int) and image.tile and image.tile[0].args in GRAY_STEPS:
        # Pillow scales gray of 2 and 4 bits to 0..255, but not the transparent gray value.
        image.info["transparency"] = key * GRAY_STEPS[image.tile[0].args]
    upright = turn_upright(image)
    if upright.has_transparency_data:
        pixels = as_array(upright, "RGBA")
        unused = key is not None and pixels[..., 3].min() == 255
        return pixels[..., :3] if unused else pixels
    if upright.mode in ("1", "L", "P", "RGB"):
        return as_array(upright, "RGB")
    tags = tiff_tags(image)
    raise ValueError(f"{describe_samples(tags) if tags else image.mode} pixels")


def decode_16_bits(image: ImageFile.ImageFile, layout: str, source: Path | io.BytesIO) -> np.ndarray:
    """Decodes and turns an image whose file stores 16 bits per channel in the given layout; uint16."""
    key = image.info.get("transparency")
    kind = layout.partition(";")[0]
    if kind == "LA":
        # Read as four bytes per pixel, high and low of gray and of alpha; Pillow would drop the low ones.
        high_first = image.high_byte_first if isinstance(image, GrayAlphaTiff) else True
        image.tile = [
            tile._replace(args="RGBA" if isinstance(tile.args, str) else tile.args) for tile in image.tile
        ]
        parts = np.asarray(turn_upright(image))
        high, low = (parts[..., ::2], parts[..., 1::2]) if high_first else (parts[..., 1::2], parts[..., ::2])
        return (high * np.uint16(256) + low)[..., [0, 0, 0, 1]]
    if image.mode.startswith("I;16"):
        tags = tiff_tags(image)
        gray = np.asarray(turn_upright(image), np.uint16)
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts 8 bits, not 16
            gray = np.iinfo(np.uint16).max - gray
        pixels = np.repeat(gray[..., None], 3, axis=-1)
    elif image.format in ("PNG", "TIFF") and kind in ("RGB", "RGBA"):
        pixels = np.asarray(turn_upright(image)) * np.uint16(256) + decode_low_bytes(source)
    else:
        raise ValueError(f"{layout} pixels")
    hidden = np.zeros(1, bool) if key is None else (pixels == np.asarray(key, np.uint16)).all(axis=-1)
    if not hidden.any():
        return pixels
    return np.dstack([pixels, np.where(hidden, 0, np.iinfo(np.uint16).max).astype(np.uint16)])


def as_array(image: Image.Image, mode: str) -> np.ndarray:
    """Returns the pixels in a mode, without a copy if they have it already."""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def sixteen_bit_layout(image: ImageFile.ImageFile) -> str | None:
    """Returns the layout of a file with 16 bits per channel ("RGB;16B") before decoding, None for fewer.

    Pillow keeps 16-bit gray ("I;16"), but silently drops the lower 8 bits of colour.
    """
    # BGR;16 is a BMP pixel of 5, 6 and 5 bits.
    layouts = re.findall(r"\b(?!BGR)\w+;16[BLN]?", " ".join(str(tile.args) for tile in image.tile))
    if layouts or isinstance(image, GrayAlphaTiff):
        return layouts[0] if layouts else "LA;16"
    planar = image.mode in ("RGB", "RGBA") and max(tiff_tags(image).get(BITS_PER_SAMPLE, (8,))) > 8
    return "planar;16" if planar else None


def decode_low_bytes(source: Path | io.BytesIO) -> np.ndarray:
    """Decodes the lower 8 of 16 bits: with the byte order swapped, Pillow keeps these."""
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
        return np.asarray(turn_upright(image))


def check_opaque(pixels: np.ndarray, name: str) -> None:
    """Raises `UserError` where the fourth channel of [H,W,C], if there is one, is below 255."""
    transparent = np.count_nonzero(pixels[..., 3:] != 255)
    checks.check(
        transparent == 0,
        name,
        expected="an opaque image",
        got=f"{transparent} transparent pixels",
        remedy="flatten it onto the background that it should have, or remove it from the folder",
    )
