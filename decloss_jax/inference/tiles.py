"""Super-resolution of whole images in bounded memory: tiles of one shape, spread over the devices.

The image stays on the host and is cut into tiles that overlap by the receptive radius of the network. Of each
tile the features are extracted at once, at the size of the LR image, and made into an image strip by strip:
there the activations are s^2 times as large, and stay in the processor's cache.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from flax import linen as nn
from jax import Array, lax

from decloss_jax import checks
from decloss_jax.host import console, parallel
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.ops.padding import Size, pad_to, valid_mask
from decloss_jax.ops.quantize import dequantize, quantize

SMALLEST_TILE = 32
ALIGNMENT = 4  # tiles start at multiples of it: RRDBNet unshuffles blocks of 2x2 or 4x4 pixels
LARGEST_BUDGET = 1 << 29  # bytes for the features of a tile, 512 MiB: larger tiles gain little
WINDOW_STEP = 64  # sides of tiles smaller than the largest are multiples of it
STRIP_AREA = 16384  # feature pixels of a strip; the x4 activations of EDSR-baseline then take 128 MiB
SMALLEST_STRIP = 16  # rows
STRIP_RADIUS = 2  # how far `reconstruct` sees to each side, in feature pixels, of either network


@dataclass(frozen=True)
class Geometry:
    """What tiles must know of a network.

    Attributes:
        divisor: LR pixels, along each side, of a pixel of the features; it must divide the sides of an image.
        radius: how far `extract` sees to each side, in pixels of the features.
        overlap: LR pixels that tiles see beyond their part, unless told otherwise.
        bytes: that `extract` needs at its peak, for each LR pixel (read from the compiled program).
    """

    divisor: int
    radius: int
    overlap: int
    bytes: int


def geometry(model: Any) -> Geometry:
    """Returns the geometry of a generator."""
    return checks.look_up(GEOMETRIES, type(model), "generator")(model)


def edsr_geometry(model: EDSR) -> Geometry:
    """Two 3x3 convolutions a block, one before and one after them; the overlap makes tiles exact."""
    radius = 2 * model.blocks + 2
    return Geometry(1, radius, radius + STRIP_RADIUS, 16 * model.features)


def rrdb_geometry(model: RRDBNet) -> Geometry:
    """Fifteen convolutions a block, one before and one after them: too far for tiles (docs/upscaling.md)."""
    factor = model.factor
    radius = 15 * model.blocks + 2
    overlap = factor * min(radius + STRIP_RADIUS, RRDB_OVERLAP)
    return Geometry(factor, radius, overlap, 32 * model.features // factor**2)


# Feature pixels. With Real-ESRGAN's x4plus weights the seams then stay below 0.08 of 255 levels; 80 leaves
# 0.43, 48 leaves 5.3 (benchmarks/overlap.py). Inside a large picture the work is 1.7 times that with 48.
RRDB_OVERLAP = 96
GEOMETRIES: dict[type, Callable[[Any], Geometry]] = {EDSR: edsr_geometry, RRDBNet: rrdb_geometry}


def receptive_radius(model: nn.Module) -> int:
    """Returns how far an SR pixel sees to each side, in LR pixels: 36 for EDSR-baseline, 349 for RRDB-23."""
    of = geometry(model)
    return of.divisor * (of.radius + STRIP_RADIUS)


def choose_tiles(
    model: nn.Module, tile: int | None, overlap: int | None, devices: Sequence[jax.Device]
) -> tuple[int, int]:
    """Fills in what the caller leaves open of the side and the overlap of tiles, and says when it is short.

    Raises:
        UserError: a tile or an overlap that does not fit.
    """
    if tile is None:
        # With a third on each side seen but not used, the work is nine times that of the image.
        least = 3 * (overlap or 0)
        tile = max(choose_tile(model, devices), least + -least % ALIGNMENT)
    checks.check(
        tile >= SMALLEST_TILE and tile % ALIGNMENT == 0,
        "tile",
        expected=f"a multiple of {ALIGNMENT}, at least {SMALLEST_TILE}",
        got=tile,
        remedy=f"give {max(SMALLEST_TILE, tile - tile % ALIGNMENT)}",
    )
    wanted = geometry(model).overlap
    if overlap is None:
        overlap = min(wanted, largest_overlap(tile))
        if overlap < wanted:
            console.say(
                f"tiles of {tile} overlap by {overlap} LR pixels, less than they should: results may differ "
                f"from the whole image's; tiles of {2 * wanted + 2 * ALIGNMENT} would do"
            )
    checks.check(
        0 <= overlap <= largest_overlap(tile),
        "overlap",
        expected=f"0 to {largest_overlap(tile)} for tiles of {tile}",
        got=overlap,
        remedy="give a smaller overlap or a larger tile",
    )
    return tile, overlap


def choose_tile(model: nn.Module, devices: Sequence[jax.Device]) -> int:
    """Returns the side of a tile, in LR pixels, whose features take at most half of the memory available."""
    side = math.isqrt(min(available_bytes(devices) // 2, LARGEST_BUDGET) // geometry(model).bytes)
    return max(SMALLEST_TILE, side - side % ALIGNMENT)


def available_bytes(devices: Sequence[jax.Device]) -> int:
    """Returns the bytes that are free for each device; CPU devices share the machine's memory."""
    statistics = devices[0].memory_stats()
    if not statistics:
        return psutil.virtual_memory().available // len(devices)
    return statistics["bytes_limit"] - statistics["bytes_in_use"]


