"""Converts images in [0, 1] to integers and back, by one rule."""

from typing import Any

import numpy as np

from decloss_jax import checks


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Quantizes images in [0,1] to 8 bits as BasicSR does before saving and measuring (`quantize`)."""
    return quantize(images, np.uint8)


def quantize(images: np.ndarray, dtype: Any) -> np.ndarray:
    """Quantizes images: round(m clip(x, 0, 1)) with m = 255 for uint8 and 65535 for uint16.

    Ties go to the even neighbour (NumPy's rounding), in float32.

    Args:
        images: any shape, [0,1]; values outside are clipped.
        dtype: uint8 or uint16.

    Returns:
        The same shape, of `dtype`.

    Raises:
        UserError: a value is NaN or infinite.
    """
    values = np.asarray(images, np.float32)
    check_finite(bool(np.isfinite(values).all()))
    return round_to_levels(values, dtype)


def round_to_levels(images: Any, dtype: Any) -> Any:
    """Quantizes finite images in float32, NumPy or JAX (`quantize`)."""
    return (images.clip(0.0, 1.0) * np.float32(np.iinfo(dtype).max)).round().astype(dtype)


def check_finite(finite: bool) -> None:
    """Raises `UserError` unless `finite`: NaN and infinity have no grey level."""
    checks.check(
        finite,
        "images to quantize",
        expected="finite values",
        got="NaN or infinite ones",
        remedy="check the weights that made them",
    )


def dequantize(images: Any) -> Any:
    """Converts uint8 and uint16 images, NumPy or JAX, to float32 in [0,1]; other dtypes only to float32."""
    values = images.astype(np.float32)
    return values / np.float32(np.iinfo(images.dtype).max) if images.dtype.kind == "u" else values
