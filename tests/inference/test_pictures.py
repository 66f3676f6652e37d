import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from decloss_jax.checks import UserError
from decloss_jax.data.images import decode_pixels
from decloss_jax.inference.pictures import Picture, read_picture, write_picture

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


def picture_of(pixels, profile=None):
    """The picture with these pixels [H,W,1|3|4]."""
    alpha = pixels[..., 3] if pixels.shape[-1] == 4 else None
    gray = pixels.shape[-1] == 1
    return Picture(pixels[..., :3].repeat(3 if gray else 1, axis=-1), alpha, gray, profile)


@pytest.mark.parametrize("height", [9, 256, 600])  # written in blocks of 256 rows
@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_write_picture_keeps_16_bits(tmp_path, ending, channels, height):
    pixels = noise(height, 6, channels, np.uint16)
    write_picture(tmp_path / f"a{ending}", picture_of(pixels, PROFILE))
    picture = read_picture(tmp_path / f"a{ending}")
    assert (picture.color.dtype, picture.gray, picture.profile) == (np.uint16, channels == 1, PROFILE)
    read = decode_pixels(tmp_path / f"a{ending}")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[..., :channels], pixels)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_write_picture_keeps_the_profile(tmp_path, ending, channels):
    write_picture(tmp_path / f"a{ending}", picture_of(noise(6, 5, channels), PROFILE))
    with Image.open(tmp_path / f"a{ending}") as image:
        assert image.mode == ("L" if channels == 1 and ending != ".webp" else "RGB")
        # WebP has no gray, and a gray picture's profile is not one of RGB.
        assert image.info.get("icc_profile") == (None if image.mode == "RGB" and channels == 1 else PROFILE)


def test_write_picture_does_not_thin_out_the_colours_of_jpeg(tmp_path):
    write_picture(tmp_path / "a.jpg", picture_of(noise(32, 32, 3)))
    with Image.open(tmp_path / "a.jpg") as image:
        assert {component[1:3] for component in image.layer} == {(1, 1)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("photometric", "options"),
    [
        *itertools.product(["minisblack", "miniswhite"], [{}, {"compression": "zlib"}]),
        ("minisblack", {"byteorder": ">"}),
    ],
)
def test_read_picture_reads_gray_tiff(tmp_path, dtype, photometric, options):
    pixels = noise(40, 30, 1, dtype)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, **options)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.gray
    expected = pixels if photometric == "minisblack" else np.iinfo(dtype).max - pixels
    np.testing.assert_array_equal(picture.color[..., 0], expected)


@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}],
)
@pytest.mark.parametrize("channels", [3, 4])
def test_read_picture_reads_16_bits_of_tiff(tmp_path, channels, options):
    pixels = noise(40, 30, channels, np.uint16)
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=extra, **options)
    picture = read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.color, pixels[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


def test_read_picture_refuses_16_bits_in_planes_and_several_frames(tmp_path):
    planes = noise(40, 30, 3, np.uint16).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(UserError, match=r"a\.tif.*planar;16 pixels"):
        read_picture(tmp_path / "a.tif")
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for name in ("b.webp", "b.tif", "b.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match="expected one picture, got several frames"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_write_picture_keeps_what_stays_true_of_exif(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112], exif[272], exif[33432] = 6, "Camera", "me"
    exif[0x8769] = {0x829A: 0.01, 0xA002: 6, 0x927C: b"secret offsets"}
    exif[0x8825] = {1: "N"}
    save(tmp_path / "in.jpg", noise(4, 6, 3), exif=exif)
    write_picture(tmp_path / f"out{ending}", read_picture(tmp_path / "in.jpg"))
    with Image.open(tmp_path / f"out{ending}") as image:
        assert image.size == (4, 6)
        kept = image.getexif()
        assert (kept[272], kept[33432], kept.get(0x0112, 1)) == ("Camera", "me", 1)
        assert set(kept.get_ifd(0x8769)) == {0x829A}
        assert kept.get_ifd(0x8825) == {1: "N"}


def test_read_picture_says_when_exif_is_damaged(tmp_path, capsys, monkeypatch):
    def broken(exif, tag):
        raise SyntaxError("bad tag")

    save(tmp_path / "a.png", noise(4, 6, 3))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Exif, "get_ifd", broken)
        assert read_picture(tmp_path / "a.png").exif is None
    assert "a.png: its EXIF data are damaged (bad tag), and left out" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_write_picture_with_16_bits_is_read_by_pillow(tmp_path, channels):
    pixels = noise(5, 8, channels, np.uint16)
    write_picture(tmp_path / "a.png", picture_of(pixels))
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        read = np.asarray(image).reshape(pixels.shape)
    # Of colour, Pillow keeps the upper byte.
    np.testing.assert_array_equal(read, pixels if channels == 1 else pixels >> 8)


def test_write_picture_rounds_16_bits_where_the_format_has_8(tmp_path):
    color = np.full((2, 3, 3), 128 * 257 + 100, np.uint16)
    write_picture(tmp_path / "a.webp", Picture(color))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.webp")), 128)


def test_read_picture_applies_orientation_and_expands_palettes(tmp_path):
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    save(tmp_path / "a.png", pixels, exif=exif, icc_profile=PROFILE)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.color, np.rot90(pixels, -1))
    assert picture.profile == PROFILE
    Image.fromarray(pixels).quantize(4).save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    expected = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    np.testing.assert_array_equal(picture.color, expected)
    assert not picture.gray


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello"])
def test_read_picture_names_a_damaged_file(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.png: expected a readable image"):
        read_picture(tmp_path / "bad.png")


def test_write_picture_refuses_alpha_where_the_format_has_none(tmp_path):
    picture = Picture(np.ones((2, 2, 3), np.uint8), np.ones((2, 2), np.uint8))
    with pytest.raises(UserError, match="expected an opaque picture for JPEG, got one with alpha"):
        write_picture(tmp_path / "a.jpg", picture)
    with pytest.raises(UserError, match=r"ending of .*a\.gif: expected one of \.png"):
        write_picture(tmp_path / "a.gif", picture)
    assert not list(tmp_path.iterdir())
