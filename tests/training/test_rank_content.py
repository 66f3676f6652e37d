"""The term of a frozen Ranker: its value on any number of devices, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import crops, small_config

from configs import base
from decloss_jax.checks import UserError
from decloss_jax.host import parallel
from decloss_jax.models import Ranker
from decloss_jax.training.adversary import build_adversary
from decloss_jax.training.terms import build_terms
from decloss_jax.weights import save_ranker


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    """A small Ranker with random variables: its file, the network, the variables."""
    model, random = Ranker(features=4), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

    def draw(path, leaf):
        values = random.normal(0, 0.3, leaf.shape).astype(np.float32)
        return np.exp(values) if path[-1].key == "var" else values

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    path = tmp_path_factory.mktemp("ranker") / "ranker.safetensors"
    save_ranker(path, model, variables)
    return path, model, variables


def ranked_config(ranker, **weights):
    config = small_config()
    config.ranker.weights_file = str(ranker[0])
    config.finetune.weights = base.loss_weights(rank_content=3e-2, **weights)
    return config


def value_of(config):
    term = build_terms(config, "finetune", parallel.data_mesh(jax.devices()[:1]))["rank_content"]
    images = crops(0)["hr"].astype(np.float32) / 255
    return float(term.value(term.frozen, images, images)[0]), images


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_rank_content_term_sums_the_rankers_sigmoids(ranker, statistics):
    _, model, variables = ranker
    config = ranked_config(ranker)
    config.ranker.statistics, config.ranker.bias = statistics, 0.25
    value, images = value_of(config)
    scores, _ = model.apply(variables, images, train=statistics == "batch", mutable=["batch_stats"])
    expected = np.sum(1 / (1 + np.exp(0.25 - np.asarray(scores, np.float64))))
    assert value == pytest.approx(expected, rel=1e-5)


def test_rank_content_is_the_same_on_more_devices(ranker):
    config = ranked_config(ranker)
    config.ranker.statistics = "batch"  # of the global batch
    images = {"hr": crops(0)["hr"].astype(np.float32) / 255}
    results = []
    for devices in (1, 2):
        mesh = parallel.data_mesh(jax.devices()[:devices])
        term = build_terms(config, "finetune", mesh)["rank_content"]
        sr = parallel.shard_batch(images, mesh)["hr"]
        results.append(jax.jit(jax.value_and_grad(lambda sr, t=term: t.value(t.frozen, sr, sr)[0]))(sr))
    (one, gradient), (two, other_gradient) = results
    assert float(one) == pytest.approx(float(two), rel=1e-6)
    largest = float(np.abs(gradient).max())
    assert largest > 0
    np.testing.assert_allclose(other_gradient, gradient, rtol=0, atol=1e-3 * largest)


def test_rank_content_asks_for_the_file_of_a_ranker(ranker, tmp_path):
    config = ranked_config(ranker)
    config.ranker.statistics = "device"
    with pytest.raises(UserError, match=r"ranker.statistics: expected one of running, batch, got 'device'"):
        value_of(config)
    config = ranked_config(ranker)
    config.ranker.weights_file = ""
    with pytest.raises(UserError, match=r"ranker.weights_file: expected the file of the Ranker .* got none"):
        value_of(config)


def test_discriminator_takes_the_stages_it_is_told(ranker):
    config = ranked_config(ranker, gan=1.0)
    config.data.crop_size, config.discriminator.stages = 74, 3
    mesh = parallel.data_mesh(jax.devices()[:1])
    adversary = build_adversary(config, "finetune", mesh)
    images = jnp.zeros((2, 74, 74, 3))
    variables = jax.eval_shape(adversary.model.init, jax.random.key(0), images)
    assert variables["params"]["linear1"]["kernel"].shape == (9 * 9 * 4 * 64, 100)
    config.discriminator.stages = 7
    with pytest.raises(UserError, match=r"discriminator.stages: expected 1 to 6, got 7"):
        build_adversary(config, "finetune", mesh)
