"""Image files and folders of strangers: every command names what it does not read, runs nothing, and ends."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from hostile_images import encoded, harmless_images, hostile_images, many_directories, plain_tiff, png, webp
from PIL import Image

from decloss_jax import evaluation
from decloss_jax.checks import UserError
from decloss_jax.data import images
from decloss_jax.data.cache import open_cache
from decloss_jax.data.check import check_data
from decloss_jax.data.folder import find_pairs
from decloss_jax.data.images import count_pixels, list_images, read_image
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.evaluation.methods import Method, load_methods, one_by_one
from decloss_jax.host import files
from decloss_jax.inference.files import upscale_files
from decloss_jax.inference.pictures import read_picture
from decloss_jax.workdir.journal import Journal

SCALE = 2
NAMES = (
    b"<img src=x onerror=alert(1)>.png",
    b"--weights.png",
    b"new\nline.png",
    b"bytes\xff\xfe.png",
    "turned\u202egnp.png".encode(),
    b"escape\x1b]0;owned\x07.png",
    b"{{ 7 * 7 }} `id` $HOME.png",
    b"x" * 251 + b".png",
)


@pytest.fixture(autouse=True)
def within_a_minute():
    """Whatever hangs fails."""

    def fail(*_):
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A ghostscript that leaves a mark when it is run."""
    mark, program = tmp_path / "ghostscript_was_run", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\necho 9.99\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return mark


@pytest.fixture
def folder(tmp_path):
    """A folder of hostile images alone."""
    return write(tmp_path / "hostile", hostile_images(tmp_path / "proof"))


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def repeat(low, *, shape, dtype, advance):
    return low.repeat(SCALE, axis=0).repeat(SCALE, axis=1).astype(dtype)


def upscale(source, target, **options):
    return upscale_files(repeat, source, target, scale=SCALE, **options)


def evaluate(root, out):
    protocol = choose_protocol("basicsr", scale=4, crop_border=None, metrics=["psnr"])
    return evaluation.run(load_methods(names=["bicubic"]), [str(root)], out, protocol)


def decode_for_training(root, cache):
    return open_cache(find_pairs(root, scale=4, split="train"), scale=4, cache_dir=cache)


def assert_names(error: str, name: str) -> None:
    """Asserts one short sentence that names a file."""
    assert name in error
    assert "\n" not in error
    assert len(error) < 500


def test_hostile_images_are_refused_by_name(folder, tmp_path, ghostscript):
    paths = list_images(folder)
    assert len(paths) == len(hostile_images(tmp_path)) > 40
    for path in paths:
        for read in (read_image, read_picture):
            with pytest.raises(UserError, match="expected a readable image") as error:
                read(path)
            assert_names(str(error.value), path.name)
    assert {finding.file for finding in check_data([folder]).findings} == set(paths)
    problems = upscale(folder, tmp_path / "out")
    assert len(problems) == len(paths)
    assert not list((tmp_path / "out").rglob("*"))
    assert not ghostscript.exists()
    assert not (tmp_path / "proof").exists()


def test_training_and_evaluation_refuse_hostile_images_by_name(folder, tmp_path, ghostscript):
    for number, path in enumerate(list_images(folder)):
        alone = write(tmp_path / f"{number}", {path.name: path.read_bytes()})
        for read in (decode_for_training, evaluate):
            out = tmp_path / read.__name__
            with pytest.raises(UserError, match="expected a readable image") as error:
                read(alone, out)
            assert_names(str(error.value), path.stem)
            assert not [left for left in out.glob("*") if left.name != ".lock"]
    assert not ghostscript.exists()


def test_pictures_with_another_ending_or_odd_sides_are_read(tmp_path):
    folder = write(tmp_path / "odd", harmless_images())
    assert check_data([folder]).findings == []
    assert upscale(folder, tmp_path / "out") == []
    with Image.open(tmp_path / "out" / "wide.png") as image:
        assert image.size == (100_000, 4)
    with Image.open(tmp_path / "out" / "jpeg_called.png") as image:
        assert image.format == "PNG"


def test_a_million_frames_are_not_counted(tmp_path):
    path = tmp_path / "frames.tif"
    path.write_bytes(many_directories(1_000_000))
    with pytest.raises(UserError, match="expected one picture, got several frames"):
        read_picture(path)


def test_pixels_are_limited_by_the_size_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    assert path.stat().st_size > 24 * 24
    for name, value, refused in (
        ("PIXEL_LIMIT", 24 * 24, False),
        ("PIXEL_LIMIT", 24 * 24 - 1, True),
        ("PIXELS_PER_BYTE", 1, False),
        ("PIXELS_PER_BYTE", 0, True),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(images, "PIXELS_IN_ANY_FILE", 10)
            patch.setattr(images, name, value)
            if refused:
                with pytest.raises(UserError, match=r"got 24 x 24 pixels, more than the [\d,]+ allowed for"):
                    read_image(path)
            else:
                read_image(path)


def test_programs_accept_400_million_pixels_and_the_package_alone_keeps_pillows_limit(tmp_path, monkeypatch):
    # Pillow's own; a program that another test ran in this process has raised it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1024**3 // 4 // 3)
    path = tmp_path / "large.png"
    path.write_bytes(png(20_000, 20_000, idat=bytes(800_000)))
    with pytest.raises(UserError, match="exceeds limit of 178956970 pixels"):
        count_pixels(path, "large")
    images.accept_large_images()
    assert count_pixels(path, "large") == 400_000_000
    for content in (png(20_000, 20_000), png(25_000, 25_000, idat=bytes(2_000_000)), webp(16_383, 16_383),
                    plain_tiff(2**32 - 1, 2**32 - 1, b"")):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"got .*(pixels, more than the|exceeds limit of 1073741824 pixels)"
        ):
            count_pixels(path, "large")


