"""The size, the overlap and the positions of the tiles of a large image."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import psutil
from flax import linen as nn

from decloss_jax import checks
from decloss_jax.host import console, parallel
from decloss_jax.models import EDSR, MSRResNet, RRDBNet, SRFlow, SRResNet
from decloss_jax.models.srflow.latents import BLOCK
from decloss_jax.ops.padding import Size

SMALLEST_TILE = 32
ALIGNMENT = 4  # tiles start at multiples of 4, because RRDBNet unshuffles blocks of 2x2 or 4x4 pixels
LARGEST_BUDGET = 1 << 29  # bytes for the features of a tile, 512 MiB: larger tiles gain little
WINDOW_STEP = 64  # the sides of smaller tiles are multiples of 64
STRIP_RADIUS = 2  # receptive radius of `reconstruct` in feature pixels, the same for all networks


@dataclass(frozen=True)
class Geometry:
    """The properties of a network that determine its tiles.

    Attributes:
        divisor: LR pixels along each side of a feature pixel; it must divide the sides of an image.
        radius: the receptive radius of `extract` in feature pixels.
        overlap: the default overlap of tiles in LR pixels.
        bytes: the peak memory of `extract` in bytes per LR pixel (read from the compiled program).
        budget: the most bytes for a tile, even if more are free.
    """

    divisor: int
    radius: int
    overlap: int
    bytes: int
    budget: int = LARGEST_BUDGET


def geometry(model: Any) -> Geometry:
    """Returns the geometry of a generator."""
    return checks.look_up(GEOMETRIES, type(model), "generator")(model)


def edsr_geometry(model: EDSR | SRResNet) -> Geometry:
    """Two 3x3 convolutions per block, one before and one after the blocks; the overlap makes tiles exact."""
    radius = 2 * model.blocks + 2
    return Geometry(1, radius, radius + STRIP_RADIUS, 16 * model.features)


def msrresnet_geometry(model: MSRResNet) -> Geometry:
    """EDSR's geometry without the convolution after the blocks, and with the image among the features."""
    radius = 2 * model.blocks + 1
    return Geometry(1, radius, radius + STRIP_RADIUS, 12 * model.features + 12)


