"""The one rule by which images in [0, 1] become 8 bits. NumPy only."""

import numpy as np

from decloss_jax import checks


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Quantizes images to 8 bits as BasicSR does before saving and measuring: round(255 clip(x, 0, 1)).

    Ties go to the even neighbour (NumPy's rounding), in float32.

    Args:
        images: any shape, [0,1]; values outside are clipped.

    Returns:
        uint8 of the same shape.

    Raises:
        UserError: a value is NaN or infinite, for which no grey level would be honest.
    """
    values = np.asarray(images, np.float32)
    finite = np.isfinite(values)
    checks.check(
        bool(finite.all()),
        "images to quantize",
        expected="finite values",
        got=f"{finite.size - np.count_nonzero(finite)} of {finite.size} values NaN or infinite",
        remedy="check the weights that made them",
    )
    return np.rint(np.clip(values, 0.0, 1.0) * np.float32(255.0)).astype(np.uint8)
