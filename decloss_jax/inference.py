"""Super-resolution of whole images: tiles of one shape, self-ensemble, retry when memory runs out."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from decloss_jax import checks, console
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.models.rrdb import UNSHUFFLE_FACTORS
from decloss_jax.ops.padding import Size, pad_to, valid_mask

DEFAULT_TILE = 512  # LR pixels; the x4 activations of EDSR-baseline then take 1 GiB
SMALLEST_TILE = 32
ALIGNMENT = 4  # tiles start at multiples of it: RRDBNet unshuffles blocks of 2x2 or 4x4 pixels

# How far an output pixel sees to each side, in LR pixels. EDSR: two 3x3 convolutions a block, one before and
# one after them, the upsampling ones at 1, 1/2 and 1/4 of a pixel. RRDBNet: fifteen a block.
RECEPTIVE_RADIUS: dict[type[nn.Module], Callable[[Any], int]] = {
    EDSR: lambda model: 2 * model.blocks + 4,
    RRDBNet: lambda model: UNSHUFFLE_FACTORS[model.scale] * (15 * model.blocks + 5),
}

# What must divide the sides of the images that a network sees.
SIDE_DIVISOR: dict[type[nn.Module], Callable[[Any], int]] = {
    EDSR: lambda model: 1,
    RRDBNet: lambda model: UNSHUFFLE_FACTORS[model.scale],
}


def upscale(
    model: nn.Module,
    params: Any,
    low: np.ndarray,
    *,
    tile: int = DEFAULT_TILE,
    overlap: int | None = None,
    shape: Size | None = None,
    self_ensemble: bool = False,
) -> np.ndarray:
    """Super-resolves one image.

    An image larger than a tile is cut into tiles that overlap, on the host; of each, the middle is used.
    Where the overlap reaches the receptive radius the result equals the whole image's, up to rounding. When
    the device's memory is exhausted the tiles are halved. Where RRDBNet at scale 1 or 2 needs sides that 4 or
    2 divides, the image is continued by reflection at the bottom and on the right, and the result cropped.

    Args:
        model: the generator.
        params: its parameters.
        low: [h,w,3], uint8, or floats in [0,1].
        tile: largest side of what the network sees at once, in LR pixels, a multiple of 4.
        overlap: LR pixels seen beyond the used part of a tile, where there is a neighbour. By default the
            receptive radius, or an eighth of the tile where that radius exceeds a third of it (RRDBNet).
        shape: height and width to compile for when the image is smaller (`ops.padding.shared_shapes`); the
            value does not depend on it.
        self_ensemble: average over the eight flips and rotations.

    Returns:
        [s h,s w,3] float32, not clipped.

    Raises:
        UserError: not an image, a tile or an overlap that does not fit.
    """
    check_options(low, tile, overlap)
    pixels = (
        low.astype(np.float32) / np.float32(255) if low.dtype == np.uint8 else np.asarray(low, np.float32)
    )
    one = functools.partial(upscale_with_retry, model, params, tile=tile, overlap=overlap)
    if not self_ensemble:
        return one(pixels, shape=shape or pixels.shape[:2])
    return average_over_symmetries(one, pixels, shape=shape or pixels.shape[:2])


def check_options(low: np.ndarray, tile: int, overlap: int | None) -> None:
    """Raises `UserError` unless the image and the tiles make sense."""
    checks.check(
        low.ndim == 3 and low.shape[-1] == 3 and low.size > 0,
        "low",
        expected="one image of shape [h,w,3]",
        got=f"shape {list(low.shape)}",
        remedy="read it with decloss_jax.data.images.read_image",
    )
    checks.check(
        tile >= SMALLEST_TILE and tile % ALIGNMENT == 0,
        "tile",
        expected=f"a multiple of {ALIGNMENT}, at least {SMALLEST_TILE}",
        got=tile,
        remedy=f"give {max(SMALLEST_TILE, tile - tile % ALIGNMENT)}",
    )
    checks.check(
        overlap is None or 0 <= overlap <= largest_overlap(tile),
        "overlap",
        expected=f"0 to {largest_overlap(tile)} for tiles of {tile}",
        got=overlap,
        remedy="give a smaller overlap or a larger tile",
    )


def largest_overlap(tile: int) -> int:
    """Returns the overlap that still leaves each tile something of its own."""
    return (tile - 2 * ALIGNMENT) // 2


def average_over_symmetries(one: Callable[..., np.ndarray], low: np.ndarray, *, shape: Size) -> np.ndarray:
    """Averages the results of the eight flips and rotations of `low`, each undone: [s h,s w,3]."""
    total: Any = 0.0
    for turns in range(4):
        turned_shape = shape if turns % 2 == 0 else (shape[1], shape[0])
        for flip in (1, -1):
            turned = np.rot90(low, turns)[:, ::flip]
            total = total + np.rot90(one(turned, shape=turned_shape)[:, ::flip], -turns)
    return total / np.float32(8)


def upscale_with_retry(
    model: nn.Module, params: Any, low: np.ndarray, *, tile: int, overlap: int | None, shape: Size
) -> np.ndarray:
    """Super-resolves [h,w,3] floats, with tiles half as large whenever the memory does not suffice."""
    while True:
        try:
            return upscale_in_tiles(model, params, low, tile=tile, overlap=overlap, shape=shape)
        except jax.errors.JaxRuntimeError as error:
            tried = min(tile, max(low.shape[:2]))
            smaller = tried // 2 - tried // 2 % ALIGNMENT
            if "RESOURCE_EXHAUSTED" not in str(error) or smaller < SMALLEST_TILE:
                raise
            console.say(f"not enough memory for {tried} LR pixels at once: going on with tiles of {smaller}")
            tile = smaller
            overlap = None if overlap is None else min(overlap, largest_overlap(tile))


def upscale_in_tiles(
    model: nn.Module, params: Any, low: np.ndarray, *, tile: int, overlap: int | None, shape: Size
) -> np.ndarray:
    """Super-resolves [h,w,3] floats tile by tile; every tile has the same shape."""
    divisor = SIDE_DIVISOR[type(model)](model)
    wanted_height, wanted_width = low.shape[:2]
    # Tiles start and end at multiples of the divisor when the whole image does.
    low = np.pad(low, ((0, -wanted_height % divisor), (0, -wanted_width % divisor), (0, 0)), mode="reflect")
    shape = (shape[0] + -shape[0] % divisor, shape[1] + -shape[1] % divisor)
    if overlap is None:
        radius = RECEPTIVE_RADIUS[type(model)](model)
        overlap = radius if 3 * radius <= tile else tile // 8
    height, width = low.shape[:2]
    # A side that fits into a tile may be padded; one that does not is cut into full tiles.
    window = (
        tile if height > tile else min(tile, max(height, shape[0])),
        tile if width > tile else min(tile, max(width, shape[1])),
    )
    valid = jnp.asarray([[min(height, window[0]), min(width, window[1])]])
    scale = model.scale
    sr = np.empty((scale * height, scale * width, 3), np.float32)
    for row, top, bottom in cut(height, window[0], overlap):
        for column, left, right in cut(width, window[1], overlap):
            seen = pad_to(low[row : row + window[0], column : column + window[1]], window)
            result = np.asarray(apply_inside(model, params, seen[None], valid))[0]
            rows = slice(scale * (top - row), scale * (bottom - row))
            columns = slice(scale * (left - column), scale * (right - column))
            sr[scale * top : scale * bottom, scale * left : scale * right] = result[rows, columns]
    return sr[: scale * wanted_height, : scale * wanted_width]


def cut(length: int, window: int, overlap: int) -> list[tuple[int, int, int]]:
    """Cuts a side into overlapping windows.

    Args:
        length: pixels of the side.
        window: pixels of a window; it may exceed the side.
        overlap: pixels that a window has beyond the part that is used, where there is a neighbour.

    Returns:
        For each window its start, and start and end of the part that is used; the parts tile the side.
    """
    if length <= window:
        return [(0, 0, length)]
    # Rounding the starts down may widen one gap by less than ALIGNMENT, hence the second subtraction.
    step = (window - 2 * overlap) // ALIGNMENT * ALIGNMENT - ALIGNMENT
    count = math.ceil((length - window) / step) + 1
    starts = [i * (length - window) // (count - 1) // ALIGNMENT * ALIGNMENT for i in range(count - 1)]
    starts.append(length - window)
    borders = [(left + window + right) // 2 for left, right in itertools.pairwise(starts)]
    return list(zip(starts, [0, *borders], [*borders, length], strict=True))


@functools.partial(jax.jit, static_argnames="model")
def apply_inside(model: nn.Module, params: Any, low: Array, valid: Array) -> Array:
    """Applies a generator to padded images as if they were not padded.

    Args:
        model: a network whose only neighbourhood operations are convolutions of stride 1 with zero padding.
        params: its parameters.
        low: [N,h,w,3] in [0,1].
        valid: [N,2], height and width of the images themselves.

    Returns:
        [N,s h,s w,3]; right within s times the valid size.
    """
    height = low.shape[1]

    def zero_outside(convolve, args, kwargs, context):
        if not (isinstance(context.module, nn.Conv) and context.method_name == "__call__"):
            return convolve(*args, **kwargs)
        (x,) = args
        inside = valid_mask((x.shape[1], x.shape[2]), valid * x.shape[1] // height)
        return convolve(jnp.where(inside, x, 0), **kwargs)

    with nn.intercept_methods(zero_outside):
        sr: Any = model.apply({"params": params}, low)
    return sr
