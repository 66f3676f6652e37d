"""Which mini-patches are alike: unit vectors for the cosines, and cuts for the mask (Eq. 18-20)."""

import jax.numpy as jnp
from jax import Array

# A vector shorter than this share of MAX is what rounding leaves of a flat patch (a float32 transform of
# values up to MAX is off by about 1e-7 MAX): its direction is noise, and the gradient of its cosine would be
# 1e6 and more. It counts as the zero vector: cosine 0, gradient 0.
ZERO_NORM = 1e-6


def unit_vectors(vectors: Array, *, max_value: float) -> Array:
    """Divides each vector by its length: x / |x|, and 0 with gradient 0 where |x| < ZERO_NORM MAX.

    Args:
        vectors: [...,D].
        max_value: MAX, the largest pixel value.

    Returns:
        [...,D], of length 1 or 0.
    """
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    is_zero = squares < (ZERO_NORM * max_value) ** 2
    # The inner `where` keeps the gradient of sqrt at 0 away from the branch that is not taken.
    return jnp.where(is_zero, 0.0, vectors / jnp.sqrt(jnp.where(is_zero, 1.0, squares)))


def positive_radius(threshold_db: float, *, max_value: float) -> float:
    """Returns the distance at which -20 log10(distance / MAX) = eta: MAX 10^(-eta/20)."""
    return max_value * 10.0 ** (-threshold_db / 20)


def centred(vectors: Array, count: int, *, max_value: float) -> Array:
    """Shifts all vectors alike, to about mean 0: distances stay, lengths and with them rounding get smaller.

    The mask's last bits hang on the shift, and devices that share the vectors sum them in different orders.
    So the mean is taken in whole steps of MAX / 256: such sums, and products with a step, are exact.

    Args:
        vectors: [...,D]; besides `count` of them only zero vectors.
        count: how many the mean is of, above 0; `count` times a mean value fits 2^23 MAX.
        max_value: MAX, the largest pixel value.

    Returns:
        [...,D], with means within 1.5 steps of 0.
    """
    step = max_value / 256
    steps = jnp.round(vectors / step).astype(jnp.int32)
    return vectors - (jnp.sum(steps, axis=tuple(range(vectors.ndim - 1))) // count) * step


def positive_cuts(detail: Array, radius: float) -> Array:
    """Returns c with: |x_i - x_j| <= radius where x_i . x_j >= c_i + c_j, so that a product decides the mask.

    From |x_i - x_j|^2 = |x_i|^2 + |x_j|^2 - 2 x_i . x_j follows c = |x|^2 / 2 - radius^2 / 4. Where rounding
    could hide it, equal vectors are positive all the same, at any radius: pairs with |x_i - x_j|^2 below
    (D/4 + 2) eps (|x_i|^2 + |x_j|^2) count as equal.

    Args:
        detail: [...,D], centred.
        radius: in the unit of `detail`, 0 or more.

    Returns:
        [...], in squared units of `detail`.
    """
    squares = jnp.sum(jnp.square(detail), axis=-1)
    # Sums drift most when their D terms are equal: each step rounds by eps/2 of what is summed so far, on
    # average half of the whole. 2 eps more are for the terms themselves, which matter where D is small.
    indistinct = (detail.shape[-1] / 4 + 2) * jnp.finfo(detail.dtype).eps * squares
    return squares / 2 - jnp.maximum(radius * radius / 4, indistinct / 2)
