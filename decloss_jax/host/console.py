"""Messages and progress for people: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PLAIN_LINE_SECONDS = 10.0


def say(text: str) -> None:
    """Prints one line to standard error, where it does not mix with results.

    If standard error cannot be written to (a pipe whose reader has exited), only the line is lost.
    """
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """Returns a text as one line that is safe to print on a terminal, even with names from strangers.

    Line breaks, control sequences, text-direction marks and undecodable bytes of file names become escapes
    such as \\x1b.
    """
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def duration(seconds: float) -> str:
    """Writes a duration as h:mm:ss."""
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}"


@contextmanager
def progress(
    title: str, total: int, *, done: int = 0, unit: str = "step", silent: bool = False
) -> Iterator[Callable[..., None]]:
    """Shows the progress of a task, with its rate and the time left.

    Args:
        title: name of the task.
        total: number of units in all.
        done: units that an earlier process has done.
        unit: the name of a unit, in the singular.
        silent: show nothing (for all processes but one).

    Yields:
        A function `advance(note="", count=1)`. Call it after each unit, or after `count` of them; the note
        is shown after the numbers.
    """
    show = _nothing if silent else _bar if sys.stderr.isatty() else _lines
    with show(title, total, done, unit) as advance:
        yield advance


def _rate(units: int, start: float, unit: str) -> str:
    value = units / (time.monotonic() - start)
    return f"{value:,.{0 if value >= 100 else 2}f} {unit}/s"


@contextmanager
def _nothing(title: str, total: int, done: int, unit: str) -> Iterator[Callable[..., None]]:
    yield lambda note="", count=1: None


@contextmanager
def _bar(title: str, total: int, done: int, unit: str) -> Iterator[Callable[..., None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=30),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, rate="", note="")
        start, new, latest_note = time.monotonic(), 0, ""

        def advance(note: str = "", count: int = 1) -> None:
            nonlocal new, latest_note
            new += count
            latest_note = note or latest_note
            bar.update(task, advance=count, rate=_rate(new, start, unit), note=printable(latest_note))

        yield advance


@contextmanager
def _lines(title: str, total: int, done: int, unit: str) -> Iterator[Callable[..., None]]:
    start = last = time.monotonic()
    new, latest_note = 0, ""

    def advance(note: str = "", count: int = 1) -> None:
        nonlocal last, new, latest_note
        new += count
        latest_note = note or latest_note
        now = time.monotonic()
        if new > 0 and (now - last >= PLAIN_LINE_SECONDS or (done + new == total and count > 0)):
            last = now
            left = duration((total - done - new) * (now - start) / new)
            rate = _rate(new, start, unit)
            say(f"{title} {done + new}/{total}  {rate}  {left} left  {latest_note}".rstrip())

    yield advance
