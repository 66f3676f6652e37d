"""`reproduce --weights`: published networks in place of training."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import evaluate
from decloss_jax.commands import program
from decloss_jax.models import EDSR, RRDBNet, SRFlow, SRResNet
from decloss_jax.weights import save_generator

NETWORKS = {
    "SRFlow": SRFlow(
        features=4, blocks=1, growth=2, stacked_blocks=(0,), flow_steps=1, transitions=1, hidden=4
    ),
    "RankSRGAN": SRResNet(features=4, blocks=1),
    "ESRGAN": RRDBNet(features=4, blocks=1, growth=2),
}


def random_params(model):
    """Random parameters; SRFlow's square matrices can be inverted."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32))["params"]
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = 0.1 * rng.standard_normal(leaf.shape).astype(np.float32)
        return np.linalg.qr(values)[0] if path[-1].key == "matrix" else values

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Untrained networks of the rows of Table 3, and one of another scale."""
    folder = tmp_path_factory.mktemp("published")
    networks = NETWORKS | {"x2": EDSR(scale=2, features=4, blocks=1)}
    for name, model in networks.items():
        save_generator(folder / f"{name}.pth", model, random_params(model))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A test set of two small pictures."""
    folder = tmp_path_factory.mktemp("pictures") / "Set"
    (folder / "HR").mkdir(parents=True)
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)):
        Image.fromarray(picture).save(folder / "HR" / f"{number}.png")
    return folder


def test_rows_of_table_3_are_what_evaluate_measures(files, pictures, reproduce_here, tmp_path):
    weights = [f"{name}={files / name}.pth" for name in NETWORKS]
    arguments = ("--only", "Bicubic", *NETWORKS, "--weights", *weights, "--test", str(pictures))
    status, said = reproduce_here(tmp_path, "table3", *arguments)
    assert status == 0, said
    rows = {row["row"]: row for row in json.loads((tmp_path / "out" / "table3.json").read_text())["rows"]}
    assert list(rows) == ["Bicubic", *NETWORKS]
    words = [word for name in NETWORKS for word in ("--weights", str(files / f"{name}.pth"))]
    words += ["--data", str(pictures), "--conventions", "paper", "--out", str(tmp_path / "evaluated")]
    assert program.run("evaluate.py", evaluate.parse, words) == 0
    for name in NETWORKS:
        summary = json.loads((tmp_path / "evaluated" / name / "summary.json").read_text())
        assert rows[name]["datasets"] == summary["datasets"]
        assert rows[name]["weights"]["file"] == f"{name}.pth"
    assert [rows["SRFlow"]["weights"][key] for key in ("heat", "seed")] == [0.9, 0]
    text = (tmp_path / "out" / "table3.md").read_text()
    assert "SRFlow was measured from weights, not trained: file SRFlow.pth, sha256 " in text
    assert ", heat 0.9, seed 0\n" in text
    assert (tmp_path / "out" / "figure7-Set.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "SRFlw=SRFlow.pth"], ["row", "'SRFlw'", "nearest: SRFlow"]),
        (["--weights", "SRFlow=SRFlow.pth", "3=ESRGAN.pth"], ["--weights", "SRFlow twice"]),
        (["--weights", "SRFlow.pth"], ["--weights", "ROW=FILE", "SRFlow.pth"]),
        (["--weights", "ESRGAN=nowhere.pth"], ["nowhere.pth", "nothing there"]),
        (["--weights", "ESRGAN=x2.pth"], ["--weights of ESRGAN", "scale 4", "got 2"]),
        (["--only", "Bicubic", "--weights", "ESRGAN=ESRGAN.pth"], ["--weights of ESRGAN", "--only"]),
    ],
)
def test_weights_of_a_row_are_refused_with_one_sentence(
    files, reproduce_here, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(files)
    status, said = reproduce_here(tmp_path, "table3", *arguments)
    *before, sentence = said.splitlines()  # the devices and the networks
    assert status == 2
    assert all(" x " in line or "parameters" in line for line in before), before
    assert sentence.startswith("decloss_jax reproduce: ")
    for word in words:
        assert word in sentence, sentence
    assert not (tmp_path / "out").exists()
