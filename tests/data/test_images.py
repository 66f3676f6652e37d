"""Every common kind of image file, against known pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.images import decode_image, decode_pixels, list_images, list_other_pictures, read_image

RGB = np.random.default_rng(0).integers(0, 256, size=(6, 9, 3), dtype=np.uint8)


def write_png16(path, pixels, color_type, extra=b""):
    """Writes [H,W,C] uint16 as a PNG by the specification, each row with the "Sub" filter."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    step = 2 * channels
    filtered = rows.copy()
    filtered[:, step:] -= rows[:, :-step]
    data = b"".join(b"\x01" + row.tobytes() for row in filtered)

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_read_image_reads_lossless_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, lossless=True)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert read_image(path).dtype == np.uint8


def test_read_image_reads_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    smooth = np.broadcast_to(np.linspace(20, 200, 32, dtype=np.uint8)[:, None, None], (32, 24, 3))
    Image.fromarray(smooth).save(path, quality=95)
    assert np.abs(read_image(path).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_read_image_repeats_gray(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    gray = np.full((8, 8), 77, np.uint8)
    Image.fromarray(gray).save(path)
    np.testing.assert_array_equal(read_image(path), np.full((8, 8, 3), 77))


def test_read_image_expands_palette_and_bits(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "p.png")
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)

    bits = np.array([[True, False, True]])
    Image.fromarray(bits).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), np.repeat(bits[..., None], 3, -1) * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_honours_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright(RGB, orientation))


def upright(pixels, orientation):
    """EXIF 2.32, tag 274: where row 0 and column 0 of the stored image lie in the picture."""
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels.swapaxes(0, 1)[:, ::-1],
        7: pixels.swapaxes(0, 1)[::-1, ::-1],
        8: pixels.swapaxes(0, 1)[::-1],
    }
    return turned[orientation]


