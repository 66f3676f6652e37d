"""The moving average of the generator: its value, and its use in evaluation and in later stages."""

import jax
import numpy as np
import pytest
from small_training import crops, prepare, small_config

from configs import base
from decloss_jax.host import parallel
from decloss_jax.models import build_model
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.state import abstract_state
from decloss_jax.workdir.checkpoint import StageCheckpoints, load_checkpoint


@pytest.fixture(scope="module")
def trained():
    """A state after four updates with a moving average, and the parameters before and after each."""
    config = small_config()
    config.model.features, config.model.blocks = 4, 1
    config.ema_decay = 0.75
    config.finetune.weights = base.loss_weights(l1=1.0)
    step, state, mesh = prepare(config, 2)
    path = [jax.device_get(state.params)]
    for index in range(4):
        state, _ = step(state, parallel.shard_batch(crops(index), mesh))
        path.append(jax.device_get(state.params))
    return config, state, path, mesh


def test_make_train_step_averages_the_parameters(trained):
    _, state, path, _ = trained
    expected = path[0]
    for params in path[1:]:
        expected = jax.tree.map(lambda e, p: 0.75 * np.float64(e) + 0.25 * np.float64(p), expected, params)
    for ours, other, last in zip(*map(jax.tree.leaves, (state.ema, expected, path[-1])), strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-7)
        assert np.abs(ours - last).max() > 1e-5
    assert state.trained is state.ema


def test_checkpoints_keep_the_average_and_hand_it_out(trained, tmp_path):
    config, state, _, mesh = trained
    with StageCheckpoints(tmp_path, "pretrain", config=config.to_dict()) as saved:
        saved.save(9, state, None)
        abstract = abstract_state(build_model(config.model), build_optimizer(config), averaged=True)
        restored = saved.restore(9, abstract, parallel.replicated(mesh))
    for ours, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(ours, expected)
    _, params, description = load_checkpoint(tmp_path)
    assert description["params"] == "ema"
    for ours, expected in zip(jax.tree.leaves(params), jax.tree.leaves(state.ema), strict=True):
        np.testing.assert_array_equal(ours, expected)
