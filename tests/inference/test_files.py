import numpy as np
import pytest
from PIL import Image, ImageOps

from decloss_jax.checks import UserError
from decloss_jax.inference.files import fill_transparent, upscale_alpha, upscale_files, upscale_picture
from decloss_jax.inference.pictures import Picture, read_picture
from decloss_jax.inference.png import write_png
from decloss_jax.ops.quantize import dequantize, quantize
from decloss_jax.ops.resize import imresize


def repeat(low, *, shape, dtype, advance):
    """Replaces a network of scale 2."""
    advance(low.shape[0] * low.shape[1])
    sr = dequantize(low).repeat(2, axis=0).repeat(2, axis=1)
    return quantize(sr, dtype)


def upscale_pixels(picture):
    return upscale_picture(repeat, picture, 2, picture.color.shape[:2], lambda pixels: None)


def run(source, target, **options):
    return upscale_files(repeat, source, target, scale=2, **options)


def grey_levels(values, dtype=np.uint8):
    return quantize(np.asarray(values, np.float32), dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_upscale_picture_keeps_what_the_picture_is(dtype):
    color = grey_levels(np.random.default_rng(0).uniform(size=(6, 4, 3)), dtype)
    alpha = grey_levels(np.tile(np.linspace(0, 1, 4), (6, 1)), dtype)
    result = upscale_pixels(Picture(color, alpha, True, b"profile", b"exif"))
    assert (result.gray, result.profile, result.exif) == (True, b"profile", b"exif")
    assert (result.color.shape, result.color.dtype) == ((12, 8, 3), dtype)
    assert (result.alpha.shape, result.alpha.dtype) == ((12, 8), dtype)
    assert (np.diff(result.alpha.astype(int), axis=1) >= 0).all()


def test_upscale_picture_does_not_show_the_network_what_lies_under_alpha():
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, 4:] = 0
    white = np.full((8, 8, 3), 255, np.uint8)
    black = np.where(alpha[..., None] > 0, white, 0).astype(np.uint8)
    expected = upscale_pixels(Picture(white, alpha)).color
    np.testing.assert_array_equal(upscale_pixels(Picture(black, alpha)).color, expected)


@pytest.mark.parametrize("height", [1, 5, 256, 257, 600])
def test_upscale_alpha_in_strips_equals_bicubic_of_the_whole(height):
    alpha = np.random.default_rng(0).integers(0, 256, (height, 7), np.uint8)
    whole = imresize(dequantize(alpha)[..., None], 3)[..., 0]
    np.testing.assert_array_equal(upscale_alpha(alpha, 3), quantize(whole, np.uint8))


def test_fill_transparent_keeps_visible_colours_and_hides_what_lies_under_alpha():
    random = np.random.default_rng(0)
    color = random.uniform(0.4, 0.6, size=(13, 22, 3)).astype(np.float32)
    alpha = np.ones((13, 22), np.float32)
    alpha[3:, 5:] = 0
    hidden = color.copy()
    hidden[alpha == 0] = random.choice([0, 1], size=(int((alpha == 0).sum()), 3))
    filled = fill_transparent(hidden, alpha)
    np.testing.assert_array_equal(filled[alpha == 1], color[alpha == 1])
    np.testing.assert_array_equal(filled, fill_transparent(color, alpha))
    assert filled.min() >= 0.4
    assert filled.max() <= 0.6


def test_fill_transparent_leaves_no_dark_fringe_behind_a_blur():
    color = np.zeros((32, 32, 3), np.float32)
    alpha = np.zeros((32, 32), np.float32)
    color[:, :16], alpha[:, :16] = 0.8, 1
    color[:, 16], alpha[:, 16] = 0.8, 0.5
    filled = fill_transparent(color, alpha)
    np.testing.assert_allclose(filled[:, :18], 0.8, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.125, 0.5, 1.0])
def test_fill_transparent_takes_pictures_that_are_all_of_one_kind(alpha):
    color = np.random.default_rng(0).uniform(size=(5, 7, 3)).astype(np.float32)
    filled = fill_transparent(color, np.full((5, 7), alpha, np.float32))
    assert np.isfinite(filled).all()
    if alpha:
        np.testing.assert_array_equal(filled, color)


