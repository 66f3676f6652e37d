"""The mathematics of LPIPS v0.1 (Zhang et al., CVPR 2018); the features come from outside (`lpips.py`)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from decloss_jax import checks

# LPIPS was calibrated on images in [-1,1], shifted and scaled per channel (the official code).
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
NORM_EPSILON = 1e-10

# From [0,1] to the range before the shift. "unscaled_255" is not a calibrated LPIPS; it only reproduces
# Table 3 of the paper.
SCALINGS = {
    "official": lambda images: 2.0 * images - 1.0,
    "unscaled_255": lambda images: 255.0 * images,
}


def lpips_input(images: Array, scaling: str) -> Array:
    """Converts RGB images [N,H,W,3] in [0,1] to the input of LPIPS's networks.

    Raises:
        UserError: an unknown scaling.
    """
    scaled = checks.look_up(SCALINGS, scaling, "LPIPS scaling")(images)
    return (scaled - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)


def unit_norm(features: Array) -> Array:
    """Divides [N,H,W,C] by (L2 norm over the channels + 1e-10); its gradient is finite everywhere."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # The square root's slope at 0 is infinite, so it must not see a zero even in the branch not taken.
    positive = squares > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
    return features / (norm + NORM_EPSILON)


def lpips_distance(
    sr_features: Sequence[Array],
    hr_features: Sequence[Array],
    linear: Sequence[Any],
    *,
    areas: Sequence[Any] | None = None,
) -> Array:
    """Computes LPIPS from features: sum_t mean_hw sum_c w_tc (sr_t / |sr_t| - hr_t / |hr_t|)^2.

    Args:
        sr_features: [N,H',W',C'] for each tap.
        hr_features: the same of the HR images.
        linear: w, the non-negative weights of the channels, [C'] for each tap.
        areas: for padded images, whose features are 0 outside, the number of feature pixels that belong to
            each image, [N] for each tap; by default H' W'.

    Returns:
        [N]; 0 for equal images, lower is better.
    """
    total = jnp.zeros(sr_features[0].shape[0])
    for tap, (sr, hr, weights) in enumerate(zip(sr_features, hr_features, linear, strict=True)):
        area = sr.shape[1] * sr.shape[2] if areas is None else areas[tap]
        squares = jnp.square(unit_norm(sr) - unit_norm(hr))
        total = total + jnp.sum(squares * jnp.asarray(weights), axis=(1, 2, 3)) / area
    return total
