"""The conditioning maps of SRFlow: RRDBNet without its long skip, and the maps that the flow takes from it.

The authors' network looks like ESRGAN's RRDBNet, with equal names and shapes, but differs in one sum: the
output of `conv_body` is added to the output of the last block, not to that of `conv_first`. Weights of one
give nonsense in the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from decloss_jax.models.layers import leaky_relu
from decloss_jax.models.rrdb import RRDB, upsample_nearest_x2
from decloss_jax.models.srflow.layers import convolve

Params = Mapping[str, Any]


def conditions(
    params: Params, low: Array, stacked_blocks: Sequence[int], *, unrolled: bool = False
) -> tuple[Array, Array, Array]:
    """Computes the maps that condition the three levels of the flow.

    Args:
        params: parameters of the encoder; those of its blocks are stacked along a leading axis.
        low: [N,h,w,3] in [0,1], h and w even.
        stacked_blocks: the blocks, counted from 0, whose outputs are joined to each level's own features.
        unrolled: compile every block separately.

    Returns:
        Maps of 2h x 2w, h x w and h/2 x w/2 pixels; each has features (1 + number of stacked blocks)
        channels.
    """
    features, maps = extract(params, low, stacked_blocks, unrolled=unrolled)
    stacked = jnp.concatenate(maps, axis=-1)
    halved = (features[:, ::2] + features[:, 1::2]) / 2
    halved = (halved[:, :, ::2] + halved[:, :, 1::2]) / 2
    doubled = upsample(params["conv_up1"], features)
    return (
        jnp.concatenate([doubled, upsample_nearest_x2(stacked)], axis=-1),
        jnp.concatenate([features, stacked], axis=-1),
        jnp.concatenate([halved, stacked[:, ::2, ::2]], axis=-1),
    )


def regress(params: Params, low: Array, *, unrolled: bool = False) -> Array:
    """Super-resolves [N,h,w,3] to [N,4h,4w,3] as RRDBNet does, which trains the encoder before the flow."""
    features, _ = extract(params, low, (), unrolled=unrolled)
    y = upsample(params["conv_up2"], upsample(params["conv_up1"], features))
    return convolution(params["conv_last"], leaky_relu(convolution(params["conv_hr"], y)))


def extract(
    params: Params, low: Array, stacked_blocks: Sequence[int], *, unrolled: bool
) -> tuple[Array, list[Array]]:
    """Returns the LR features, [N,h,w,features], and the outputs of the stacked blocks in their order."""
    x = convolution(params["conv_first"], low)
    blocks = jax.tree.leaves(params["body"])[0].shape[0]
    maps, start = {}, 0
    # Between two blocks whose outputs are kept, one compiled block serves all.
    for stop in sorted({block + 1 for block in stacked_blocks} | {blocks}):
        part = jax.tree.map(lambda leaf, a=start, b=stop: leaf[a:b], params["body"])
        x, _ = lax.scan(lambda x, block: (apply_block(block, x), None), x, part, unroll=unrolled)
        maps[stop - 1], start = x, stop
    return x + convolution(params["conv_body"], x), [maps[block] for block in stacked_blocks]


def apply_block(params: Params, x: Array) -> Any:
    """Applies one residual-in-residual dense block."""
    features, growth = params["rdb1"]["conv1"]["kernel"].shape[-2:]
    return RRDB(features, growth, x.dtype, parent=None).apply({"params": params}, x)


def upsample(params: Params, x: Array) -> Array:
    """Repeats every pixel 2x2 times, convolves, and applies the leaky ReLU."""
    return leaky_relu(convolution(params, upsample_nearest_x2(x)))


def convolution(params: Params, x: Array) -> Array:
    """Convolves and adds the bias."""
    return convolve(params["kernel"], x) + params["bias"]
