"""How every program starts, fails and ends: train.py, evaluate.py and python -m decloss_jax COMMAND.

| cause | message | exit status |
|---|---|---|
| a user's mistake (`UserError`), a system error such as a full disk | one sentence | 2 |
| Ctrl-C | interrupted | 130 |
| SIGTERM to a program that can resume | that the same command resumes | 0 |
| SIGTERM to another program | none | 143 |
| the reader of its output has closed it, as in `| head` | none | 141 |
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
    """A command-line parser that reports mistakes as `UserError`."""

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` with what argparse found."""
        raise checks.UserError(f"{message}; see {self.prog} --help.")


def help_text(description: str, examples: Sequence[str]) -> dict[str, Any]:
    """Returns parser options that describe a program, with example calls at the end."""
    return {
        "description": description,
        "epilog": "\n".join(["examples:", *(f"  {line}" for line in examples)]),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def comma_list(text: str) -> list[str]:
    """Reads an option with values separated by commas."""
    return text.split(",") if text else []


def path(text: str) -> Path:
    """Reads an option that is a path; ~ is the user's home."""
    return files.expand(text)


def start(name: str, parse: Callable[[Sequence[str] | None], argparse.Namespace]) -> NoReturn:
    """Runs a program and ends this process with its status; `run` explains the arguments."""
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
        name: of the program; its error messages start with it.
        parse: turns the arguments into options. They include `main`, which takes all options and returns a
            status (None for 0), and `resumes`, whether the same command resumes a stopped one. They may
            include `command`, which is appended to the program's name.
        arguments: default: those of this process.
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
    """Prints in one sentence what ended a program; returns the exit status. A bug is raised again."""
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
    """Prints that a run was stopped and how to resume it; returns the exit status."""
    console.say(str(message))
    return INTERRUPTED if by_keyboard else 0


def leave_the_others(error: BaseException, name: str, *, resumes: bool) -> NoReturn:
    """Ends this process of a distributed run at once, so that the others notice and end, too.

    An orderly exit would wait for the others, while they wait for this one.
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
    """Makes SIGTERM end this process by `Terminated`."""

    def ask_again(unraisable: Any) -> None:
        number = LEAVING.get(unraisable.exc_type)
        if number is None:
            others(unraisable)
        else:
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()

    signal.signal(signal.SIGTERM, terminate)
    # Python drops exceptions raised in a callback of its garbage collector, and JAX has such a callback.
    others, sys.unraisablehook = sys.unraisablehook, ask_again


def ignore_sigterm() -> None:
    """Keeps SIGTERM from changing a decided status, if `leave_on_sigterm` handles it."""
    if signal.getsignal(signal.SIGTERM) is terminate:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def prepare_libraries() -> None:
    """Hides Orbax's log, and allows images as large as `data.images` does."""
    from absl import logging as absl_logging

    from decloss_jax.data.images import accept_large_images

    for logger in (absl_logging.get_absl_logger(), logging.getLogger()):
        logger.addFilter(is_not_of_orbax)
    accept_large_images()


def is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Tells whether to show a log record. Orbax logs every file, and each error before raising it."""
    return "orbax" not in Path(record.pathname).parts


def prepare_jax(work: str, *, deterministic: bool = False) -> None:
    """Prints the devices on which `work` runs, and turns on JAX's compilation cache.

    It is in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/decloss_jax/xla.
    """
    import jax

    from decloss_jax.host.devices import make_deterministic, say_devices

    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.expanduser("~/.cache/decloss_jax/xla")
    if not cache.startswith("~"):  # it stays for a user without a home, as in some containers
        jax.config.update("jax_compilation_cache_dir", cache)
    if deterministic:
        make_deterministic()
    say_devices(work)
