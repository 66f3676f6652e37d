"""Reads evaluations back from their folders: summary.json and rows.csv.

They may come from a stranger, so each value is checked, and each name must be a possible name of a file.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from decloss_jax import checks
from decloss_jax.host import files
from decloss_jax.metrics import METRICS

LARGEST_VALUE = 1e6  # no metric comes near it
LONGEST_NAME = 251  # bytes; the system's limit minus a suffix
KINDS = {dict: "an object", str: "a text", int: "a whole number"}


@dataclass(frozen=True)
class SavedSet:
    """The results of an evaluation on one data set.

    Attributes:
        values: metric -> value of the whole set.
        rows: image -> metric -> value; NaN for a missing value.
        low: the source of the LR images, in words.
        root: the folder of its images at the time of the evaluation, or empty.
    """

    values: Mapping[str, float]
    rows: Mapping[str, Mapping[str, float]]
    low: str
    root: str


@dataclass(frozen=True)
class Evaluation:
    """One method on its data sets.

    Attributes:
        folder: the folder from which it was read.
        method: its name.
        scale: s.
        conventions: how it was measured, in words.
        versions: package -> version.
        sha256: the hash of the method's weights; empty for a method without weights.
        metric_weights: metric -> SHA-256 of its weights.
        datasets: name -> results.
    """

    folder: Path
    method: str
    scale: int
    conventions: Mapping[str, str]
    versions: Mapping[str, str]
    sha256: str
    metric_weights: Mapping[str, str]
    datasets: Mapping[str, SavedSet]


def read_evaluation(folder: Path) -> Evaluation:
    """Reads an evaluation of one method.

    Raises:
        UserError: summary.json or rows.csv is missing, damaged, or has other content.
    """
    path = folder / "summary.json"
    summary = read_json(path)
    conventions = take(summary, "conventions", dict, path)
    lows = texts(take(conventions, "low", dict, path), path)
    scale, border = (take(conventions, name, int, path) for name in ("scale", "crop_border"))
    if scale < 1 or border < 0:
        refuse(path, "a scale of 1 or more and a border of 0 or more", f"{scale} and {border}")
    words = {name: text for name, text in conventions.items() if name not in ("low", "scale", "crop_border")}
    versions = dict(take(summary, "versions", dict, path))
    weights = texts(versions.pop("weights", {}), path)
    roots = texts(summary.get("data", {}), path)
    rows = read_rows(folder / "rows.csv")
    datasets = {
        check_name(name, path): read_set(name, values, rows, lows.get(name, ""), roots.get(name, ""), path)
        for name, values in take(summary, "datasets", dict, path).items()
    }
    method = take(summary, "method", str, path)
    return Evaluation(
        folder=folder,
        method=method,
        scale=scale,
        conventions={"name": take(conventions, "name", str, path), "scale": str(scale), "border": str(border)}
        | texts(words, path),
        versions=texts(versions, path),
        sha256=weights.get(method, ""),
        metric_weights={name: sha256 for name, sha256 in weights.items() if name in METRICS},
        datasets=datasets,
    )


def read_set(name: str, values: Any, rows: Mapping[str, Any], low: str, root: str, path: Path) -> SavedSet:
    """Checks the values of one data set against its rows."""
    if not isinstance(values, dict):
        refuse(path, f"an object with the values of {name}", repr_short(values))
    own = rows.get(name, {})
    images = take(values, "images", int, path)
    if images < 1 or images != len(own):
        refuse(path, f"as many images of {name} as rows.csv has lines", f"{images} and {len(own)}")
    metrics = {metric: value for metric, value in values.items() if metric != "images"}
    return SavedSet({m: read_value(m, value, path) for m, value in metrics.items()}, own, low, root)


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a JSON file; refuses NaN and Infinity, which JSON does not have."""
    try:
        return files.read_json(path)
    except OSError as error:
        refuse(path, "a readable file", error.strerror)
    except ValueError as error:
        refuse(path, "a JSON object", error)


def read_rows(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Reads the values of each image: data set -> image -> metric -> value."""
    try:
        with files.regular(path, files.TEXT_LIMIT).open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except OSError as error:
        refuse(path, "a readable file", error.strerror)
    except (ValueError, csv.Error) as error:
        refuse(path, "CSV in UTF-8", error)
    if header[:2] != ["dataset", "image"] or len(set(header)) != len(header):
        refuse(path, "a first line dataset,image,METRIC,...", repr_short(",".join(header)))
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            refuse(path, f"{len(header)} cells in each line", f"{len(line)} in line {number}")
        dataset, image = (check_name(name, path) for name in line[:2])
        of_set = rows.setdefault(dataset, {})
        if image in of_set:
            refuse(path, "one line for each image", f"two for {dataset}/{image}")
        of_set[image] = {m: read_value(m, v, path) for m, v in zip(header[2:], line[2:], strict=True)}
    return rows


def read_value(metric: str, value: Any, path: Path) -> float:
    """Returns a metric's value, which may be "inf", or NaN for an empty cell or null."""
    checks.look_up(METRICS, metric, f"metric in {path}")
    if value in ("", None):
        return math.nan
    if value in ("inf", "-inf"):
        return float(value)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= LARGEST_VALUE:  # this form also refuses NaN
        refuse(path, f"a value of {metric} (a number up to {LARGEST_VALUE:g}, or inf)", repr_short(value))
    return number


def take(record: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    """Returns the entry of a record, which must have the given type, one of `KINDS`."""
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        got = repr_short(value) if key in record else "none"
        refuse(path, f"an entry {key!r} that is {KINDS[kind]}", got)
    return value


def texts(record: Any, path: Path) -> dict[str, str]:
    """Returns a record, whose entries must all be texts."""
    if not isinstance(record, dict):
        refuse(path, "an object of texts", repr_short(record))
    return {key: take(record, key, str, path) for key in record}


def check_name(name: str, path: Path) -> str:
    """Returns the name of a data set or an image, which must be a possible name of a file."""
    if name in ("", ".", "..") or {"/", "\0"} & set(name) or len(name.encode()) > LONGEST_NAME:
        refuse(path, "names of data sets and images that files can have", repr_short(name))
    return name


def refuse(path: Path, expected: str, got: object) -> NoReturn:
    """Raises `UserError` for a file of an evaluation."""
    checks.fail(str(path), expected=expected, got=got, remedy="evaluate again, or leave this run out")


def repr_short(value: object) -> str:
    """Formats a value for a message, cut to 100 characters."""
    return ascii(value[:100]) if isinstance(value, str) else json.dumps(value)[:100]


def find_evaluations(folder: Path) -> Sequence[Path]:
    """Lists the folders of single methods in a folder of evaluate.py, of a training run, or of `reproduce`.

    It searches up to three levels deep, and returns all at the first level that has any.

    Raises:
        UserError: there are none.
    """
    for depth in range(4):
        found = sorted(path.parent for path in folder.glob("*/" * depth + "summary.json") if path.is_file())
        if found:
            return found
    trained = (folder / "config.json").is_file() and (folder / "journal.jsonl").is_file()
    checks.check(
        not trained,
        str(folder),
        expected="an evaluation",
        got="a training run that was not evaluated",
        remedy=f"run python evaluate.py --workdir {folder} --data ROOT --out DIR first, and give DIR",
    )
    checks.fail(
        str(folder),
        expected="a folder that evaluate.py or reproduce wrote, with summary.json",
        got="none in it" if folder.is_dir() else "no such folder",
        remedy="give the folder after --out of evaluate.py, or after --runs of reproduce",
    )
