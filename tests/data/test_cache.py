"""The cache of decoded images: right values, also after damage to its files."""

import fcntl
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from command_line import REPOSITORY
from image_lists import list_images
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.data.cache import open_cache
from decloss_jax.data.images import read_image
from decloss_jax.data.pairs import ImageFile, ImagePair
from decloss_jax.ops.resize import bicubic_downscale, mod_crop


def photographs():
    return list_images(split="validation", source="photographs")


def check(images, pairs, scale=4):
    """Checks every pair against files that are decoded here."""
    assert images.names == tuple(pair.name for pair in pairs)
    assert len(images) == len(pairs)
    for index, pair in enumerate(pairs):
        hr = mod_crop(read_image(pair.hr.path), scale)
        low = read_image(pair.low.path) if pair.low else bicubic_downscale(hr, scale)
        np.testing.assert_array_equal(images.hr(index), hr)
        np.testing.assert_array_equal(images.low(index), low)
        assert images.size(index) == hr.shape[:2]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_open_cache_makes_low_images(tmp_path, scale):
    pairs = photographs()
    images = open_cache(pairs, scale=scale, cache_dir=tmp_path / "a" / "cache")
    check(images, pairs, scale)
    assert not images.hr(0).flags.writeable
    (tmp_path / "a").rename(tmp_path / "b")  # nothing is held in memory
    with pytest.raises(FileNotFoundError):
        images.hr(0)


def test_open_cache_takes_given_low_images(shared, tmp_path):
    pairs = list_images(shared / "data" / "Set5")
    assert all(pair.low for pair in pairs)
    check(open_cache(pairs, scale=4, cache_dir=tmp_path), pairs)


def test_open_cache_decodes_once(tmp_path, monkeypatch):
    pairs = photographs()
    open_cache(pairs, scale=4, cache_dir=tmp_path)
    monkeypatch.setattr(ImagePair, "load", lambda *_: pytest.fail("decoded again"))
    check(open_cache(pairs, scale=4, cache_dir=tmp_path), pairs)
    check(open_cache(pairs[1:], scale=4, cache_dir=tmp_path), pairs[1:])


@pytest.mark.parametrize("part", ["HR", "LRx4"])
def test_open_cache_notices_a_changed_file(tmp_path, write_images, part):
    write_images("HR", ["a.bmp"], height=16, width=24)
    write_images("LRx4", ["a.bmp"], height=4, width=6)
    pairs = list_images(tmp_path)
    open_cache(pairs, scale=4, cache_dir=tmp_path / "cache")

    file = tmp_path / part / "a.bmp"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    check(open_cache(pairs, scale=4, cache_dir=tmp_path / "cache"), pairs)


def spoil_by_cutting(file):
    file.write_bytes(file.read_bytes()[:-1])


def spoil_by_emptying(file):
    file.write_bytes(b"")


def spoil_by_zeros(file):
    file.write_bytes(bytes(file.stat().st_size))


def spoil_header(file):
    file.write_bytes(file.read_bytes().replace(b"'shape': (", b"'shape': )"))


def spoil_by_another_array(file):
    with file.open("wb") as stream:
        np.save(stream, np.zeros((4, 4, 3), np.float32))


class Runs:
    """Would run if it were unpickled."""

    def __reduce__(self):
        return pytest.fail, ("was run",)


def spoil_by_pickle(file):
    with file.open("wb") as stream:
        np.save(stream, np.array([Runs()], object), allow_pickle=True)


def spoil_by_shape(file):
    content = file.read_bytes()
    file.write_bytes(re.sub(rb"'shape': \(\d+, \d+", b"'shape': (9999999, 99999", content))


def spoil_by_pipe(file):
    file.unlink()
    os.mkfifo(file)


def spoil_by_deleting(file):
    file.unlink()


SPOILERS = [
    spoil_by_cutting,
    spoil_by_emptying,
    spoil_by_zeros,
    spoil_header,
    spoil_by_another_array,
    spoil_by_pickle,
    spoil_by_shape,
    spoil_by_pipe,
    spoil_by_deleting,
]


@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.parametrize("part", ["low", "hr"])
def test_open_cache_replaces_damaged_files(tmp_path, spoil, part):
    pairs = photographs()[:1]
    open_cache(pairs, scale=4, cache_dir=tmp_path)
    (file,) = tmp_path.glob(f"*.{part}.npy")
    spoil(file)
    check(open_cache(pairs, scale=4, cache_dir=tmp_path), pairs)


BUILD = """
from pathlib import Path
from decloss_jax.data.cache import open_cache
from decloss_jax.data.folder import find_pairs
open_cache(find_pairs(Path({root!r}), scale=4, split="train"), scale=4, cache_dir={cache!r})
"""


