"""Super-resolution of whole images: windows of one shape, spread over the devices.

A window is a small image, or a tile of a large one. The images stay on the host; each device takes a window
at a time, and works on the next while the host does what it likes with the last results.
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
AHEAD = 1  # groups of windows that are on the devices while the results of another are used


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
        UserError: not an image, a tile or an overlap that does not fit, too little memory for any tile, or
            values to be rounded that are not finite.
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
        read: returns an image by its index, as `low` of `upscale`.
        sizes: height and width of each image.
        dtype: as in `upscale`.
        devices: that share the images; by default all of this process.

    Yields:
        The index of an image and its SR image; images of one compiled shape follow each other. The devices
        work on the next images meanwhile.

    Raises:
        UserError: as `upscale`.
    """
    devices = jax.local_devices() if devices is None else devices
    images = Images(read, sizes, shared_shapes(sizes))
    yield from upscale_images(Network(model, params, devices, np.dtype(dtype)), images)


class Images(NamedTuple):
    """What is super-resolved: reads an image by its index; all sizes; for each, the shape to pad it to."""

    read: Callable[[int], np.ndarray]
    sizes: Sequence[Size]
    shapes: Mapping[Size, Size]


@dataclass(frozen=True)
class Network:
    """A generator on the devices that share the windows.

    Attributes:
        model: the generator.
        params: its parameters.
        devices: that each take a window at a time.
        dtype: of the results, as in `upscale`.
        self_ensemble: whether each window is averaged over its eight flips and rotations.
    """

    model: Any
    params: Any
    devices: Sequence[jax.Device]
    dtype: np.dtype
    self_ensemble: bool = False

    def on(self, devices: Sequence[jax.Device]) -> "Network":
        """Puts the parameters on some of the devices."""
        placed = jax.device_put(self.params, parallel.replicated(parallel.data_mesh(devices)))
        return replace(self, params=placed, devices=devices)

    def start(self, tiles: Sequence[np.ndarray], shape: Size) -> Iterable[np.ndarray]:
        """Begins to super-resolve [h,w,3] floats, one on each device, padded to `shape`; does not wait.

        Returns:
            An image [s H,s W,3] for each, whose first s h x s w pixels count.
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
        """Yields the images when they are there."""
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
    """Yields index and SR image of each image; begins the unfinished anew when the memory is exhausted."""
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
                f"not enough memory for {tried} LR pixels at once: going on with tiles of {tile} "
                f"that overlap by {overlap}"
            )
            report(-done)


class Window(NamedTuple):
    """A part of an image, in LR pixels: for rows and columns the start, and start and end of what is used."""

    image: int
    rows: tuple[int, int, int]
    columns: tuple[int, int, int]


def plan_windows(
    sizes: Mapping[int, Size], shapes: Mapping[Size, Size], tile: int, overlap: int, divisor: int
) -> dict[Size, list[Window]]:
    """Cuts images into windows; lists those of each compiled shape, image by image."""
    plan: dict[Size, list[Window]] = {}
    for index, size in sizes.items():
        # Windows start and end at multiples of the divisor when the whole image does.
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
    """Super-resolves windows, group by group; yields index and SR image as soon as an image is complete."""
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
    """Yields items in order, each when `count` more have been taken."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


class Canvas(NamedTuple):
    """An image at work: [h',w',3] continued by reflection, and the SR image [s h,s w,3] that fills up."""

    low: np.ndarray
    sr: np.ndarray
    scale: int

    def cut_out(self, window: Window, shape: Size) -> np.ndarray:
        """Returns what a window shows of the image, floats, at most of `shape`."""
        top, left = window.rows[0], window.columns[0]
        return dequantize(self.low[top : top + shape[0], left : left + shape[1]])

    def paste(self, window: Window, result: np.ndarray) -> int:
        """Puts the used part of a window's result in its place; returns its number of LR pixels."""
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
    """Continues an image to multiples of the divisor, and makes room for its SR image."""
    scale, divisor = network.model.scale, geometry(network.model).divisor
    height, width = low.shape[:2]
    low = np.pad(low, ((0, -height % divisor), (0, -width % divisor), (0, 0)), mode="reflect")
    return Canvas(low, np.empty((scale * height, scale * width, 3), network.dtype), scale)
