"""The common folder layouts, and the faults that are refused in them."""

import pytest
from image_lists import list_images
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.folder import find_all_pairs
from decloss_jax.data.sources import SOURCES
from decloss_jax.ops.resize import bicubic_downscale
from decloss_jax.workdir.claim import place


def paths(pairs, root):
    """The pairs as {name: (HR path, LR path)}, relative to the root."""
    return {
        pair.name: (
            str(pair.hr.path.relative_to(root)),
            pair.low and str(pair.low.path.relative_to(root)),
        )
        for pair in pairs
    }


@pytest.mark.parametrize("above", ["", "DIV2K/"])  # DIV2K's archives; EDSR-PyTorch's root
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_build_source_finds_div2k(tmp_path, write_images, above, scale):
    write_images(f"{above}DIV2K_train_HR", ["0001.png", "0800.png"])
    write_images(f"{above}DIV2K_train_LR_bicubic/X{scale}", [f"0001x{scale}.png", f"0800x{scale}.png"])
    write_images(f"{above}DIV2K_valid_HR", ["0801.png"])
    write_images(f"{above}DIV2K_valid_LR_bicubic/X{scale}", [f"0801x{scale}.png"])

    def pair(part, name):
        low = f"{above}DIV2K_{part}_LR_bicubic/X{scale}/{name}x{scale}.png"
        return (f"{above}DIV2K_{part}_HR/{name}.png", low)

    train = paths(list_images(tmp_path, scale=scale), tmp_path)
    assert train == {name: pair("train", name) for name in ("0001", "0800")}
    assert paths(list_images(tmp_path, "validation", scale=scale), tmp_path) == {
        "0801": pair("valid", "0801")
    }


@pytest.mark.parametrize("root", ["", "DIV2K", "DIV2K/DIV2K_train_HR"])
def test_build_source_holds_out_801_to_900_of_one_folder(tmp_path, write_images, root):
    names = ["0001", "0800", "0801", "0900"]
    write_images("DIV2K/DIV2K_train_HR", [f"{name}.png" for name in names])
    write_images("DIV2K/DIV2K_train_LR_bicubic/X4", [f"{name}x4.png" for name in names])
    assert [pair.name for pair in list_images(tmp_path / root)] == ["0001", "0800"]
    if root != "DIV2K/DIV2K_train_HR":
        validation = list_images(tmp_path / root, "validation")
        assert [pair.name for pair in validation] == ["0801", "0900"]
        assert all(pair.low is not None for pair in validation)


@pytest.mark.parametrize(
    ("hr", "low", "ending"),
    [
        ("HR", "LRx4", ""),  # plain
        ("HR", "LRx4", "x4"),
        ("HR", "LR_bicubic/X4", "x4"),  # EDSR-PyTorch's benchmark sets
        ("GTmod12", "LRbicx4", ""),  # BasicSR's benchmark sets
        ("HR", "LR", "x4"),
        ("hr", "lr", ""),
        ("hr", "lrx4", ""),
        ("DIV2K_train_HR_sub", "DIV2K_train_LR_bicubic/X4_sub", ""),  # BasicSR's sub-images
        ("DIV2K_train_HR_sub", "DIV2K_train_LR_bicubic_X4_sub", ""),
        ("Flickr2K_HR", "Flickr2K_LR_bicubic/X4", "x4"),
        ("Flickr2K_HR_sub", "Flickr2K_LR_bicubic/X4_sub", ""),
        ("DF2K_HR", "DF2K_LR_bicubic/X4", "x4"),
    ],
)
def test_build_source_finds_layout(tmp_path, write_images, hr, low, ending):
    write_images(hr, ["0001_s001.png", "baby.PNG"])
    write_images(low, [f"0001_s001{ending}.png", f"baby{ending}.bmp"])
    assert paths(list_images(tmp_path), tmp_path) == {
        "0001_s001": (f"{hr}/0001_s001.png", f"{low}/0001_s001{ending}.png"),
        "baby": (f"{hr}/baby.PNG", f"{low}/baby{ending}.bmp"),
    }


def test_build_source_takes_several_roots(tmp_path, write_images):
    write_images("DIV2K/DIV2K_train_HR", ["0001.png", "0801.png"])
    write_images("DIV2K/DIV2K_train_LR_bicubic/X4", ["0001x4.png", "0801x4.png"])
    write_images("Flickr2K/Flickr2K_HR", ["000001.png"])
    write_images("Flickr2K/Flickr2K_LR_bicubic/X4", ["000001x4.png"])
    roots = f"{tmp_path / 'DIV2K'}, {tmp_path / 'Flickr2K'}"
    assert paths(list_images(roots), tmp_path) == {
        "0001": ("DIV2K/DIV2K_train_HR/0001.png", "DIV2K/DIV2K_train_LR_bicubic/X4/0001x4.png"),
        "000001": ("Flickr2K/Flickr2K_HR/000001.png", "Flickr2K/Flickr2K_LR_bicubic/X4/000001x4.png"),
    }
    assert [pair.name for pair in list_images(roots, "validation")] == ["0801"]
    held_out = {"held_out_prefix": "0000", "held_out_images": 1}
    assert [pair.name for pair in list_images(roots, **held_out)] == ["0001"]