def make_folder(folder):
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.jpg", "sub/.hidden.png"):
        Image.new("RGB", (5, 4), (10, 200, 30)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_upscale_files_does_a_folder_and_goes_on_after_a_bad_file(tmp_path):
    source = make_folder(tmp_path / "in")
    (source / "broken.png").write_bytes(b"broken")
    problems = run(source, tmp_path / "out")
    assert len(problems) == 1
    assert "broken.png" in problems[0]
    written = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert written == ["a.png", "sub/b.jpg"]
    assert read_picture(tmp_path / "out" / "a.png").color.shape == (8, 10, 3)


def test_upscale_files_overwrites_only_when_told_so(tmp_path):
    source = make_folder(tmp_path / "in") / "a.png"
    target = tmp_path / "out.png"
    assert run(source, target) == []
    before = target.read_bytes()
    target.write_bytes(b"precious")
    (problem,) = run(source, target)
    assert "give --overwrite" in problem
    assert target.read_bytes() == b"precious"
    assert run(source, target, overwrite=True) == []
    assert target.read_bytes() == before


def test_upscale_files_writes_a_picture_into_an_existing_folder(tmp_path):
    source = make_folder(tmp_path / "in") / "a.png"
    (tmp_path / "out").mkdir()
    assert run(source, tmp_path / "out") == []
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize(
    ("name", "message"), [("empty", "got no picture"), ("nowhere", "no such file or folder")]
)
def test_upscale_files_says_when_there_is_nothing_to_do(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        run(tmp_path / name, tmp_path / "out")


def test_upscale_files_chooses_the_format(tmp_path):
    source = make_folder(tmp_path / "in")
    assert run(source, tmp_path / "out", ending=".webp") == []
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.webp", "b.webp"]
    (source / "a.jpg").write_bytes((source / "sub" / "b.jpg").read_bytes())
    with pytest.raises(UserError, match=r"a\.webp, which is also the result of a\.jpg"):
        run(source, tmp_path / "other", ending=".webp")
    assert not (tmp_path / "other").exists()


def test_upscale_files_does_not_look_into_its_own_results(tmp_path):
    source = make_folder(tmp_path / "in")
    assert run(source, source / "out") == []
    assert run(source, source / "out", overwrite=True) == []
    assert sorted(path.name for path in (source / "out").rglob("*.*")) == ["a.png", "b.jpg"]


def test_upscale_files_refuses_before_the_network_has_worked(tmp_path):
    def never(*arguments, **options):
        raise AssertionError("the network was asked")

    def problem(name):
        (text,) = upscale_files(never, tmp_path / "in.png", tmp_path / name, scale=2)
        return text

    Image.new("L", (9000, 2)).save(tmp_path / "in.png")
    assert "at most 16383 pixels along a side of a WEBP picture, got 18000 x 4" in problem("out.webp")
    assert "ending of" in problem("out.gif")
    Image.new("LA", (9, 2), (3, 7)).save(tmp_path / "in.png")
    assert "expected an opaque picture for JPEG, got one with alpha" in problem("out.jpg")


def test_upscale_files_drops_an_alpha_that_hides_nothing_where_the_format_has_none(tmp_path):
    Image.new("RGBA", (4, 3), (9, 8, 7, 255)).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", tmp_path / "out.jpg") == []
    assert run(tmp_path / "in.png", tmp_path / "out.png") == []
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "RGBA"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upscale_files_turns_pictures_upright(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[271] = orientation, "Maker"
    Image.fromarray(pixels).save(tmp_path / "in.png", exif=exif)
    assert run(tmp_path / "in.png", tmp_path / "out.png") == []
    with Image.open(tmp_path / "in.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    with Image.open(tmp_path / "out.png") as image:
        assert dict(image.getexif()) == {271: "Maker"}
        np.testing.assert_array_equal(np.asarray(image)[::2, ::2], upright)


def test_upscale_files_keeps_gray_the_mean_of_the_channels(tmp_path):
    def tinted(low, *, shape, dtype, advance):
        return repeat(low, shape=shape, dtype=dtype, advance=advance) // np.array([1, 2, 4], dtype)

    Image.new("L", (4, 3), 200).save(tmp_path / "in.png")
    assert upscale_files(tinted, tmp_path / "in.png", tmp_path / "out.png", scale=2) == []
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), round((200 + 100 + 50) / 3))


def test_upscale_files_goes_on_when_the_memory_does_not_suffice(tmp_path):
    def greedy(low, **options):
        if low.shape[0] > 4:
            raise MemoryError
        return repeat(low, **options)

    source = make_folder(tmp_path / "in")
    Image.new("L", (9, 9)).save(source / "large.png")
    (problem,) = upscale_files(greedy, source, tmp_path / "out", scale=2)
    assert "large.png: expected memory for the result" in problem
    assert (tmp_path / "out" / "a.png").is_file()


def test_upscale_files_refuses_places_before_the_network_has_worked(tmp_path):
    def never(*arguments, **options):
        raise AssertionError("the network was asked")

    source = make_folder(tmp_path / "in")
    (tmp_path / "file").write_text("no folder")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file, which is not a folder"):
            upscale_files(never, source, target, scale=2)
    with pytest.raises(UserError, match="expected a file with a suffix, or an existing folder"):
        upscale_files(never, source / "a.png", tmp_path / "new", scale=2, ending=".png")


def test_upscale_files_takes_long_names_and_leaves_hidden_folders(tmp_path):
    name = "字" * 80 + ".png"
    for folder in (tmp_path / "in", tmp_path / "in" / ".thumbnails"):
        folder.mkdir(parents=True)
        Image.new("L", (4, 3)).save(folder / name)
    assert run(tmp_path / "in", tmp_path / "out") == []
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [name]


def test_upscale_files_shows_how_far_it_is_and_counts_what_fails(tmp_path, capsys):
    source = make_folder(tmp_path / "in")
    Image.new("CMYK", (6, 3)).save(source / "c.jpg")
    (problem,) = run(source, tmp_path / "out")
    assert "CMYK" in problem
    assert "upscaling 58/58" in capsys.readouterr().err


def test_upscale_files_follows_links_to_folders_but_not_in_circles(tmp_path):
    source = make_folder(tmp_path / "in")
    elsewhere = make_folder(tmp_path / "elsewhere")
    (source / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(source)
    (source / "sub" / "up").symlink_to("..")
    assert run(source, tmp_path / "out") == []
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "linked/a.png", "linked/sub/b.jpg", "sub/b.jpg"]


def test_upscale_files_names_pictures_of_other_kinds(tmp_path):
    source = make_folder(tmp_path / "in")
    for name in ("c.gif", "sub/d.HEIC", ".e.gif"):
        (source / name).write_bytes(b"")
    problems = run(source, tmp_path / "out")
    assert [problem.partition(": ")[0] for problem in problems] == [
        str(source / n) for n in ("c.gif", "sub/d.HEIC")
    ]
    assert all("convert it to .png first" in problem for problem in problems)
    assert (tmp_path / "out" / "a.png").is_file()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.avif").write_bytes(b"")
    with pytest.raises(UserError, match=r"got only pictures in other formats \(x\.avif\)"):
        run(tmp_path / "only", tmp_path / "out")


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JFIF", ".mpo", ".apng", ".dib"])
def test_upscale_files_does_every_ending_of_what_it_reads(tmp_path, ending):
    kind = {".apng": "PNG", ".dib": "BMP"}.get(ending, "JPEG")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (5, 4), (10, 200, 30)).save(tmp_path / "in" / f"a{ending}", kind)
    assert run(tmp_path / "in", tmp_path / "out") == []
    with Image.open(tmp_path / "out" / f"a{ending}") as image:
        assert (image.format, image.size) == (kind, (10, 8))


def test_upscale_files_refuses_colours_before_the_network_has_worked(tmp_path):
    def never(*arguments, **options):
        raise AssertionError("the network was asked")

    with open(tmp_path / "in.png", "wb") as file:
        write_png(file, np.zeros((4, 5, 3), np.uint8), {b"gAMA": (100_000).to_bytes(4, "big")})
    (problem,) = upscale_files(never, tmp_path / "in.png", tmp_path / "out.jpg", scale=2)
    assert "chunk gAMA" in problem


@pytest.mark.parametrize("orientation", [1, 6])
def test_upscale_files_turns_raw_tiff_upright(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.tif", compression="raw", tiffinfo={274: orientation})
    assert run(tmp_path / "in.tif", tmp_path / "out.png") == []
    with Image.open(tmp_path / "out.png") as image:
        upright = pixels if orientation == 1 else pixels.T[:, ::-1]
        np.testing.assert_array_equal(np.asarray(image)[::2, ::2], upright)
