"""How train.py and evaluate.py start and end: mistakes get one sentence and exit status 2."""

import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from absl import app, flags, logging

from decloss_jax import checks
from decloss_jax.config import flatten
from decloss_jax.host import console, processes

INTERRUPTED = 130  # the shell's status of a command that Ctrl-C ended


class Terminated(SystemExit):
    """SIGTERM as an exception, which lets temporary folders be removed on the way out."""


LEAVING = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}


def run(main: Callable[[list[str]], int | None], *, resumes: bool = False) -> None:
    """Runs a script's `main` under absl; a user's mistake ends it with one sentence and status 2.

    With `resumes` the same command goes on where it was stopped, so that SIGTERM, a scheduler's notice, ends
    it with status 0.
    """

    def guarded(arguments: list[str]) -> int | None:
        read_large_images()
        try:
            return main(arguments)
        except BaseException as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if not processes.has_joined():
                return answer(error, resumes=resumes)
            leave_the_others(error, resumes=resumes)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the status is decided

    leave_on_sigterm()
    app.run(guarded, flags_parser=parse_flags)


def answer(error: BaseException, *, resumes: bool) -> int:
    """Says in one sentence what ended a script; returns the exit status. What is a bug is raised again."""
    if isinstance(error, checks.UserError):
        return complain(error)
    if isinstance(error, OSError) and error.filename is not None:
        return complain(
            f"{error.filename}: expected a place that can be used, got {error.strerror}; mend that."
        )
    if isinstance(error, KeyboardInterrupt):
        return complain("interrupted", status=INTERRUPTED)
    if isinstance(error, Terminated) and resumes:
        return report_stop("stopped; the same command goes on from there")
    raise error


def leave_the_others(error: BaseException, *, resumes: bool) -> NoReturn:
    """Ends this one of several processes at once, so that the others notice and end, too.

    An orderly end would wait for them, while they wait for this one.
    """
    try:
        status = answer(error, resumes=resumes)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except Exception:
        if processes.comes_of_a_death(error):
            reason = str(error).strip().partition("\n")[0]
            complain(
                f"another process of this run has ended or cannot be reached ({reason}); see what it said, "
                "and start all again: they go on from the last checkpoint"
            )
        else:
            traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def leave_on_sigterm() -> None:
    """Turns SIGTERM into `Terminated`."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    def ask_again(unraisable: Any) -> None:
        number = LEAVING.get(unraisable.exc_type)
        if number is None:
            others(unraisable)
        else:
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()

    signal.signal(signal.SIGTERM, leave)
    # Python drops what is raised in a callback of its garbage collector, and JAX has one.
    others, sys.unraisablehook = sys.unraisablehook, ask_again


def read_large_images() -> None:
    """Sets the limit of what is read from an image file to the package's own (`data.images`)."""
    from decloss_jax.data.images import accept_large_images

    accept_large_images()


def report_stop(message: object, *, by_keyboard: bool = False) -> int:
    """Says that a run was stopped and how it goes on; returns the exit status."""
    console.say(str(message))
    return INTERRUPTED if by_keyboard else 0


def complain(message: object, *, status: int = 2) -> int:
    """Prints an error as one line; returns the exit status."""
    console.say(f"{Path(sys.argv[0]).name}: {' '.join(str(message).split())}")
    return status


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses the flags; leaves with status 2 and one sentence when they are wrong."""
    try:
        if "config" in flags.FLAGS:
            check_config_arguments(arguments)
        rest = flags.FLAGS(arguments)
        checks.check(
            len(rest) == 1,
            "command line",
            expected="flags only",
            got=" ".join(rest[1:]),
            remedy="write options as --name=value",
        )
        if flags.FLAGS["verbosity"].using_default_value:
            # Orbax reports every file, and an error with its traceback before it raises it; --verbosity=0
            # shows that. Set so, and not by `.value`, absl keeps it.
            setattr(flags.FLAGS, "verbosity", logging.FATAL)  # noqa: B010 (mypy knows no such attribute)
        return rest
    except (flags.Error, checks.UserError) as error:
        sys.exit(complain(error))


def check_config_arguments(arguments: list[str]) -> None:
    """Raises `UserError` for a config file that is not there and for a field that it does not have.

    The flags library would name neither the nearest file nor the nearest field.
    """
    names = [
        argument.partition("=")[0].lstrip("-") if argument.startswith("-") else ""
        for argument in arguments[1:]
    ]
    if "config" not in names:
        return
    position = len(names) - names[::-1].index("config")  # of the last one, which is the one that counts
    path = Path(arguments[position].partition("=")[2] or "".join(arguments[position + 1 : position + 2]))
    checks.check(
        path.is_file(),
        "--config",
        expected="a config file",
        got=f"{path}{checks.nearest(str(path), map(str, Path('configs').glob('**/*.py')))}",
        remedy="choose a file of configs/ or write one",
    )
    try:
        namespace = runpy.run_path(str(path))
    except SyntaxError as error:
        checks.fail(
            str(path), expected="a Python file", got=f"line {error.lineno}: {error.msg}", remedy="mend it"
        )
    checks.check(
        "get_config" in namespace,
        str(path),
        expected="a Python file with a function get_config()",
        got="none",
        remedy="choose a file of configs/",
    )
    config = namespace["get_config"]()
    checks.check(
        hasattr(config, "to_dict"),
        str(path),
        expected="a get_config() that returns a ConfigDict",
        got=f"{type(config).__name__}",
        remedy="begin as the files in configs/ do",
    )
    fields = flatten(config.to_dict())
    for name in names:
        if name.startswith("config."):
            field = name.removeprefix("config.")
            checks.check(
                field in fields,
                f"--config.{field}",
                expected="a field of the config",
                got=f"an unknown one{checks.nearest(field, fields)}",
                remedy="see configs/base.py for all fields",
            )


def use_compilation_cache() -> None:
    """Lets JAX keep compiled functions in $JAX_COMPILATION_CACHE_DIR, by default ~/.cache/decloss_jax/xla."""
    import jax

    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not cache:
        try:
            cache = str(Path.home() / ".cache" / "decloss_jax" / "xla")
        except RuntimeError:  # a user without a home, as in some containers
            return
    jax.config.update("jax_compilation_cache_dir", cache)
