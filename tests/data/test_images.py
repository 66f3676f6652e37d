"""Every kind of image file that people have, against pixels that are known beforehand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.images import decode_image, list_images, read_image

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
    # EXIF 2.32, tag 274: where row 0 and column 0 of the stored image lie in the picture.
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: RGB.swapaxes(0, 1)[:, ::-1],
        7: RGB.swapaxes(0, 1)[::-1, ::-1],
        8: RGB.swapaxes(0, 1)[::-1],
    }
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned[orientation])


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
    """Whatever the ending says; for EPS Pillow would start Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("started"))
    Image.fromarray(RGB).save(tmp_path / "a.png", form)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == form
    with pytest.raises(UserError, match=r"a.png: expected a readable image .*none of PNG, JPEG"):
        read_image(tmp_path / "a.png")


def test_decode_image_reads_bytes_as_files(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, size=(5, 7, 3)).astype(np.uint16)
    path = write_png16(tmp_path / "a.png", pixels, 2)
    np.testing.assert_array_equal(decode_image(io.BytesIO(path.read_bytes()), "record 7"), read_image(path))
    with pytest.raises(UserError, match="record 7: expected a readable image"):
        decode_image(io.BytesIO(b"no image"), "record 7")


def test_list_images_sorts_and_leaves_out_what_is_no_image(tmp_path):
    for name in ["b.PNG", "a.jpeg", ".hidden.png", "._c.png", "notes.txt", "Thumbs.db"]:
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG"]
    assert list_images(tmp_path / "missing") == []
