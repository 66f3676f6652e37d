"""The perceptual loss (Eq. 25): a distance between features of a pretrained network.

The features are computed outside (`models/features.py`), so those of HR are computed once per step, and this
file holds no network.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from decloss_jax import checks
from decloss_jax.losses.pixel import absolute

CRITERIA = {"l1": absolute, "l2": jnp.square}


def perceptual_loss(
    sr_features: Mapping[str, Array],
    hr_features: Mapping[str, Array],
    *,
    weights: Mapping[str, float],
    criterion: str = "l1",
) -> Array:
    """Computes L_p = sum_t w_t mean |phi_t(sr) - phi_t(hr)|, or the mean of the squares (Eq. 25).

    Args:
        sr_features: {tap: [N,H',W',C']}, phi of the super-resolved images.
        hr_features: the same of the HR images; constants, no gradient flows into them.
        weights: w, the factor of each tap.
        criterion: "l1" (ESRGAN's, which the paper's weight follows) or "l2" (as printed).

    Returns:
        A scalar.

    Raises:
        UserError: an unknown criterion, no tap, or a tap whose features are missing or differ in shape.
    """
    distance = checks.look_up(CRITERIA, criterion, "perceptual.criterion")
    checks.check(bool(weights), "perceptual.taps", expected="at least one tap", got="none", remedy="name one")
    total = jnp.zeros(())
    for tap, weight in weights.items():
        sr = checks.look_up(sr_features, tap, "tap of the SR features")
        hr = checks.look_up(hr_features, tap, "tap of the HR features")
        checks.check_same_shape(f"sr_features[{tap}]", sr, f"hr_features[{tap}]", hr)
        total = total + weight * jnp.mean(distance(sr - jax.lax.stop_gradient(hr)))
    return total
