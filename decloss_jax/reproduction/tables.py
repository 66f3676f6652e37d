"""The tables of a reproduction: ours beside the printed numbers, as Markdown, CSV and JSON."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decloss_jax import files, journal
from decloss_jax.evaluation.conventions import Protocol, describe_protocol
from decloss_jax.report.table import write_csv
from decloss_jax.reproduction.paper import Experiment, Printed, Row
from decloss_jax.reproduction.runs import Measured, Settings, without_paths

COLUMNS = (
    "row",
    "losses",
    "seeds",
    "PSNR ↑ dB",
    "printed",
    "LPIPS ↓",
    "printed",
    "ICOO ↓ dB",
    "printed",
    "s/step ↓",
    "images/s ↑",
    "step / first row's",
    "printed hours / first row's",
)


def write_tables(
    name: str,
    experiment: Experiment,
    measured: Sequence[Measured],
    settings: Settings,
    protocol: Protocol,
    out: Path,
) -> str:
    """Writes NAME.md, NAME.csv and NAME.json into `out`; returns the Markdown."""
    groups = group_by_row(experiment.rows, measured)
    sections = {
        dataset: [cells(experiment, row, group, groups, dataset) for row, group in groups.items()]
        for dataset in datasets_of(measured)
    }
    notes = make_notes(measured, settings, protocol)
    lines = [f"# {experiment.title}, scale {settings.scale}"]
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
    record = {
        "title": experiment.title,
        "scale": settings.scale,
        "overrides": without_paths(settings.overrides),
        "conventions": describe_protocol(protocol, 4),
        "versions": journal.versions(),
        "rows": [as_json(m) for m in measured],
    }
    files.write_atomically(out / f"{name}.json", json.dumps(record, indent=1) + "\n")
    return text


def group_by_row(rows: Sequence[Row], measured: Sequence[Measured]) -> dict[Row, list[Measured]]:
    """Returns the measurements of each row, in the order of the rows; rows without any, but printed, too."""
    groups = {row: [m for m in measured if m.row is row] for row in rows}
    only_printed = [row for row in rows if not (row.config or row.method)]
    return {row: group for row, group in groups.items() if group or row in only_printed}


def datasets_of(measured: Sequence[Measured]) -> list[str]:
    """Lists the data sets in the order in which they were measured."""
    return list(dict.fromkeys(dataset for m in measured for dataset in m.datasets))


def cells(
    experiment: Experiment,
    row: Row,
    group: Sequence[Measured],
    groups: Mapping[Row, Sequence[Measured]],
    dataset: str,
) -> list[str]:
    """Returns the texts of a row: ours over the seeds, the printed ones of this set (or of DIV2K, marked)."""
    printed, mark = find_printed(row, dataset)
    numbers = (printed.psnr, printed.lpips, printed.icoo) if printed else (None, None, None)
    texts = []
    for metric, digits, number in zip(
        (experiment.psnr, experiment.lpips, "icoo"), (2, 4, 2), numbers, strict=True
    ):
        texts.append(spread([m.datasets[dataset][metric] for m in group if dataset in m.datasets], digits))
        texts.append("" if number is None else f"{number:.{digits - 1 if digits == 4 else digits}f}{mark}")
    seconds = seconds_per_step(group)
    first_row = next((other for other in groups if seconds_per_step(groups[other])), row)
    first_seconds = seconds_per_step(groups[first_row])
    losses = ", ".join(f"{name} {weight:g}" for name, weight in (group[0].losses if group else {}).items())
    return [
        row.name,
        losses,
        " ".join(str(m.seed) for m in group if m.seed is not None),
        *texts,
        spread(seconds, 3),
        spread([m.images_per_second for m in group if m.images_per_second], 1),
        f"{statistics.mean(seconds) / statistics.mean(first_seconds):.2f}" if seconds else "",
        f"{row.hours / first_row.hours:.2f}" if row.hours and first_row.hours else "",
    ]


def seconds_per_step(group: Sequence[Measured]) -> list[float]:
    """Lists the costs of a row's steps, of each seed."""
    return [m.seconds_per_step for m in group if m.seconds_per_step is not None]


def find_printed(row: Row, dataset: str) -> tuple[Printed | None, str]:
    """Returns the row's printed numbers for a set; where there are only DIV2K's, those with a star."""
    if dataset in row.printed:
        return row.printed[dataset], ""
    return (row.printed["DIV2K"], "*") if set(row.printed) == {"DIV2K"} else (None, "")


def spread(values: Sequence[float], digits: int) -> str:
    """Writes the mean and, of several values, the sample standard deviation."""
    if not values:
        return ""
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def make_notes(measured: Sequence[Measured], settings: Settings, protocol: Protocol) -> list[str]:
    """Says what the numbers mean and where they come from."""
    words = describe_protocol(protocol, 4)
    notes = [
        "Ours: mean ± sample standard deviation over the seeds. Printed: by the paper; * for DIV2K.",
        "Seconds per step: median over the journal of the row's last stage; rows did not run side by side.",
        *(f"{name}: {text}" for name, text in words.items() if name != "name"),
        "versions: " + ", ".join(f"{name} {version}" for name, version in journal.versions().items()),
    ]
    if settings.overrides:
        overrides = without_paths(settings.overrides)
        changed = ", ".join(f"{name}={value}" for name, value in overrides.items())
        notes.append(f"changed in every config: {changed}")
    hashes = dict.fromkeys(
        (m.row.name, m.seed, m.config_hash, m.stage_one_hash) for m in measured if m.config_hash
    )
    for row_name, seed, own, stage_one in hashes:
        notes.append(f"config of {row_name}, seed {seed}: {own}, stage 1 {stage_one}")
    return notes


def markdown_line(texts: Sequence[str]) -> str:
    """Joins cells to a line of a Markdown table."""
    return "| " + " | ".join(texts) + " |"


def as_json(measured: Measured) -> dict[str, Any]:
    """Returns everything that was measured of a row with one seed."""
    return {
        "row": measured.row.name,
        "config": measured.row.config,
        "seed": measured.seed,
        "config_hash": measured.config_hash,
        "stage_one_hash": measured.stage_one_hash,
        "losses": dict(measured.losses),
        "seconds_per_step": measured.seconds_per_step,
        "images_per_second": measured.images_per_second,
        "datasets": {dataset: dict(values) for dataset, values in measured.datasets.items()},
        "printed": {dataset: vars(printed) for dataset, printed in measured.row.printed.items()},
        "printed_hours": measured.row.hours,
    }
