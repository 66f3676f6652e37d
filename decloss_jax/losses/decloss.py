"""Detail Enhanced Contrastive Loss: enhance detail, cut into mini-patches, contrast (Sec. 4, Figure 3)."""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from decloss_jax import checks
from decloss_jax.losses.contrast import contrast_terms, value_of
from decloss_jax.ops.fourier import enhance_detail
from decloss_jax.ops.patches import extract_patches

# What the mini-patches see of the images. "luma" is the orthogonal projection on grey, sqrt(C) times the mean
# of the channels: grey images have the same loss with both, and the gradient is grey.
COLORS: dict[str, Callable[[Array], Array]] = {
    "rgb": lambda images: images,
    "luma": lambda images: math.sqrt(images.shape[-1]) * jnp.mean(images, axis=-1, keepdims=True),
}


def decloss_terms(
    sr: Array,
    hr: Array,
    *,
    patch_size: int = 8,
    alpha: float = 1.0,
    mu: float | None = None,
    mode: str = "multiply",
    kernel: str = "separable",
    color: str = "rgb",
    threshold_db: float = 25.0,
    t_pos: float = 0.5,
    t_neg: float = 1.5,
    max_value: float = 1.0,
    temperature: str = "exponent",
    tile_size: int | None = None,
    axis_name: str | None = None,
    precision: str = "high",
) -> tuple[Array, dict[str, Array]]:
    """Detail Enhanced Contrastive Loss of a batch, and the shares of anchors and positives.

    The paper prints p = 8, t = (0.5, 1.5) and MAX = 1 (Sec. 5.1); alpha, mu and eta, which it does not print,
    are this project's choice.

    Args:
        sr: [N,H,W,C] super-resolved images in [0, max_value].
        hr: [N,H,W,C] ground truth; no gradient flows into it.
        patch_size: p, pixels; divides H and W.
        alpha: factor of the frequency kernel along each axis (Eq. 15).
        mu: width of the frequency kernel, in frequency bins (Eq. 15). None: a quarter of the shorter side.
        mode: "multiply" (as printed) or "residual" (see `enhance_detail`).
        kernel: "separable" (Eq. 15), "radial" or "radial_notched" (see `enhance_detail`).
        color: "rgb" or "luma" (`COLORS`).
        threshold_db: eta, dB; this and the rest are the options of `contrast_terms`.

    Returns:
        The loss, a dimensionless scalar, and {"anchors": share of anchors that have a negative,
        "positives": mean share of positives per anchor}, both in [0,1].

    Raises:
        UserError: shapes that differ or do not fit the patch size, an unknown name, a value out of its range.
    """
    checks.check_same_shape("sr", sr, "hr", hr)
    checks.check_images("sr", sr)
    mu = min(sr.shape[1:3]) / 4 if mu is None else mu
    see = checks.look_up(COLORS, color, "color")
    enhance = functools.partial(enhance_detail, alpha=alpha, mu=mu, mode=mode, kernel=kernel)
    return contrast_terms(
        extract_patches(enhance(see(sr)), patch_size),
        extract_patches(enhance(see(hr)), patch_size),
        threshold_db=threshold_db,
        t_pos=t_pos,
        t_neg=t_neg,
        max_value=max_value,
        temperature=temperature,
        tile_size=tile_size,
        axis_name=axis_name,
        precision=precision,
    )


decloss = value_of(decloss_terms, "decloss")
