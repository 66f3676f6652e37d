"""One mesh axis, "data", over all devices: batches are split along N, everything else is on every device."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from decloss_jax import checks

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the mesh over `devices`, by default all devices of all processes."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (DATA_AXIS,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` unless the global batch can be split evenly over the mesh."""
    checks.check(
        batch_size > 0 and batch_size % mesh.size == 0,
        "batch_size (of the global batch)",
        expected=f"a positive multiple of the number of devices ({mesh.size})",
        got=batch_size,
        remedy=f"set --config.batch_size to {max(1, round(batch_size / mesh.size)) * mesh.size}",
    )


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's share of the global batch onto its devices, split along N."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def shard_ahead(
    batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, *, ahead: int
) -> Iterator[dict[str, jax.Array]]:
    """Yields `shard_batch` of each batch in order; a thread puts the next `ahead` on devices meanwhile."""
    source = iter(batches)

    def put_next() -> dict[str, jax.Array] | None:
        batch = next(source, None)
        return None if batch is None else shard_batch(batch, mesh)

    thread = ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(put_next) for _ in range(ahead))
        while True:
            waiting.append(thread.submit(put_next))
            batch = waiting.popleft().result()
            if batch is None:
                return
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)


def local_copy(tree):
    """Returns this process's first copy of replicated arrays, for work that one device does alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def any_process(flag: bool) -> bool:
    """Tells whether `flag` holds on any process; all of them must ask at the same time."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
