"""The invertible layers of SRFlow as pure functions.

A layer is a pair: `NAME(params, x, ...)` returns y and log|det dy/dx|, [N] or a scalar that is the same for
all images, and `invert_NAME(params, y, ...)` returns x. Images are [N,H,W,C], parameters dictionaries of
arrays. `condition` holds the features of the LR image at the size of x, [N,H,W,D].
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Params = Mapping[str, Any]

# Not in the paper but in the authors' published configuration: scale = sigmoid(s + 2) + 1e-4.
SCALE_SHIFT = 2.0
LEAST_SCALE = 1e-4
ZERO_CONV_RATE = 3.0  # a zero convolution's output is multiplied by exp(3 logs) (Glow's code)


def convolve(kernel: Array, x: Array) -> Array:
    """Convolves with stride 1 and zero padding that keeps the size."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def scaled_convolution(params: Params, x: Array, *, rate: float = 1.0) -> Array:
    """Convolves, adds the bias, and multiplies by exp(rate logs), each of them per channel."""
    return (convolve(params["kernel"], x) + params["bias"]) * jnp.exp(rate * params["logs"])


def shift_and_scale(params: Params, x: Array) -> tuple[Array, Array]:
    """Predicts shift and scale, [N,H,W,outputs/2] each, with three convolutions.

    The shift has the even output channels and the scale the odd ones.
    """
    hidden = jax.nn.relu(scaled_convolution(params["conv1"], x))
    hidden = jax.nn.relu(scaled_convolution(params["conv2"], hidden))
    y = scaled_convolution(params["conv3"], hidden, rate=ZERO_CONV_RATE)
    return y[..., 0::2], jax.nn.sigmoid(y[..., 1::2] + SCALE_SHIFT) + LEAST_SCALE


def actnorm(params: Params, x: Array) -> tuple[Array, Array]:
    """Adds a bias and multiplies by exp(logs), per channel (Glow, Sec. 3.1)."""
    return (x + params["bias"]) * jnp.exp(params["logs"]), pixels(x) * jnp.sum(params["logs"])


def invert_actnorm(params: Params, y: Array) -> Array:
    """Inverts `actnorm`."""
    return y * jnp.exp(-params["logs"]) - params["bias"]


def mixing(params: Params, x: Array) -> tuple[Array, Array]:
    """Multiplies the channels of each pixel by one full matrix, Glow's invertible 1x1 convolution."""
    matrix = params["matrix"]
    return mix(matrix, x), pixels(x) * jnp.linalg.slogdet(matrix)[1]


def invert_mixing(params: Params, y: Array) -> Array:
    """Inverts `mixing`; one step of Newton's iteration corrects the last digits of the inverse."""
    matrix = params["matrix"]
    inverse = jnp.linalg.inv(matrix)
    error = jnp.eye(matrix.shape[0], dtype=matrix.dtype) - jnp.matmul(
        matrix, inverse, precision=lax.Precision.HIGHEST
    )
    inverse = inverse + jnp.matmul(inverse, error, precision=lax.Precision.HIGHEST)
    return mix(inverse, y)


def mix(matrix: Array, x: Array) -> Array:
    """Returns matrix x at every pixel, in full float32: in TF32 the inverse would not undo it."""
    return jnp.einsum("ij,nhwj->nhwi", matrix, x, precision=lax.Precision.HIGHEST)


def injector(params: Params, x: Array, condition: Array) -> tuple[Array, Array]:
    """Shifts and scales all channels as the condition alone predicts ("Affine Injector")."""
    shift, scale = shift_and_scale(params, condition)
    return (x + shift) * scale, sum_log(scale)


def invert_injector(params: Params, y: Array, condition: Array) -> Array:
    """Inverts `injector`."""
    shift, scale = shift_and_scale(params, condition)
    return y / scale - shift


def coupling(params: Params, x: Array, condition: Array) -> tuple[Array, Array]:
    """Shifts and scales the second half of the channels as the first half and the condition predict.

    This is the paper's "Conditional Affine Coupling". If the number of channels is odd, the first half is the
    smaller one.
    """
    kept, changed = jnp.split(x, [x.shape[-1] // 2], axis=-1)
    shift, scale = shift_and_scale(params, jnp.concatenate([kept, condition], axis=-1))
    return jnp.concatenate([kept, (changed + shift) * scale], axis=-1), sum_log(scale)


def invert_coupling(params: Params, y: Array, condition: Array) -> Array:
    """Inverts `coupling`."""
    kept, changed = jnp.split(y, [y.shape[-1] // 2], axis=-1)
    shift, scale = shift_and_scale(params, jnp.concatenate([kept, condition], axis=-1))
    return jnp.concatenate([kept, changed / scale - shift], axis=-1)


def split(params: Params, x: Array) -> tuple[Array, Array, Array]:
    """Takes the second half of the channels out of the flow, normalised as the first half predicts.

    Returns:
        The first half; eps = (second half - mean) / exp(logs), a latent; and log|det| = -sum logs, [N].
    """
    kept, taken = jnp.split(x, 2, axis=-1)
    mean, logs = prior(params, kept)
    return kept, (taken - mean) * jnp.exp(-logs), -jnp.sum(logs, axis=(1, 2, 3))


def invert_split(params: Params, kept: Array, eps: Array) -> Array:
    """Inverts `split`: computes the second half from eps and appends it."""
    mean, logs = prior(params, kept)
    return jnp.concatenate([kept, mean + jnp.exp(logs) * eps], axis=-1)


def prior(params: Params, kept: Array) -> tuple[Array, Array]:
    """Predicts mean (even output channels) and log standard deviation (odd ones) of the other half."""
    y = scaled_convolution(params, kept, rate=ZERO_CONV_RATE)
    return y[..., 0::2], y[..., 1::2]


def sum_log(scale: Array) -> Array:
    """Returns log|det| of a multiplication by a positive scale, [N]."""
    return jnp.sum(jnp.log(scale), axis=(1, 2, 3))


def pixels(x: Array) -> int:
    """Returns H W of [N,H,W,C]."""
    return x.shape[1] * x.shape[2]