def test_open_cache_resumes_after_kill_9(tmp_path):
    (tmp_path / "HR").mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (400, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "HR" / f"{i}.png")
    pairs, cache = list_images(tmp_path), tmp_path / "cache"
    script = BUILD.format(root=str(tmp_path), cache=str(cache))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY)
    while len(list(cache.glob("*.npy"))) < 10 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    kept = {file: file.stat().st_ino for file in cache.glob("*.npy")}
    assert 10 <= len(kept) < 80
    (cache / f".{next(iter(kept)).name}.leftover").write_bytes(b"cut off")  # as the kill may leave it
    check(open_cache(pairs, scale=4, cache_dir=cache), pairs)
    assert len(list(cache.iterdir())) == 80 + 1  # the lock
    pairs_kept = {file for file in kept if file.name.endswith(".hr.npy")}  # the LR file is written first
    assert len(pairs_kept) >= 3
    assert all(file.stat().st_ino == kept[file] for file in pairs_kept)  # not decoded again


def open_and_sum(folder):
    """Opens the photographs; returns sums of their pixels and how many this process decoded."""
    decoded = []
    load = ImagePair.load
    ImagePair.load = lambda pair, scale: decoded.append(pair.name) or load(pair, scale)
    images = open_cache(photographs(), scale=4, cache_dir=folder)
    return [int(images.hr(i).sum()) + int(images.low(i).sum()) for i in range(len(images))], len(decoded)


def test_open_cache_serves_processes_at_the_same_time(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        sums, decoded = zip(*pool.map(open_and_sum, [tmp_path] * 3, chunksize=1), strict=True)
    images = open_cache(photographs(), scale=4, cache_dir=tmp_path)
    expected = [int(images.hr(i).sum()) + int(images.low(i).sum()) for i in range(len(images))]
    assert sums[0] == sums[1] == sums[2] == expected
    assert sum(decoded) == 3  # each photograph once
    assert len(list(tmp_path.iterdir())) == 6 + 1  # the lock


def test_open_cache_waits_for_the_process_that_decodes(tmp_path, capsys):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        check(open_cache(photographs(), scale=4, cache_dir=tmp_path), photographs())
    assert "waiting for another process" in capsys.readouterr().err


def test_open_cache_refuses_a_disk_without_room_before_it_decodes(tmp_path, monkeypatch):
    pairs = photographs()
    pixels = sum(math.prod(Image.open(pair.hr.path).size) for pair in pairs)
    needed = 3 * (pixels + pixels // 16) + 3 * 8192
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 9))
    with pytest.raises(UserError, match=r"data\.cache_dir: expected 2,\d{3},\d{3} bytes .* 3 decoded images"):
        open_cache(pairs, scale=4, cache_dir=tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    images = open_cache(pairs, scale=4, cache_dir=tmp_path)
    used = sum(file.stat().st_size for file in tmp_path.glob("*.npy"))
    assert 0.97 * needed < used <= needed
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert open_cache(pairs, scale=4, cache_dir=tmp_path) == images  # nothing to decode, nothing needed


def test_open_cache_keeps_hostile_names_out_of_the_file_system(tmp_path, write_images):
    write_images("HR", ["a.png"])
    pairs = [
        ImagePair(name, ImageFile(tmp_path / "HR" / "a.png"))
        for name in ("../../escape", "/absolute", "a\0b", "x" * 500)
    ]
    images = open_cache(pairs, scale=4, cache_dir=tmp_path / "inner" / "cache")
    assert images.names[0] == "../../escape"
    np.testing.assert_array_equal(images.hr(3), images.hr(0))
    assert {path.name for path in tmp_path.iterdir()} == {"HR", "inner"}


def test_open_cache_takes_any_file_name(tmp_path):
    names = ["новая 写真.png", "a'b\"c.png", "line\nbreak.png", os.fsdecode(b"latin-\xe9.png")]
    (tmp_path / "HR").mkdir()
    for name in names:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "HR" / name)
    images = open_cache(list_images(tmp_path), scale=4, cache_dir=tmp_path / "cache")
    assert len(images) == 4


def test_open_cache_names_an_unreadable_image(tmp_path, write_images):
    folder = write_images("HR", ["a.png", "b.png", "c.png"])
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.png: expected a readable image"):
        open_cache(list_images(tmp_path), scale=4, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("size", [(7, 12), (8, 13), (9, 13)])  # the HR image has 35 x 50
def test_open_cache_names_a_low_image_of_the_wrong_size(tmp_path, write_images, size):
    write_images("HR", ["a.png"], height=35, width=50)
    write_images("LRx4", ["a.png"], height=size[0], width=size[1])
    for _ in range(2):  # the second time as well
        with pytest.raises(UserError, match=r"LR image of a: expected 12 x 8 pixels"):
            open_cache(list_images(tmp_path), scale=4, cache_dir=tmp_path / "cache")


def test_open_cache_names_an_image_smaller_than_the_scale(tmp_path, write_images):
    write_images("HR", ["a.png"], height=3, width=50)
    with pytest.raises(UserError, match=r"HR image of a: expected at least 4 pixels .*got 50 x 3"):
        open_cache(list_images(tmp_path), scale=4, cache_dir=tmp_path / "cache")


def test_open_cache_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"data.cache_dir: expected a folder.*Not a directory"):
        open_cache(photographs(), scale=4, cache_dir=tmp_path / "file" / "cache")


def test_open_cache_of_nothing_is_empty(tmp_path):
    assert len(open_cache([], scale=4, cache_dir=tmp_path / "cache")) == 0
