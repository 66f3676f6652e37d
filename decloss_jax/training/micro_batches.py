"""A few images at a time: a micro-batch bounds the memory of the networks, and the result is unchanged.

Each device cuts its own share of the batch into micro-batches and takes them through a network one after
another, in a loop of fixed length, so that it holds the activations of one at a time. What mixes images
(DECLoss, a discriminator's batch norms) is outside and sees the whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from decloss_jax.host import parallel

Network = Callable[[Any, Array], Any]
Value = Callable[[Any, Array, Array], Array]
WHOLE, SPLIT = PartitionSpec(), PartitionSpec(parallel.DATA_AXIS)


def cut(images: Array, size: int) -> Array:
    """Cuts images into micro-batches: [N,...] -> [N/size,size,...]."""
    return images.reshape(-1, size, *images.shape[1:])


def in_micro_batches(network: Network, size: int | None, mesh: Mesh) -> Network:
    """Returns `network` taking `size` images of each device at a time; None: all at once.

    The backward pass computes each micro-batch's activations anew, then its gradient; the gradients of the
    parameters add up on each device and are summed over the devices once, behind the loop.

    Args:
        network: (params, [N,h,w,C]) -> [N,H,W,C], image by image.
        size: divides the number of images of a device.
        mesh: over which N is split.
    """
    if size is None:
        return network

    def of_share(params: Any, images: Array) -> Array:
        # Without this the gradients would be summed over the devices in each turn of the loop.
        params = lax.pcast(params, parallel.DATA_AXIS, to="varying")
        of_part = jax.checkpoint(lambda part: network(params, part), prevent_cse=False)
        outputs = lax.map(of_part, cut(images, size))
        return outputs.reshape(len(images), *outputs.shape[2:])

    return jax.shard_map(of_share, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=SPLIT)


def mean_over_micro_batches(value: Value, size: int | None, mesh: Mesh) -> Value:
    """Returns `value`, a mean over images, taking `size` images of each device at a time; None: all at once.

    Each turn of the loop computes a value and its gradient with respect to SR; nothing is computed twice.

    Args:
        value: (frozen arrays, sr [N,H,W,C], hr [N,H,W,C]) -> scalar; no gradient flows into the others.
        size: divides the number of images of a device.
        mesh: over which N is split.
    """
    if size is None:
        return value

    def of_share(frozen: Any, sr: Array, hr: Array) -> Array:
        def of_part(part: tuple[Array, Array]) -> tuple[Array, Array]:
            return jax.value_and_grad(value, argnums=1)(frozen, *part)

        values, slopes = lax.map(of_part, (cut(lax.stop_gradient(sr), size), cut(hr, size)))
        slope = slopes.reshape(sr.shape) / len(values)
        # The last summand is 0 and gives the mean the gradient that is known already.
        mean = values.mean() + jnp.vdot(slope, sr - lax.stop_gradient(sr))
        return lax.pmean(mean, parallel.DATA_AXIS)

    return jax.shard_map(of_share, mesh=mesh, in_specs=(WHOLE, SPLIT, SPLIT), out_specs=WHOLE)
