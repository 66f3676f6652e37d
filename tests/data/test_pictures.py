import itertools

import numpy as np
import pytest
from PIL import Image, ImageCms

from decloss_jax.checks import UserError
from decloss_jax.data.images import decode_pixels
from decloss_jax.data.pictures import Picture, encode_png16, read_picture, write_picture

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(height, width, channels, dtype=np.uint8):
    random = np.random.default_rng(0)
    return random.integers(0, np.iinfo(dtype).max + 1, size=(height, width, channels), dtype=dtype)


def save(path, pixels, **options):
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("ending", "channels"),
    [*itertools.product([".png", ".webp", ".tif", ".tiff"], [1, 2, 3, 4]), (".bmp", 1), (".bmp", 3)],
)
def test_write_picture_keeps_mode_and_pixels_of_lossless_formats(tmp_path, ending, channels):
    pixels = noise(7, 5, channels)
    source = save(tmp_path / "in.png", pixels)
    write_picture(tmp_path / f"out{ending}", read_picture(source))
    with Image.open(tmp_path / f"out{ending}") as image:
        if ending == ".webp":  # knows only RGB and RGBA
            assert image.mode == ("RGBA" if channels in (2, 4) else "RGB")
        else:
            assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        written = np.asarray(image.convert("RGBA"))
    opaque = np.asarray(Image.open(source).convert("RGBA"))
    visible = opaque[..., 3] > 0  # WebP drops colours that nobody sees
    np.testing.assert_array_equal(written[visible], opaque[visible])


def test_write_picture_comes_close_in_jpeg(tmp_path):
    pixels = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)
    write_picture(tmp_path / "out.jpg", read_picture(save(tmp_path / "in.png", pixels)))
    written = np.asarray(Image.open(tmp_path / "out.jpg")).astype(int)
    assert np.abs(written - pixels).max() < 16


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_write_picture_keeps_16_bits_in_png(tmp_path, channels):
    pixels = noise(9, 6, channels, np.uint16)
    (tmp_path / "in.png").write_bytes(encode_png16(pixels / np.float32(65535), PROFILE))
    picture = read_picture(tmp_path / "in.png")
    assert (picture.bits, picture.gray) == (16, channels == 1)
    write_picture(tmp_path / "out.png", picture)
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["icc_profile"] == PROFILE
    read = decode_pixels(tmp_path / "out.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[..., :channels], pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_encode_png16_is_read_by_pillow(tmp_path, channels):
    pixels = noise(5, 8, channels, np.uint16)
    (tmp_path / "a.png").write_bytes(encode_png16(pixels / np.float32(65535), None))
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        read = np.asarray(image).reshape(pixels.shape)
    # Of colour, Pillow keeps the upper byte.
    np.testing.assert_array_equal(read, pixels if channels == 1 else pixels >> 8)


def test_write_picture_rounds_16_bits_where_the_format_has_8(tmp_path):
    color = np.full((2, 3, 3), 0.5, np.float32)
    write_picture(tmp_path / "a.webp", Picture(color, None, False, 16, None))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.webp")), 128)


def test_read_picture_applies_orientation_and_expands_palettes(tmp_path):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    save(tmp_path / "a.png", pixels, exif=exif, icc_profile=PROFILE)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(picture.color * 255, np.rot90(pixels, -1), atol=1e-4)
    assert picture.profile == PROFILE
    Image.fromarray(pixels).quantize(4).save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    expected = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    np.testing.assert_allclose(picture.color * 255, expected, atol=1e-4)
    assert not picture.gray


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello"])
def test_read_picture_names_a_damaged_file(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.png: expected a readable image"):
        read_picture(tmp_path / "bad.png")


def test_write_picture_refuses_alpha_where_the_format_has_none(tmp_path):
    picture = Picture(np.ones((2, 2, 3), np.float32), np.ones((2, 2), np.float32), False, 8, None)
    with pytest.raises(UserError, match="expected an opaque picture for JPEG, got one with alpha"):
        write_picture(tmp_path / "a.jpg", picture)
    with pytest.raises(UserError, match=r"ending of the picture: expected one of \.png"):
        write_picture(tmp_path / "a.gif", picture)
    assert not list(tmp_path.iterdir())
