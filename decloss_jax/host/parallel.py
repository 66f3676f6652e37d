"""One mesh axis, "data", over all devices: batches are split along N, everything else is copied to all.

With several processes, each has its own devices and its own share of the batch. All run the same program and
must take the same decisions; `check_agreement` and `any_process` ensure that.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from decloss_jax import checks
from decloss_jax.host import console

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
    """Yields `shard_batch` of each batch in order; meanwhile a thread transfers the next `ahead` of them."""
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


def is_first_process() -> bool:
    """Tells whether this is process 0, which writes the files and prints the messages."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints one line, on process 0 only."""
    if is_first_process():
        console.say(text)


def wait_for_all(place: str) -> None:
    """Waits until all processes have reached this place; its name must be the same on all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def any_process(mesh: Mesh, *, delay: int) -> Callable[[bool], bool]:
    """Makes a function that tells whether a flag is set on any process; all must call it equally often.

    Args:
        mesh: all devices of all processes.
        delay: with several processes, the function returns the answer from `delay` calls earlier (False at
            first), so that no process waits for it. A single process gets its own answer at once.
    """
    if jax.process_count() == 1:
        return lambda flag: flag
    join = jax.jit(jnp.any, out_shardings=replicated(mesh))
    answers: deque[jax.Array] = deque()

    def ask(flag: bool) -> bool:
        flags = np.full(jax.local_device_count(), flag)
        answers.append(join(jax.make_array_from_process_local_data(batch_sharding(mesh), flags)))
        return len(answers) > delay and bool(answers.popleft())

    return ask


def check_agreement(subject: str, value: object, remedy: str) -> None:
    """Raises `UserError`, on every process, unless all have the same `value`, compared by its `repr`."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(repr(value).encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    others = [index for index, other in enumerate(digests) if (other != digests[0]).any()]
    checks.check(
        not others,
        subject,
        expected="the same on all processes",
        got=f"a different one on process {others[0] if others else 0} than on process 0",
        remedy=remedy,
    )
