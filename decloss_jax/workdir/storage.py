"""Turns the errors of Orbax and TensorStore into those of the system or of the user."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from decloss_jax import checks
from decloss_jax.host import files

NOT_OURS = "do not use it, or fetch it again"


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turns TensorStore's report of a system error back into an `OSError` that names `path`."""
    try:
        with suppress_late_errors(), files.named(path):
            yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


@contextmanager
def suppress_late_errors() -> Iterator[None]:
    """Hides the traceback that TensorStore prints for each unfinished file when another file fails.

    Orbax does not wait for these files after a failure, so their errors may come late: then the hook stays.
    """
    before = sys.unraisablehook

    def without_late_errors(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = without_late_errors
    yield
    sys.unraisablehook = before


@contextmanager
def refuse_foreign(directory: Path) -> Iterator[None]:
    """Turns an error from intact files that train.py did not write into a `UserError`."""
    try:
        with suppress_late_errors():
            yield
    except checks.UserError as error:
        raise checks.UserError(f"{directory}: {error}") from error
    except Exception as error:  # Orbax and TensorStore raise errors of many kinds
        if jax.process_count() > 1:  # the error may report the death of another process
            raise
        first = str(error).partition("\n")[0][:200]
        checks.fail(
            str(directory),
            expected="a checkpoint of train.py",
            got=f"{type(error).__name__}: {first}" if first else type(error).__name__,
            remedy=NOT_OURS,
        )