def on_local_devices(params: Any) -> Any:
    """Puts a copy of parameters on each device of this process, once for many calls of `upscale`."""
    return jax.device_put(params, parallel.replicated(parallel.data_mesh(jax.local_devices())))


def no_report(pixels: int) -> None:
    """Stands for a reader of the progress."""


def upscale(
    model: nn.Module,
    params: Any,
    low: np.ndarray,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    shape: Size | None = None,
    self_ensemble: bool = False,
    dtype: Any = np.float32,
    devices: Sequence[jax.Device] | None = None,
    advance: Callable[[int], None] = no_report,
) -> np.ndarray:
    """Super-resolves one image.

    An image larger than a tile is cut into tiles that overlap, on the host; of each, the middle is used.
    Where the overlap reaches the receptive radius the result equals the whole image's, up to rounding. When
    the memory is exhausted the tiles are halved. Where RRDBNet at scale 1 or 2 needs sides that 4 or 2
    divides, the image is continued by reflection at the bottom and on the right, and the result cropped.

    Args:
        model: the generator.
        params: its parameters; those of `on_local_devices` are not copied.
        low: [h,w,3], uint8, uint16, or floats in [0,1].
        tile: largest side of what the network sees at once, in LR pixels, a multiple of 4; by default chosen
            from the memory that is free (724 for EDSR-baseline where there is enough).
        overlap: LR pixels seen beyond the used part of a tile, where there is a neighbour. By default the
            receptive radius for EDSR, and less for RRDBNet (docs/upscaling.md).
        shape: height and width to compile for when the image is smaller (`ops.padding.shared_shapes`); the
            value does not depend on it.
        self_ensemble: average over the eight flips and rotations of each tile.
        dtype: float32, not clipped; or uint8 or uint16, clipped and rounded, which takes less memory.
        devices: that share the tiles; by default all of this process.
        advance: called with the number of LR pixels that have been done since the last call; a negative one
            when the memory was exhausted and the image is begun anew.

    Returns:
        [s h,s w,3] of `dtype`.

    Raises:
        UserError: not an image, a tile or an overlap that does not fit, or too little memory for any tile.
    """
    checks.check(
        low.ndim == 3 and low.shape[-1] == 3 and low.size > 0,
        "low",
        expected="one image of shape [h,w,3]",
        got=f"shape {list(low.shape)}",
        remedy="read it with decloss_jax.data.images.read_image",
    )
    devices = jax.local_devices() if devices is None else devices
    tile, overlap = choose_tiles(model, tile, overlap, devices)
    done = 0

    def report(pixels: int) -> None:
        nonlocal done
        done += pixels
        advance(pixels)

    network = Network(model, params, devices, self_ensemble)
    while True:
        try:
            return upscale_in_tiles(
                network, low, tile=tile, overlap=overlap, shape=shape, dtype=np.dtype(dtype), advance=report
            )
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            tried = min(tile, max(low.shape[:2]))
            tile = tried // 2 - tried // 2 % ALIGNMENT
            checks.check(
                tile >= SMALLEST_TILE,
                "memory",
                expected=f"room for the network on {tried} LR pixels at once",
                got=first_line(error),
                remedy="close other programs, or take a smaller network",
            )
            overlap = min(overlap, largest_overlap(tile))
            console.say(
                f"not enough memory for {tried} LR pixels at once: going on with tiles of {tile} "
                f"that overlap by {overlap}"
            )
            report(-done)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text; XLA's go on with a table of buffers."""
    return str(error).partition("\n")[0]


