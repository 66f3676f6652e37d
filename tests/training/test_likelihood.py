"""Training of SRFlow: the gradient of its step, its start, its command, and what is refused."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command_line import CACHE, run
from srflow_params import random_params

from configs import base
from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.models import EDSR, SRFlow
from decloss_jax.models.srflow import fit_actnorms
from decloss_jax.training.outputs import OUTPUTS, choose_output
from decloss_jax.training.stages import build_stage
from decloss_jax.workdir import checkpoint, journal

SIZES = {"features": 4, "blocks": 1, "growth": 2, "stacked_blocks": (0,), "flow_steps": 1, "hidden": 4}
TINY = SRFlow(**SIZES)


def small_config():
    config = base.get_config()
    config.batch_size = 4
    config.data.crop_size = 16
    config.model.update(SIZES | {"name": "srflow", "dtype": None})
    config.finetune.learning_rate, config.finetune.schedule = 1.0, "constant"
    config.finetune.weights = base.loss_weights(likelihood=1.0)
    return config


def crops(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 256, (4, side, side, 3)).astype(np.uint8)
        for name, side in (("low", 4), ("hr", 16))
    }


def floats(seed: int) -> list[np.ndarray]:
    return [images.astype(np.float32) / 255 for images in crops(seed).values()]


def test_a_step_of_the_likelihood_follows_the_gradient_of_the_mean_bits():
    """On two devices, with plain descent at the rate 1, the parameters change by the gradient."""
    mesh = parallel.data_mesh(jax.devices()[:2])
    stage = build_stage(small_config(), "finetune", TINY, optax.identity(), mesh, first_step=0)
    params = random_params(TINY)
    params["flow"]["level1"]["transitions"]["actnorm"]["bias"][...] = 0  # as in a flow not yet fitted
    placed = jax.device_put(params, parallel.replicated(mesh))
    state = stage.start(placed, parallel.shard_batch(crops(0), mesh))
    before = jax.device_get(state.params)
    fitted = jax.jit(functools.partial(fit_actnorms, stacked_blocks=(0,)))(params, *floats(0))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), before, fitted)
    again = stage.start(state.params, parallel.shard_batch(crops(1), mesh))  # fitted once and for all
    jax.tree.map(np.testing.assert_array_equal, again.params, before)

    @jax.jit
    @jax.value_and_grad
    def mean_bits(params, low, hr):
        return jnp.mean(TINY.apply({"params": params}, low, hr, method="encode")[1])

    bits, gradient = mean_bits(before, *floats(1))
    state, metrics = stage.train_step(state, parallel.shard_batch(crops(1), mesh))
    assert float(metrics["loss/likelihood"]) == pytest.approx(float(bits), rel=1e-5)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    moved = jax.tree.map(np.subtract, before, jax.device_get(state.params))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5)
    jax.tree.map(close, moved, gradient)


def test_choose_output_is_the_encoder_for_terms_on_images():
    assert choose_output(TINY, {"l1": 1.0}, stage="pretrain") is OUTPUTS["regress"]
    assert choose_output(EDSR(), {"l1": 1.0}, stage="pretrain") is OUTPUTS["sr"]
    assert choose_output(TINY, {"likelihood": 1.0}, stage="finetune") is OUTPUTS["bits"]


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (EDSR(), {"likelihood": 1.0}, r"finetune.weights.likelihood: expected 0 .* got 1.0 for EDSR"),
        (
            TINY,
            {"likelihood": 1.0, "l1": 0.5},
            r"finetune.weights: expected no other term .* got l1; set .*l1=0",
        ),
    ],
)
def test_choose_output_refuses(model, weights, message):
    with pytest.raises(checks.UserError, match=message):
        choose_output(model, weights, stage="finetune")


ARGUMENTS = (
    "--config=configs/table3/srflow.py",
    *(f"--config.model.{name}={value}" for name, value in SIZES.items()),
    "--config.data.source=photographs",
    f"--config.data.cache_dir={CACHE / 'photographs'}",
    "--config.data.crop_size=16",
    "--config.batch_size=2",
    "--config.pretrain.steps=4",
    "--config.pretrain.restarts=0",
    "--config.finetune.steps=4",
    "--config.finetune.milestones=(2,)",
    "--config.log_every_steps=1",
    "--config.checkpoint_every_steps=2",
    "--config.eval_every_steps=4",
    "--config.validation_images=1",
    "--config.sample_images=1",
)


def test_train_trains_srflow_and_resumes_it_bit_for_bit(tmp_path):
    whole, other = tmp_path / "whole", tmp_path / "other"
    result = run("train.py", *ARGUMENTS, f"--workdir={whole}")
    assert result.returncode == 0, result.stderr
    records = journal.read(whole)[1]
    assert [record["stage"] for record in records] == ["pretrain"] * 4 + ["finetune"] * 4
    assert {"loss/l1", "validation/psnr_y"} <= records[3].keys()
    assert {"loss/likelihood", "validation/psnr_y"} <= records[7].keys()
    assert [record["learning_rate"] for record in records[4:]] == pytest.approx([2.5e-4] * 2 + [1.25e-4] * 2)

    model, params, _ = checkpoint.load_checkpoint(whole)
    assert model == TINY
    # As after kill -9 before the first checkpoint of stage 2: its start is repeated.
    shutil.copytree(whole, other)
    shutil.rmtree(other / "checkpoints" / "finetune")
    result = run("train.py", *ARGUMENTS, f"--workdir={other}")
    assert result.returncode == 0, result.stderr
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load_checkpoint(other)[1], params)
    losses, expected = ([each["loss/total"] for each in journal.read(folder)[1]] for folder in (other, whole))
    assert losses == expected
