"""Writes the folder of an evaluation, and rows.csv and summary.json of each method in it."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloss_jax import checks
from decloss_jax.evaluation.conventions import Protocol, describe_protocol, list_weights
from decloss_jax.evaluation.methods import Method
from decloss_jax.evaluation.table import write_csv
from decloss_jax.host.files import expand
from decloss_jax.metrics import METRICS
from decloss_jax.workdir import journal

MARKS = {"summary.json", "table.csv"}  # files that identify a folder as an evaluation
FILES = {"rows.csv", "report.html"} | MARKS
PICTURES = "sr"  # the folder of the pictures


@dataclass(frozen=True)
class Result:
    """One method on one data set: the values of each image and of the whole set, by metric."""

    dataset: str
    method: Method
    names: Sequence[str]
    of_images: Mapping[str, Sequence[float]]
    of_set: Mapping[str, float]


@contextmanager
def folder_that_appears(out: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `out` at the end, or is deleted after an error.

    An existing folder may be a mount point, so it is kept and only its entries are exchanged.

    Raises:
        UserError: `out` is neither new nor empty nor an evaluation, or cannot be made.
    """
    checks.check(out != Path(), "--out", expected="a folder of its own", got="none", remedy="give --out DIR")
    out = Path(os.path.realpath(expand(out)))
    try:
        exists = out.is_dir()
        earlier = sorted(out.iterdir()) if exists else []
        check_replaceable(out, earlier)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out if exists else out.parent, prefix=f".{out.name}."))
    except OSError as error:
        checks.fail("--out", expected="a folder that can be made", got=error, remedy="choose another place")
    try:
        yield temporary
        if exists:
            exchange_entries(out, earlier, temporary)
        else:
            os.chmod(temporary, 0o755)
            os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(out: Path, entries: Sequence[Path]) -> None:
    """Raises `UserError` if `out` is not a folder, or has an entry that no evaluation wrote."""
    known = any((out / mark).is_file() for mark in MARKS)
    foreign = [entry.name for entry in entries if not (known and is_own(entry))]
    got = f"{out}, which holds {foreign[0]}" if foreign else f"{out}, which is not a folder"
    checks.check(
        not foreign and (out.is_dir() or not os.path.lexists(out)),
        "--out",
        expected="a new folder, an empty one, or one that holds only an earlier evaluation",
        got=got,
        remedy="choose another folder",
    )


def is_own(entry: Path) -> bool:
    """Tells whether an entry of a folder is a file, the pictures, or a method's folder of an evaluation."""
    if entry.name in FILES:
        return entry.is_file()
    if not entry.is_dir():
        return False
    names = {inner.name for inner in entry.iterdir()}
    return entry.name == PICTURES or ("summary.json" in names and names <= FILES | {PICTURES})


def exchange_entries(out: Path, earlier: Sequence[Path], temporary: Path) -> None:
    """Moves the entries of `temporary` into `out`; earlier ones are moved aside first and deleted last."""
    aside = Path(tempfile.mkdtemp(dir=out, prefix=f".{out.name}.earlier."))
    for entry in earlier:
        os.replace(entry, aside / entry.name)
    for entry in list(temporary.iterdir()):
        os.replace(entry, out / entry.name)
    shutil.rmtree(aside)


def write_method(
    folder: Path,
    results: Sequence[Result],
    protocol: Protocol,
    lows: Mapping[str, str],
    roots: Mapping[str, str],
) -> None:
    """Writes rows.csv, with a line for each image, and summary.json of one method.

    Args:
        folder: the folder of the method.
        results: the results of the method on each data set.
        protocol: how it was measured.
        lows: data set -> the source of its LR images.
        roots: data set -> its folder, where a report finds its images.
    """
    of_images = [name for name in protocol.metrics if METRICS[name].of == "image"]
    rows: list[list[Any]] = [["dataset", "image", *of_images]]
    for result in results:
        values = zip(*(result.of_images[name] for name in of_images), strict=True)
        rows += [
            [result.dataset, image, *line]
            for image, line in zip(
                result.names, values if of_images else [()] * len(result.names), strict=True
            )
        ]
    (folder / "rows.csv").write_text(write_csv(rows), encoding="utf-8")
    method = results[0].method
    own_weights = {method.name: method.sha256} if method.sha256 else {}
    summary = {
        "method": method.name,
        "loaded": dict(method.loaded),
        "conventions": {**describe_protocol(protocol, method.scale), "low": dict(lows)},
        "versions": {**journal.versions(), "weights": list_weights(protocol) | own_weights},
        "data": dict(roots),
        "datasets": {
            r.dataset: {"images": len(r.names)} | {name: json_value(v) for name, v in r.of_set.items()}
            for r in results
        },
    }
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def json_value(value: float) -> float | str | None:
    """Converts a value for JSON: infinity (the PSNR of equal images) becomes "inf", and NaN becomes null."""
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value
