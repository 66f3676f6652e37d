"""Reads and writes pictures with alpha, gray, 16 bits, colour profile and EXIF data.

Upscaling uses this module. Training and evaluation use `images.read_image`, which requires opaque 8-bit RGB.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

from decloss_jax import checks
from decloss_jax.data.images import (
    decode_pixels,
    open_image,
    refuse_unreadable,
    sixteen_bit_layout,
)
from decloss_jax.data.orientation import SIDEWAYS, orientation
from decloss_jax.host import console, files
from decloss_jax.inference import exif as exif_data
from decloss_jax.inference import png
from decloss_jax.ops.quantize import quantize

GRAY_MODES = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Format:
    """An output format for pictures.

    Attributes:
        name: its name in Pillow.
        options: Pillow's options for the best quality in common use.
        alpha: whether it supports transparency.
        largest: the largest side in pixels.
        exif: the largest size of EXIF data in bytes.
        dpi: whether it stores the resolution outside of EXIF data.
        gray: whether it supports gray pictures.
    """

    name: str
    options: dict[str, object]
    alpha: bool
    largest: int
    exif: int = 2**31 - 1
    dpi: bool = True
    gray: bool = True


# A JPEG segment has 65,535 bytes, including its length and the EXIF prefix.
JPEG = Format("JPEG", {"quality": 95, "subsampling": 0}, alpha=False, largest=65_535, exif=65_527)
PNG = Format("PNG", {}, alpha=True, largest=2**31 - 1)
BMP = Format("BMP", {}, alpha=False, largest=2**31 - 1, exif=0)
TIFF = Format("TIFF", {}, alpha=True, largest=2**31 - 1, exif=0)
WEBP = Format("WEBP", {"lossless": True}, alpha=True, largest=16_383, dpi=False, gray=False)
FORMATS = {
    **dict.fromkeys((".png", ".apng"), PNG),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo"), JPEG),
    **dict.fromkeys((".bmp", ".dib"), BMP),
    **dict.fromkeys((".tif", ".tiff"), TIFF),
    ".webp": WEBP,
}
PAGED_FORMATS = ("PNG", "TIFF", "WEBP")  # not MPO, whose first frame is the picture

LARGEST_DPI = 65_535  # JPEG's limit
BLOCK = 256  # rows that are converted at once


@dataclass(frozen=True)
class Picture:
    """A picture with the metadata of its file.

    Attributes:
        color: [H,W,3], uint8 or uint16; a gray picture has three equal channels.
        alpha: [H,W] of the same dtype, or None.
        gray: whether the file was gray.
        profile: the ICC profile, or None.
        exif: EXIF data without orientation and resolution, or None.
        dpi: dots per inch along width and height, or None.
        chunks: the chunks of a PNG file that define its colours, except the profile (`png.COLOR_CHUNKS`).
    """

    color: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    chunks: Mapping[bytes, bytes] = field(default_factory=dict)


def read_picture(path: Path) -> Picture:
    """Reads a picture, applies its EXIF orientation and expands a palette.

    Raises:
        UserError: the file cannot be read or holds several pictures; the message names it.
    """
    with refuse_unreadable(str(path)):
        with open_image(path) as image:
            # The frames are not counted: a TIFF may have a million.
            several = image.format in PAGED_FORMATS and getattr(image, "is_animated", False)
            checks.check(
                not several,
                str(path),
                expected="one picture",
                got="several frames",
                remedy="split the file",
            )
            layout = sixteen_bit_layout(image) or ""
            gray = image.mode in GRAY_MODES or layout.startswith("LA;")
            turned = orientation(image) in SIDEWAYS
        pixels = decode_pixels(path)
        with open_image(path) as image:
            exif, dpi = exif_data.read_exif(image, path)
            dpi = own_resolution(image) or dpi
            profile = image.info.get("icc_profile")
            chunks = png.read_color_chunks(path) if image.format == "PNG" else {}
    alpha = pixels[..., 3] if pixels.shape[-1] == 4 else None
    if dpi is not None and turned:
        dpi = dpi[::-1]
    return Picture(pixels[..., :3], alpha, gray, profile, exif, dpi, chunks)


def own_resolution(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    """Returns the dots per inch that a file stores outside of its EXIF data; None if it stores none."""
    dpi: Any = image.info.get("dpi")
    known = image.format in ("PNG", "BMP") or image.info.get("jfif_unit") in (1, 2)
    return (float(dpi[0]), float(dpi[1])) if known and dpi and min(dpi) > 0 else None


def without_idle_alpha(picture: Picture, path: Path) -> Picture:
    """Drops an opaque alpha channel if the format of `path` does not support alpha."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None or kind.alpha or picture.alpha is None:
        return picture
    opaque = picture.alpha.min() == np.iinfo(picture.alpha.dtype).max
    return replace(picture, alpha=None) if opaque else picture


