"""The files of an evaluation: rows.csv, summary.json, table.csv, report.html."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from decloss_jax import checks
from decloss_jax.evaluation.conventions import Protocol, describe_protocol, list_versions, list_weights
from decloss_jax.evaluation.methods import Method
from decloss_jax.metrics import METRICS
from decloss_jax.report.page import Detail, render_page
from decloss_jax.report.table import Column, Line, Table, table_csv, write_csv

MARKS = ("summary.json", "table.csv")  # files by which a folder is known as an evaluation


@dataclass(frozen=True)
class Result:
    """One method on one data set: the values of each image by metric, and those of the whole set."""

    dataset: str
    method: Method
    names: Sequence[str]
    of_images: Mapping[str, Sequence[float]]
    of_set: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """One place of one image: LR enlarged by bicubic, each method by name, HR; uint8 of one size."""

    dataset: str
    image: str
    low: np.ndarray
    srs: Mapping[str, np.ndarray]
    hr: np.ndarray


@contextmanager
def folder_that_appears(out: Path) -> Iterator[Path]:
    """Gives a temporary folder that becomes `out` at the end, or vanishes when something goes wrong.

    Raises:
        UserError: `out` is there and neither empty nor an evaluation, or cannot be made.
    """
    checks.check(out != Path(), "--out", expected="a folder of its own", got="none", remedy="give --out DIR")
    out = Path(os.path.abspath(out.expanduser()))
    replaceable = not out.exists() or (
        out.is_dir() and (not any(out.iterdir()) or any((out / mark).is_file() for mark in MARKS))
    )
    checks.check(
        replaceable,
        "--out",
        expected="a new folder, an empty one, or an earlier evaluation",
        got=f"{out}, which holds something else",
        remedy="choose another folder",
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        checks.fail("--out", expected="a folder that can be made", got=error, remedy="choose another place")
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_results(
    folder: Path,
    results: Sequence[Result],
    samples: Sequence[Sample],
    protocol: Protocol,
    lows: Mapping[str, str],
) -> None:
    """Writes the files of one method into `folder`; of several, each one's into its own and all together."""
    methods = list(dict.fromkeys(result.method.name for result in results))
    if len(methods) == 1:
        write_csv_and_summary(folder, results, protocol, lows)
    else:
        for name in methods:
            own = [result for result in results if result.method.name == name]
            write_results(folder / name, own, samples, protocol, lows)
        (folder / "table.csv").write_text(table_csv(make_table(results, protocol, lows)))
    page = render_page(
        f"{', '.join(methods)}: {', '.join(lows)}",
        make_table(results, protocol, lows),
        [make_detail(sample, methods) for sample in samples],
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def write_csv_and_summary(
    folder: Path, results: Sequence[Result], protocol: Protocol, lows: Mapping[str, str]
) -> None:
    """Writes rows.csv, a line for each image, and summary.json, of one method."""
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
    summary = {
        "method": method.name,
        "conventions": {**describe_protocol(protocol, method.scale), "low": dict(lows)},
        "versions": {**list_versions(), "weights": list_weights(protocol) | hashes_of([method])},
        "datasets": {r.dataset: {"images": len(r.names), **r.of_set} for r in results},
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def hashes_of(methods: Sequence[Method]) -> dict[str, str]:
    """Lists the SHA-256 of the methods' weights by their names."""
    return {method.name: method.sha256 for method in methods if method.sha256}


def make_table(results: Sequence[Result], protocol: Protocol, lows: Mapping[str, str]) -> Table:
    """Collects the values of whole sets, and the notes that belong to them."""
    columns = [Column(name, METRICS[name].unit, METRICS[name].better) for name in protocol.metrics]
    lines = [Line(r.dataset, len(r.names), r.method.name, r.of_set) for r in results]
    weights = list_weights(protocol) | hashes_of([result.method for result in results])
    words = describe_protocol(protocol, results[0].method.scale)
    notes = [
        f"conventions: {words.pop('name')}, scale {words.pop('scale')}, border {words.pop('crop_border')}"
    ]
    notes += [f"{name}: {text}" for name, text in words.items()]
    notes.append("LR images: " + ", ".join(f"{name} {origin}" for name, origin in lows.items()))
    notes += [f"weights of {name}: SHA-256 {sha256}" for name, sha256 in weights.items()]
    notes.append("versions: " + ", ".join(f"{name} {version}" for name, version in list_versions().items()))
    return Table(columns, lines, notes)


def make_detail(sample: Sample, methods: Sequence[str]) -> Detail:
    """Picks the pictures of some methods, with links to the whole ones."""
    picture = quote(f"sr/{sample.dataset}/{sample.image}.png")
    links = {name: picture if len(methods) == 1 else f"{quote(name)}/{picture}" for name in methods}
    low = {} if "bicubic" in methods else {"LR (bicubic)": sample.low}
    pictures = {**low, **{name: sample.srs[name] for name in methods}, "HR": sample.hr}
    return Detail(f"{sample.dataset}: {sample.image}", pictures, links)