def largest_overlap(tile: int) -> int:
    """Returns the overlap that still leaves each tile something of its own."""
    return (tile - 2 * ALIGNMENT) // 2


@dataclass(frozen=True)
class Network:
    """A generator on the devices that share its tiles.

    Attributes:
        model: the generator.
        params: its parameters.
        devices: that each take a tile at a time.
        self_ensemble: whether each tile is averaged over its eight flips and rotations.
    """

    model: Any
    params: Any
    devices: Sequence[jax.Device]
    self_ensemble: bool

    def __call__(self, images: np.ndarray, window: Size) -> np.ndarray:
        """Super-resolves [n,h,w,3] floats, one for each of the first n devices, compiled for `window`."""
        mesh = parallel.data_mesh(self.devices[: len(images)])
        params = jax.device_put(self.params, parallel.replicated(mesh))

        def one(images: np.ndarray, window: Size) -> np.ndarray:
            height, width = images.shape[1:3]
            low = jax.device_put(pad_to(images, window), parallel.batch_sharding(mesh))
            sr = apply_in_strips(self.model, params, low, jnp.asarray([[height, width]]))
            return np.asarray(sr)[:, : self.model.scale * height, : self.model.scale * width]

        return average_over_symmetries(one, images, window) if self.self_ensemble else one(images, window)


def average_over_symmetries(
    one: Callable[[np.ndarray, Size], np.ndarray], images: np.ndarray, window: Size
) -> np.ndarray:
    """Averages the results of the eight flips and rotations of [n,h,w,3], each undone: [n,s h,s w,3]."""
    total: Any = 0.0
    for turns in range(4):
        for flip in (1, -1):
            turned = np.rot90(images, turns, axes=(1, 2))[:, :, ::flip]
            result = one(turned, window if turns % 2 == 0 else window[::-1])
            total = total + np.rot90(result[:, :, ::flip], -turns, axes=(1, 2))
    return total / np.float32(8)


def upscale_in_tiles(
    network: Network,
    low: np.ndarray,
    *,
    tile: int,
    overlap: int,
    shape: Size | None,
    dtype: np.dtype,
    advance: Callable[[int], None],
) -> np.ndarray:
    """Super-resolves an image tile by tile; its tiles have one shape. Arguments as in `upscale`."""
    scale, divisor = network.model.scale, geometry(network.model).divisor
    height, width = low.shape[:2]
    # Tiles start and end at multiples of the divisor when the whole image does.
    low = np.pad(low, ((0, -height % divisor), (0, -width % divisor), (0, 0)), mode="reflect")
    window = choose_window(low.shape[:2], shape or (height, width), tile, overlap, divisor)
    parts = list(itertools.product(*map(cut, low.shape[:2], window, (overlap, overlap))))
    group = len(network.devices) if len(parts) > 1 else 1
    sr = np.empty((scale * height, scale * width, 3), dtype)
    for first in range(0, len(parts), group):
        batch = parts[first : first + group]
        tiles = [low[row : row + window[0], column : column + window[1]] for (row, *_), (column, *_) in batch]
        tiles += tiles[-1:] * (group - len(tiles))
        results = network(dequantize(np.stack(tiles)), window)
        for result, ((row, top, bottom), (column, left, right)) in zip(results, batch, strict=False):
            bottom, right = min(bottom, height), min(right, width)
            rows = slice(scale * (top - row), scale * (bottom - row))
            columns = slice(scale * (left - column), scale * (right - column))
            used = result[rows, columns]
            place = sr[scale * top : scale * bottom, scale * left : scale * right]
            place[...] = used if dtype == np.float32 else quantize(used, dtype)
            advance((bottom - top) * (right - left))
    return sr


