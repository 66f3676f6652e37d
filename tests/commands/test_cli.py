import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from decloss_jax.commands import cli
from decloss_jax.inference import upscale
from decloss_jax.models import EDSR
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.weights import load_generator, save_generator


@pytest.fixture
def weights(tmp_path):
    """A file of a small network that shows its input, twice as large."""
    import jax
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
    return status, output.out, output.err


def test_upscale_writes_what_the_network_gives(tmp_path, capsys, weights):
    pixels = np.random.default_rng(1).integers(0, 256, size=(10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    status, out, err = run(capsys, "upscale", tmp_path / "in.png", tmp_path / "out.png", "--weights", weights)
    assert (status, out) == (0, "")
    assert "BasicSR EDSR x2, 1 blocks, 4 features" in err
    model, params, _ = load_generator(weights)
    expected = to_uint8(upscale(model, params, pixels))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)


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


@pytest.mark.parametrize("arguments", [("--help",), ("upscale", "--help"), ("frobnicate",)])
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys; from decloss_jax.commands import cli\n"
        f"try: cli.main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print({'jax', 'torch', 'numpy', 'PIL'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"
