"""What a person sees while work goes on: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_LINE_SECONDS = 10.0


def say(text: str) -> None:
    """Prints one line to standard error, where it does not mix with results."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Writes a duration as h:mm:ss."""
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}"


@contextmanager
def progress(title: str, total: int, *, done: int = 0, unit: str = "step") -> Iterator[Callable[..., None]]:
    """Shows how far work has come, with its rate and the time left.

    Args:
        title: what is being done.
        total: number of units in all.
        done: units done before, by an earlier process.
        unit: the name of a unit, in the singular.

    Yields:
        A function `advance(note="")`, to be called after each unit; the note is shown beside the numbers.
    """
    show = _bar if sys.stderr.isatty() else _lines
    with show(title, total, done, unit) as advance:
        yield advance


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
        rich_progress.TextColumn("{task.fields[note]}"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, rate="", note="")
        start, count, latest_note = time.monotonic(), 0, ""

        def advance(note: str = "") -> None:
            nonlocal count, latest_note
            count += 1
            latest_note = note or latest_note
            rate = f"{count / (time.monotonic() - start):.2f} {unit}/s"
            bar.update(task, advance=1, rate=rate, note=latest_note)

        yield advance


@contextmanager
def _lines(title: str, total: int, done: int, unit: str) -> Iterator[Callable[..., None]]:
    start = last = time.monotonic()
    count, latest_note = 0, ""

    def advance(note: str = "") -> None:
        nonlocal last, count, latest_note
        count += 1
        latest_note = note or latest_note
        now = time.monotonic()
        if now - last >= PLAIN_LINE_SECONDS or done + count == total:
            last = now
            rate = count / (now - start)
            left = duration((total - done - count) / rate)
            say(f"{title} {done + count}/{total}  {rate:.2f} {unit}/s  {left} left  {latest_note}".rstrip())

    yield advance
