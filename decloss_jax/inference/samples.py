"""Samples of SRFlow for whole images, from tiles.

The noise is a function of the seed, of the image's pixels and of the position in the image. So a sample does
not depend on the image's name, on earlier images, on devices or on tiles, and two images with one seed do not
share a noise pattern.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.inference.tiles import choose_tiles
from decloss_jax.inference.windows import Network, no_report, open_canvas, plan_windows, upscale
from decloss_jax.models import SRFlow
from decloss_jax.models.srflow import HEAT, draw_latents
from decloss_jax.models.srflow.latents import BLOCK
from decloss_jax.ops.padding import Size


def choose_upscale(
    model: nn.Module, *, heat: float | None = None, seed: int | None = None, self_ensemble: bool = False
) -> Callable[..., np.ndarray]:
    """Returns the function that makes a network's SR images: `sample` for SRFlow, else `upscale`.

    Args:
        model: the network.
        heat: the heat of SRFlow's samples; by default 0.9, as in the paper's table for DIV2K x4.
        seed: the seed of SRFlow's samples; by default 0.
        self_ensemble: for the other networks, average over eight flips and rotations.

    Raises:
        UserError: an option that the network does not have.
    """
    flow = isinstance(model, SRFlow)
    unfit = {"--self-ensemble": self_ensemble or None} if flow else {"--heat": heat, "--seed": seed}
    for name, value in unfit.items():
        checks.check(
            value is None,
            name,
            expected=f"none for {type(model).__name__}",
            got=value,
            remedy="leave it out",
        )
    if flow:
        return functools.partial(sample, heat=HEAT if heat is None else heat, seed=seed or 0)
    return functools.partial(upscale, self_ensemble=self_ensemble)


def sample(
    model: nn.Module,
    params: Any,
    low: np.ndarray,
    *,
    heat: float = HEAT,
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    shape: Size | None = None,
    dtype: Any = np.float32,
    devices: Sequence[jax.Device] | None = None,
    advance: Callable[[int], None] = no_report,
) -> np.ndarray:
    """Draws one SR image.

    An image with an odd side is padded by reflection at the bottom and on the right, and the result is
    cropped. An image larger than a tile is cut into overlapping tiles, whose middle parts are used. The
    receptive field exceeds the overlap, so the result differs from that of the whole image near the seams
    (docs/upscaling.md).

    Args:
        model: an SRFlow.
        params: its parameters.
        low: [h,w,3], uint8, uint16, or floats in [0,1].
        heat: tau, the standard deviation of the latents; 0 gives the image of zero latents.
        seed: the seed of the noise.
        tile: the side of a tile in LR pixels, a multiple of 4; by default chosen by the free memory.
        overlap: LR pixels of context around the used part of a tile, where it has a neighbour; by default 96.
        shape: unused; padding would change the values, so each image size is compiled separately.
        dtype: float32, not clipped; or uint8 or uint16, clipped and rounded.
        devices: the devices that share the tiles; by default all of this process.
        advance: receives the number of LR pixels finished since the last call.

    Returns:
        [4h,4w,3] of `dtype`.

    Raises:
        UserError: a heat below 0, an invalid tile or overlap, or too little memory.
    """
    checks.check_range("heat", heat, 0.0)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(low.tobytes()))
    draw = functools.partial(sample_tiles, key=key, heat=np.float32(heat))
    return upscale_tiles(model, params, low, draw, tile, overlap, dtype, devices, advance)


def regress(model: nn.Module, params: Any, low: np.ndarray, *, dtype: Any = np.float32) -> np.ndarray:
    """Super-resolves an image with the encoder alone, by the tiles of `sample`: [h,w,3] -> [4h,4w,3]."""
    return upscale_tiles(model, params, low, regress_tiles, dtype=dtype)


def upscale_tiles(
    model: nn.Module,
    params: Any,
    low: np.ndarray,
    apply: Callable[..., Array],
    tile: int | None = None,
    overlap: int | None = None,
    dtype: Any = np.float32,
    devices: Sequence[jax.Device] | None = None,
    advance: Callable[[int], None] = no_report,
) -> np.ndarray:
    """Cuts an image into tiles, one on each device, to which `apply` (`sample_tiles`) is applied."""
    devices = jax.local_devices() if devices is None else devices
    tile, overlap = choose_tiles(model, tile, overlap, devices)
    canvas = open_canvas(Network(model, params, devices, np.dtype(dtype)), low)
    size = low.shape[:2]
    ((window, parts),) = plan_windows({0: size}, {size: size}, tile, overlap, BLOCK).items()
    mesh = parallel.data_mesh(devices[: len(parts)])
    params = jax.device_put(params, parallel.replicated(mesh))
    for first in range(0, len(parts), mesh.size):
        batch = parts[first : first + mesh.size]
        padded = batch + batch[-1:] * (mesh.size - len(batch))
        tiles = np.stack([canvas.cut_out(part, window) for part in padded])
        corners = np.asarray([(part.rows[0], part.columns[0]) for part in padded]) // BLOCK
        results = apply_to_tiles(apply, model, params, (tiles, corners), mesh)
        for result, part in zip(results, batch, strict=False):
            advance(canvas.paste(part, result))
    return canvas.sr


def apply_to_tiles(
    apply: Callable[..., Array],
    model: nn.Module,
    params: Any,
    inputs: tuple[np.ndarray, np.ndarray],
    mesh: Mesh,
) -> np.ndarray:
    """Processes one tile on each device; see `sample_tiles`."""
    try:
        low, corners = jax.device_put(inputs, parallel.batch_sharding(mesh))
        return np.asarray(apply(model, params, low, corners))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        height, width = inputs[0].shape[1:3]
        checks.fail(
            "memory",
            expected=f"room for SRFlow on {height} x {width} LR pixels at once",
            got=str(error).partition("\n")[0],
            remedy="choose smaller tiles with --tile",
        )


@functools.partial(jax.jit, static_argnames="model")
def sample_tiles(
    model: nn.Module, params: Any, low: Array, corners: Array, *, key: Array, heat: Array
) -> Array:
    """Draws tiles of one image: low [N,h,w,3] and their corners [N,2] in blocks -> [N,4h,4w,3]."""
    rows, columns = (jnp.arange(side // BLOCK) for side in low.shape[1:3])
    draw = functools.partial(draw_latents, key, heat=heat)
    latents = jax.vmap(lambda corner: draw(corner[0] + rows, corner[1] + columns))(corners)
    sr: Any = model.apply({"params": params}, low, latents, method="decode")
    return sr


@functools.partial(jax.jit, static_argnames="model")
def regress_tiles(model: nn.Module, params: Any, low: Array, corners: Array) -> Array:
    """Super-resolves tiles with the encoder: low [N,h,w,3], wherever their corners are -> [N,4h,4w,3]."""
    sr: Any = model.apply({"params": params}, low, method="regress")
    return sr
