"""Draws the journals of runs: losses, learning rate and validation metrics against steps and time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decloss_jax import checks
from decloss_jax.host import files
from decloss_jax.host.console import printable
from decloss_jax.workdir import journal

PANEL_SIZE = (5.0, 3.2)  # inches
MARKERS_UNTIL = 40  # points of a curve; longer ones are lines alone
HOURS_FROM = 120  # minutes; shorter runs are drawn against minutes

# The pictures, and which fields of the journal each one shows, a row of panels for each field.
PICTURES = {"losses": ("loss/",), "learning_rate": ("learning_rate",), "validation": ("validation/",)}
LOG_SCALED = "loss/"  # losses fall over orders of magnitude

# Of a journal that anybody may have written; a run has two stages and about twenty fields.
MOST_FIELDS, MOST_STAGES = 100, 100
LONGEST_LABEL = 100  # characters


@dataclass(frozen=True)
class Curves:
    """The journal of a run.

    Attributes:
        name: of the run.
        steps: of the logged lines.
        minutes: of training until each line, without saving and measuring; from the images per second.
        stages: number of the first line of each stage.
        values: field -> a value for each line, NaN where the line does not have it.
    """

    name: str
    steps: np.ndarray
    minutes: np.ndarray
    stages: Sequence[int]
    values: Mapping[str, np.ndarray]


def draw_runs(workdirs: Sequence[Path], out: Path) -> list[Path]:
    """Draws losses.png, learning_rate.png and validation.png of one or more runs, in common panels.

    Args:
        workdirs: of train.py.
        out: folder of the pictures, made when missing; pictures of earlier calls are replaced.

    Returns:
        The files written; validation.png only where something was measured.

    Raises:
        UserError: a folder without a journal, an empty or damaged one, or an `out` that cannot be written to.
    """
    runs = [read_curves(workdir) for workdir in workdirs]
    names = [run.name for run in runs]
    for run in runs:
        checks.check(
            names.count(run.name) == 1,
            "WORKDIR",
            expected="folders with names of their own",
            got=f"two called {run.name}",
            remedy="rename one",
        )
    written = []
    for picture, prefixes in PICTURES.items():
        fields = dict.fromkeys(field for run in runs for field in run.values if field.startswith(prefixes))
        if fields:
            written.append(draw_picture(runs, list(fields), out / f"{picture}.png"))
    checks.check(
        bool(written),
        "journals",
        expected="losses, learning rates or validation metrics",
        got="none",
        remedy="give the --workdir of a run",
    )
    return written


def read_curves(workdir: Path) -> Curves:
    """Reads the journal of a run."""
    try:
        header, records = journal.read(workdir)
        steps = np.asarray([float(record["step"]) for record in records])
        batch = float(header["config"]["batch_size"])
        fields = dict.fromkeys(
            name for record in records for name, value in record.items() if isinstance(value, float)
        )
        if len(fields) > MOST_FIELDS:
            raise ValueError(f"{len(fields):,} fields")
        values = {name: column(records, name) for name in fields}
        stages = [i for i, line in enumerate(records) if i == 0 or line["stage"] != records[i - 1]["stage"]]
        if len(stages) > MOST_STAGES:
            raise ValueError(f"{len(stages):,} stages")
        minutes = minutes_of(steps, column(records, "images_per_second"), batch)
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        checks.fail(
            f"journal of {workdir}",
            expected="the journal.jsonl of a run of train.py",
            got="no such file"
            if isinstance(error, FileNotFoundError)
            else f"{type(error).__name__}: {error}",
            remedy="give the --workdir of a run",
        )
    checks.check(
        len(steps) > 0,
        f"journal of {workdir}",
        expected="a logged step",
        got="none yet",
        remedy="wait for the first (log_every_steps)",
    )
    return Curves(workdir.resolve().name, steps, minutes, stages, values)


def column(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Returns a field of all lines, NaN where a line does not have it."""
    return np.asarray([float(record.get(name, np.nan)) for record in records])


def minutes_of(steps: np.ndarray, images_per_second: np.ndarray, batch_size: float) -> np.ndarray:
    """Returns the minutes of training until each line: the sum of steps times images over images per second.

    A line without a speed counts with that of the line before. A journal that begins in the middle of a run,
    as one that went on from another's stage 1, begins with the first of its own steps.
    """
    speeds = images_per_second.copy()
    for i in range(1, len(speeds)):
        if np.isnan(speeds[i]):
            speeds[i] = speeds[i - 1]
    begin = max(0.0, 2 * steps[0] - steps[1]) if len(steps) > 1 else 0.0
    speeds[speeds <= 0] = np.nan
    done = np.diff(steps, prepend=begin)
    with np.errstate(over="ignore"):
        return np.cumsum(np.nan_to_num(done * batch_size / speeds)) / 60


def draw_picture(runs: Sequence[Curves], fields: Sequence[str], path: Path) -> Path:
    """Draws a row for each field, against steps on the left and time on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    width, height = PANEL_SIZE
    figure, axes = plt.subplots(
        len(fields), 2, figsize=(2 * width, height * len(fields)), layout="constrained", squeeze=False
    )
    long = max(run.minutes[-1] for run in runs) > HOURS_FROM
    for (against_steps, against_time), field in zip(axes, fields, strict=True):
        for number, run in enumerate(runs):
            color = f"C{number}"
            draw_curve(against_steps, run, field, run.steps, color)
            draw_curve(against_time, run, field, run.minutes / 60 if long else run.minutes, color)
        against_steps.set(xlabel="step")
        against_time.set(xlabel=f"{'hours' if long else 'minutes'} of training")
        for axis in (against_steps, against_time):
            axis.set_ylabel(plain(field))
            axis.grid(alpha=0.3)
            if field.startswith(LOG_SCALED) and all(positive(run, field) for run in runs):
                axis.set_yscale("log")
    axes[0][0].legend()
    try:
        with files.replacing(path) as file:
            figure.savefig(file, format="png", dpi=120)
    except OSError as error:
        checks.fail(
            f"--out {path.parent}",
            expected="a folder that can be written to",
            got=error.strerror,
            remedy="choose another",
        )
    finally:
        plt.close(figure)
    return path


def plain(text: str) -> str:
    """Returns a text that Matplotlib shows as it is: no formula between dollars, no label hidden by "_"."""
    text = printable(text)[:LONGEST_LABEL].replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def positive(run: Curves, field: str) -> bool:
    """Tells whether a field of a run can be drawn on a logarithmic scale; also where the run lacks it."""
    values = run.values.get(field)
    return values is None or bool((values > 0).any())


def draw_curve(axis: Any, run: Curves, field: str, x: np.ndarray, color: str) -> None:
    """Draws a field of a run, where the run has it; dotted lines part the stages."""
    y = run.values.get(field, np.full(len(x), np.nan))
    there = ~np.isnan(y)
    marker = "." if np.count_nonzero(there) <= MARKERS_UNTIL else ""
    axis.plot(x[there], y[there], marker=marker, color=color, label=plain(run.name))
    for first in run.stages[1:]:
        axis.axvline((x[first - 1] + x[first]) / 2, color=color, linestyle=":")
