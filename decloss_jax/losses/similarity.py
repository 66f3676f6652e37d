"""Similarity of mini-patches: unit vectors for the cosines (Eq. 18, 19) and the exact mask (Eq. 20)."""

import jax.numpy as jnp
from jax import Array

# A vector shorter than this share of MAX is the rounding error of a flat patch (a float32 transform of values
# up to MAX is off by about 1e-7 MAX). Its direction is noise, and the gradient of its cosine would be 1e6 and
# more. It counts as the zero vector: cosine 0, gradient 0.
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


def mask_vectors(vectors: Array, *, threshold_db: float, max_value: float) -> tuple[Array, Array]:
    """Returns x and c with which one product decides Eq. 20: M_ij >= eta where x_i . x_j >= c_i + c_j.

    M_ij = -20 log10(|v_i - v_j| / MAX) >= eta means |v_i - v_j| <= r = MAX 10^(-eta/20). The vectors x are v,
    shifted, so their distances are those of v. Since |x_i - x_j|^2 = |x_i|^2 + |x_j|^2 - 2 x_i . x_j, the cut
    is c = |x|^2 / 2 - r^2 / 4. Equal vectors are positive at any eta, even where rounding could hide it:
    pairs with |x_i - x_j|^2 below (D/4 + 2) eps (|x_i|^2 + |x_j|^2) count as equal.

    Args:
        vectors: [P,D] vectors v.
        threshold_db: eta, dB.
        max_value: MAX, the largest pixel value.

    Returns:
        x [P,D] in the unit of `vectors`, and c [P] in squared units.
    """
    radius = max_value * 10.0 ** (-threshold_db / 20)
    centred = _centre(vectors, max_value)
    squares = jnp.sum(jnp.square(centred), axis=-1)
    # Sums drift most when their D terms are equal: each step rounds by eps/2 of the partial sum, on average
    # half of the whole. Another 2 eps cover the terms themselves, which matter where D is small.
    indistinct = (vectors.shape[-1] / 4 + 2) * jnp.finfo(vectors.dtype).eps * squares
    return centred, squares / 2 - jnp.maximum(radius * radius / 4, indistinct / 2)


def _centre(vectors: Array, max_value: float) -> Array:
    """Shifts all [P,D] vectors equally, to means within 1.5/256 MAX of 0: shorter vectors round less.

    The mask's last bits depend on the shift, so it must be the same on any number of devices, which sum in
    different orders. The mean is therefore taken in whole steps of MAX / 256: such sums, and products with a
    step, are exact while P times a mean value fits 2^23 MAX.
    """
    step = max_value / 256
    steps = jnp.round(vectors / step).astype(jnp.int32)
    return vectors - (jnp.sum(steps, axis=0) // len(vectors)) * step
