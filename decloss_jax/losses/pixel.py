"""The pixel loss."""

import jax.numpy as jnp
from jax import Array

from decloss_jax import checks


def absolute(x: Array) -> Array:
    """Computes |x| with gradient 0 at 0, as PyTorch does; `jnp.abs` has gradient 1 there."""
    return jnp.where(x == 0, 0.0, jnp.abs(x))


def l1_loss(sr: Array, hr: Array) -> Array:
    """Averages the absolute difference: mean |sr - hr| (Eq. 24).

    The paper prints a sum; with sums its weights (Sec. 5.1) make no sense, so the mean is taken.

    Args:
        sr: [N,H,W,C] in [0,1].
        hr: the same shape.

    Returns:
        A scalar, in units of the pixel values.
    """
    checks.check_same_shape("sr", sr, "hr", hr)
    return jnp.mean(absolute(sr - hr))
