"""Image files that a stranger might send: small ones that would cost much, or do what no picture should."""

import functools
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MEGABYTE = bytes(2**20)

# It asks whoever renders it to write a file; Pillow hands EPS to ghostscript.
EPS = b"""%%!PS-Adobe-3.0 EPSF-3.0
%%%%BoundingBox: 0 0 20 20
%%%%EndComments
(%s) (w) file closefile
showpage
"""
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='20' height='20' onload='alert(1)'><script/></svg>"


def png(
    width: int, height: int, *, idat: bytes = b"", before: bytes = b"", depth: int = 8, color: int = 2
) -> bytes:
    """Returns a PNG with this header, with `idat` as its deflated data and other chunks `before` it."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        PNG_SIGNATURE
        + png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", idat)
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@functools.cache
def deflate_zeros(size: int) -> bytes:
    """Deflates so many zeros to a thousandth of their size."""
    packer = zlib.compressobj(9)
    whole, rest = divmod(size, len(MEGABYTE))
    parts = [packer.compress(MEGABYTE) for _ in range(whole)]
    return b"".join([*parts, packer.compress(bytes(rest)), packer.flush()])


def small_png(**chunks: bytes) -> bytes:
    """Returns a sound PNG of 8 x 8 with other chunks in it, by kind."""
    before = b"".join(png_chunk(kind.encode(), content) for kind, content in chunks.items())
    return png(8, 8, idat=zlib.compress(bytes(8 * 25)), before=before)


def tiff(entries: list[tuple[int, int, int, int]], body: bytes = b"", after: int = 0) -> bytes:
    """Returns a little-endian TIFF of one directory: (tag, type, count, value) each; `body` begins at 8.

    `after` is where the next directory is said to be.
    """
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + struct.pack("<I", after)


def plain_tiff(
    width: int, height: int, data: bytes, *, bits: int = 8, compression: int = 8, **changes: int
) -> bytes:
    """Returns a gray TIFF in one strip whose tags may be lies."""
    fields = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, bits), 259: (3, 1, compression), 262: (3, 1, 1),
        273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, len(data)),
    }  # fmt: skip
    fields |= {int(tag.strip("t")): (4, 1, value) for tag, value in changes.items()}
    return tiff([(tag, *rest) for tag, rest in fields.items()], data)


def many_directories(count: int) -> bytes:
    """Returns a TIFF of one pixel, followed by `count` empty directories, which claim as many frames."""
    first = plain_tiff(1, 1, zlib.compress(b"\0"))
    start = len(first)
    chain = b"".join(struct.pack("<HI", 0, start + 6 * (i + 1)) for i in range(count - 1))
    return first[:-4] + struct.pack("<I", start) + chain + struct.pack("<HI", 0, 0)


def bmp(width: int, height: int, *, offset: int = 54, bits: int = 24, compression: int = 0, colors: int = 0,
        body: bytes = bytes(64)) -> bytes:  # fmt: skip
    """Returns a BMP with this header."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, colors, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, offset) + info + body


def webp(width: int, height: int) -> bytes:
    """Returns a lossless WebP with this header and no data."""
    bits = (width - 1) | (height - 1) << 14
    stream = b"\x2f" + struct.pack("<I", bits) + bytes(16)
    body = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream + b"\0" * (len(stream) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    """Returns an image, by default a small one in colour, as Pillow writes it."""
    image = image or Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def frames(form: str, count: int, side: int = 16) -> bytes:
    """Returns a picture of many frames."""
    images = [Image.new("RGB", (side, side), (i % 256, i // 256, 0)) for i in range(count)]
    return encoded(form, images[0], save_all=True, append_images=images[1:])


def with_patched_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Returns a JPEG whose header claims another size."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def hostile_images(proof: Path) -> dict[str, bytes]:
    """Returns files by name that no command may read.

    Args:
        proof: the file that an EPS among them would write.
    """
    sound = {"png": encoded("PNG"), "jpg": encoded("JPEG"), "tif": encoded("TIFF"), "webp": encoded("WEBP")}
    files = {
        "empty.png": b"",
        "text.png": b"no picture\n",
        "pdf.png": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        "eps.png": EPS % os.fsencode(proof),
        "svg.png": SVG,
        "gif.png": frames("GIF", 3),
        "ppm.png": b"P6 4 4 255\n" + bytes(48),
        "icon.png": encoded("ICO"),
        "sixty_gigapixels.png": png(250_000, 250_000, idat=deflate_zeros(1000)),
        "header_100000.png": png(100_000, 100_000, idat=deflate_zeros(1000)),
        "header_65500.png": png(65_500, 65_500, idat=deflate_zeros(1000)),
        "header_20000.png": png(20_000, 20_000, idat=deflate_zeros(1000)),
        "header_16_bits.png": png(20_000, 20_000, idat=deflate_zeros(1000), depth=16),
        "longest_side.png": png(2**31 - 1, 1, idat=deflate_zeros(1000)),
        "no_side.png": png(0, 8),
        "profile_bomb.png": small_png(iCCP=b"p\0\0" + deflate_zeros(2**28)),
        "text_bomb.png": small_png(zTXt=b"k\0\0" + deflate_zeros(2**28)),
        "unicode_bomb.png": small_png(iTXt=b"k\0\1\0\0\0" + deflate_zeros(2**28)),
        "header.jpg": with_patched_size(sound["jpg"], 65_500, 65_500),
        "header.webp": webp(16_383, 16_383),
        "header.tif": plain_tiff(65_500, 65_500, deflate_zeros(1000)),
        "header_16_bits.tif": plain_tiff(20_000, 20_000, deflate_zeros(1000), bits=16),
        "largest_header.tif": plain_tiff(2**32 - 1, 2**32 - 1, deflate_zeros(1000)),
        "strips.tif": tiff([(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
                            (273, 4, 2**32 - 1, 8), (278, 4, 1, 1), (279, 4, 2**32 - 1, 8)]),
        "tag_counts.tif": tiff([(tag, 12, 2**32 - 1, 8) for tag in (256, 257, 270, 700, 34665, 34675)]),
        "tile.tif": plain_tiff(64, 64, deflate_zeros(1000), t322=2**31, t323=2**31, t324=8, t325=100),
        "truncated_strip.tif": plain_tiff(64, 64, deflate_zeros(64 * 64)[:8]),
        "float.tif": encoded("TIFF", Image.new("F", (8, 8))),
        "header.bmp": bmp(65_500, 65_500),
        "offset.bmp": bmp(8, 8, offset=2**32 - 1),
        "colors.bmp": bmp(8, 8, bits=8, colors=2**32 - 1),
        "runs.bmp": bmp(30_000, 30_000, bits=8, compression=1, offset=1078, colors=256, body=bytes(1152)),
        "negative.bmp": bmp(-8, -8),
    }  # fmt: skip
    for ending, content in sound.items():
        for share in (0.1, 0.5, 0.9):
            files[f"cut_{int(100 * share)}.{ending}"] = content[: int(share * len(content))]
    return files


def harmless_images() -> dict[str, bytes]:
    """Returns files by name that look odd but are valid pictures."""
    return {
        "jpeg_called.png": encoded("JPEG"),
        "png_called.jpg": encoded("PNG"),
        "webp_called.tif": encoded("WEBP"),
        "one_pixel.png": encoded("PNG", Image.new("RGB", (1, 1))),
        "wide.png": encoded("PNG", Image.new("RGB", (50_000, 2), (9, 9, 9))),
        "tall.png": encoded("PNG", Image.new("RGB", (2, 50_000), (8, 8, 8))),
    }
