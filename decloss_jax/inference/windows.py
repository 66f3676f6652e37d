"""Super-resolution of whole images: windows of one shape, spread over the devices.

A window is a small image, or a tile of a large one. The images stay on the host. Each device processes one
window at a time, and works on the next while the host uses the last results.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from decloss_jax import checks
from decloss_jax.host import console, parallel
from decloss_jax.inference.strips import apply_in_strips
from decloss_jax.inference.tiles import choose_tiles, choose_window, cut, geometry, halve_tiles
from decloss_jax.ops.padding import Size, pad_to, shared_shapes
from decloss_jax.ops.quantize import check_finite, dequantize, quantize

T = TypeVar("T")

FLOAT32 = np.dtype(np.float32)
AHEAD = 1  # groups of windows on the devices while the host uses the results of another


def no_report(pixels: int) -> None:
    """Ignores the progress."""


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

    An image larger than a tile is cut on the host into overlapping tiles, whose middle parts are used. If the
    overlap reaches the receptive radius, the result equals that of the whole image up to rounding. If memory
    runs out, the tiles are halved. RRDBNet at scale 1 or 2 needs sides divisible by 4 or 2; other images are
    padded by reflection at the bottom and on the right, and the result is cropped.

    Args:
        model: the generator.
        params: its parameters; those of `on_local_devices` are not copied.
        low: [h,w,3], uint8, uint16, or floats in [0,1].
        tile: the side of a tile in LR pixels, a multiple of 4; by default chosen by the free memory (724 for
            EDSR-baseline with enough memory).
        overlap: LR pixels of context around the used part of a tile, where it has a neighbour; by default the
            receptive radius for EDSR, and less for RRDBNet (docs/upscaling.md).
        shape: height and width to compile for if the image is smaller (`ops.padding.shared_shapes`); they do
            not affect the values.
        self_ensemble: average over the eight flips and rotations of each tile.
        dtype: float32, not clipped; or uint8 or uint16, clipped and rounded, which takes less memory.
        devices: the devices that share the tiles; by default all of this process.
        advance: receives the number of LR pixels finished since the last call; negative if memory ran out and
            the image starts again.

    Returns:
        [s h,s w,3] of `dtype`.

    Raises:
        UserError: not an image, an invalid tile or overlap, too little memory for any tile, or values that
            cannot be rounded because they are not finite.
    """
    checks.check(
        low.ndim == 3 and low.shape[-1] == 3 and low.size > 0,
        "low",
        expected="one image of shape [h,w,3]",
        got=f"shape {list(low.shape)}",
        remedy="read it with decloss_jax.data.images.read_image",
    )
    size = (low.shape[0], low.shape[1])
    images = Images(lambda index: low, [size], {size: shape or size})
    devices = jax.local_devices() if devices is None else devices
    network = Network(model, params, devices, np.dtype(dtype), self_ensemble)
    [(_, sr)] = upscale_images(network, images, tile=tile, overlap=overlap, advance=advance)
    return sr


