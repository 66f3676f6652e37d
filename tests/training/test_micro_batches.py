"""Micro-batches change only the memory of a step, not its losses, parameters and collectives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import crops, prepare, small_config, train

from configs import base
from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.training import plan
from decloss_jax.training.micro_batches import in_micro_batches

STEPS = 20


def config_of(micro_batch):
    """All kinds of terms on the smallest networks, with taps of AlexNet that have pixels for small crops."""
    config = small_config()
    config.model.features, config.model.blocks = 4, 1
    config.micro_batch = micro_batch
    config.finetune.weights = base.loss_weights(l1=1.0, perceptual=0.1, decloss=1e-2, ragan=1e-2)
    config.perceptual.network, config.perceptual.taps = "alexnet", ("relu1", "conv2")
    config.discriminator.features = 2
    return config


def test_micro_batches_change_neither_losses_nor_parameters():
    """Two devices with two micro-batches of two each, against one device with all eight at once."""
    expected_state, expected_history = train(config_of(None), 1, STEPS)
    state, history = train(config_of(2), 2, STEPS)
    for here, there in zip(history, expected_history, strict=True):
        for name in ("loss/total", "loss/l1", "loss/perceptual", "loss/decloss", "loss/discriminator"):
            assert here[name] == pytest.approx(there[name], rel=1e-5), name
        assert here["gradient_norm"] == pytest.approx(there["gradient_norm"], rel=1e-4)
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(expected_state.params), strict=True)
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_in_micro_batches_cuts_all_images_alike():
    """A network that sees LR and HR images and gives one value for each pair, as SRFlow does."""
    low, hr = jnp.arange(8.0)[:, None], jnp.arange(8.0)[:, None, None] ** 2
    network = in_micro_batches(
        lambda params, low, hr: params * low[:, 0] + hr[:, 0, 0], 2, parallel.data_mesh(jax.devices()[:2])
    )
    np.testing.assert_array_equal(network(3.0, low, hr), 3 * np.arange(8.0) + np.arange(8.0) ** 2)


def collectives(micro_batch) -> list[str]:
    config = config_of(micro_batch)
    config.finetune.weights = base.loss_weights(l1=1.0, decloss=1e-2)
    step, state, mesh = prepare(config, 4)
    text = jax.jit(step).lower(state, parallel.shard_batch(crops(0), mesh)).compile().as_text()
    bodies = re.findall(r"^%?(\S*body\S*|\S*region\S*) \(.*?\{$(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    loops = set(re.findall(r" body=%?([^\s,)]+)", text))
    assert len(loops) >= (0 if micro_batch is None else 2)
    for name, body in bodies:
        reduces = name in loops and "all-reduce" in body
        assert not reduces, name
    return sorted(re.findall(r" (all-gather|reduce-scatter|all-to-all|collective-permute)\(", text))


def test_micro_batches_need_no_further_collectives():
    assert collectives(1) == collectives(None)


def test_check_values_refuses_micro_batches_that_do_not_divide_the_share_of_a_device():
    config = base.get_config()
    config.micro_batch = 6
    message = r"images of a device .*: expected a multiple of micro_batch \(6\), got 16"
    with pytest.raises(checks.UserError, match=message):
        plan.check_values(config, parallel.data_mesh(jax.devices()[:2]))
