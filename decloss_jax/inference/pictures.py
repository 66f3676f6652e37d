"""Reads and writes people's pictures as they are: with alpha, gray, 16 bits, colour profile and EXIF data.

Training and measuring use `images.read_image`, which wants opaque 8-bit RGB; upscaling uses this.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from decloss_jax import checks
from decloss_jax.data.images import decode_pixels, open_image, refuse_unreadable
from decloss_jax.host import console, files
from decloss_jax.ops.quantize import quantize

GRAY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Format:
    """A format that pictures are written in.

    Attributes:
        name: Pillow's.
        options: the best quality that is common.
        alpha: whether it has transparency.
        largest: pixels of the longest side that it can hold.
        exif: whether it has a place for EXIF data.
        gray: whether it has gray pictures.
    """

    name: str
    options: dict[str, object]
    alpha: bool
    largest: int
    exif: bool = True
    gray: bool = True


JPEG = Format("JPEG", {"quality": 95, "subsampling": 0}, alpha=False, largest=65_535)
TIFF = Format("TIFF", {}, alpha=True, largest=2**31 - 1, exif=False)
FORMATS = {
    ".png": Format("PNG", {}, alpha=True, largest=2**31 - 1),
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".bmp": Format("BMP", {}, alpha=False, largest=2**31 - 1, exif=False),
    ".tif": TIFF,
    ".tiff": TIFF,
    ".webp": Format("WEBP", {"lossless": True}, alpha=True, largest=16_383, gray=False),
}
PAGED_FORMATS = ("PNG", "TIFF", "WEBP")  # in JPEG's MPO the first frame is the picture

# What of EXIF stays true of a larger picture: who made it when, where and how. The pixels are turned upright,
# so the orientation goes, and sizes, previews and makers' notes with offsets into the old file as well.
KEPT_TAGS = {
    "ImageDescription": 270,
    "Make": 271,
    "Model": 272,
    "DateTime": 306,
    "Artist": 315,
    "Copyright": 33432,
}
KEPT_BLOCKS = {"Exif": 0x8769, "GPSInfo": 0x8825}
DROPPED_TAGS = {"MakerNote": 0x927C, "ExifImageWidth": 0xA002, "ExifImageHeight": 0xA003, "Interop": 0xA005}

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> gray, RGB, RGBA (no reader here gives two channels)
BLOCK = 256  # rows that are converted at once


@dataclass(frozen=True)
class Picture:
    """A picture with what its file said about it.

    Attributes:
        color: [H,W,3], uint8 or uint16; of a gray picture three equal channels.
        alpha: [H,W] of the same dtype, or None.
        gray: whether the file was gray.
        profile: the ICC profile, or None.
        exif: EXIF data without orientation, or None.
    """

    color: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    profile: bytes | None = None
    exif: bytes | None = None


def read_picture(path: Path) -> Picture:
    """Reads a picture; EXIF orientation is applied, a palette is expanded.

    Raises:
        UserError: the file, by name, cannot be read, or holds several pictures.
    """
    with refuse_unreadable(str(path)):
        with open_image(path) as image:
            # Not their number: a TIFF may have a million.
            several = image.format in PAGED_FORMATS and getattr(image, "is_animated", False)
            gray, profile = image.mode in GRAY_MODES, image.info.get("icc_profile")
        checks.check(
            not several, str(path), expected="one picture", got="several frames", remedy="split the file"
        )
        pixels = decode_pixels(path)
        with open_image(path) as image:
            exif = read_exif(image, path)
    alpha = pixels[..., 3] if pixels.shape[-1] == 4 else None
    return Picture(pixels[..., :3], alpha, gray, profile, exif)


def read_exif(image: Image.Image, path: Path) -> bytes | None:
    """Returns what of a picture's EXIF data stays true; None without, or, with a word, of damaged ones."""
    try:
        present, kept = image.getexif(), Image.Exif()
        for tag in KEPT_TAGS.values():
            if tag in present:
                kept[tag] = present[tag]
        for block in KEPT_BLOCKS.values():
            values = present.get_ifd(block)
            if values:
                kept[block] = {tag: v for tag, v in values.items() if tag not in DROPPED_TAGS.values()}
        return kept.tobytes() if len(kept) else None
    except Exception as error:  # of many kinds, on damaged data
        console.say(f"{path}: its EXIF data are damaged ({error or type(error).__name__}), and left out")
        return None


