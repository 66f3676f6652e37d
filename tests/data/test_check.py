"""The check finds every fault that a folder can have, and names the file."""

import pytest
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.check import Report, check_data


def found(*roots):
    """The findings of a check as {file: (kind, problem)}, each file once."""
    findings = check_data(roots).findings
    named = {str(f.file.relative_to(roots[0].parent)): (f.kind, f.problem) for f in findings}
    assert len(named) == len(findings)
    return named


def test_check_data_finds_nothing_wrong_with_good_folders(tmp_path, write_images):
    write_images("a/HR", ["0.png", "1.jpg"])
    write_images("a/LRx4", ["0.png", "1.png"], height=8, width=12)
    write_images("a/LRx2", ["0x2.png", "1x2.png"], height=16, width=24)
    write_images("b", ["0.png"], height=33, width=49)
    report = check_data([tmp_path / "a", str(tmp_path / "b")])
    assert report == Report(images=7, findings=[])
    assert report.summary() == "7 images checked, no problems found"


def test_check_data_names_every_fault(tmp_path, write_images):
    root = tmp_path / "set"
    write_images("set/HR", ["good.png", "cut.png", "alone.png", "large.png", "broken.png", "twin.png"])
    small = ["good.png", "cut.png", "stray.png", "broken.png", "twin.png"]
    write_images("set/LRx4", small, height=8, width=12)
    write_images("set/LRx4", ["large.png"], height=9, width=12)
    (root / "HR" / "twin.png").write_bytes((root / "HR" / "good.png").read_bytes())
    cut = root / "HR" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-60])
    (root / "LRx4" / "broken.png").write_text("no image")

    findings = found(root)
    kinds = {file.removeprefix("set/"): kind for file, (kind, _) in findings.items()}
    assert kinds == {
        "HR/alone.png": "unpaired",
        "HR/cut.png": "unreadable",
        "HR/twin.png": "duplicate",
        "LRx4/broken.png": "unreadable",
        "LRx4/large.png": "wrong size",
        "LRx4/stray.png": "unpaired",
    }
    assert findings["set/HR/alone.png"][1].startswith("has no LR image alone in")
    assert findings["set/HR/cut.png"][1].startswith("expected a readable image")
    assert "truncated" in findings["set/HR/cut.png"][1]
    assert findings["set/HR/twin.png"][1] == f"has the same content as {root / 'HR' / 'good.png'}"
    assert findings["set/LRx4/stray.png"][1] == "has no HR image"
    assert "expected 12 x 8 pixels" in findings["set/LRx4/large.png"][1]

    report = check_data([root])
    assert str(report.findings[0]).startswith(str(root))
    counts = "2 unpaired, 2 unreadable, 1 wrong size, 1 duplicate"
    assert report.summary() == f"12 images checked, 6 problems found: {counts}"


def test_check_data_looks_into_both_parts_of_div2k(tmp_path, write_images):
    for part, number, mark in (("train", "0001", 0), ("valid", "0801", 2)):
        write_images(f"div/DIV2K_{part}_HR", [f"{number}.png", f"{number}.jpg"], first=mark)
        write_images(f"div/DIV2K_{part}_LR_bicubic/X4", [f"{number}x4.png"], height=8, width=12, first=mark)
    assert found(tmp_path / "div") == {
        f"div/DIV2K_{part}_HR/{number}.png": ("unpaired", f"has the same name as {number}.jpg")
        for part, number in (("train", "0001"), ("valid", "0801"))
    }


def test_check_data_finds_a_training_image_among_those_for_validation(tmp_path, write_images):
    write_images("a", ["0.png", "1.png"])
    write_images("b/HR", ["other.bmp"], first=1)  # another name, another format
    findings = found(tmp_path / "a", tmp_path / "b")
    assert findings == {
        "b/HR/other.bmp": ("duplicate", f"has the same content as {tmp_path / 'a' / '1.png'}")
    }
    assert check_data([tmp_path / "a", tmp_path / "a"]) == Report(2, [])  # one folder named twice


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_check_data_infers_the_scale_of_a_folder_whose_name_has_none(tmp_path, write_images, scale):
    write_images("set/hr", ["0.png", "1.png", "2.png"], height=24, width=48)
    write_images("set/lr", ["0.png", "1.png"], height=24 // scale, width=48 // scale)
    write_images("set/lr", ["2.png"], height=24 // scale + 1, width=48 // scale, first=2)
    assert {file: kind for file, (kind, _) in found(tmp_path / "set").items()} == {
        "set/lr/2.png": "wrong size"
    }


def test_check_data_names_images_that_training_refuses(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(folder / "a.png")
    Image.new("CMYK", (8, 8)).save(folder / "b.jpg")
    findings = found(folder)
    assert {kind for kind, _ in findings.values()} == {"wrong mode"}
    assert "got 64 transparent pixels" in findings["set/a.png"][1]
    assert "got CMYK pixels" in findings["set/b.jpg"][1]


def test_check_data_refuses_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match="folder to check: expected images"):
        check_data([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        check_data([tmp_path / "missing"])


def test_check_data_names_pictures_of_other_formats_and_duplicate_lr_images(tmp_path, write_images):
    write_images("set/HR", ["a.png"])
    write_images("set/LRx4", ["a.png", "a.jpg"], height=8, width=12)
    (tmp_path / "set" / "HR" / "b.gif").touch()
    findings = found(tmp_path / "set")
    assert findings["set/HR/b.gif"][0] == "unreadable"
    assert findings["set/LRx4/a.png"] == ("unpaired", "has the same name as a.jpg")
