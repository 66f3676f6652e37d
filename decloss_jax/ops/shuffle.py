"""Moves channels to space and back, in torch's channel order, so that ported weights fit."""

import jax.numpy as jnp
from jax import Array

from decloss_jax import checks


def pixel_shuffle(features: Array, factor: int) -> Array:
    """Rearranges channels into space: out[n, y r + i, x r + j, c] = in[n, y, x, (c r + i) r + j].

    Args:
        features: [N,h,w,C r r], channels ordered as in torch's `PixelShuffle` (c, row, column).
        factor: r, the upscaling factor.

    Returns:
        [N,h r,w r,C].
    """
    n, h, w, channels = features.shape
    checks.check_divisible("channels of pixel_shuffle", channels, "factor squared", factor * factor)
    blocks = features.reshape(n, h, w, channels // factor**2, factor, factor)
    return jnp.transpose(blocks, (0, 1, 4, 2, 5, 3)).reshape(n, h * factor, w * factor, -1)


def pixel_unshuffle(images: Array, factor: int) -> Array:
    """Rearranges space into channels, the inverse of `pixel_shuffle`: [N,H,W,C] -> [N,H/r,W/r,C r r]."""
    n, height, width, channels = images.shape
    checks.check_divisible("height of the image", height, "factor", factor)
    checks.check_divisible("width of the image", width, "factor", factor)
    blocks = images.reshape(n, height // factor, factor, width // factor, factor, channels)
    return jnp.transpose(blocks, (0, 1, 3, 5, 2, 4)).reshape(
        n, height // factor, width // factor, channels * factor**2
    )
