"""The noise that SRFlow's samples are made from: a function of a key and the place in the picture."""

import jax
import jax.numpy as jnp
from jax import Array

from decloss_jax import checks
from decloss_jax.models.srflow.start import CHANNELS
from decloss_jax.ops.shuffle import pixel_shuffle

BLOCK = 2  # LR pixels, along each side, that share one pixel of z
EPS_CHANNELS = CHANNELS[0] // 2
EPS_FACTOR = 4  # pixels of eps along each side of a block


def latent_shapes(low: Array) -> list[tuple[int, ...]]:
    """Returns the shapes of eps and z for LR images [N,h,w,3]."""
    checks.check_images("low", low, channels=3)
    n, h, w, _ = low.shape
    return [(n, 2 * h, 2 * w, EPS_CHANNELS), (n, h // BLOCK, w // BLOCK, CHANNELS[-1])]


def draw_latents(key: Array, rows: Array, columns: Array, *, heat: float | Array) -> list[Array]:
    """Draws the latents of a part of a picture; a place gets the same noise in every part that contains it.

    Args:
        key: key of the picture.
        rows: [h/2] integers, the rows of 2x2 blocks of LR pixels, counted in the whole picture.
        columns: [w/2] integers.
        heat: tau, the standard deviation (the paper's "temperature").

    Returns:
        [eps [2h,2w,6], z [h/2,w/2,96]]; `SRFlow.decode` takes them with a batch axis in front.
    """
    of_eps = EPS_FACTOR**2 * EPS_CHANNELS

    def draw(row: Array, column: Array) -> Array:
        here = jax.random.fold_in(jax.random.fold_in(key, row), column)
        return heat * jax.random.normal(here, (of_eps + CHANNELS[-1],), jnp.float32)

    noise = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(rows, columns)
    return [pixel_shuffle(noise[None, ..., :of_eps], EPS_FACTOR)[0], noise[..., of_eps:]]
