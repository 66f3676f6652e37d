"""Atomic writes, locks, hashes, and safe reads of files that strangers may have written."""

import errno
import fcntl
import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

LONGEST_NAME = 200  # bytes of a name that becomes part of a file name; the system's limit is 255
TEXT_LIMIT = 2**23  # bytes of a JSON or CSV file; in memory it can take fifty times as much
TEMPORARY_LETTERS = 8  # that tempfile.mkstemp appends


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that becomes `path` at the end, so that a crash leaves the old file or the new.

    Its folder is created if it is missing. An error inside removes the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{shorten(path.name)}.")
    try:
        os.close(descriptor)
        with named(path), open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def shorten(name: str) -> str:
    """Cuts a name to at most `LONGEST_NAME` bytes of valid text, so that a file name has room for more."""
    return os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore")


def remove_abandoned(folder: Path, names: str = "*") -> None:
    """Removes the temporary files that `replacing` left in a folder when its process was killed.

    The caller must hold a lock that keeps other writers out. `names` is a pattern of the files' final names.
    """
    for file in folder.glob(f".{names}.{'?' * TEMPORARY_LETTERS}"):
        file.unlink()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Adds the name of a file to system errors that have none, such as write errors."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise


def check_room(folder: Path, size: int) -> None:
    """Raises `OSError` unless the folder has room for `size` bytes, which are allocated and freed again.

    macOS cannot allocate them; there nothing is checked.
    """
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes `content` to `path`, whole or not at all (`replacing`)."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def expand(path: str | Path) -> Path:
    """Returns the path with ~ replaced by the user's home folder, if that is known."""
    return Path(os.path.expanduser(path))


def regular(path: Path, limit: float = math.inf) -> Path:
    """Returns `path` if it is a regular file or a folder, so that reading it comes to an end.

    Raises:
        OSError: no such file, a pipe or a device, or a file of more than `limit` bytes.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(errno.EINVAL, "a pipe or a device", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a JSON file that anybody may have written.

    Raises:
        OSError: from `regular`, or from the system.
        ValueError: not JSON (which has no NaN), nested too deeply, or not an object.
    """

    def refuse_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant}, which is not JSON")

    try:
        record = json.loads(regular(path, TEXT_LIMIT).read_text("utf-8"), parse_constant=refuse_constant)
        json.dumps(record, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except RecursionError as error:
        raise ValueError("brackets nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError(f"{json.dumps(record)[:100]}, which is not an object")
    return record


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Locks the file `path`, which is not removed; calls `on_wait` if another process holds the lock.

    The system releases the locks of a process however it ends.
    """
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
