import itertools
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from decloss_jax.checks import UserError
from decloss_jax.data.images import decode_pixels
from decloss_jax.inference.exif import PREFIX, Exif, Value, encode, parse
from decloss_jax.inference.pictures import Picture, read_picture, write_picture
from decloss_jax.inference.png import SRGB_PRIMARIES, read_color_chunks, write_png

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
    visible = opaque[..., 3] > 0  # WebP drops invisible colours
    np.testing.assert_array_equal(written[visible], opaque[visible])


def test_write_picture_comes_close_in_jpeg(tmp_path):
    pixels = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)
    write_picture(tmp_path / "out.jpg", read_picture(save(tmp_path / "in.png", pixels)))
    written = np.asarray(Image.open(tmp_path / "out.jpg")).astype(int)
    assert np.abs(written - pixels).max() < 16


def picture_of(pixels, profile=None):
    """The picture with these pixels [H,W,1|2|3|4]."""
    alpha = pixels[..., -1] if pixels.shape[-1] in (2, 4) else None
    gray = pixels.shape[-1] < 3
    color = pixels[..., :1].repeat(3, axis=-1) if gray else pixels[..., :3]
    return Picture(color, alpha, gray, profile)


@pytest.mark.parametrize("height", [9, 256, 600])  # written in blocks of 256 rows
@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_write_picture_keeps_16_bits(tmp_path, ending, channels, height):
    pixels = noise(height, 6, channels, np.uint16)
    write_picture(tmp_path / f"a{ending}", picture_of(pixels, PROFILE))
    picture = read_picture(tmp_path / f"a{ending}")
    assert (picture.color.dtype, picture.gray, picture.profile) == (np.uint16, channels < 3, PROFILE)
    read = decode_pixels(tmp_path / f"a{ending}")
    assert read.dtype == np.uint16
    expected = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels
    np.testing.assert_array_equal(read[..., : expected.shape[-1]], expected)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_write_picture_keeps_the_profile(tmp_path, ending, channels):
    write_picture(tmp_path / f"a{ending}", picture_of(noise(6, 5, channels), PROFILE))
    with Image.open(tmp_path / f"a{ending}") as image:
        assert image.mode == ("L" if channels == 1 and ending != ".webp" else "RGB")
        # WebP has no gray, and the profile of a gray picture does not fit RGB.
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


def test_read_picture_says_when_exif_is_damaged(tmp_path, capsys):
    pixels = noise(4, 6, 3)
    for name, data in {"a.png": b"nonsense", "b.png": b"II*\0\xff\xff\xff\xff"}.items():
        picture = read_picture(save(tmp_path / name, pixels, exif=data))
        np.testing.assert_array_equal(picture.color, pixels)
        assert picture.exif is None
        assert f"{name}: its EXIF data are damaged" in capsys.readouterr().err


ENCODINGS = ("utf-8", "latin-1", "shift_jis", "utf-16-le")


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".deep.png"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_write_picture_keeps_the_bytes_of_exif_texts(tmp_path, ending, order):
    texts = [
        text.encode(code) + b"\0" for text, code in zip(["é", "ü ß", "写真家", "ö"], ENCODINGS, strict=True)
    ]
    tags = {tag: Value(2, len(text), text) for tag, text in zip([270, 271, 272, 315], texts, strict=True)}
    comment = {0x9286: Value(7, 11, b"UNICODE\0\xe4\0x"), 0x829A: Value(5, 1, bytes(8))}
    data = encode(Exif(order, tags, {0x8769: comment}))
    source = save(tmp_path / "in.jpg", noise(8, 6, 3), exif=PREFIX + data)
    picture = read_picture(source)
    if "deep" in ending:
        picture = replace(picture, color=picture.color * np.uint16(257))
    write_picture(tmp_path / f"out{ending}", picture)
    with Image.open(tmp_path / f"out{ending}") as image:
        image.load()
        written = parse(image.info["exif"])
    assert (written.order, written.tags, written.blocks) == (order, tags, {0x8769: comment})


def test_read_picture_drops_one_odd_value_and_keeps_the_rest(tmp_path, capsys):
    odd = {282: Value(5, 1, bytes(8)), 283: Value(10, 1, b"\xff" * 4 + bytes(4)), 315: Value(2, 3, b"me\0")}
    turned = {0x0112: Value(3, 1, b"\6\0")}
    source = save(tmp_path / "in.jpg", noise(8, 6, 3), exif=PREFIX + encode(Exif("<", odd | turned)))
    picture = read_picture(source)
    assert picture.color.shape == (6, 8, 3)
    assert parse(picture.exif).tags == {315: odd[315]}
    assert picture.dpi is None
    assert "in.jpg: its EXIF data have an invalid value (XResolution)" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".bmp", ".webp", ".deep.png", ".jfif"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("source", ["in.jpg", "in.png", "in.tif", "exif.jpg"])