def check_writable(path: Path, height: int, width: int, *, alpha: bool) -> Format:
    """Returns the format for a path's suffix.

    Raises:
        UserError: an unknown suffix, a picture too large for the format, or alpha that it does not support.
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


def check_color(path: Path, picture: Picture) -> None:
    """Raises `UserError` if the format of `path` would show the colours of a PNG differently."""
    chunk = png.beyond_srgb(picture.chunks, picture.profile)
    checks.check(
        chunk is None or FORMATS[path.suffix.lower()] is PNG,
        str(path),
        expected="a picture in the colours of sRGB or with an ICC profile",
        got=f"one with the PNG chunk {(chunk or b'').decode()}, which only PNG supports",
        remedy="write a .png instead",
    )


def write_picture(path: Path, picture: Picture) -> None:
    """Writes a picture atomically, in the format of the path's suffix.

    PNG and TIFF keep 16 bits; other formats round them to 8. TIFF and BMP get no EXIF data.

    Raises:
        UserError: see `check_writable` and `check_color`.
    """
    height, width = picture.color.shape[:2]
    kind = check_writable(path, height, width, alpha=picture.alpha is not None)
    check_color(path, picture)
    deep = picture.color.dtype == np.uint16 and kind in (PNG, TIFF)
    pixels = join_channels(picture, np.uint16 if deep else np.uint8)
    dpi = writable_resolution(picture, path)
    exif = writable_exif(picture.exif, dpi, kind, path)
    profile = picture.profile if kind.gray or not picture.gray else None  # a gray profile does not fit RGB
    with files.replacing(path) as file:
        if kind is TIFF:
            write_tiff(file, pixels, profile, dpi)
        elif kind is PNG and (deep or picture.chunks):
            png.write_png(file, pixels, png_chunks(picture, exif, dpi))
        else:
            options: dict[str, Any] = {"exif": exif_data.PREFIX + exif} if exif else {}
            options |= {"dpi": dpi} if dpi and kind.dpi else {}
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            image.save(file, kind.name, icc_profile=profile, **options, **kind.options)


def writable_resolution(picture: Picture, path: Path) -> tuple[float, float] | None:
    """Returns the resolution of a picture; drops one that no format can hold, with a message."""
    if picture.dpi is None or all(1 <= round(side) <= LARGEST_DPI for side in picture.dpi):
        return picture.dpi
    console.say(f"{path}: a resolution of {picture.dpi[0]:g} x {picture.dpi[1]:g} dpi is dropped")
    return None


def writable_exif(
    exif: bytes | None, dpi: tuple[float, float] | None, kind: Format, path: Path
) -> bytes | None:
    """Returns the EXIF data that a format can hold, with the resolution if it has no other field for it."""
    if dpi is not None and not kind.dpi:
        exif = exif_data.with_resolution(exif, dpi)
    if exif is None or kind.exif == 0:
        return None
    if len(exif) > kind.exif:
        console.say(
            f"{path}: its {len(exif):,} bytes of EXIF data do not fit into {kind.name} and are dropped"
        )
        return None
    return exif


def png_chunks(picture: Picture, exif: bytes | None, dpi: tuple[float, float] | None) -> dict[bytes, bytes]:
    """Returns the chunks between a PNG's header and its pixels; an ICC profile replaces sRGB."""
    chunks = dict(picture.chunks)
    if picture.profile is not None:
        chunks.pop(b"sRGB", None)
        chunks[b"iCCP"] = png.profile_chunk(picture.profile)
    if dpi is not None:
        chunks[b"pHYs"] = png.resolution_chunk(dpi)
    if exif is not None:
        chunks[b"eXIf"] = exif
    return chunks


def join_channels(picture: Picture, dtype: type) -> np.ndarray:
    """Joins gray or RGB with alpha: [H,W,1 to 4] of `dtype`; RGB of that dtype is returned unchanged."""
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


def write_tiff(
    file: BinaryIO, samples: np.ndarray, profile: bytes | None, dpi: tuple[float, float] | None
) -> None:
    """Writes [H,W,1 to 4] as TIFF; Pillow supports 16 bits only for gray."""
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
        resolution=dpi,
        resolutionunit=None if dpi is None else "INCH",
        metadata=None,
    )
