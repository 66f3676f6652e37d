"""Luma, as the super-resolution literature measures it, and MATLAB's gray."""

from typing import Any

import numpy as np

from decloss_jax import checks

# ITU-R BT.601 with "studio swing", as in MATLAB's rgb2ycbcr: black is 16, white is 235.
Y_WEIGHTS = (65.481, 128.553, 24.966)
Y_OFFSET = 16.0
# The first row of the inverse of NTSC's matrix, as in MATLAB's rgb2gray.
GRAY_WEIGHTS = (0.298936021293775, 0.587043074451121, 0.114020904255103)


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


def rgb_to_gray(image: np.ndarray) -> np.ndarray:
    """Converts uint8 [H,W,3] to gray as MATLAB's rgb2gray: float64 [H,W] of whole numbers in 0..255."""
    return np.floor(image.astype(np.float64) @ np.array(GRAY_WEIGHTS) + 0.5)
