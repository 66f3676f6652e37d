"""How every program starts, fails and ends: train.py, evaluate.py and python -m decloss_jax COMMAND.

| what happens | what it says | exit status |
|---|---|---|
| a mistake of the user (`UserError`), an error of the system such as a full disk | one sentence | 2 |
| Ctrl-C | interrupted | 130 |
| SIGTERM, to a program that the same command resumes | that it does | 0 |
| SIGTERM, to another | nothing | 143 |
| the reader of its output has gone, as in `| head` | nothing | 141 |
| another process of the run has ended | one sentence | 1 |
| a bug | its traceback | 1 |
"""

import argparse
import errno
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from decloss_jax import checks
from decloss_jax.host import console, files, processes, streams

INTERRUPTED = 130  # the shell's status of a command that Ctrl-C ended
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN_PIPE = 141  # the shell's status of a command that SIGPIPE ended


class Terminated(SystemExit):
    """SIGTERM as an exception, which lets temporary folders be removed on the way out."""


LEAVING = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}


class Parser(argparse.ArgumentParser):
    """A parser of a command line whose complaints are answered as every mistake is."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` with what argparse found."""
        raise checks.UserError(f"{message}; see {self.prog} --help.")


def help_text(description: str, examples: Sequence[str]) -> dict[str, Any]:
    """Returns the options of a parser that describe its program, with example calls at the end."""
    return {
        "description": description,
        "epilog": "\n".join(["examples:", *(f"  {line}" for line in examples)]),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def comma_list(text: str) -> list[str]:
    """Reads an option whose values have commas between."""
    return text.split(",") if text else []


def path(text: str) -> Path:
    """Reads an option that is a path; ~ is the user's home."""
    return files.expand(text)


def start(name: str, parse: Callable[[Sequence[str] | None], argparse.Namespace]) -> NoReturn:
    """Runs a program as this process, which ends with its status; for the arguments see `run`."""
    streams.make_usable()
    leave_on_sigterm()
    try:
        status = run(name, parse)
    finally:
        ignore_sigterm()
        streams.discard_unwritten()
    sys.exit(status)


def run(
    name: str,
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a program within this process; returns its exit status.

    Args:
        name: of the program, in front of its complaints.
        parse: turns the arguments into options. Among them are `main`, which gets them all and returns a
            status (None for 0), `resumes`, whether the same command goes on where this one was stopped, and
            perhaps `command`, a name behind the program's.
        arguments: by default those of this process.
    """
    resumes = False
    try:
        options = parse(arguments)
        name, resumes = f"{name} {getattr(options, 'command', '')}".rstrip(), options.resumes
        prepare_libraries()
        status = options.main(options) or 0
        sys.stdout.flush()
        return status
    except BaseException as error:
        ignore_sigterm()
        if processes.has_joined():
            leave_the_others(error, name, resumes=resumes)
        return answer(error, name, resumes=resumes)


def answer(error: BaseException, name: str, *, resumes: bool) -> int:
    """Says in one sentence what ended a program; returns the exit status. What is a bug is raised again."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if isinstance(error, checks.UserError):
        return complain(name, error)
    if isinstance(error, OSError) and (error.filename is not None or error.errno in NO_ROOM):
        place = error.filename or "the output"
        return complain(
            name,
            f"{place}: expected a file or folder that can be used, got {error.strerror}; correct that, or "
            "choose another.",
        )
    if isinstance(error, KeyboardInterrupt):
        return complain(name, "interrupted", status=INTERRUPTED)
    if isinstance(error, Terminated) and resumes:
        return report_stop("stopped; the same command goes on from there")
    raise error


def complain(name: str, message: object, *, status: int = 2) -> int:
    """Prints an error as one line; returns the exit status."""
    console.say(f"{name}: {' '.join(str(message).split())}")
    return status


def report_stop(message: object, *, by_keyboard: bool = False) -> int:
    """Says that a run was stopped and how it goes on; returns the exit status."""
    console.say(str(message))
    return INTERRUPTED if by_keyboard else 0


def leave_the_others(error: BaseException, name: str, *, resumes: bool) -> NoReturn:
    """Ends this one of several processes at once, so that the others notice and end, too.

    An orderly end would wait for them, while they wait for this one.
    """
    try:
        status = answer(error, name, resumes=resumes)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except Exception:
        if processes.comes_of_a_death(error):
            reason = str(error).strip().partition("\n")[0]
            complain(
                name,
                f"another process of this run has ended or cannot be reached ({reason}); see what it said, "
                "and start all again: they go on from the last checkpoint",
            )
        else:
            traceback.print_exc()
        status = 1
    streams.discard_unwritten()
    os._exit(status)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Turns SIGTERM into `Terminated`."""
    raise Terminated(128 + number)


def leave_on_sigterm() -> None:
    """Lets SIGTERM end this process by `Terminated`."""

    def ask_again(unraisable: Any) -> None:
        number = LEAVING.get(unraisable.exc_type)
        if number is None:
            others(unraisable)
        else:
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()

    signal.signal(signal.SIGTERM, terminate)
    # Python drops what is raised in a callback of its garbage collector, and JAX has one.
    others, sys.unraisablehook = sys.unraisablehook, ask_again


def ignore_sigterm() -> None:
    """Keeps SIGTERM from changing a status that is decided, where `leave_on_sigterm` has taken it."""
    if signal.getsignal(signal.SIGTERM) is terminate:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def prepare_libraries() -> None:
    """Keeps Orbax's log from the screen, and lets images be as large as `data.images` allows."""
    from absl import logging as absl_logging

    from decloss_jax.data.images import accept_large_images

    for logger in (absl_logging.get_absl_logger(), logging.getLogger()):
        logger.addFilter(is_not_of_orbax)
    accept_large_images()


def is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Tells whether a line of the log is to be shown: Orbax reports every file, and an error before it
    raises it."""
    return "orbax" not in Path(record.pathname).parts


def prepare_jax(work: str, *, deterministic: bool = False) -> None:
    """Says on which devices `work` runs, and lets JAX keep compiled functions.

    The functions are kept in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/decloss_jax/xla.
    """
    import jax

    from decloss_jax.host.devices import make_deterministic, say_devices

    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.expanduser("~/.cache/decloss_jax/xla")
    if not cache.startswith("~"):  # which stays for a user without a home, as in some containers
        jax.config.update("jax_compilation_cache_dir", cache)
    if deterministic:
        make_deterministic()
    say_devices(work)
