"""Writes PNG files of 8 or 16 bits with the chunks that define their colours.

Pillow supports 16 bits only for gray, and reads or writes only some of these chunks.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> gray, gray with alpha, RGB, RGBA
BLOCK = 256  # rows that are compressed at once

# The chunks that define the colours (PNG 3, 11.3.2), except iCCP, which all formats here support.
COLOR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB")
LARGEST_CHUNK = 64  # bytes; the longest of these, cHRM, has 32
SRGB_CICP = bytes((1, 13, 0, 1))  # sRGB's primaries and transfer function, full range
SRGB_GAMMA, GAMMA_TOLERANCE = 45_455, 455  # 1 / 2.2, and one percent of it
SRGB_PRIMARIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)  # white, red, green, blue
PRIMARIES_TOLERANCE = 500


def read_color_chunks(path: Path) -> dict[bytes, bytes]:
    """Returns the `COLOR_CHUNKS` of a PNG file, by name."""
    chunks: dict[bytes, bytes] = {}
    with open(path, "rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            if name in COLOR_CHUNKS and length <= LARGEST_CHUNK:
                chunks[name] = file.read(length)
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)
    return chunks


def beyond_srgb(chunks: Mapping[bytes, bytes], profile: bytes | None) -> bytes | None:
    """Returns the chunk whose colours only PNG can hold; None for sRGB or an ICC profile.

    cICP takes precedence over an ICC profile, which takes precedence over sRGB, and sRGB over gAMA and cHRM.
    """
    cicp = chunks.get(b"cICP", SRGB_CICP)
    if cicp != SRGB_CICP:
        return b"cICP"
    if b"cICP" in chunks or profile is not None or b"sRGB" in chunks:
        return None
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") or SRGB_GAMMA
    if abs(gamma - SRGB_GAMMA) > GAMMA_TOLERANCE:
        return b"gAMA"
    content = chunks.get(b"cHRM", b"")
    primaries = struct.unpack(">8I", content) if len(content) == 32 else SRGB_PRIMARIES
    far = any(abs(a - b) > PRIMARIES_TOLERANCE for a, b in zip(primaries, SRGB_PRIMARIES, strict=True))
    return b"cHRM" if far else None


def write_png(file: BinaryIO, samples: np.ndarray, chunks: Mapping[bytes, bytes]) -> None:
    """Writes [H,W,1 to 4], uint8 or uint16, with chunks between the header and the pixels."""
    height, width, channels = samples.shape
    bits = 8 * samples.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, COLOR_TYPES[channels], 0, 0, 0)
    file.write(SIGNATURE + png_chunk(b"IHDR", header))
    for name, content in chunks.items():
        file.write(png_chunk(name, content))
    for content in compress_rows(samples):
        file.write(png_chunk(b"IDAT", content))
    file.write(png_chunk(b"IEND", b""))


def compress_rows(samples: np.ndarray) -> Iterator[bytes]:
    """Filters and compresses [H,W,C] for PNG, a block of rows at a time."""
    height, width, channels = samples.shape
    compressor = zlib.compressobj()
    above = np.zeros((1, width * channels * samples.dtype.itemsize), np.uint8)
    for start in range(0, height, BLOCK):
        rows = samples[start : start + BLOCK].astype(samples.dtype.newbyteorder(">"))
        rows = rows.view(np.uint8).reshape(-1, above.shape[1])
        # Filter 2, "up", stores the difference to the row above, which compresses better.
        differences = np.diff(rows, axis=0, prepend=above)
        filtered = np.concatenate([np.full((len(rows), 1), 2, np.uint8), differences], axis=1)
        yield compressor.compress(filtered.tobytes())
        above = rows[-1:]
    yield compressor.flush()


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Returns a PNG chunk: length, name, content, checksum of name and content."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def resolution_chunk(dpi: tuple[float, float]) -> bytes:
    """Returns the content of pHYs: dots per metre along width and height."""
    x, y = (round(side / 0.0254) for side in dpi)
    return struct.pack(">IIB", x, y, 1)


def profile_chunk(profile: bytes) -> bytes:
    """Returns the content of iCCP."""
    return b"ICC profile\0\0" + zlib.compress(profile)