def choose_window(size: Size, shape: Size, tile: int, overlap: int, divisor: int) -> Size:
    """Returns the shape of an image's tiles; `shape` is what a side that fits into a tile is padded to."""

    def of_side(side: int, wanted: int) -> int:
        if side <= tile:
            return min(tile, max(side, wanted + -wanted % divisor))
        # The smallest that needs no more tiles; of few sizes, as each is compiled.
        count = len(cut(side, tile, overlap))
        smallest = 2 * overlap + 2 * ALIGNMENT
        steps = range(smallest + -smallest % WINDOW_STEP, tile, WINDOW_STEP)
        return next((window for window in steps if len(cut(side, window, overlap)) == count), tile)

    return of_side(size[0], shape[0]), of_side(size[1], shape[1])


def cut(length: int, window: int, overlap: int, alignment: int = ALIGNMENT) -> list[tuple[int, int, int]]:
    """Cuts a side into overlapping windows.

    Args:
        length: pixels of the side.
        window: pixels of a window; it may exceed the side.
        overlap: pixels that a window has beyond the part that is used, where there is a neighbour.
        alignment: windows start at multiples of it, but for the last one.

    Returns:
        For each window its start, and start and end of the part that is used; the parts tile the side.
    """
    if length <= window:
        return [(0, 0, length)]
    # Rounding the starts down may widen one gap by less than the alignment, hence the second subtraction.
    step = (window - 2 * overlap) // alignment * alignment - alignment
    count = math.ceil((length - window) / step) + 1
    starts = [i * (length - window) // (count - 1) // alignment * alignment for i in range(count - 1)]
    starts.append(length - window)
    borders = [(left + window + right) // 2 for left, right in itertools.pairwise(starts)]
    return list(zip(starts, [0, *borders], [*borders, length], strict=True))


@functools.partial(jax.jit, static_argnames="model")
def apply_in_strips(model: Any, params: Any, low: Array, valid: Array) -> Array:
    """Applies a generator to padded images as if they were not padded; reconstructs them in strips of rows.

    Args:
        model: the generator.
        params: its parameters.
        low: [N,h,w,3] in [0,1].
        valid: [1,2], height and width of the images themselves.

    Returns:
        [N,s h,s w,3]; right within s times the valid size.
    """
    features = apply_inside(model, params, low, valid, method="extract")
    divisor, height = geometry(model).divisor, features.shape[1]
    rows = min(height, max(SMALLEST_STRIP, STRIP_AREA // features.shape[2]))

    def reconstruct(start: Array) -> Array:
        strip = lax.dynamic_slice_in_dim(features, start, rows, axis=1)
        inside = valid // divisor - jnp.stack([start, 0])
        return apply_inside(model, params, strip, inside, method="reconstruct")

    cuts = cut(height, rows, STRIP_RADIUS, alignment=1)
    strips = lax.map(reconstruct, jnp.asarray([start for start, _, _ in cuts]))
    grown = divisor * model.scale
    used = [
        strip[:, grown * (top - start) : grown * (bottom - start)]
        for strip, (start, top, bottom) in zip(strips, cuts, strict=True)
    ]
    return jnp.concatenate(used, axis=1)


def apply_inside(model: nn.Module, params: Any, x: Array, valid: Array, *, method: str) -> Array:
    """Applies a method, whose only neighbourhood operations are convolutions of stride 1 with zero padding,
    to padded images [N,h,w,C] as if they had the height and width of `valid` [1,2]."""
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
