"""Luma, as the super-resolution literature measures it."""

from typing import Any

from decloss_jax import checks

# ITU-R BT.601 with "studio swing", as in MATLAB's rgb2ycbcr: black is 16, white is 235.
Y_WEIGHTS = (65.481, 128.553, 24.966)
Y_OFFSET = 16.0


def rgb_to_y(images: Any) -> Any:
    """Computes the luma of RGB images: Y = 65.481 R + 128.553 G + 24.966 B + 16, not rounded.

    Args:
        images: [...,H,W,3] floats in [0,1], NumPy or JAX.

    Returns:
        [...,H,W] in 16..235, of the same kind and dtype.

    Raises:
        UserError: the last axis is not RGB.
    """
    checks.check(
        images.ndim >= 3 and images.shape[-1] == 3,
        "images",
        expected="shape [...,H,W,3]",
        got=f"shape {list(images.shape)}",
        remedy="keep the three channels last",
    )
    red, green, blue = (images[..., c] * Y_WEIGHTS[c] for c in range(3))
    return red + green + blue + Y_OFFSET