def test_write_picture_keeps_the_resolution(tmp_path, ending, orientation, source):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if source == "exif.jpg":
        exif[282], exif[283], exif[296] = 300.0, 150.0, 2
        options = {"exif": exif}
    else:
        options = {"dpi": (300, 150), "exif": exif}
    picture = read_picture(save(tmp_path / source, noise(8, 6, 3), **options))
    if "deep" in ending:
        picture = replace(picture, color=picture.color * np.uint16(257))
    write_picture(tmp_path / f"out{ending}", picture)
    again = read_picture(tmp_path / f"out{ending}")
    np.testing.assert_allclose(again.dpi, (300, 150) if orientation == 1 else (150, 300), rtol=1e-3)


def test_write_picture_leaves_out_a_resolution_that_no_format_holds(tmp_path, capsys):
    write_picture(tmp_path / "a.jpg", Picture(noise(4, 4, 3), dpi=(1e6, 0.1)))
    assert "a.jpg: a resolution of 1e+06 x 0.1 dpi is dropped" in capsys.readouterr().err


def test_write_picture_leaves_out_exif_data_that_jpeg_cannot_hold(tmp_path, capsys):
    tags = {tag: Value(2, 30_000, b"x" * 30_000) for tag in (270, 271, 272)}
    write_picture(tmp_path / "a.jpg", Picture(noise(4, 4, 3), exif=encode(Exif("<", tags))))
    assert "bytes of EXIF data do not fit into JPEG" in capsys.readouterr().err


def chunk_file(path, chunks, pixels):
    with open(path, "wb") as file:
        write_png(file, pixels, chunks)
    return path


LINEAR = {b"gAMA": struct.pack(">I", 100_000)}
SRGB = {b"sRGB": b"\0", b"gAMA": struct.pack(">I", 45_455), b"cHRM": struct.pack(">8I", *SRGB_PRIMARIES)}
WIDE = {b"cHRM": struct.pack(">8I", 31_270, 32_900, 70_800, 29_200, 17_000, 79_700, 13_100, 4_600)}
HDR = {b"cICP": bytes((9, 16, 0, 1)), b"mDCV": bytes(24), b"cLLI": bytes(8)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("chunks", [LINEAR, SRGB, WIDE, HDR])
def test_write_picture_keeps_the_colour_chunks_of_png(tmp_path, chunks, channels, dtype):
    pixels = noise(5, 7, channels, dtype)
    picture = read_picture(chunk_file(tmp_path / "a.png", chunks, pixels))
    write_picture(tmp_path / "b.png", picture)
    assert read_color_chunks(tmp_path / "b.png") == chunks
    again = read_picture(tmp_path / "b.png")
    np.testing.assert_array_equal(again.color, picture.color)
    np.testing.assert_array_equal(
        picture.color, pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, -1)
    )
    if channels in (2, 4):
        np.testing.assert_array_equal(again.alpha, pixels[..., -1])
    assert again.gray == (channels < 3)


@pytest.mark.parametrize(("chunks", "name"), [(LINEAR, "gAMA"), (WIDE, "cHRM"), (HDR, "cICP")])
@pytest.mark.parametrize("ending", [".jpg", ".tif", ".webp", ".bmp"])
def test_write_picture_refuses_colours_that_the_format_cannot_hold(tmp_path, chunks, name, ending):
    picture = read_picture(chunk_file(tmp_path / "a.png", chunks, noise(5, 7, 3)))
    with pytest.raises(UserError, match=f"one with the PNG chunk {name}, which only PNG supports"):
        write_picture(tmp_path / f"out{ending}", picture)
    assert not (tmp_path / f"out{ending}").exists()


@pytest.mark.parametrize("chunks", [SRGB, {b"cICP": bytes((1, 13, 0, 1))}, LINEAR | SRGB])
def test_write_picture_takes_srgb_to_every_format(tmp_path, chunks):
    picture = read_picture(chunk_file(tmp_path / "a.png", chunks, noise(5, 7, 3)))
    write_picture(tmp_path / "a.tif", picture)
    write_picture(tmp_path / "b.jpg", replace(picture, profile=PROFILE, chunks=LINEAR))  # the profile counts


@pytest.mark.parametrize("name", ["gray8_6", "gray16_8"])
def test_read_picture_turns_a_raw_tiff_as_a_compressed_one(shared, name):
    folder = shared / "cases" / "pictures"
    raw, packed = read_picture(folder / f"{name}_raw.tif"), read_picture(folder / f"{name}_zlib.tif")
    np.testing.assert_array_equal(raw.color, packed.color)


def test_read_picture_reads_the_files_that_people_have(shared, tmp_path, capsys):
    folder = shared / "cases" / "pictures"
    for path in sorted(folder.iterdir()):
        if path.name == "f32.tif":
            with pytest.raises(UserError, match="3 x 32-bit floating point pixels"):
                read_picture(path)
            continue
        picture = read_picture(path)
        upright = path.name.startswith(("gray8_6", "gray16_8", "pal_6", "exif_neg"))
        assert picture.color.shape == ((45, 34, 3) if upright else (34, 45, 3)), path.name
        assert picture.dpi is None or "dpi300" not in path.name or round(picture.dpi[0]) == 300
        write_picture(tmp_path / f"{path.name}.png", picture)
    text = read_picture(tmp_path / "exif_text_utf8.jpg.png").exif
    assert "Fotograf Größe".encode() in text
    assert "© 2024 Straße".encode() in text
    assert "exif_neg_rational.jpg: its EXIF data have an invalid value" in capsys.readouterr().err


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