def upscale_each(
    model: nn.Module,
    params: Any,
    read: Callable[[int], np.ndarray],
    sizes: Sequence[Size],
    *,
    dtype: Any = np.uint8,
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Super-resolves many images, one on each device at a time, with at most 16 compiled shapes.

    Args:
        model: the generator.
        params: its parameters.
        read: returns an image by its index, in the form of `low` in `upscale`.
        sizes: height and width of each image.
        dtype: as in `upscale`.
        devices: the devices that share the images; by default all of this process.

    Yields:
        The index of an image and its SR image, grouped by compiled shape. Meanwhile the devices work on the
        next images.

    Raises:
        UserError: as in `upscale`.
    """
    devices = jax.local_devices() if devices is None else devices
    images = Images(read, sizes, shared_shapes(sizes))
    yield from upscale_images(Network(model, params, devices, np.dtype(dtype)), images)


class Images(NamedTuple):
    """The images to super-resolve: a reader by index, all sizes, and the padded shape for each size."""

    read: Callable[[int], np.ndarray]
    sizes: Sequence[Size]
    shapes: Mapping[Size, Size]


@dataclass(frozen=True)
class Network:
    """A generator on the devices that share the windows.

    Attributes:
        model: the generator.
        params: its parameters.
        devices: the devices, each of which processes one window at a time.
        dtype: the dtype of the results, as in `upscale`.
        self_ensemble: whether each window is averaged over its eight flips and rotations.
    """

    model: Any
    params: Any
    devices: Sequence[jax.Device]
    dtype: np.dtype
    self_ensemble: bool = False

    def on(self, devices: Sequence[jax.Device]) -> "Network":
        """Copies the parameters to some of the devices."""
        placed = jax.device_put(self.params, parallel.replicated(parallel.data_mesh(devices)))
        return replace(self, params=placed, devices=devices)

    def start(self, tiles: Sequence[np.ndarray], shape: Size) -> Iterable[np.ndarray]:
        """Starts to super-resolve [h,w,3] floats, one per device, padded to `shape`; does not wait.

        Returns:
            An image [s H,s W,3] for each; its first s h x s w pixels are valid.
        """
        if self.self_ensemble:
            return average_over_symmetries(replace(self, self_ensemble=False, dtype=FLOAT32), tiles, shape)
        sharding = parallel.batch_sharding(parallel.data_mesh(self.devices))
        low = jax.device_put(np.stack([pad_to(tile, shape) for tile in tiles]), sharding)
        valid = jax.device_put(np.asarray([tile.shape[:2] for tile in tiles], np.int32), sharding)
        sr, finite = apply_in_strips(self.model, self.params, low, valid, dtype=self.dtype)
        sr.copy_to_host_async()
        return self.fetch(sr, finite)

    def fetch(self, sr: Array, finite: Array) -> Iterator[np.ndarray]:
        """Waits for the images and yields them."""
        check_finite(self.dtype == FLOAT32 or bool(np.all(finite)))
        yield from np.asarray(sr)


def average_over_symmetries(network: Network, tiles: Sequence[np.ndarray], shape: Size) -> list[np.ndarray]:
    """Averages the results of the eight flips and rotations of [h,w,3], each undone: [s h,s w,3] for each."""
    totals: list[Any] = [0.0] * len(tiles)
    for turns in range(4):
        for flip in (1, -1):
            turned = [np.rot90(tile, turns)[:, ::flip] for tile in tiles]
            results = network.start(turned, shape if turns % 2 == 0 else shape[::-1])
            for i, (tile, result) in enumerate(zip(turned, results, strict=True)):
                height, width = (network.model.scale * side for side in tile.shape[:2])
                totals[i] = totals[i] + np.rot90(result[:height, :width][:, ::flip], -turns)
    return [total / np.float32(8) for total in totals]


def upscale_images(
    network: Network,
    images: Images,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    advance: Callable[[int], None] = no_report,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the index and SR image of each image; restarts unfinished images if memory runs out."""
    tile, overlap = choose_tiles(network.model, tile, overlap, network.devices)
    unfinished, done = dict(enumerate(images.sizes)), 0

    def report(pixels: int) -> None:
        nonlocal done
        done += pixels
        advance(pixels)

    while unfinished:
        plan = plan_windows(unfinished, images.shapes, tile, overlap, geometry(network.model).divisor)
        try:
            for index, sr in upscale_windows(network, images.read, plan, report):
                height, width = unfinished.pop(index)
                done -= height * width
                yield index, sr
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            tried = min(tile, max(map(max, unfinished.values())))
            tile, overlap = halve_tiles(tried, overlap, error)
            console.say(
                f"not enough memory for {tried} LR pixels at once: continuing with tiles of {tile} "
                f"that overlap by {overlap}"
            )
            report(-done)


class Window(NamedTuple):
    """A part of an image. Rows and columns have a start, and start and end of the used part, in LR pixels."""

    image: int
    rows: tuple[int, int, int]
    columns: tuple[int, int, int]


def plan_windows(
    sizes: Mapping[int, Size], shapes: Mapping[Size, Size], tile: int, overlap: int, divisor: int
) -> dict[Size, list[Window]]:
    """Cuts images into windows; lists those of each compiled shape, image by image."""
    plan: dict[Size, list[Window]] = {}
    for index, size in sizes.items():
        # With sides rounded up to the divisor, windows start and end at its multiples.
        height, width = (side + -side % divisor for side in size)
        shape = choose_window((height, width), shapes[size], tile, overlap, divisor)
        parts = itertools.product(cut(height, shape[0], overlap), cut(width, shape[1], overlap))
        plan.setdefault(shape, []).extend(Window(index, *part) for part in parts)
    return plan


def upscale_windows(
    network: Network,
    read: Callable[[int], np.ndarray],
    plan: Mapping[Size, Sequence[Window]],
    advance: Callable[[int], None],
) -> Iterator[tuple[int, np.ndarray]]:
    """Super-resolves windows, group by group; yields the index and SR image of each complete image."""
    left = Counter(window.image for windows in plan.values() for window in windows)
    canvases: dict[int, Canvas] = {}

    def start_groups() -> Iterator[tuple[Sequence[Window], Iterable[np.ndarray]]]:
        for shape, windows in plan.items():
            placed = network.on(network.devices[: len(windows)])
            size = len(placed.devices)
            for first in range(0, len(windows), size):
                group = windows[first : first + size]
                for index in {window.image for window in group} - canvases.keys():
                    canvases[index] = open_canvas(network, read(index))
                tiles = [canvases[window.image].cut_out(window, shape) for window in group]
                yield group, placed.start(tiles + tiles[-1:] * (size - len(tiles)), shape)

    for group, results in ahead(start_groups(), AHEAD):
        for window, result in zip(group, results, strict=False):
            advance(canvases[window.image].paste(window, result))
            left[window.image] -= 1
            if left[window.image] == 0:
                yield window.image, canvases.pop(window.image).sr


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Yields items in order, each after `count` more have been taken from the source."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


class Canvas(NamedTuple):
    """An image in progress: the padded LR image [h',w',3], and the SR image [s h,s w,3] to fill."""

    low: np.ndarray
    sr: np.ndarray
    scale: int

    def cut_out(self, window: Window, shape: Size) -> np.ndarray:
        """Returns a window of the image as floats, at most of size `shape`."""
        top, left = window.rows[0], window.columns[0]
        return dequantize(self.low[top : top + shape[0], left : left + shape[1]])

    def paste(self, window: Window, result: np.ndarray) -> int:
        """Copies the used part of a window's result into the SR image; returns its number of LR pixels."""
        row, top, bottom = window.rows
        column, left, right = window.columns
        bottom, right = (
            min(bottom, self.sr.shape[0] // self.scale),
            min(right, self.sr.shape[1] // self.scale),
        )
        rows = slice(self.scale * (top - row), self.scale * (bottom - row))
        columns = slice(self.scale * (left - column), self.scale * (right - column))
        used = result[rows, columns]
        place = self.sr[self.scale * top : self.scale * bottom, self.scale * left : self.scale * right]
        place[...] = used if used.dtype == place.dtype else quantize(used, place.dtype)
        return (bottom - top) * (right - left)


def open_canvas(network: Network, low: np.ndarray) -> Canvas:
    """Pads an image by reflection to multiples of the divisor, and allocates its SR image."""
    scale, divisor = network.model.scale, geometry(network.model).divisor
    height, width = low.shape[:2]
    low = np.pad(low, ((0, -height % divisor), (0, -width % divisor), (0, 0)), mode="reflect")
    return Canvas(low, np.empty((scale * height, scale * width, 3), network.dtype), scale)
