"""The pixel loss."""

import jax.numpy as jnp
from jax import Array

from decloss_jax import checks


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
    return jnp.mean(jnp.abs(sr - hr))