def rrdb_geometry(model: RRDBNet) -> Geometry:
    """Fifteen convolutions per block, one before and one after the blocks.

    The radius is too large for exact tiles (docs/upscaling.md).
    """
    factor = model.factor
    radius = 15 * model.blocks + 2
    overlap = factor * min(radius + STRIP_RADIUS, RRDB_OVERLAP)
    return Geometry(factor, radius, overlap, 32 * model.features // factor**2)


# Feature pixels. With Real-ESRGAN's x4plus weights the error at the seams is below 0.08 of 255 levels; it is
# 0.43 with 80 and 5.3 with 48 (benchmarks/overlap.py). A large picture costs 1.7 times as much as with 48.
RRDB_OVERLAP = 96


def srflow_geometry(model: SRFlow) -> Geometry:
    """The encoder's convolutions, and two per flow step at each level: too many for exact tiles."""
    encoder = (15 * model.blocks + 3) // BLOCK
    steps = 2 * model.flow_steps + 2  # of one level, in its pixels, whose sides are 1, 1/2 and 1/4 of a block
    radius = encoder + steps + steps // 2 + steps // 4
    conditions = model.features * (1 + len(model.stacked_blocks))
    overlap = min(BLOCK * radius, SRFLOW_OVERLAP)
    return Geometry(BLOCK, radius, overlap, SRFLOW_BYTES * conditions, budget=SRFLOW_BUDGET)


SRFLOW_OVERLAP = 96  # LR pixels, as for RRDBNet, which the encoder resembles
SRFLOW_BYTES = 48  # for the whole network, per LR pixel and channel of a level's condition
SRFLOW_BUDGET = 1 << 32  # bytes, 4 GiB: enough for DIV2K's LR images without tiles, which change the result
GEOMETRIES: dict[type, Callable[[Any], Geometry]] = {
    EDSR: edsr_geometry,
    RRDBNet: rrdb_geometry,
    SRFlow: srflow_geometry,
    SRResNet: edsr_geometry,
    MSRResNet: msrresnet_geometry,
}


def receptive_radius(model: nn.Module) -> int:
    """Returns the receptive radius of an SR pixel in LR pixels: 36 for EDSR-baseline, 349 for RRDB-23."""
    of = geometry(model)
    return of.divisor * (of.radius + STRIP_RADIUS)


def choose_tiles(
    model: nn.Module, tile: int | None, overlap: int | None, devices: Sequence[jax.Device]
) -> tuple[int, int]:
    """Chooses the side and the overlap of tiles if they are None; warns of too small an overlap.

    Raises:
        UserError: a tile or an overlap that is out of range.
    """
    if tile is None:
        # At the least side, a third on each side is only context, and the work is nine times the image's.
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
                f"tiles of {tile} overlap by {overlap} LR pixels, which is too little: the result may differ "
                f"from that of the whole image; tiles of {2 * wanted + 2 * ALIGNMENT} would be large enough"
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
    """Returns the side of a tile, in LR pixels, whose features take at most half of the free memory."""
    of = geometry(model)
    side = math.isqrt(min(available_bytes(devices) // 2, of.budget) // of.bytes)
    return max(SMALLEST_TILE, side - side % ALIGNMENT)


def available_bytes(devices: Sequence[jax.Device]) -> int:
    """Returns the bytes that are free for each device; CPU devices share the machine's memory."""
    statistics = devices[0].memory_stats()
    if not statistics:
        return psutil.virtual_memory().available // len(devices)
    return statistics["bytes_limit"] - statistics["bytes_in_use"]


def on_local_devices(params: Any) -> Any:
    """Copies parameters to each device of this process, once for many calls of `upscale`."""
    return jax.device_put(params, parallel.replicated(parallel.data_mesh(jax.local_devices())))


def halve_tiles(tried: int, overlap: int, error: Exception) -> tuple[int, int]:
    """Halves the tiles that did not fit into memory; returns their side and overlap.

    Raises:
        UserError: they would be smaller than `SMALLEST_TILE`.
    """
    tile = tried // 2 - tried // 2 % ALIGNMENT
    checks.check(
        tile >= SMALLEST_TILE,
        "memory",
        expected=f"room for the network on {tried} LR pixels at once",
        got=str(error).partition("\n")[0],  # XLA's errors go on with a table of buffers
        remedy="close other programs, or use a smaller network",
    )
    return tile, min(overlap, largest_overlap(tile))


def largest_overlap(tile: int) -> int:
    """Returns the largest overlap that leaves each tile a used part."""
    return (tile - 2 * ALIGNMENT) // 2


def choose_window(size: Size, shape: Size, tile: int, overlap: int, divisor: int) -> Size:
    """Returns the shape of an image's tiles; a side that fits into a tile is padded to that of `shape`."""

    def of_side(side: int, wanted: int) -> int:
        if side <= tile:
            return min(tile, max(side, wanted + -wanted % divisor))
        # The smallest side that needs no more tiles; there are few sizes, because each is compiled.
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
        overlap: pixels of context around the used part of a window, where it has a neighbour.
        alignment: all windows except the last start at multiples of it.

    Returns:
        For each window its start, and the start and end of its used part; the used parts tile the side.
    """
    if length <= window:
        return [(0, 0, length)]
    # Rounding the starts down can widen a gap by less than the alignment, hence the second subtraction.
    step = (window - 2 * overlap) // alignment * alignment - alignment
    count = math.ceil((length - window) / step) + 1
    starts = [i * (length - window) // (count - 1) // alignment * alignment for i in range(count - 1)]
    starts.append(length - window)
    borders = [(left + window + right) // 2 for left, right in itertools.pairwise(starts)]
    return list(zip(starts, [0, *borders], [*borders, length], strict=True))
