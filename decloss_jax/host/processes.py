"""The processes of one run, on one machine or many: how they connect, and notice that one has died."""

import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

from decloss_jax import checks
from decloss_jax.host import console

JOIN_SECONDS = 300  # for which processes wait for each other at the start
HEARTBEAT_SECONDS = 20  # without a heartbeat, after which a process counts as dead
# Words in the errors of Gloo (CPU), NCCL (GPU) and JAX's coordination service after another process has died.
GONE = re.compile(r"gloo|nccl|coordination|heartbeat|unavailable|barrier|connection", re.IGNORECASE)


def join(coordinator: str | None, count: int, index: int) -> None:
    """Connects this process, number `index` of `count`; `coordinator` is HOST:PORT of process 0.

    Each process uses all the devices that it sees. When one dies, the others end: at once if they wait for it
    in a collective operation on the CPU, and after `HEARTBEAT_SECONDS` in any case.

    Raises:
        UserError: a wrong number or address, or process 0 or one of the others cannot be reached.
    """
    host, _, port = (coordinator or "").rpartition(":")
    checks.check(
        bool(host) and port.isdigit() and 0 <= index < count,
        "--coordinator and --process",
        expected=f"HOST:PORT of process 0 and a number from 0 to {count - 1}",
        got=f"{coordinator} and {index}",
        remedy="give each process the same --coordinator and its own --process",
    )
    try:
        if index == 0:
            socket.create_server(("", int(port))).close()
        else:
            socket.getaddrinfo(host, port)
    except (OSError, OverflowError) as error:
        checks.fail(
            f"--coordinator={coordinator}",
            expected="a free port of process 0" if index == 0 else "a machine that can be found",
            got=getattr(error, "strerror", None) or error,
            remedy="give each process the same HOST:PORT, on the machine of process 0",
        )
    if index == 0:
        console.say(f"waiting for {count - 1} other processes at {coordinator}")
    # In a thread, because Python handles signals only while its main thread waits in Python code.
    try:
        ThreadPoolExecutor(1).submit(initialize, f"{host}:{port}", count, index).result(JOIN_SECONDS)
    except TimeoutError:
        checks.fail(
            f"--coordinator={coordinator}",
            expected=f"{count} processes that connect to process 0",
            got=f"not all of them within {JOIN_SECONDS} s",
            remedy="start all of them, each with its own --process, on machines that can reach the port",
        )


def initialize(coordinator: str, count: int, index: int) -> None:
    """Connects the processes; returns when all have connected."""
    import jax

    # JAX would handle SIGTERM itself; the training loop stops all processes at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        count,
        index,
        cluster_detection_method="deactivate",  # under Slurm it would use only one of the GPUs
        initialization_timeout=2 * JOIN_SECONDS,  # when it expires, JAX aborts with a stack trace
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )


def has_joined() -> bool:
    """Tells whether this process is one of several."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized()


def comes_of_a_death(error: BaseException) -> bool:
    """Tells whether an error looks like a consequence of another process's death."""
    return GONE.search(str(error)) is not None
