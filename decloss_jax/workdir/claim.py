"""The claim on a workdir, for one process and one config; and the request to stop."""

import fcntl
import json
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from decloss_jax import checks
from decloss_jax.config import flatten, is_unset
from decloss_jax.data.folder import split_roots
from decloss_jax.host import files, parallel

# Fields that may differ when a run resumes: they change its reports and its speed, but not its results.
REPORTING_FIELDS = (
    "log_every_steps",
    "eval_every_steps",
    "checkpoint_every_steps",
    "validation_images",
    "sample_images",
    "data.archives",
    "data.cache_dir",
    "data.threads",
)

# Paths are compared after they are resolved.
PATH_FIELDS = (
    "init_from",
    "data.root",
    "data.validation_root",
    "perceptual.weights_file",
    "discriminator.init_from",
    "ranker.weights_file",
    "ranker.networks",
)


class StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a request; a second Ctrl-C interrupts at once.

    A second SIGTERM has no effect: schedulers send several, and the state is being saved.
    """

    def __init__(self) -> None:
        self._requested = False
        self.by_keyboard = False

    def requested(self) -> bool:
        return self._requested

    def catch(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        if number == signal.SIGINT:
            self.by_keyboard = True
            signal.signal(number, signal.default_int_handler)


def check_same_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises `UserError` with the differences, unless the workdir is new or holds a run of this config."""
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        before = flatten(files.read_json(path))
    except (OSError, ValueError, RecursionError) as error:
        checks.fail(
            str(path), expected="the config of a run", got=str(error), remedy="choose another --workdir"
        )
    # Through JSON, so that tuples and lists compare equal.
    now = flatten(json.loads(json.dumps(config)))
    # A run resumes although it is older than a field that is not set.
    before = {field: value for field, value in now.items() if is_unset(field, value)} | before
    missing = object()
    differing = [
        f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}"
        for key in sorted(before.keys() | now.keys())
        if key not in REPORTING_FIELDS
        and place(key, before.get(key, missing)) != place(key, now.get(key, missing))
    ]
    checks.check(
        not differing,
        f"workdir {workdir}",
        expected="a new folder, or a run of the same config",
        got="another config's run (" + "; ".join(differing) + ")",
        remedy=f"choose another --workdir (with --config.init_from={workdir} its stage 2 starts from this "
        "run), or use the same config to resume it",
    )


def place(field: str, value: Any) -> Any:
    """Returns the value of a config field, in which a path, or paths separated by commas, are resolved."""
    is_path = field in PATH_FIELDS and isinstance(value, str) and value
    return [path.resolve() for path in split_roots(value)] if is_path else value


def record_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json`, which binds the workdir to this config; call it after all checks.

    Raises:
        UserError: a run of another config has written its own since the last `check_same_config`.
    """
    path = workdir / "config.json"
    check_same_config(workdir, config)
    if parallel.is_first_process() and not path.exists():
        files.write_atomically(path, json.dumps(config, indent=1) + "\n")


def check_shared(workdir: Path) -> None:
    """Raises `UserError` unless all processes see the same folder: each must read what process 0 wrote."""
    lock = workdir / ".lock"
    if parallel.is_first_process():
        lock.write_text(secrets.token_hex())
    parallel.wait_for_all("lock written")
    remedy = "choose a --workdir on a disk that all processes share"
    parallel.check_agreement(f"workdir {workdir}", lock.read_text(), remedy)


@contextmanager
def claim(workdir: Path) -> Iterator[StopRequest]:
    """Locks the workdir against a second training process. The system releases the lock when this one ends.

    Yields:
        The request to stop, which SIGTERM and Ctrl-C set.

    Raises:
        UserError: the workdir cannot be written to, or is in use; or an `OSError`, such as a full disk,
            occurred inside the block.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / ".lock").touch()
    except OSError as error:
        checks.fail(
            f"workdir {workdir}",
            expected="a folder that can be written to",
            got=error.strerror,
            remedy="choose another --workdir",
        )
    stop = StopRequest()
    handlers = {number: signal.signal(number, stop.catch) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with (workdir / ".lock").open("a") as lock:
            if parallel.is_first_process():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    checks.fail(
                        f"workdir {workdir}",
                        expected="a folder that no other process trains in",
                        got="one that is in use",
                        remedy="wait for that process or choose another --workdir",
                    )
            check_shared(workdir)
            yield stop
    except OSError as error:
        checks.fail(
            str(error.filename or f"workdir {workdir}"),
            expected="a writable disk with free space, and readable files",
            got=error.strerror or error,
            remedy="correct that, and run the same command again: it resumes from the last checkpoint",
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
