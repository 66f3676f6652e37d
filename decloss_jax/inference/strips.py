"""Compiles a generator into one program that makes the SR image in strips of rows.

All features are extracted at once, at the size of the LR image. The later activations are s^2 times as large;
those of one strip stay in the processor's cache.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from decloss_jax.inference.tiles import STRIP_RADIUS, cut, geometry
from decloss_jax.ops.padding import valid_mask
from decloss_jax.ops.quantize import round_to_levels

STRIP_AREA = 16384  # feature pixels of a strip; the x4 activations of EDSR-baseline then take 128 MiB
SMALLEST_STRIP = 16  # rows


@functools.partial(jax.jit, static_argnames=("model", "dtype"))
def apply_in_strips(
    model: Any, params: Any, low: Array, valid: Array, *, dtype: np.dtype
) -> tuple[Array, Array]:
    """Applies a generator to padded images; the padding does not affect the result.

    Args:
        model: the generator.
        params: its parameters.
        low: [N,h,w,3] in [0,1].
        valid: [N,2], height and width of the images without padding.
        dtype: float32, not clipped; or uint8 or uint16, clipped and rounded.

    Returns:
        [N,s h,s w,3] of `dtype`, correct within s times the valid size; and [N], whether that part is finite.
    """
    features = apply_inside(model, params, low, valid, method="extract")
    divisor, height = geometry(model).divisor, features.shape[1]
    grown = divisor * model.scale
    rows = min(height, max(SMALLEST_STRIP, STRIP_AREA // features.shape[2]))

    def reconstruct(start: Array) -> tuple[Array, Array]:
        strip = lax.dynamic_slice_in_dim(features, start, rows, axis=1)
        inside = valid // divisor - jnp.stack([start, 0])
        sr = apply_inside(model, params, strip, inside, method="reconstruct")
        outside = ~valid_mask((sr.shape[1], sr.shape[2]), grown * inside)
        finite = jnp.all(jnp.isfinite(sr) | outside, axis=(1, 2, 3))
        return sr if dtype == np.float32 else round_to_levels(sr, dtype), finite

    cuts = cut(height, rows, STRIP_RADIUS, alignment=1)
    strips, finite = lax.map(reconstruct, jnp.asarray([start for start, _, _ in cuts]))
    used = [
        strip[:, grown * (top - start) : grown * (bottom - start)]
        for strip, (start, top, bottom) in zip(strips, cuts, strict=True)
    ]
    return jnp.concatenate(used, axis=1), jnp.all(finite, axis=0)


def apply_inside(model: nn.Module, params: Any, x: Array, valid: Array, *, method: str) -> Array:
    """Applies a method to padded images [N,h,w,C] as if they had the heights and widths in `valid` [N,2].

    The method's only operations on neighbourhoods must be convolutions of stride 1 with zero padding.
    """
    height = x.shape[1]

    def zero_outside(convolve, args, kwargs, context):
        if not (isinstance(context.module, nn.Conv) and context.method_name == "__call__"):
            return convolve(*args, **kwargs)
        (y,) = args
        inside = valid_mask((y.shape[1], y.shape[2]), valid * y.shape[1] // height)
        return convolve(jnp.where(inside, y, 0), **kwargs)

    with nn.intercept_methods(zero_outside):
        result: Any = model.apply({"params": params}, x, method=method)
    return result
