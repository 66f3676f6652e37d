"""SRResNet and MSRResNet in tiles, strips and padded images equal the whole image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.inference import upscale
from decloss_jax.inference.tiles import receptive_radius
from decloss_jax.models import MSRResNet, SRResNet

SMALL = [SRResNet(features=4, blocks=2), SRResNet(3, 4, 1), MSRResNet(2, 4, 1), MSRResNet(4, 4, 1)]


def name(model):
    return f"{type(model).__name__}-x{model.scale}"


def make(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("model", SMALL, ids=name)
def test_upscale_equals_the_whole_image(model):
    low = np.random.default_rng(1).random((70, 41, 3), np.float32)
    params = make(model)
    expected = jax.jit(model.apply)({"params": params}, low[None])[0]
    for options in ({"shape": (90, 48)}, {"tile": 40}):
        sr = upscale(model, params, low, **options)
        np.testing.assert_allclose(sr, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("model", SMALL, ids=name)
def test_receptive_radius_is_tight(model):
    params = jax.tree.map(lambda p: 0.1 * (p.ndim > 1) + np.zeros_like(p), make(model))
    radius = receptive_radius(model)
    low = np.zeros((2, 4 * radius, 4, 3), np.float32)
    low[1, 2 * radius] += 1
    one, other = jax.jit(model.apply)({"params": params}, low)
    touched = np.flatnonzero(np.abs(one - other).sum(axis=(1, 2))) / model.scale
    assert radius <= touched.min() < radius + 2
    assert 3 * radius - 1 < touched.max() < 3 * radius + 1