def test_several_roots_lead_to_the_same_place_however_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = f"{tmp_path / 'a'},{tmp_path / 'b'}"
    assert place("data.root", "a, ./b") == place("data.root", written)
    assert place("data.root", "a,c") != place("data.root", written)
    assert place("data.root", "b,a") != place("data.root", written)  # another order of the images


def test_build_source_refuses_a_name_that_two_roots_share(tmp_path, write_images):
    write_images("a/HR", ["0.png", "1.png"])
    write_images("b/HR", ["1.png"])
    with pytest.raises(
        UserError, match=r"data\.root: expected images of different names.*got 1 once more in .*b"
    ):
        list_images(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    with pytest.raises(UserError, match=r"data\.root: .*no such folder .*missing"):
        list_images(f"{tmp_path / 'a'},{tmp_path / 'missing'}")


@pytest.mark.parametrize("name", ["Set5", "Set14", "BSD100", "Urban100"])
def test_build_source_validates_on_benchmarks_of_edsr_pytorch(tmp_path, write_images, name):
    write_images("train", ["a.png"])
    write_images(f"benchmark/{name}/HR", ["img_001.png"])
    write_images(f"benchmark/{name}/LR_bicubic/X4", ["img_001x4.png"])
    root = tmp_path / "benchmark" / name
    pairs = list_images(tmp_path / "train", "validation", validation_root=str(root))
    assert paths(pairs, root) == {"img_001": ("HR/img_001.png", "LR_bicubic/X4/img_001x4.png")}


def test_build_source_takes_hr_alone(tmp_path, write_images):
    write_images("HR", ["b.jpg", "a.png"])
    write_images("LRx2", ["a.png", "b.png"])  # another scale
    assert paths(list_images(tmp_path), tmp_path) == {"a": ("HR/a.png", None), "b": ("HR/b.jpg", None)}
    assert paths(list_images(tmp_path, scale=2), tmp_path)["b"] == ("HR/b.jpg", "LRx2/b.png")
    assert paths(list_images(tmp_path / "HR"), tmp_path) == {"a": ("HR/a.png", None), "b": ("HR/b.jpg", None)}


def test_build_source_gives_each_low_image_one_partner(tmp_path, write_images):
    write_images("HR", ["a.png", "ax4.png"])
    write_images("LRx4", ["ax4.png", "ax4x4.png"])
    found = paths(list_images(tmp_path), tmp_path)
    assert found == {"a": ("HR/a.png", "LRx4/ax4.png"), "ax4": ("HR/ax4.png", "LRx4/ax4x4.png")}


def test_build_source_takes_validation_from_its_own_root(tmp_path, write_images):
    write_images("train", ["a.png"])
    write_images("benchmark/HR", ["b.png"])
    write_images("benchmark/LRx4", ["b.png"])
    pairs = list_images(tmp_path / "train", "validation", validation_root=str(tmp_path / "benchmark"))
    assert paths(pairs, tmp_path) == {"b": ("benchmark/HR/b.png", "benchmark/LRx4/b.png")}
    assert [
        pair.name for pair in list_images(tmp_path / "train", validation_root=str(tmp_path / "benchmark"))
    ] == ["a"]


def test_build_source_without_validation_images_is_empty(tmp_path, write_images):
    write_images("HR", ["a.png"])
    assert list_images(tmp_path, "validation") == []


def test_build_source_refuses_unpaired_images_by_name(tmp_path, write_images):
    write_images("HR", ["a.png", "b.png", "c.png"])
    write_images("LRx4", ["a.png", "d.png"])
    with pytest.raises(
        UserError, match=r"b.png has no LR image b in .*LRx4.*c.png has.*d.png has no HR image"
    ):
        list_images(tmp_path)


def test_build_source_names_at_most_five_unpaired_images(tmp_path, write_images):
    write_images("HR", [f"{i}.png" for i in range(9)])
    write_images("LRx4", ["0.png"])
    with pytest.raises(UserError, match=r"5\.png has no LR image 5 in .* and 3 more;") as refused:
        list_images(tmp_path)
    assert "6.png" not in str(refused.value)


def test_build_source_refuses_two_images_of_one_name(tmp_path, write_images):
    write_images("HR", ["a.png", "a.jpg"])
    with pytest.raises(UserError, match=r"a\.png has the same name as a\.jpg"):
        list_images(tmp_path)


@pytest.mark.parametrize("names", [["a.png", "a.jpg"], ["ax4.png", "ax4.jpg"]])
def test_build_source_refuses_two_lr_images_of_one_name(tmp_path, write_images, names):
    write_images("HR", ["a.png"])
    write_images("LRx4", names, height=8, width=12)
    with pytest.raises(UserError, match=rf"{names[0]} has the same name as {names[1]}"):
        list_images(tmp_path)


def test_build_source_names_pictures_of_other_formats(tmp_path, write_images, capsys):
    write_images("set/HR", ["a.png", "b.jfif"])
    (tmp_path / "set" / "HR" / "c.gif").touch()
    assert [pair.name for pair in list_images(tmp_path / "set")] == ["a", "b"]
    assert "HR: ignored c.gif; only" in capsys.readouterr().err
    (tmp_path / "HR").mkdir()
    (tmp_path / "HR" / "d.heic").touch()
    with pytest.raises(UserError, match=r"got none in .*, only d\.heic"):
        list_images(tmp_path)


@pytest.mark.parametrize("create", [False, True])
def test_build_source_names_a_missing_or_empty_folder(tmp_path, create):
    root = tmp_path / "photos"
    if create:
        root.mkdir()
        (root / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"^data.root: .*photos") as refused:
        list_images(root)
    if create:
        for tried in ("DIV2K_train_HR", "DIV2K/DIV2K_train_HR", "HR", "GTmod12", "the folder itself", ".png"):
            assert tried in str(refused.value)
    with pytest.raises(UserError, match=r"^data.validation_root: .*photos"):
        list_images(tmp_path, "validation", validation_root=str(root))


def test_build_source_names_the_nearest_source(tmp_path):
    with pytest.raises(UserError, match=r"nearest: photographs"):
        list_images(tmp_path, source="photograph")
    assert set(SOURCES) == {"folder", "photographs", "tfds"}


def test_find_all_pairs_finds_benchmarks(shared):
    for name, count in {"Set5": 5, "Set14": 14, "BSD100": 100}.items():
        pairs = find_all_pairs(shared / "data" / name, scale=4, field="--data")
        assert len(pairs) == count
        low, hr = pairs[0].load(4)
        assert hr.shape == (4 * low.shape[0], 4 * low.shape[1], 3)


def test_image_pair_load_makes_low_of_the_whole_image(tmp_path, write_images):
    write_images("HR", ["a.png"], height=35, width=50)
    (pair,) = list_images(tmp_path)
    low, hr = pair.load(4)
    assert (low.shape, hr.shape) == ((8, 12, 3), (32, 48, 3))
    assert (low == bicubic_downscale(hr, 4)).all()


def test_image_pair_load_refuses_sizes_that_do_not_fit(tmp_path, write_images):
    write_images("HR", ["a.png"], height=32, width=50)
    write_images("LRx4", ["a.png"], height=8, width=13)
    (pair,) = list_images(tmp_path)
    with pytest.raises(
        UserError, match=r"LR image of a: expected 12 x 8 pixels .*50 x 32 over 4.*got 13 x 8"
    ):
        pair.load(4)


def test_photographs_are_colour_photographs_of_two_disjoint_parts():
    train, validation = (
        list_images("", source="photographs"),
        list_images("", "validation", source="photographs"),
    )
    assert (len(train), len(validation)) == (12, 3)
    names = [pair.name for pair in train + validation]
    assert len(set(names)) == 15
    assert {"motorcycle_left", "motorcycle_right"} <= {pair.name for pair in train}
    for pair in train + validation:
        assert min(Image.open(pair.hr.path).size) >= 300
    for pair in validation:
        assert Image.open(pair.hr.path).mode == "RGB"


def test_photographs_refuse_an_installation_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr("decloss_jax.data.photographs.photograph_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"no astronaut.png, .*install scikit-image"):
        list_images("", source="photographs")


def test_build_source_holds_out_the_last_images_of_a_name(tmp_path, write_images):
    write_images("HR", ["test_1.png", "test_2.png", "test_3.png", "train_1.png"])
    arguments = {"held_out_prefix": "test_", "held_out_images": 2}
    assert [pair.name for pair in list_images(tmp_path, **arguments)] == ["test_1", "train_1"]
    assert [pair.name for pair in list_images(tmp_path, "validation", **arguments)] == ["test_2", "test_3"]
    write_images("other/HR", ["9.png"])
    of_root = list_images(tmp_path, "validation", validation_root=str(tmp_path / "other"), **arguments)
    assert [pair.name for pair in of_root] == ["9"]


@pytest.mark.parametrize(("prefix", "count"), [("test_", 3), ("", 3), ("test_", -1)])
def test_build_source_refuses_to_hold_out_missing_images(tmp_path, write_images, prefix, count):
    write_images("HR", ["test_1.png", "test_2.png", "train_1.png"])
    with pytest.raises(UserError, match=r"data\.held_out_images"):
        list_images(tmp_path, held_out_prefix=prefix, held_out_images=count)