def odd_entries(folder: Path) -> list[str]:
    """Puts into a folder what is called as images are, and is no file; returns the names."""
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "folder.png").mkdir()
    return ["device.png", "itself.png", "nowhere.png", "pipe.png"]


def test_pipes_devices_and_broken_links_are_named(tmp_path):
    folder = write(tmp_path / "odd", {"good.png": encoded("PNG")})
    (folder / "linked.png").symlink_to("good.png")
    names = odd_entries(folder)
    findings = check_data([folder]).findings
    assert [finding.file.name for finding in findings] == names
    problems = upscale(folder, tmp_path / "out")
    assert len(problems) == len(names)
    for name, problem in zip(names, problems, strict=True):
        assert_names(problem, name)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.png", "linked.png"]
    for read in (decode_for_training, evaluate):
        with pytest.raises(UserError, match=r"device\.png|itself\.png"):
            read(folder, tmp_path / read.__name__)
    with pytest.raises(UserError, match="got a pipe or a device"):
        upscale(folder / "pipe.png", tmp_path / "out.png")


def test_upscale_writes_nothing_through_links(tmp_path):
    folder = write(tmp_path / "in", {"good.png": encoded("PNG")})
    write(folder / "sub", {"good.png": encoded("PNG")})
    outside = write(tmp_path / "outside", {"keep.png": b"kept"})
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").symlink_to(outside)
    with pytest.raises(UserError, match=r"out/sub: expected a folder in .*, got a link to .*outside"):
        upscale(folder, out)
    (out / "sub").unlink()
    for target in ("keep.png", "new.png"):
        (out / "good.png").symlink_to(outside / target)
        (problem,) = upscale(folder / "good.png", out)
        assert "expected a new file, got an existing one" in problem
        assert upscale(folder / "good.png", out, overwrite=True) == []
        assert not (out / "good.png").is_symlink()
        (out / "good.png").unlink()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"keep.png": b"kept"}


def test_hostile_names_are_kept_and_shown_harmlessly(tmp_path):
    folder = tmp_path / "names"
    folder.mkdir()
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(encoded("PNG"))
    assert upscale(folder, tmp_path / "out") == []
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(NAMES)
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    result = run("decloss_jax", "check-data", folder)
    assert (result.returncode, result.stderr.count("\n")) == (1, 2)
    assert len(result.stdout.splitlines()) == len(NAMES)
    for written in (
        r"new\nline.png",
        r"bytes\udcff\udcfe.png",
        r"turned\u202egnp.png",
        r"escape\x1b]0;owned\x07",
    ):
        assert written in result.stdout
    assert result.stdout.replace("\n", "").isprintable()


def test_evaluation_refuses_names_that_its_files_cannot_hold(tmp_path):
    def method(name):
        return Method(name, 4, one_by_one(lambda low: low.repeat(4, axis=0).repeat(4, axis=1)))

    protocol = choose_protocol("basicsr", scale=4, crop_border=None, metrics=["psnr"])
    folder = write(tmp_path / "set", {"a.png": encoded("PNG")})
    for name in ("..", ".", "sr", "report.html", "table.csv", "bytes\udcff"):
        with pytest.raises(UserError, match=r"name of a (method|file): expected"):
            evaluation.run([method("a"), method(name)], [str(folder)], tmp_path / "out", protocol)
    (folder / "a.png").rename(folder / "a\udcff.png")
    with pytest.raises(UserError, match=r"expected text in UTF-8, got 'a\\udcff'"):
        evaluation.run([method("a")], [str(folder)], tmp_path / "out", protocol)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_journal_shows_images_whatever_their_name(tmp_path):
    with Journal(tmp_path, header={}, step=0) as journal:
        for name in ("x" * 251, "\u00e4" * 120, "a/../../b", "new\nline", "bytes\udcff"):
            journal.show(1, name, np.zeros((8, 8, 3), np.uint8))
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert len(names) == 5
    assert max(len(os.fsencode(name)) for name in names) <= 9 + files.LONGEST_NAME + 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "samples", "tensorboard"]


def test_commands_name_every_hostile_image(folder, tmp_path, ghostscript):
    weights = tmp_path / "w.safetensors"
    save_small_network(weights)
    names = [path.name for path in list_images(folder)]
    for arguments, status in (
        (("check-data", folder), 1),
        (("upscale", folder, tmp_path / "out", "--weights", weights), 2),
    ):
        result = run("decloss_jax", *arguments)
        assert result.returncode == status
        said = [
            line
            for line in (result.stdout + result.stderr).splitlines()
            if "expected a readable image" in line
        ]
        assert len(said) == len(names)
        assert all(any(f"{name}: expected" in line for line in said) for name in names)
        assert "Traceback" not in result.stderr
        assert "Warning" not in result.stderr
    assert not ghostscript.exists()


def save_small_network(path: Path) -> None:
    import jax
    import jax.numpy as jnp

    from decloss_jax.models import EDSR
    from decloss_jax.weights import save_generator

    model = EDSR(scale=SCALE, features=2, blocks=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    save_generator(path, model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))
