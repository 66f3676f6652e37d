"""The tables of a reproduction: our numbers and the printed ones, as Markdown, CSV and JSON.

The JSON has every measurement; a later call reads it and adds to it.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decloss_jax import checks
from decloss_jax.evaluation.conventions import Protocol, describe_protocol
from decloss_jax.evaluation.table import write_csv
from decloss_jax.host import files
from decloss_jax.reproduction.measuring import Measured
from decloss_jax.reproduction.paper import SCALE, Experiment, PaperRow, Printed
from decloss_jax.reproduction.runs import Settings, without_paths

COLUMNS = (
    "row",
    "losses",
    "seeds",
    "PSNR ↑ dB",
    "PSNR printed",
    "LPIPS ↓",
    "LPIPS printed",
    "ICOO ↓ dB",
    "ICOO printed",
    "s/step ↓",
    "images/s ↑",
    "step ratio",
    "printed hours ratio",
)


def write_tables(
    name: str,
    experiment: Experiment,
    measured: Sequence[Measured],
    settings: Settings,
    protocol: Protocol,
    out: Path,
    spearman: Mapping[str, float | None] | None = None,
) -> str:
    """Writes NAME.md, NAME.csv and NAME.json into `out`; returns the Markdown.

    Args:
        name: of the files.
        experiment: the rows and their printed numbers.
        measured: the measurements of each row and seed.
        settings: shared by the rows.
        protocol: the conventions of the measurement.
        out: a folder.
        spearman: data set -> coefficient of ICOO and LPIPS over the rows; None if there are too few rows.
    """
    groups = group_by_row(experiment.rows, measured)
    sections = {
        dataset: [cells(experiment, row, group, groups, dataset) for row, group in groups.items()]
        for dataset in measured_datasets(measured)
    }
    notes = table_notes(experiment, measured, settings, protocol)
    for dataset, value in (spearman or {}).items():
        coefficient = "too few networks" if value is None else f"{value:.3f}"
        notes.append(
            f"Spearman's coefficient of ICOO and LPIPS, {dataset}: {coefficient} (printed, Urban100: 0.892)"
        )
    lines = [f"# {experiment.title}, scale {settings.size}"]
    for dataset, rows in sections.items():
        images = next(m.datasets[dataset]["images"] for m in measured if dataset in m.datasets)
        lines += ["", f"## {dataset} ({images} images)", ""]
        lines += [markdown_line(COLUMNS), markdown_line(["---"] * len(COLUMNS)), *map(markdown_line, rows)]
    lines += ["", *(f"- {note}" for note in notes)]
    text = "\n".join(lines) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out / f"{name}.md", text)
    table = [["data set", *COLUMNS]] + [[dataset, *row] for dataset, rows in sections.items() for row in rows]
    files.write_atomically(out / f"{name}.csv", write_csv(table))
    record = heading(experiment, settings, protocol) | {
        "rows": [as_json(m, settings) for m in measured],
        "spearman": spearman,
    }
    files.write_atomically(out / f"{name}.json", json.dumps(record, indent=1) + "\n")
    return text


def heading(experiment: Experiment, settings: Settings, protocol: Protocol) -> dict[str, Any]:
    """Returns the settings that all rows of a table share."""
    return {
        "title": experiment.title,
        "scale": settings.size,
        "overrides": without_paths(settings.overrides),
        "conventions": describe_protocol(protocol, SCALE),
    }


def read_table(
    name: str, experiment: Experiment, settings: Settings, protocol: Protocol, out: Path
) -> list[Measured]:
    """Reads the measurements that earlier calls wrote into `out`; none if there is no table.

    Raises:
        UserError: the existing table was made with different settings.
    """
    path = out / f"{name}.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    common = json.loads(json.dumps(heading(experiment, settings, protocol)))
    differing = [key for key, value in common.items() if record.get(key) != value]
    checks.check(
        not differing,
        f"--out {out}",
        expected=f"no {path.name}, or one with the same settings, to add to",
        got=f"one with a different {' and '.join(differing)}",
        remedy="choose another --out",
    )
    rows = {row.name: row for row in experiment.rows}
    return [from_json(entry, rows[entry["row"]], settings) for entry in record["rows"]]


def group_by_row(rows: Sequence[PaperRow], measured: Sequence[Measured]) -> dict[PaperRow, list[Measured]]:
    """Returns the measurements of each row that has some, in the order of the rows."""
    groups = {row: [m for m in measured if m.row is row] for row in rows}
    return {row: group for row, group in groups.items() if group}


def measured_datasets(measured: Sequence[Measured]) -> list[str]:
    """Lists the data sets in the order in which they were measured."""
    return list(dict.fromkeys(dataset for m in measured for dataset in m.datasets))


def cells(
    experiment: Experiment,
    row: PaperRow,
    group: Sequence[Measured],
    groups: Mapping[PaperRow, Sequence[Measured]],
    dataset: str,
) -> list[str]:
    """Returns the cells of a row: ours over the seeds, and the printed ones (with a star if for DIV2K)."""
    printed, mark = find_printed(row, dataset)
    numbers = (printed.psnr, printed.lpips, printed.icoo) if printed else (None, None, None)
    texts = []
    for metric, digits, number in zip(
        (experiment.psnr, experiment.lpips, "icoo"), (2, 4, 2), numbers, strict=True
    ):
        texts.append(spread([m.datasets[dataset][metric] for m in group if dataset in m.datasets], digits))
        texts.append("" if number is None else f"{as_printed(number, digits)}{mark}")
    seconds = seconds_per_step(group)
    first = first_row(experiment)
    first_seconds = seconds_per_step(groups.get(first, ()))
    return [
        row.name,
        origin(group),
        " ".join(str(m.seed) for m in group if m.seed is not None),
        *texts,
        spread(seconds, 3),
        spread([m.images_per_second for m in group if m.images_per_second], 1),
        f"{statistics.mean(seconds) / statistics.mean(first_seconds):.2f}"
        if seconds and first_seconds
        else "",
        f"{row.hours / first.hours:.2f}" if row.hours and first.hours else "",
    ]


def origin(group: Sequence[Measured]) -> str:
    """Says what a row was trained with, or the name of its file of weights."""
    weights = group[0].weights
    if weights:
        return f"not trained: {weights.get('file') or weights['workdir']}"
    return ", ".join(f"{name} {weight:g}" for name, weight in group[0].losses.items())


def first_row(experiment: Experiment) -> PaperRow:
    """Returns the first row that is trained; the costs of the others are relative to it."""
    return next(row for row in experiment.rows if row.config)


def as_printed(number: float, digits: int) -> str:
    """Writes a printed number; the paper gives LPIPS with three or four digits."""
    text = f"{number:.{digits}f}"
    return text[:-1] if digits == 4 and text.endswith("0") else text


def seconds_per_step(group: Sequence[Measured]) -> list[float]:
    """Lists the seconds per step of a row, one for each seed."""
    return [m.seconds_per_step for m in group if m.seconds_per_step is not None]


def find_printed(row: PaperRow, dataset: str) -> tuple[Printed | None, str]:
    """Returns the row's printed numbers for a set; if only DIV2K's are printed, those, with a star."""
    if dataset in row.printed:
        return row.printed[dataset], ""
    return (row.printed["DIV2K"], "*") if set(row.printed) == {"DIV2K"} else (None, "")


def spread(values: Sequence[float], digits: int) -> str:
    """Writes the mean and, for several values, the sample standard deviation."""
    if not values:
        return ""
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def table_notes(
    experiment: Experiment, measured: Sequence[Measured], settings: Settings, protocol: Protocol
) -> list[str]:
    """Lists notes on the meaning and the origin of the numbers."""
    words = describe_protocol(protocol, SCALE)
    notes = [
        "Ours: mean ± sample standard deviation over the seeds. Printed: by the paper; * for DIV2K.",
        "Seconds per step: median over the journal of the row's last stage; rows did not run side by side.",
        f"Ratios: to {first_row(experiment).name}.",
        *(f"{name}: {text}" for name, text in words.items() if name != "name"),
    ]
    for text in dict.fromkeys(join_fields(m.versions, " ") for m in measured):
        notes.append(f"versions: {text}")
    trained = [m.fields for m in measured if m.fields]
    shared = {name: value for fields in trained for name, value in fields.items() if name != "seed"}
    shared = {
        name: value for name, value in shared.items() if all(f.get(name, value) == value for f in trained)
    }
    if shared:
        notes.append(f"every config that has the field: {join_fields(shared, '=')}")
    if settings.overrides:
        notes.append(f"changed in every config: {join_fields(without_paths(settings.overrides), '=')}")
    hashes = dict.fromkeys(
        (m.row.name, m.seed, m.config_hash, m.stage_one_hash) for m in measured if m.config_hash
    )
    for row_name, seed, own, stage_one in hashes:
        notes.append(f"config of {row_name}, seed {seed}: {own}, stage 1 {stage_one}")
    for m in measured:
        if m.weights:
            notes.append(
                f"{m.row.name} was measured from weights, not trained: {join_fields(m.weights, ' ')}"
            )
    return notes


def join_fields(fields: Mapping[str, Any], sign: str) -> str:
    """Writes names and values in one line."""
    return ", ".join(f"{name}{sign}{value}" for name, value in fields.items())


def markdown_line(texts: Sequence[str]) -> str:
    """Joins cells into a line of a Markdown table."""
    return "| " + " | ".join(texts) + " |"


def as_json(measured: Measured, settings: Settings) -> dict[str, Any]:
    """Returns all measurements of a row with one seed; `from_json` is the inverse."""
    return {
        "row": measured.row.name,
        "config": measured.row.config if measured.config_hash else "",
        "seed": measured.seed,
        "config_hash": measured.config_hash,
        "stage_one_hash": measured.stage_one_hash,
        "fields": dict(measured.fields),
        "versions": dict(measured.versions),
        "losses": dict(measured.losses),
        "seconds_per_step": measured.seconds_per_step,
        "images_per_second": measured.images_per_second,
        "datasets": {dataset: dict(values) for dataset, values in measured.datasets.items()},
        "printed": {dataset: vars(printed) for dataset, printed in measured.row.printed.items()},
        "printed_hours": measured.row.hours,
        "evaluation": str(measured.folder.relative_to(settings.runs)),
        "weights": dict(measured.weights),
    }


def from_json(entry: Mapping[str, Any], row: PaperRow, settings: Settings) -> Measured:
    """Restores the measurements that `as_json` wrote for a row."""
    elsewhere = {"row", "folder", "weights"}
    values = {
        each.name: entry[each.name] for each in dataclasses.fields(Measured) if each.name not in elsewhere
    }
    weights = entry.get("weights", {})  # older tables have none
    return Measured(row=row, folder=settings.runs / entry["evaluation"], weights=weights, **values)
