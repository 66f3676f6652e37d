"""The run's journal: one JSON line per logged step, and the same numbers for TensorBoard.

`journal.jsonl` begins with one line that holds the config and the versions. A resumed run drops the lines
that are newer than its checkpoint and writes them again, so an interruption does not change the file. Only
the fields of `MACHINE_FIELDS` depend on the machine.
"""

import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from decloss_jax import __version__
from decloss_jax.host import files

RECORDED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")

# Speed, and the share of the time that training waited for data, both since the previous line.
MACHINE_FIELDS = ("images_per_second", "data_wait")


def versions() -> dict[str, str]:
    """Returns the versions of Python, of this package, and of the packages that affect its results."""
    packages = {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}
    return {"python": platform.python_version(), "decloss_jax": __version__} | packages


class Journal:
    """Writes the journal of a run.

    Args:
        workdir: the run's folder.
        header: the first line of a new journal.
        step: the step from which the run resumes; newer lines are dropped.
        silent: writes nothing (for all processes but one).
    """

    def __init__(self, workdir: Path, *, header: Mapping[str, Any], step: int, silent: bool = False):
        self._silent = silent
        if silent:
            return
        self._samples = workdir / "samples"
        for folder, names in ((workdir, "*.json*"), (self._samples, "*.png")):
            files.remove_abandoned(folder, names)
        self._path = path = workdir / "journal.jsonl"
        lines = files.regular(path).read_text(errors="replace").splitlines() if path.exists() else []
        kept = lines[:1] or [json.dumps(header)]
        kept += [line for line in lines[1:] if step_of(line) <= step]
        files.write_atomically(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a")
        self._events = Events(workdir / "tensorboard", step)

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one line; `record` has `step`, `stage` and scalars."""
        if self._silent:
            return
        with files.named(self._path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        self._events.scalars(
            record["step"], {key: value for key, value in record.items() if isinstance(value, float)}
        )

    def show(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image, uint8 [H,W,3], to samples/STEP_NAME.png and to TensorBoard."""
        if self._silent:
            return
        name = files.shorten(name.replace("/", "_"))
        with files.replacing(self._samples / f"{step:08d}_{name}.png") as file:
            Image.fromarray(image).save(file, "PNG")
        self._events.image(step, f"samples/{name}", image)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        if self._silent:
            return
        with files.named(self._path):
            self._file.close()
        self._events.close()


class Events:
    """Writes TensorBoard's events immediately and in order; a failed write raises `OSError`.

    tensorboardX's own SummaryWriter writes from a thread. On a full disk that thread dies, and training waits
    for it forever.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder = folder
        folder.mkdir(exist_ok=True)
        with files.named(folder):
            # The step distinguishes files from the same second, which occur when the clock is set back.
            self._writer = EventsWriter(str(folder / "events"), f".{step}")
            # TensorBoard hides the events of earlier files from this step on.
            self._write(Event(session_log=SessionLog(status=SessionLog.START)), step + 1)

    def _write(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        self._writer.write_event(event)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by name, and flushes all events to the disk."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with files.named(self._folder):
            for name, value in values.items():
                self._write(Event(summary=scalar(name, value)), step)
            self._writer.flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image, uint8 [H,W,3]."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        with files.named(self._folder):
            self._write(Event(summary=summary.image(name, image, dataformats="HWC")), step)

    def close(self) -> None:
        """Closes the file."""
        with files.named(self._folder):
            self._writer.close()


def summary(workdir: Path) -> str:
    """Summarises a finished run in one line: its steps, its best validation PSNR, and its files."""
    records = [record for record in read(workdir)[1] if isinstance(record.get("stage"), str)]
    ends = {record["stage"]: record["step"] for record in records}
    parts = ["done: " + ", ".join(f"{stage} to step {step}" for stage, step in ends.items())]
    measured = [record for record in records if isinstance(record.get("validation/psnr_y"), float)]
    if measured:
        best = max(measured, key=lambda record: record["validation/psnr_y"])
        value, step, stage = (best[name] for name in ("validation/psnr_y", "step", "stage"))
        parts.append(f"best validation PSNR-Y {value:.3f} dB at step {step} ({stage})")
    parts.append(f"in {workdir}: checkpoints/, journal.jsonl, tensorboard/, samples/")
    return "; ".join(parts)


def step_of(line: str) -> float:
    """Returns the step of a journal line; infinity for a damaged line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return float("inf")


def read(workdir: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads a run's journal: its header and its records, oldest first.

    Damaged lines are dropped; a damaged header becomes an empty dictionary.
    """
    path = files.regular(Path(workdir) / "journal.jsonl")
    first, *lines = path.read_text(errors="replace").splitlines() or [""]
    return header_of(first), [json.loads(line) for line in lines if math.isfinite(step_of(line))]


def header_of(line: str) -> dict[str, Any]:
    """Parses the first line of a journal; returns an empty dictionary if it is damaged."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}