def without_idle_alpha(picture: Picture, path: Path) -> Picture:
    """Returns the picture without an alpha that hides nothing, where the format of `path` has none."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None or kind.alpha or picture.alpha is None:
        return picture
    opaque = picture.alpha.min() == np.iinfo(picture.alpha.dtype).max
    return replace(picture, alpha=None) if opaque else picture


def check_writable(path: Path, height: int, width: int, *, alpha: bool) -> Format:
    """Returns the format of a path's ending.

    Raises:
        UserError: an unknown ending, a picture too large for the format, or alpha where it has none.
    """
    kind = checks.look_up(FORMATS, path.suffix.lower(), f"ending of {path}")
    checks.check(
        max(height, width) <= kind.largest,
        str(path),
        expected=f"at most {kind.largest} pixels along a side of a {kind.name} picture",
        got=f"{width} x {height}",
        remedy="write a .png or .tif instead",
    )
    checks.check(
        kind.alpha or not alpha,
        str(path),
        expected=f"an opaque picture for {kind.name}",
        got="one with alpha",
        remedy="write a .png, .webp or .tif instead",
    )
    return kind


def write_picture(path: Path, picture: Picture) -> None:
    """Writes a picture in the format of the path's ending, whole or not at all.

    16 bits are kept in PNG and TIFF and rounded to 8 elsewhere. TIFF, BMP and 16-bit PNG get no EXIF data.

    Raises:
        UserError: what `check_writable` refuses.
    """
    height, width = picture.color.shape[:2]
    kind = check_writable(path, height, width, alpha=picture.alpha is not None)
    deep = picture.color.dtype == np.uint16 and kind.name in ("PNG", "TIFF")
    pixels = join_channels(picture, np.uint16 if deep else np.uint8)
    exif = {"exif": picture.exif} if picture.exif and kind.exif else {}
    profile = picture.profile if kind.gray or not picture.gray else None  # a gray one does not fit RGB
    with files.replacing(path) as file:
        if kind is TIFF:
            write_tiff(file, pixels, profile)
        elif deep:
            write_png16(file, pixels, profile)
        else:
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            image.save(file, kind.name, icc_profile=profile, **exif, **kind.options)


def join_channels(picture: Picture, dtype: type) -> np.ndarray:
    """Returns [H,W,1 to 4] of gray or RGB, and alpha, in the depth asked for; RGB of that depth as it is."""
    if picture.alpha is None and not picture.gray and picture.color.dtype == dtype:
        return picture.color
    height, width = picture.color.shape[:2]
    channels = (1 if picture.gray else 3) + (picture.alpha is not None)
    joined: np.ndarray = np.empty((height, width, channels), dtype)
    for start in range(0, height, BLOCK):
        rows = slice(start, start + BLOCK)
        color = picture.color[rows].astype(np.float32)
        parts = [color.mean(axis=-1, keepdims=True) if picture.gray else color]
        if picture.alpha is not None:
            parts.append(picture.alpha[rows, :, None].astype(np.float32))
        unit = np.concatenate(parts, axis=-1) / np.float32(np.iinfo(picture.color.dtype).max)
        joined[rows] = quantize(unit, dtype)
    return joined


def write_tiff(file: BinaryIO, samples: np.ndarray, profile: bytes | None) -> None:
    """Writes [H,W,1 to 4] as TIFF; Pillow knows 16 bits of gray alone."""
    import tifffile

    channels = samples.shape[-1]
    tifffile.imwrite(
        file,
        samples[..., 0] if channels == 1 else samples,
        photometric="rgb" if channels > 2 else "minisblack",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        planarconfig=None if channels == 1 else "contig",
        compression="zlib",
        iccprofile=profile,
        metadata=None,
    )


def write_png16(file: BinaryIO, samples: np.ndarray, profile: bytes | None) -> None:
    """Writes [H,W,1|3|4] uint16 as PNG; Pillow knows 16 bits of gray alone."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOR_TYPES[channels], 0, 0, 0)
    file.write(PNG_SIGNATURE + png_chunk(b"IHDR", header))
    if profile is not None:
        file.write(png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    for content in compress_rows(samples):
        file.write(png_chunk(b"IDAT", content))
    file.write(png_chunk(b"IEND", b""))


def compress_rows(samples: np.ndarray) -> Iterator[bytes]:
    """Filters and compresses [H,W,C] uint16 as PNG wants them, a block of rows at a time."""
    height, width, channels = samples.shape
    compressor = zlib.compressobj()
    above = np.zeros((1, width * channels * 2), np.uint8)
    for start in range(0, height, BLOCK):
        rows = samples[start : start + BLOCK].astype(">u2").view(np.uint8).reshape(-1, above.shape[1])
        # Filter 2, "up": each row as the difference to the one above, which compresses better.
        differences = np.diff(rows, axis=0, prepend=above)
        filtered = np.concatenate([np.full((len(rows), 1), 2, np.uint8), differences], axis=1)
        yield compressor.compress(filtered.tobytes())
        above = rows[-1:]
    yield compressor.flush()


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Returns a PNG chunk: length, name, content, checksum of name and content."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
