"""The builder of DIV2K on tiny archives of the right layout: its output, and the inputs that it refuses."""

import dataclasses
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from command_line import REPOSITORY, assert_one_sentence, environment, run
from image_lists import list_images
from PIL import Image
from tensorflow_datasets.core import shuffle

from decloss_jax.checks import UserError
from decloss_jax.data import tfds_div2k

NUMBERS = {"train": range(1, 6), "validation": range(801, 803)}
FOLDERS = {
    "DIV2K_train_HR": "DIV2K_train_HR",
    "DIV2K_valid_HR": "DIV2K_valid_HR",
    "DIV2K_train_LR_bicubic_X4": "DIV2K_train_LR_bicubic/X4",
    "DIV2K_valid_LR_bicubic_X4": "DIV2K_valid_LR_bicubic/X4",
}


def pixels(number, size):
    return np.random.default_rng([number, *size]).integers(0, 256, (*size, 3), dtype=np.uint8)


def size_of(archive_name):
    return (12, 16) if "LR" in archive_name else (48, 64)


def make_archive(path, numbers, ending, folder, members=()):
    """Writes images as PNG files into an archive, and other members as (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/", "")
        for number in numbers:
            with archive.open(f"{folder}/{number:04}{ending}.png", "w") as file:
                Image.fromarray(pixels(number, size_of(path.name))).save(file, "PNG")
        for name, content in members:
            archive.writestr(name, content)


def table(folder):
    """The table of archives with the sizes and hashes of those in the folder."""
    return {
        key: dataclasses.replace(
            archive, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for key, archive in tfds_div2k.ARCHIVES.items()
        if (path := folder / archive.name).exists()
    }


def make_archives(folder):
    folder.mkdir(parents=True)
    for split, part in (("train", "train"), ("validation", "valid")):
        hr, low = f"DIV2K_{part}_HR", f"DIV2K_{part}_LR_bicubic_X4"
        make_archive(folder / f"{hr}.zip", NUMBERS[split], "", FOLDERS[hr])
        make_archive(folder / f"{low}.zip", NUMBERS[split], "x4", FOLDERS[low])


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """A folder of tiny archives, which the builder takes for the published ones."""
    folder = tmp_path / "archives"
    make_archives(folder)
    monkeypatch.setattr(tfds_div2k, "NUMBERS", NUMBERS)
    monkeypatch.setattr(tfds_div2k, "SHARD_IMAGES", 2)
    monkeypatch.setattr(tfds_div2k, "ARCHIVES", table(folder))
    return folder


def refuse(*arguments):
    """Replaces functions that must not be called."""
    raise AssertionError("called")


def prepare_and_list(root, archives, split="train"):
    return list_images(root, split, source="tfds", archives=str(archives))


def test_tfds_source_prepares_div2k_from_its_archives(tmp_path, archives, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(shuffle, "Shuffler", refuse)  # needs TensorFlow above 1 GB
    root = tmp_path / "root"
    for split, numbers in NUMBERS.items():
        pairs = prepare_and_list(root, archives, split)
        assert len(pairs) == len(numbers)
        for number, pair in zip(numbers, pairs, strict=True):
            low, hr = pair.load(4)
            np.testing.assert_array_equal(low, pixels(number, (12, 16)))
            np.testing.assert_array_equal(hr, pixels(number, (48, 64)))
    assert "tensorflow" not in sys.modules
    version = root / "div2k" / "bicubic_x4" / "2.0.0"
    assert len(list(version.glob("div2k-train.array_record-*-of-00003"))) == 3
    assert sorted(path.name for path in root.iterdir()) == ["div2k"]

    shutil.rmtree(archives)  # not needed again
    assert len(prepare_and_list(root, archives)) == 5


def test_div2k_is_read_by_tfds_itself(tmp_path, archives):
    prepare_and_list(tmp_path / "root", archives)
    source = tfds.data_source("div2k/bicubic_x4", data_dir=tmp_path / "root", split="validation")
    assert len(source) == 2
    np.testing.assert_array_equal(source[1]["hr"], pixels(802, (48, 64)))
    np.testing.assert_array_equal(source[1]["lr"], pixels(802, (12, 16)))


def test_archives_are_those_of_tfds():
    listed = (Path(tfds.__file__).parent / "datasets" / "div2k" / "checksums.tsv").read_text()
    facts = {tuple(line.split("\t")) for line in listed.splitlines()}
    assert len(tfds_div2k.ARCHIVES) == 8
    for (split, kind), archive in tfds_div2k.ARCHIVES.items():
        part = {"train": "train", "validation": "valid"}[split]
        ending = "HR" if kind == "hr" else f"LR_bicubic_X{kind}"
        assert archive.name == f"DIV2K_{part}_{ending}.zip"
        address = tfds_div2k.HOME + archive.name
        assert (address, str(archive.size), archive.sha256, archive.name) in facts


def assert_refused(tmp_path, archives, match):
    with pytest.raises(UserError, match=match) as refused:
        prepare_and_list(tmp_path / "root", archives)
    left = {path.name for path in (tmp_path / "root").rglob("*") if path.is_file()}
    assert left <= {".lock", "metadata.json"}  # the latter TFDS's, with the name of a config
    return str(refused.value)


def test_div2k_names_all_missing_archives(tmp_path, archives):
    for name in ("DIV2K_train_HR.zip", "DIV2K_valid_LR_bicubic_X4.zip"):
        (archives / name).unlink()
    text = assert_refused(tmp_path, archives, "got no DIV2K_train_HR.zip, DIV2K_valid_LR_bicubic_X4.zip")
    for archive in (tfds_div2k.ARCHIVES["train", "hr"], tfds_div2k.ARCHIVES["validation", 4]):
        assert f"{archive.name} ({archive.size:,} bytes)" in text
    assert "https://data.vision.ee.ethz.ch/cvl/DIV2K/" in text
    assert "DIV2K_train_LR" not in text


def test_tfds_source_says_which_archives_it_needs(tmp_path):
    with pytest.raises(UserError) as refused:
        list_images(tmp_path, source="tfds", scale=3)
    for words in ("DIV2K_train_LR_bicubic_X3.zip (427,847,282 bytes)", "DIV2K_valid_HR.zip", "data.archives"):
        assert words in str(refused.value)
    with pytest.raises(UserError, match=r"model.scale: expected 2, 3 or 4 for DIV2K, got 8"):
        list_images(tmp_path, source="tfds", scale=8, archives=str(tmp_path))


def test_div2k_refuses_an_archive_that_was_cut_off(tmp_path, archives):
    path = archives / "DIV2K_train_HR.zip"
    size = path.stat().st_size
    os.truncate(path, size - 1000)
    text = assert_refused(tmp_path, archives, rf"got DIV2K_train_HR.zip with {size - 1000:,} bytes \(cut off")
    assert f"expected DIV2K_train_HR.zip ({size:,} bytes)" in text


def test_div2k_refuses_an_archive_of_another_content(tmp_path, archives):
    path = archives / "DIV2K_valid_HR.zip"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    text = assert_refused(tmp_path, archives, f"expected DIV2K_valid_HR.zip with the SHA-256 {expected}")
    assert f"got DIV2K_valid_HR.zip with {found}" in text


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("members", "numbers", "words"),
    [
        ([("../evil.png", b"")], NUMBERS["train"], r"\.\./evil\.png \(outside"),
        ([("DIV2K_train_HR/../../evil.txt", b"")], NUMBERS["train"], r"evil\.txt \(outside"),
        ([("..\\evil.txt", b"")], NUMBERS["train"], r"evil\.txt \(outside"),
        ([("/etc/evil.txt", b"")], NUMBERS["train"], r"/etc/evil\.txt \(outside"),
        ([("C:\\evil.txt", b"")], NUMBERS["train"], r"evil\.txt \(outside"),
        ([(link("DIV2K_train_HR/link.txt"), b"/etc/passwd")], NUMBERS["train"], r"link\.txt \(outside"),
        ([("DIV2K_train_HR/0006.png", b"")], NUMBERS["train"], r"0006\.png \(not expected"),
        ([("other/0001.png", b"")], NUMBERS["train"], r"other/0001\.png \(not expected"),
        ([], range(1, 5), r"got no 0005\.png"),
    ],
)
def test_div2k_refuses_an_archive_of_another_layout(tmp_path, archives, monkeypatch, members, numbers, words):
    make_archive(archives / "DIV2K_train_HR.zip", numbers, "", "DIV2K_train_HR", members)
    monkeypatch.setattr(tfds_div2k, "ARCHIVES", table(archives))
    assert_refused(
        tmp_path, archives, rf"DIV2K_train_HR\.zip: expected the 5 images 0001\.png to 0005\.png.*{words}"
    )


def test_div2k_ignores_other_files(tmp_path, archives, monkeypatch):
    members = [("DIV2K_train_HR/readme.txt", b"hello"), ("__MACOSX/DIV2K_train_HR/._0001.png", b"")]
    make_archive(archives / "DIV2K_train_HR.zip", NUMBERS["train"], "", "DIV2K_train_HR", members)
    monkeypatch.setattr(tfds_div2k, "ARCHIVES", table(archives))
    assert len(prepare_and_list(tmp_path / "root", archives)) == 5


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04"])
def test_div2k_refuses_a_file_that_is_not_an_archive(tmp_path, archives, monkeypatch, content):
    (archives / "DIV2K_train_HR.zip").write_bytes(content)
    monkeypatch.setattr(tfds_div2k, "ARCHIVES", table(archives))
    assert_refused(tmp_path, archives, r"DIV2K_train_HR\.zip: expected a \.zip file")


@pytest.mark.parametrize(
    ("size", "words"),
    [((12, 15), "LR image of 0005: expected 16 x 12 pixels"), (None, "0005x4.png in .* readable image")],
)
def test_div2k_leaves_nothing_when_an_image_is_wrong(tmp_path, archives, monkeypatch, size, words):
    path = archives / "DIV2K_train_LR_bicubic_X4.zip"
    make_archive(path, range(1, 5), "x4", "DIV2K_train_LR_bicubic/X4")
    with (
        zipfile.ZipFile(path, "a") as archive,
        archive.open("DIV2K_train_LR_bicubic/X4/0005x4.png", "w") as file,
    ):
        if size:
            Image.fromarray(pixels(5, size)).save(file, "PNG")
        else:
            file.write(b"no image")
    monkeypatch.setattr(tfds_div2k, "ARCHIVES", table(archives))
    assert_refused(tmp_path, archives, words)


def test_div2k_checks_the_room_on_the_disk(tmp_path, archives, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert_refused(tmp_path, archives, r"data\.root: expected [\d,]+ bytes of free space.*got 1,000 in")


def test_build_source_refuses_archives_of_a_folder_source(tmp_path, write_images):
    write_images("HR", ["a.png"])
    with pytest.raises(UserError, match=r"data\.archives: expected none unless data\.source is 'tfds'"):
        list_images(tmp_path, archives="somewhere")


# A user's command, with the table of the tiny archives instead of the published one.
LAUNCH = """
import runpy, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}, {repository!r}]
import test_tfds_div2k as tiny
from decloss_jax.data import tfds_div2k
tfds_div2k.NUMBERS = tiny.NUMBERS
tfds_div2k.ARCHIVES = tiny.table(Path({archives!r}))
{more}
sys.argv = {arguments!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def launch(archives, arguments, more=""):
    """The command line of a train.py that knows the tiny archives."""
    here = REPOSITORY / "tests" / "data"
    script = LAUNCH.format(
        tests=str(here.parent),
        here=str(here),
        repository=str(REPOSITORY),
        archives=str(archives),
        more=more,
        arguments=[str(REPOSITORY / "train.py"), *map(str, arguments)],
    )
    return {"args": [sys.executable, "-c", script], "cwd": REPOSITORY, "env": environment()}


def test_train_prepares_div2k_after_kill_9_and_trains(tmp_path):
    archives, root, workdir = tmp_path / "archives", tmp_path / "root", tmp_path / "run"
    make_archives(archives)
    arguments = (
        "--config=configs/quickstart.py",
        "--config.data.source=tfds",
        f"--config.data.archives={archives}",
        f"--config.data.root={root}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        "--config.model.features=4",
        "--config.model.blocks=1",
        "--config.batch_size=4",
        "--config.data.crop_size=32",
        "--config.pretrain.steps=3",
        "--config.pretrain.warmup_steps=0",
        "--config.finetune.steps=0",
        f"--workdir={workdir}",
    )
    slow = "import time; tfds_div2k.check_sizes = lambda *a: time.sleep(0.5)"
    process = subprocess.Popen(**launch(archives, arguments, slow), stderr=subprocess.DEVNULL)
    folder = root / "div2k" / "bicubic_x4"
    while not list(folder.glob("incomplete*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(folder.glob("incomplete*"))

    result = subprocess.run(**launch(archives, arguments), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "preparing div2k/bicubic_x4 7/7" in result.stderr
    assert (workdir / "journal.jsonl").exists()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "2.0.0"]

    without = [argument for argument in arguments if "archives" not in argument]
    result = run("train.py", *without)  # the same run, no other config
    assert result.returncode == 0, result.stderr
    assert "complete at step 3" in result.stderr

    shutil.rmtree(root)
    result = run("train.py", *arguments)  # which knows the published archives
    assert_one_sentence(result, "DIV2K_train_HR.zip (3,530,603,713 bytes)", "cut off", tfds_div2k.HOME)
