"""Every fault that a folder can have is found, and named by file."""

import pytest
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.check import check_data


def found(root):
    return {str(finding.file.relative_to(root)): finding.problem for finding in check_data([root])}


def test_check_data_finds_nothing_wrong_with_good_folders(tmp_path, write_images):
    write_images("a/HR", ["0.png", "1.jpg"])
    write_images("a/LRx4", ["0.png", "1.png"], height=8, width=12)
    write_images("a/LRx2", ["0x2.png", "1x2.png"], height=16, width=24)
    write_images("b", ["0.png"], height=33, width=49)
    assert check_data([tmp_path / "a", str(tmp_path / "b")]) == []


def test_check_data_names_every_fault(tmp_path, write_images):
    write_images("HR", ["good.png", "cut.png", "alone.png", "large.png"])
    write_images("LRx4", ["good.png", "cut.png", "stray.png", "broken.png"], height=8, width=12)
    write_images("LRx4", ["large.png"], height=9, width=12)
    write_images("HR", ["broken.png"])
    cut = tmp_path / "HR" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (tmp_path / "LRx4" / "broken.png").write_text("no image")

    findings = found(tmp_path)
    assert set(findings) == {f"HR/{n}.png" for n in ("cut", "alone")} | {
        f"LRx4/{n}.png" for n in ("stray", "broken", "large")
    }
    assert findings["HR/alone.png"].startswith("has no LR image alone in")
    assert findings["LRx4/stray.png"] == "has no HR image"
    assert findings["HR/cut.png"].startswith("expected a readable image")
    assert "expected 12 x 8 pixels" in findings["LRx4/large.png"]
    assert str(check_data([tmp_path])[0]).startswith(str(tmp_path))


def test_check_data_looks_into_both_parts_of_div2k(tmp_path, write_images):
    for part, number in (("train", "0001"), ("valid", "0801")):
        write_images(f"DIV2K_{part}_HR", [f"{number}.png", f"{number}.jpg"])
        write_images(f"DIV2K_{part}_LR_bicubic/X4", [f"{number}x4.png"], height=8, width=12)
    findings = found(tmp_path)
    assert findings == {
        f"DIV2K_{part}_HR/{number}.png": f"has the same name as {number}.jpg"
        for part, number in (("train", "0001"), ("valid", "0801"))
    }


def test_check_data_names_transparent_images(tmp_path):
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(tmp_path / "a.png")
    assert "got 64 transparent pixels" in found(tmp_path)["a.png"]


def test_check_data_refuses_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match="folder to check: expected images"):
        check_data([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        check_data([tmp_path / "missing"])
