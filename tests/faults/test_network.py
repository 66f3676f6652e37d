"""Nothing reaches out of this machine unless it is asked to: commands, watched from inside their own Python.

The watcher, no_network/sitecustomize.py, sees what goes through Python's `socket`, not what compiled code
does by itself.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from command_line import REPOSITORY, assert_one_sentence, run
from PIL import Image
from small_run import SmallRun

from decloss_jax.models import EDSR
from decloss_jax.weights import save_generator

WATCHER = Path(__file__).parent / "no_network"


class Network:
    """What commands want of the network, which is denied."""

    def __init__(self, folder: Path):
        self.log, self.cache = folder / "network.log", folder / "cache"
        paths = [str(WATCHER), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "NETWORK_LOG": str(self.log),
            "XDG_CACHE_HOME": str(self.cache),
            "DECLOSS_VGG19": "",
        }

    def run(self, script, *arguments):
        return run(script, *arguments, env=self.environment)

    def attempts(self) -> list[str]:
        """Returns what was tried; the watcher has to have been there."""
        first, *others = self.log.read_text().splitlines()
        assert first == "watching"
        return [line for line in others if line != "watching"]


@pytest.fixture
def network(tmp_path) -> Network:
    return Network(tmp_path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of two small images."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def weights(tmp_path) -> Path:
    """A file of a small network of random weights."""
    import jax
    import jax.numpy as jnp

    model = EDSR(scale=2, features=2, blocks=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
    save_generator(tmp_path / "weights.safetensors", model, params)
    return tmp_path / "weights.safetensors"


def import_everything(folder: Path) -> Path:
    """Writes a script that imports every module of the package, and what the modules import when called."""
    script = folder / "import_everything.py"
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((REPOSITORY / "decloss_jax").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    lazy = (
        "grain",
        "matplotlib.pyplot",
        "orbax.checkpoint",
        "pooch",
        "skimage",
        "sklearn.manifold",
        "tifffile",
    )
    script.write_text("".join(f"import {name}\n" for name in [*modules, *lazy]))
    return script


def test_nothing_is_looked_up_when_modules_are_imported(network, tmp_path):
    result = network.run(str(import_everything(tmp_path)))
    assert result.returncode == 0, result.stderr
    assert network.attempts() == []


def test_training_needs_no_network(network, tmp_path):
    small = SmallRun(tmp_path / "run", pretrain=2, finetune=0, log=1, checkpoint=2, evaluate=2)
    result = network.run("train.py", *small.arguments("--config.pretrain.warmup_steps=1"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "checkpoints" / "pretrain" / "2").is_dir()
    assert network.attempts() == []


def test_commands_need_no_network(network, tmp_path, pictures, weights):
    commands = (
        (
            "evaluate.py",
            "--method",
            "bicubic",
            "--data",
            pictures,
            "--metrics",
            "psnr",
            "--out",
            tmp_path / "e",
        ),
        ("decloss_jax", "report", tmp_path / "e", "--out", tmp_path / "report.html"),
        ("decloss_jax", "upscale", pictures / "a.png", tmp_path / "large.png", "--weights", weights),
        ("decloss_jax", "convert", weights, tmp_path / "weights.pth"),
        ("decloss_jax", "check-data", pictures),
    )
    for words in commands:
        result = network.run(*words)
        assert result.returncode == 0, (words, result.stderr)
    for written in ("e/summary.json", "report.html", "large.png", "weights.pth"):
        assert (tmp_path / written).is_file()
    assert network.attempts() == []


def test_what_has_to_be_fetched_is_named_before_anything_is_written(network, tmp_path):
    """The one download there is; and the watcher does see, and deny, what goes through `socket`."""
    small = SmallRun(tmp_path / "run")
    result = network.run(
        "train.py",
        *small.arguments("--config.finetune.weights.perceptual=1.0", "--config.perceptual.network=vgg19"),
    )
    devices, announcement, sentence = result.stderr.splitlines()
    assert devices == "training on 1 x cpu"
    assert (
        "fetching VGG-19 (548 MB) from https://download.pytorch.org/models/vgg19-dcbb9e9d.pth to"
        in announcement
    )
    result.stderr = sentence
    assert_one_sentence(
        result,
        "expected an answer from https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "(548 MB) on a machine with a network and name the copy in perceptual.weights_file",
        "or choose perceptual.network=vgg16",
    )
    assert not [path for path in network.cache.rglob("*") if path.is_file()]
    assert not (tmp_path / "run").exists()
    assert set(network.attempts()) == {"socket.getaddrinfo download.pytorch.org"}
