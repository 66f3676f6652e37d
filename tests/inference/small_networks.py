"""Small networks with random parameters, and their plain application."""

import jax
import jax.numpy as jnp
import numpy as np

from decloss_jax.models import EDSR


def make(model, seed=0, size=(9, 8)):
    """Random parameters, with biases that reveal a mistake at the border."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]
    return jax.tree.map(
        lambda p: rng.normal(0, 0.7 / np.sqrt(p.size / p.shape[-1]), p.shape).astype(p.dtype), shapes
    )


def image(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def whole(model, params, low):
    return np.asarray(jax.jit(model.apply)({"params": params}, low[None]))[0]


EDSR_SMALL = EDSR(scale=4, features=8, blocks=2)
EDSR_PARAMS = make(EDSR_SMALL)
