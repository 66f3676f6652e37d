import subprocess
import sys

import jax
import numpy as np
import pytest
from command_line import DEVICES, REPOSITORY
from PIL import Image

from decloss_jax.commands import cli
from decloss_jax.inference import upscale
from decloss_jax.models import EDSR
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.weights import load_generator, load_packaged, save_generator
from decloss_jax.weights.packaged import DETAIL


@pytest.fixture
def weights(tmp_path):
    """A file of a small network that shows its input, twice as large."""
    import jax.numpy as jnp

    model = EDSR(scale=2, features=4, blocks=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(scale=0.2, size=leaf.shape).astype(np.float32), shapes)
    save_generator(tmp_path / "w.safetensors", model, params)
    return tmp_path / "w.safetensors"


def run(capsys, *arguments):
    status = cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not DEVICES.fullmatch(line)]
    return status, output.out, "\n".join(lines)


def test_upscale_writes_what_the_network_gives(tmp_path, capsys, weights):
    pixels = np.random.default_rng(1).integers(0, 256, size=(10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    status, out, err = run(capsys, "upscale", tmp_path / "in.png", tmp_path / "out.png", "--weights", weights)
    assert (status, out) == (0, "")
    assert "BasicSR EDSR x2, 1 blocks, 4 features" in err
    model, params, _ = load_generator(weights)
    expected = to_uint8(upscale(model, params, pixels))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)


def test_upscale_has_a_network_in_the_package(tmp_path, capsys):
    pixels = np.random.default_rng(2).integers(0, 256, size=(8, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    for name, options, detail in (("a.png", (), DETAIL), ("b.png", ("--detail", "0"), 0)):
        status, _, err = run(capsys, "upscale", tmp_path / "in.png", tmp_path / name, *options)
        assert status == 0
        assert f"detail {detail:g}" in err
        model, params, _ = load_packaged(detail)
        expected = to_uint8(upscale(model, params, pixels))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), expected)
    status, _, err = run(capsys, "upscale", tmp_path / "in.png", tmp_path / "c.png", "--res-scale", "0.1")
    assert status == 2
    assert "--res-scale: expected none for the packaged network" in err


def test_upscale_names_the_file_that_fails(tmp_path, capsys, weights):
    (tmp_path / "in.png").write_bytes(b"no picture")
    status, _, err = run(capsys, "upscale", tmp_path / "in.png", tmp_path / "out.png", "--weights", weights)
    assert status == 2
    assert "in.png: expected a readable image" in err.splitlines()[-1]


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_convert_keeps_the_parameters(tmp_path, capsys, weights, ending):
    status, out, _ = run(capsys, "convert", weights, tmp_path / f"out{ending}")
    assert status == 0
    assert "EDSR x2" in out
    for before, after in zip(
        load_generator(weights)[1].values(),
        load_generator(tmp_path / f"out{ending}")[1].values(),
        strict=True,
    ):
        np.testing.assert_equal(after, before)
    status, _, err = run(capsys, "convert", weights, tmp_path / f"out{ending}")
    assert status == 2
    assert "expected a new file, got an existing one" in err


def test_convert_halves_the_file(tmp_path, capsys, weights):
    assert run(capsys, "convert", weights, tmp_path / "half.safetensors", "--float16")[0] == 0
    halved, exact = (load_generator(file)[1] for file in (tmp_path / "half.safetensors", weights))
    rounded = jax.tree.map(lambda array: array.astype(np.float16).astype(np.float32), exact)
    jax.tree.map(np.testing.assert_array_equal, halved, rounded)
    status, _, err = run(capsys, "convert", weights, tmp_path / "half.pth", "--float16")
    assert status == 2
    assert "dtype of half.pth: expected one of float32, got 'float16'" in err


def test_convert_takes_a_res_scale(tmp_path, capsys, weights):
    assert run(capsys, "convert", weights, tmp_path / "out.pth", "--res-scale", "0.25")[0] == 0
    assert load_generator(tmp_path / "out.pth")[0].res_scale == 0.25


def test_check_data_lists_what_is_wrong(tmp_path, capsys):
    for folder, size in (("HR", 16), ("LRx4", 4)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (size, size)).save(tmp_path / folder / "a.png")
    assert run(capsys, "check-data", tmp_path)[:2] == (0, "")
    (tmp_path / "HR" / "b.png").write_bytes(b"broken")
    status, out, err = run(capsys, "check-data", tmp_path)
    assert status == 1
    assert "b.png" in out
    assert "problems found" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("upscale", "nowhere.png", "out.png", "--weights", "nowhere.pth"),
        ("convert", "nowhere.pth", "out.pth"),
        ("check-data", "nowhere"),
    ],
)
def test_mistakes_are_answered_with_one_sentence(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "nowhere" in err


def test_upscale_says_on_which_devices_it_runs(tmp_path, capsys, weights):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    cli.main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--weights", str(weights)])
    assert capsys.readouterr().err.splitlines()[0] == "upscaling on 8 x cpu"


def test_paths_may_begin_at_home(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(capsys, "convert", "~/w.safetensors", "~/out.pth")[0] == 0
    assert (tmp_path / "out.pth").is_file()
    mixed = ("--interpolate", "~/w.safetensors,~/out.pth,0.5")
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    assert run(capsys, "upscale", "~/in.png", "~/out.png", *mixed)[0] == 0
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "COMMAND"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("upscale", "a.png"), "required: output"),
        (
            ("upscale", "a.png", "b.png", "--detail", "1", "--weights", "w.pth"),
            "not allowed with argument --detail",
        ),
        (("convert", "a", "b", "--res-scale", "much"), "invalid float value: 'much'"),
        (("plot", "x", "--sideways"), "unrecognized arguments: --sideways"),
    ],
)
def test_mistyped_commands_are_answered_with_one_sentence(capsys, arguments, words):
    status, out, err = run(capsys, *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("decloss_jax: ")
    assert words in err
    assert err.endswith("--help.")


def test_help_has_examples_and_imports_nothing_heavy():
    """Of all programs in one process; what is imported stays, so the last line speaks for all."""
    script = """
import sys
import evaluate, train
from decloss_jax.commands import cli
for parse, words in (
    (train.parse, ["--help"]),
    (evaluate.parse, ["--help"]),
    (cli.make_parser().parse_args, ["--help"]),
    *((cli.make_parser().parse_args, [name, "--help"]) for name in cli.COMMANDS),
):
    try:
        parse(words)
    except SystemExit as end:
        assert end.code == 0
assert cli.main(["frobnicate"]) == 2
print({"jax", "torch", "numpy", "PIL"} & set(sys.modules))
"""
    words = [sys.executable, "-c", script]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    texts = result.stdout.split("usage: ")[1:]
    assert len(texts) == 3 + len(cli.COMMANDS)
    for text in texts:
        assert "examples:\n  python " in text
    assert result.stdout.splitlines()[-1] == "set()"
