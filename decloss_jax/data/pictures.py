"""Reads and writes people's pictures as they are: with alpha, gray, 16 bits, colour profile.

Training and measuring use `images.read_image`, which wants opaque 8-bit RGB; upscaling uses this.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from decloss_jax import checks, files
from decloss_jax.data.images import decode_pixels
from decloss_jax.ops.quantize import to_uint8

GRAY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")

# Endings, Pillow's format and its options: the best quality that is common.
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".webp": ("WEBP", {"lossless": True}),
}
OPAQUE_FORMATS = ("JPEG", "BMP")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> gray, RGB, RGBA (no reader here gives two channels)


@dataclass(frozen=True)
class Picture:
    """A picture with what its file said about it.

    Attributes:
        color: [H,W,3] float32 in [0,1]; of a gray picture three equal channels.
        alpha: [H,W] float32 in [0,1], or None.
        gray: whether the file was gray.
        bits: 8 or 16 per channel.
        profile: the ICC profile, or None.
    """

    color: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    bits: int
    profile: bytes | None


def read_picture(path: Path) -> Picture:
    """Reads a picture; EXIF orientation is applied, a palette is expanded.

    Raises:
        UserError: the file, by name, cannot be read.
    """
    try:
        pixels = decode_pixels(path)
        with Image.open(path) as image:
            gray, profile = image.mode in GRAY_MODES, image.info.get("icc_profile")
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        checks.fail(
            str(path),
            expected="a readable image",
            got=str(error) or type(error).__name__,
            remedy="replace the file, or convert it to a PNG with 8 bits",
        )
    values = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    alpha = values[..., 3] if values.shape[-1] == 4 else None
    return Picture(values[..., :3], alpha, gray, 8 * pixels.itemsize, profile)


def write_picture(path: Path, picture: Picture) -> None:
    """Writes a picture in the format of the path's ending, whole or not at all.

    16 bits are kept in PNG and rounded to 8 elsewhere.

    Raises:
        UserError: an unknown ending, or alpha where the format has none.
    """
    kind, options = checks.look_up(FORMATS, path.suffix.lower(), "ending of the picture")
    checks.check(
        picture.alpha is None or kind not in OPAQUE_FORMATS,
        str(path),
        expected=f"an opaque picture for {kind}",
        got="one with alpha",
        remedy="write a .png, .webp or .tif instead",
    )
    channels = [picture.color.mean(axis=-1, keepdims=True) if picture.gray else picture.color]
    if picture.alpha is not None:
        channels.append(picture.alpha[..., None])
    values = np.concatenate(channels, axis=-1)
    if picture.bits == 16 and kind == "PNG":
        files.write_atomically(path, encode_png16(values, picture.profile))
        return
    pixels = to_uint8(values)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, kind, icc_profile=picture.profile, **options)
    files.write_atomically(path, buffer.getvalue())


def encode_png16(values: np.ndarray, profile: bytes | None) -> bytes:
    """Encodes [H,W,1|3|4] in [0,1] as a PNG with 16 bits per channel, which Pillow writes for gray only."""
    height, width, channels = values.shape
    samples = np.rint(np.clip(values, 0.0, 1.0) * np.float32(65535)).astype(">u2")
    rows = samples.view(np.uint8).reshape(height, width * channels * 2)
    # Filter 2, "up": each row as the difference to the one above, which compresses better.
    differences = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), differences], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if profile is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(png_chunk(name, content) for name, content in chunks)


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Returns a PNG chunk: length, name, content, checksum of name and content."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
