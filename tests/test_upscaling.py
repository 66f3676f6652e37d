import numpy as np
import pytest
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.pictures import Picture, read_picture
from decloss_jax.upscaling import fill_transparent, upscale_files, upscale_picture


def repeat(color):
    """Stands for a network of scale 2."""
    return color.repeat(2, axis=0).repeat(2, axis=1)


def picture(color, alpha=None, **options):
    return Picture(color.astype(np.float32), alpha, **({"gray": False, "bits": 8, "profile": None} | options))


def test_upscale_picture_keeps_what_the_picture_is():
    color = np.random.default_rng(0).uniform(size=(6, 4, 3))
    alpha = np.tile(np.linspace(0, 1, 4, dtype=np.float32), (6, 1))
    result = upscale_picture(repeat, picture(color, alpha, gray=True, bits=16, profile=b"x"))
    assert (result.gray, result.bits, result.profile) == (True, 16, b"x")
    assert result.color.shape == (12, 8, 3)
    assert result.alpha.shape == (12, 8)
    assert result.alpha.min() >= 0
    assert result.alpha.max() <= 1
    assert (np.diff(result.alpha, axis=1) >= 0).all()


def test_upscale_picture_does_not_show_the_network_what_lies_under_alpha():
    alpha = np.ones((8, 8), np.float32)
    alpha[:, 4:] = 0
    white = np.ones((8, 8, 3))
    black = np.where(alpha[..., None] > 0, white, 0)
    expected = upscale_picture(repeat, picture(white, alpha)).color
    np.testing.assert_array_equal(upscale_picture(repeat, picture(black, alpha)).color, expected)


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


@pytest.mark.parametrize("alpha", [0.0, 1.0])
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
    problems = upscale_files(repeat, source, tmp_path / "out")
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
    assert upscale_files(repeat, source, target) == []
    before = target.read_bytes()
    target.write_bytes(b"precious")
    (problem,) = upscale_files(repeat, source, target)
    assert "give --overwrite" in problem
    assert target.read_bytes() == b"precious"
    assert upscale_files(repeat, source, target, overwrite=True) == []
    assert target.read_bytes() == before


def test_upscale_files_writes_a_picture_into_an_existing_folder(tmp_path):
    source = make_folder(tmp_path / "in") / "a.png"
    (tmp_path / "out").mkdir()
    assert upscale_files(repeat, source, tmp_path / "out") == []
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize(
    ("name", "message"), [("empty", "got no picture"), ("nowhere", "no such file or folder")]
)
def test_upscale_files_says_when_there_is_nothing_to_do(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        upscale_files(repeat, tmp_path / name, tmp_path / "out")