TIFF_KINDS = {
    "gray8": (1, np.uint8, {}),
    "gray16": (1, np.uint16, {}),
    "gray16 big-endian": (1, np.uint16, {"byteorder": ">"}),
    "gray16 BigTIFF": (1, np.uint16, {"bigtiff": True}),
    "white is zero": (1, np.uint16, {"photometric": "miniswhite"}),
    "RGB8": (3, np.uint8, {}),
    "RGB16": (3, np.uint16, {}),
    "RGBA8": (4, np.uint8, {}),
    "RGBA16 big-endian": (4, np.uint16, {"byteorder": ">"}),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_decode_pixels_turns_tiff_upright(tmp_path, kind, orientation, compression):
    channels, dtype, options = TIFF_KINDS[kind]
    shape = (6, 9, channels) if channels > 1 else (6, 9)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    options = {"photometric": "rgb" if channels > 1 else "minisblack"} | options
    if channels == 4:
        options["extrasamples"] = ["unassalpha"]
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, extratags=[tag], **options)
    expected = upright(pixels, orientation)
    if options["photometric"] == "miniswhite":
        expected = np.iinfo(dtype).max - expected
    expected = np.repeat(expected[..., None], 3, axis=-1) if channels == 1 else expected
    np.testing.assert_array_equal(decode_pixels(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"rowsperstrip": 2}]
)
def test_decode_pixels_reads_16_bit_gray_with_alpha_of_tiff(tmp_path, options, byteorder, orientation):
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 9, 2), np.uint16)
    tag = (274, 3, 1, orientation, True)
    options = {
        "photometric": "minisblack",
        "extrasamples": ["unassalpha"],
        "planarconfig": "contig",
    } | options
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=byteorder, extratags=[tag], **options)
    expected = upright(pixels, orientation)[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(decode_pixels(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("orientation", [1, 6])
def test_decode_pixels_turns_palettes_of_tiff_upright(tmp_path, orientation):
    indices = np.random.default_rng(0).integers(0, 3, (6, 9), np.uint8)
    image = Image.fromarray(indices, mode="P")
    palette = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.tif", compression="raw", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), palette[upright(indices, orientation)])


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_read_image_rounds_16_bits(tmp_path, color_type, channels):
    pixels = np.random.default_rng(1).integers(0, 65536, size=(30, 20, channels)).astype(np.uint16)
    pixels[0, :4, 0] = [0, 65535, 128, 129]  # 0, 255, and the two sides of one half
    if channels == 4:
        pixels[..., 3] = 65535
    path = write_png16(tmp_path / "a.png", pixels, color_type)
    expected = np.rint(np.broadcast_to(pixels[..., :3], (30, 20, 3)) / 257)
    np.testing.assert_array_equal(read_image(path), expected)


def test_read_image_turns_16_bit_colour(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, size=(5, 7, 3)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()[6:]
    chunk = (
        struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    )
    path = write_png16(tmp_path / "a.png", pixels, 2, extra=chunk)
    np.testing.assert_array_equal(read_image(path), np.rint(pixels / 257).swapaxes(0, 1)[:, ::-1])


def trns(*samples):
    content = struct.pack(f">{len(samples)}H", *samples)
    return (
        struct.pack(">I", len(content)) + b"tRNS" + content + struct.pack(">I", zlib.crc32(b"tRNS" + content))
    )


@pytest.mark.parametrize("orientation", [1, 6])
def test_decode_pixels_reads_16_bit_gray_with_alpha(tmp_path, orientation):
    pixels = np.random.default_rng(1).integers(0, 65536, size=(30, 20, 2)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = exif.tobytes()[6:]
    extra = struct.pack(">I", len(content)) + b"eXIf" + content
    extra += struct.pack(">I", zlib.crc32(b"eXIf" + content))
    path = write_png16(tmp_path / "a.png", pixels, 4, extra=extra)
    np.testing.assert_array_equal(decode_pixels(path), upright(pixels, orientation)[..., [0, 0, 0, 1]])


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_decode_pixels_makes_an_alpha_of_a_transparent_colour_of_16_bits(tmp_path, color_type, channels):
    pixels = np.random.default_rng(1).integers(256, 65536, size=(30, 20, channels)).astype(np.uint16)
    key = pixels[3, 4].tolist()
    read = decode_pixels(write_png16(tmp_path / "a.png", pixels, color_type, extra=trns(*key)))
    np.testing.assert_array_equal(read[..., :3], np.broadcast_to(pixels, (30, 20, 3)))
    np.testing.assert_array_equal(read[..., 3], np.where((pixels == key).all(-1), 0, 65535))
    unused = write_png16(tmp_path / "b.png", pixels, color_type, extra=trns(*[7] * channels))
    np.testing.assert_array_equal(decode_pixels(unused), np.broadcast_to(pixels, (30, 20, 3)))
    assert read_image(unused).dtype == np.uint8


def test_decode_pixels_leaves_out_a_transparent_colour_that_no_pixel_has(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(decode_pixels(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize("bits", [2, 4])
def test_decode_pixels_finds_the_transparent_gray_of_few_bits(tmp_path, bits):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    grays = np.array([0, 1, 2, 3])
    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    row = bytes([0b00011011]) if bits == 2 else bytes([0x01, 0x23])
    body = chunk(b"IHDR", header) + trns(2) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    read = decode_pixels(tmp_path / "a.png")
    np.testing.assert_array_equal(read[0, :, 0], grays * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(read[0, :, 3], [255, 255, 0, 255])


@pytest.mark.parametrize("masks", [(0xF800, 0x07E0, 0x001F), (0x7C00, 0x03E0, 0x001F)])
def test_read_image_reads_bmp_of_16_bits_a_pixel(tmp_path, masks):
    values = np.random.default_rng(0).integers(0, masks[0] + masks[1] + masks[2] + 1, (5, 7)).astype("<u2")
    rows = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in values[::-1])
    header = struct.pack("<IiiHHIIiiII", 40, 7, 5, 1, 16, 3, len(rows), 2835, 2835, 0, 0)
    start = 14 + 40 + 12
    content = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header
    (tmp_path / "a.bmp").write_bytes(content + struct.pack("<3I", *masks) + rows)
    expected = [((values & mask) / mask * 255) for mask in masks]
    assert np.abs(read_image(tmp_path / "a.bmp") - np.stack(expected, axis=-1)).max() <= 1


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((6, 9, 3), np.float32, "RGB, 3 x 32-bit floating point"),
        ((6, 9), np.float32, "gray, 1 x 32-bit floating point"),
        ((6, 9), np.float64, "gray, 1 x 64-bit floating point"),
        ((6, 9, 3), np.float16, "RGB, 3 x 16-bit floating point"),
        ((6, 9), np.int32, "gray, 1 x 32-bit signed integers"),
    ],
)
@pytest.mark.parametrize("bigtiff", [True, False])
def test_read_image_says_which_pixels_of_tiff_it_refuses(tmp_path, shape, dtype, kind, bigtiff):
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, dtype), photometric=photometric, bigtiff=bigtiff)
    with pytest.raises(UserError, match=f"got {kind} pixels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", [1, 6])
def test_read_image_turns_jpeg_around_an_odd_exif_value(tmp_path, orientation):
    smooth = np.broadcast_to(np.linspace(20, 200, 32, dtype=np.uint8)[:, None, None], (32, 24, 3))
    entries = [(0x0112, 3, 1, struct.pack("<HH", orientation, 0)), (0x011B, 10, 1, struct.pack("<I", 38))]
    tiff = b"II*\0" + struct.pack("<IH", 8, 2)
    tiff += b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    tiff += bytes(4) + struct.pack("<ii", -1, 0)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0" + tiff)
    read = read_image(tmp_path / "a.jpg").astype(int)
    assert np.abs(read - upright(smooth, orientation)).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_read_image_drops_alpha_that_is_opaque_everywhere(tmp_path, mode):
    path = tmp_path / "a.png"
    image = Image.fromarray(RGB).convert("RGBA").convert(mode)
    image.save(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


def transparent_files(folder):
    """Yields one file for each way in which a PNG can be transparent."""
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[2, 3, 3] = 254
    Image.fromarray(rgba).save(folder / "rgba.png")
    Image.fromarray(rgba).convert("LA").save(folder / "la.png")
    palette = Image.fromarray(RGB).quantize(4)
    palette.save(folder / "palette.png", transparency=0)
    Image.fromarray(RGB).save(folder / "colour_key.png", transparency=tuple(map(int, RGB[0, 0])))
    wide = np.random.default_rng(1).integers(0, 60000, size=(5, 7, 4)).astype(np.uint16)
    write_png16(folder / "wide.png", wide, 6)
    return sorted(folder.iterdir())


def test_read_image_refuses_transparent_pixels_by_name(tmp_path):
    files = transparent_files(tmp_path)
    assert len(files) == 5
    for path in files:
        with pytest.raises(UserError, match=rf"{path.name}: expected an opaque image, got \d+ transparent"):
            read_image(path)


def unreadable_files(folder):
    Image.fromarray(RGB).resize((200, 200)).save(folder / "whole.png")
    Image.fromarray(RGB).resize((200, 200)).save(folder / "whole.jpg")
    for whole in list(folder.iterdir()):
        content = whole.read_bytes()
        whole.with_stem("half").write_bytes(content[: len(content) // 2])
        whole.with_stem("head").write_bytes(content[:20])
        whole.unlink()
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "folder.png").mkdir()
    Image.fromarray(RGB).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(RGB[..., 0].astype(np.int32)).save(folder / "int32.tif")
    return sorted(folder.iterdir())


def test_read_image_refuses_unreadable_files_by_name(tmp_path):
    files = unreadable_files(tmp_path)
    assert len(files) == 11
    for path in [*files, tmp_path / "missing.png"]:
        with pytest.raises(UserError, match=rf"{path.name}: expected a readable image"):
            read_image(path)


@pytest.mark.parametrize("form", ["EPS", "GIF", "PPM", "TGA"])
def test_read_image_looks_only_for_the_formats_that_it_names(tmp_path, form, monkeypatch):
    """The ending does not matter; for EPS Pillow would start Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("started"))
    Image.fromarray(RGB).save(tmp_path / "a.png", form)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == form
    with pytest.raises(UserError, match=r"a.png: expected a readable image .*none of the formats PNG, JPEG"):
        read_image(tmp_path / "a.png")


def test_decode_image_reads_bytes_as_files(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, size=(5, 7, 3)).astype(np.uint16)
    path = write_png16(tmp_path / "a.png", pixels, 2)
    np.testing.assert_array_equal(decode_image(io.BytesIO(path.read_bytes()), "record 7"), read_image(path))
    with pytest.raises(UserError, match="record 7: expected a readable image"):
        decode_image(io.BytesIO(b"no image"), "record 7")


def test_list_images_sorts_and_leaves_out_other_files(tmp_path):
    names = ["b.PNG", "a.jpeg", "c.jfif", "d.JPE", "e.gif", "f.HEIC", "g.avif", ".h.gif"]
    for name in [*names, ".hidden.png", "._c.png", "notes.txt", "Thumbs.db"]:
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.jfif", "d.JPE"]
    assert [path.name for path in list_other_pictures(tmp_path)] == ["e.gif", "f.HEIC", "g.avif"]
    assert list_images(tmp_path / "missing") == list_other_pictures(tmp_path / "missing") == []
