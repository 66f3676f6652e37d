"""A loss against lattices: patterns that repeat with the period of the upsampling. It is not the paper's."""

import jax
import jax.numpy as jnp
from jax import Array

from decloss_jax import checks

SAMPLES = 6  # pixels of each phase along a side of a window


def phase_loss(sr: Array, hr: Array, *, period: int) -> Array:
    """Measures by how much the sub-pixel phases of the upsampling err differently.

    A network that upsamples by s computes the s x s phases (i mod s, j mod s) of its pixels by different
    weights. Where these disagree, SR has a lattice of period s. The error SR - HR is averaged over the pixels
    of each phase in windows of 6 s pixels; the loss is the mean absolute difference of these averages from
    the window's own. Detail averages out, and a lattice does not.

    Args:
        sr: [N,H,W,C] in [0,1]; H and W are at least 6 s; pixels beyond the last whole window do not count.
        hr: the same shape; no gradient flows into it.
        period: s, pixels.

    Returns:
        A scalar in the unit of `sr`.

    Raises:
        UserError: shapes that differ, or images smaller than a window.
    """
    checks.check_same_shape("sr", sr, "hr", hr)
    window = SAMPLES * period
    n, height, width, channels = sr.shape
    rows, columns = height // window, width // window
    checks.check(
        rows > 0 and columns > 0,
        "images for the term phase",
        expected=f"height and width of at least {window} pixels",
        got=f"{height} x {width}",
        remedy="use larger crops",
    )
    error = (sr - jax.lax.stop_gradient(hr))[:, : rows * window, : columns * window]
    pixels = error.reshape(n, rows, SAMPLES, period, columns, SAMPLES, period, channels)
    phases = pixels.mean(axis=(2, 5), keepdims=True)
    return jnp.mean(jnp.abs(phases - phases.mean(axis=(3, 6), keepdims=True)))
