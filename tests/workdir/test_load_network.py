import jax
import numpy as np
import pytest
from test_checkpoint import MODEL, save_steps

from decloss_jax import checks
from decloss_jax.training.state import draw_params
from decloss_jax.weights import describe, save_generator
from decloss_jax.workdir.network import load_network


@pytest.fixture
def workdir(tmp_path):
    """A run with a checkpoint of each stage; its parameters are drawn from the seed plus the step."""
    save_steps(tmp_path / "run", {3: None}, "pretrain")
    save_steps(tmp_path / "run", {7: None}, "finetune")
    return tmp_path / "run"


def test_load_network_reads_a_run_and_a_file_alike(tmp_path, monkeypatch, workdir):
    model, params, description = load_network(workdir, stage="pretrain")
    assert describe(description).startswith("run: pretrain, step 3, params, sha256 ")
    for ours, drawn in zip(jax.tree.leaves(params), jax.tree.leaves(draw_params(MODEL, 0)), strict=True):
        np.testing.assert_array_equal(ours, drawn + 3)
    save_generator(tmp_path / "w.safetensors", model, params)
    monkeypatch.setenv("HOME", str(tmp_path))
    again, same, other = load_network("~/w.safetensors")
    assert again == model
    assert describe(other).startswith("w.safetensors: BasicSR EDSR x4, 1 blocks, 4 features")
    jax.tree.map(np.testing.assert_array_equal, same, params)
    assert load_network("~/run")[2]["step"] == 7


def test_load_network_refuses_options_of_the_other_kind(tmp_path, workdir):
    save_generator(tmp_path / "w.pth", MODEL, jax.tree.map(np.asarray, draw_params(MODEL, 0)))
    with pytest.raises(checks.UserError, match="stage: expected none for the file"):
        load_network(tmp_path / "w.pth", stage="pretrain")
    with pytest.raises(checks.UserError, match="res_scale: expected none for the run"):
        load_network(workdir, res_scale=0.1)
    with pytest.raises(
        checks.UserError, match="a file of weights or the workdir of a run, got nothing there"
    ):
        load_network(tmp_path / "nowhere")
