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
MARKERS_UNTIL = 40  # points; longer curves are drawn without markers
HOURS_FROM = 120  # minutes; longer runs are drawn against hours

# The pictures and the prefixes of the journal fields they show, one row of panels per field.
PICTURES = {"losses": ("loss/",), "learning_rate": ("learning_rate",), "validation": ("validation/",)}
LOG_SCALED = "loss/"  # losses fall over orders of magnitude

# Limits for a journal from a stranger; a run has two stages and about twenty fields.
MOST_FIELDS, MOST_STAGES = 100, 100
LONGEST_LABEL = 100  # characters


@dataclass(frozen=True)
class Curves:
    """The journal of a run.

    Attributes:
        name: the name of the run.
        steps: the step of each line.
        minutes: the training time until each line, without saves and evaluations, from the images per second.
        stages: the index of the first line of each stage.
        values: field -> one value per line, NaN if the line lacks the field.
    """

    name: str
    steps: np.ndarray
    minutes: np.ndarray
    stages: Sequence[int]
    values: Mapping[str, np.ndarray]


def draw_runs(workdirs: Sequence[Path], out: Path) -> list[Path]:
    """Draws losses.png, learning_rate.png and validation.png; all runs share the panels.

    Args:
        workdirs: the workdirs of one or more runs of train.py.
        out: the folder for the pictures. It is created if necessary, and earlier pictures are replaced.

    Returns:
        The files written; validation.png only if a run has validation metrics.

    Raises:
        UserError: a folder without a journal, an empty or damaged journal, or an `out` that is not writable.
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
    """Returns the values of a field in all lines, NaN if a line lacks it."""
    return np.asarray([float(record.get(name, np.nan)) for record in records])


def minutes_of(steps: np.ndarray, images_per_second: np.ndarray, batch_size: float) -> np.ndarray:
    """Returns the minutes of training until each line: the sum of steps x batch size / images per second.

    A line without a speed takes the previous line's. A journal may begin in the middle of a run, for instance
    after another run's stage 1; its time then starts with its own first step.
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
    """Draws one row per field, against steps on the left and against time on the right."""
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
    """Escapes a text for Matplotlib, which reads dollars as formulas and hides labels that start with "_"."""
    text = printable(text)[:LONGEST_LABEL].replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def positive(run: Curves, field: str) -> bool:
    """Tells whether a logarithmic scale can show a field of a run; true if the run lacks the field."""
    values = run.values.get(field)
    return values is None or bool((values > 0).any())


def draw_curve(axis: Any, run: Curves, field: str, x: np.ndarray, color: str) -> None:
    """Draws a field of a run, if the run has it; dotted lines separate the stages."""
    y = run.values.get(field, np.full(len(x), np.nan))
    there = ~np.isnan(y)
    marker = "." if np.count_nonzero(there) <= MARKERS_UNTIL else ""
    axis.plot(x[there], y[there], marker=marker, color=color, label=plain(run.name))
    for first in run.stages[1:]:
        axis.axvline((x[first - 1] + x[first]) / 2, color=color, linestyle=":")
