"""Micro-batches: they bound the memory of the networks and do not change the result.

Each device cuts its own share of the batch into micro-batches and passes them through a network one after
another, in a loop of fixed length, so that it holds the activations of only one. Operations that mix images
(DECLoss, a discriminator's batch norms) are outside the loop and see the whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from decloss_jax.host import parallel

Network = Callable[..., Any]  # (params, *images) -> images or one value for each image
Value = Callable[[Any, Array, Array], Array]
WHOLE, SPLIT = PartitionSpec(), PartitionSpec(parallel.DATA_AXIS)


def cut(images: Array, size: int) -> Array:
    """Cuts images into micro-batches: [N,...] -> [N/size,size,...]."""
    return images.reshape(-1, size, *images.shape[1:])


def in_micro_batches(network: Network, size: int | None, mesh: Mesh) -> Network:
    """Makes `network` process `size` images per device at a time; None: all at once.

    The backward pass recomputes each micro-batch's activations before its gradient. The gradients of the
    parameters are summed on each device, and over the devices only once, after the loop.

    Args:
        network: (params, *arrays [N,...]) -> [N,...]; it treats each image independently.
        size: a divisor of the number of images per device.
        mesh: the devices over which N is split.
    """
    if size is None:
        return network

    def of_share(params: Any, images: tuple[Array, ...]) -> Array:
        # Without this the gradients would be summed over the devices in each iteration.
        params = lax.pcast(params, parallel.DATA_AXIS, to="varying")
        of_part = jax.checkpoint(lambda part: network(params, *part), prevent_cse=False)
        outputs = lax.map(of_part, tuple(cut(each, size) for each in images))
        return outputs.reshape(-1, *outputs.shape[2:])

    of_batch = jax.shard_map(of_share, mesh=mesh, in_specs=(WHOLE, SPLIT), out_specs=SPLIT)
    return lambda params, *images: of_batch(params, images)


def mean_over_micro_batches(value: Value, size: int | None, mesh: Mesh) -> Value:
    """Makes `value`, a mean over images, process `size` images per device at a time; None: all at once.

    Each iteration computes a value and its gradient with respect to SR; nothing is computed twice.

    Args:
        value: (frozen arrays, sr [N,H,W,C], hr [N,H,W,C]) -> scalar; only sr gets a gradient.
        size: a divisor of the number of images per device.
        mesh: the devices over which N is split.
    """
    if size is None:
        return value

    def of_share(frozen: Any, sr: Array, hr: Array) -> Array:
        def of_part(part: tuple[Array, Array]) -> tuple[Array, Array]:
            return jax.value_and_grad(value, argnums=1)(frozen, *part)

        values, slopes = lax.map(of_part, (cut(lax.stop_gradient(sr), size), cut(hr, size)))
        slope = slopes.reshape(sr.shape) / len(values)
        # The second term is 0; its gradient is the one already computed.
        mean = values.mean() + jnp.vdot(slope, sr - lax.stop_gradient(sr))
        return lax.pmean(mean, parallel.DATA_AXIS)

    return jax.shard_map(of_share, mesh=mesh, in_specs=(WHOLE, SPLIT, SPLIT), out_specs=WHOLE)
