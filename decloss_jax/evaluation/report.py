"""Makes the table of evaluations and report.html, both only from the saved files."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from decloss_jax import checks
from decloss_jax.data.images import read_image
from decloss_jax.data.pairs import ImagePair
from decloss_jax.evaluation.output import PICTURES
from decloss_jax.evaluation.pictures import choose_side, picture_uri
from decloss_jax.evaluation.render import Scene, Section, Version, render_page
from decloss_jax.evaluation.saved import Evaluation
from decloss_jax.evaluation.table import Column, Line, Table
from decloss_jax.host import console, files
from decloss_jax.metrics import METRICS
from decloss_jax.ops.detail import find_detail
from decloss_jax.ops.resize import bicubic_upscale

BICUBIC = "bicubic"  # if it is not a method, the page computes it from the LR image
SAMPLES_PER_SET = 4  # images on the page
MOST_ROWS = 1000  # per set, one for each image and method; the page omits longer tables
LONGEST_TITLE = 60  # characters of the methods' names in the title
FOCUS_SIDE = 48  # the side of the magnified region, the same as in page.js

Pairs = Mapping[str, Mapping[str, ImagePair]]  # data set -> image -> its HR and LR files


def make_table(evaluations: Sequence[Evaluation]) -> Table:
    """Collects the values of whole sets, and their notes."""
    measured = {name for e in evaluations for of_set in e.datasets.values() for name in of_set.values}
    columns = choose_columns(measured)
    lines = [
        Line(dataset, len(of_set.rows), e.method, fill(of_set.values, columns))
        for dataset in datasets_of(evaluations)
        for e in evaluations
        for of_set in [e.datasets.get(dataset)]
        if of_set is not None
    ]
    return Table(columns, lines, make_notes(evaluations))


def make_rows(dataset: str, evaluations: Sequence[Evaluation]) -> Table:
    """Collects the values of each image of a set; without lines if there are too many."""
    rows = {e.method: e.datasets[dataset].rows for e in evaluations}
    columns = choose_columns({name for of_set in rows.values() for row in of_set.values() for name in row})
    images = list(evaluations[0].datasets[dataset].rows)
    lines = [
        Line(dataset, 1, method, fill(of_set[image], columns), image)
        for image in images
        for method, of_set in rows.items()
    ]
    return Table(columns, lines if columns and len(lines) <= MOST_ROWS else [])


def choose_columns(metrics: set[str]) -> list[Column]:
    """Makes the columns of the given metrics, in the order of `METRICS`."""
    return [Column(name, METRICS[name].unit, METRICS[name].better) for name in METRICS if name in metrics]


def fill(values: Mapping[str, float], columns: Sequence[Column]) -> dict[str, float]:
    """Returns the values of the columns, NaN for a missing one."""
    return {column.name: values.get(column.name, math.nan) for column in columns}


def datasets_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """Lists all data sets in the order of their first occurrence."""
    return list(dict.fromkeys(dataset for e in evaluations for dataset in e.datasets))


def make_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Describes the conventions, the weights and the versions behind the numbers."""
    words = {name: text for e in evaluations for name, text in e.conventions.items()}
    lows = {dataset: of_set.low for e in evaluations for dataset, of_set in e.datasets.items()}
    weights = {name: sha256 for e in evaluations for name, sha256 in e.metric_weights.items()}
    weights |= {e.method: e.sha256 for e in evaluations if e.sha256}
    versions: dict[str, list[str]] = {}
    for e in evaluations:
        text = ", ".join(f"{name} {version}" for name, version in e.versions.items())
        versions.setdefault(text, []).append(e.method)
    notes = [
        f"conventions: {words.pop('name')}, scale {words.pop('scale')}, border {words.pop('border')}",
        *(f"{name}: {text}" for name, text in words.items()),
        "LR images: " + ", ".join(f"{dataset} {low}" for dataset, low in lows.items()),
        *(f"weights of {name}: SHA-256 {sha256}" for name, sha256 in weights.items()),
    ]
    for text, methods in versions.items():
        notes.append(f"versions{' of ' + ', '.join(methods) if len(versions) > 1 else ''}: {text}")
    return notes


def write_report(evaluations: Sequence[Evaluation], pairs: Pairs, path: Path) -> None:
    """Writes the page for comparable evaluations, whose methods have different names.

    Args:
        evaluations: the evaluations; their SR pictures are read from their folders.
        pairs: the HR and LR files that were found.
        path: the page to write.

    Raises:
        UserError: a picture that is damaged or has another size than its HR image, or a page that cannot be
            written.
    """
    table = make_table(evaluations)
    own = {name: [e for e in evaluations if name in e.datasets] for name in datasets_of(evaluations)}
    samples = {name: list(of[0].datasets[name].rows)[:SAMPLES_PER_SET] for name, of in own.items()}
    # In addition to the methods: HR and, unless it is a method, bicubic.
    extra = 1 + (BICUBIC not in [e.method for e in evaluations])
    pictures = sum(len(samples[name]) * (len(of) + extra) for name, of in own.items())
    sections = []
    with console.progress(f"pictures of {path.name}", sum(map(len, samples.values())), unit="image") as done:
        for name, of in own.items():
            scenes = []
            for image in samples[name]:
                pair = pairs.get(name, {}).get(image)
                scenes.append(make_scene(name, image, of, pair, choose_side(pictures), path.parent))
                done(name)
            sections.append(make_section(name, of, table, [scene for scene in scenes if scene.versions]))
    page = render_page(make_title(evaluations), sections, table.notes)
    try:
        files.write_atomically(path, page)
    except OSError as error:
        checks.fail(
            str(path), expected="a file that can be written", got=error.strerror, remedy="choose another"
        )


def make_title(evaluations: Sequence[Evaluation]) -> str:
    """Returns a title with the methods (or their number), the sets and the scale."""
    methods, datasets = [e.method for e in evaluations], datasets_of(evaluations)
    names = ", ".join(methods)
    names = names if len(names) <= LONGEST_TITLE else f"{len(methods)} methods"
    return f"{names} on {', '.join(datasets)}, \u00d7{evaluations[0].scale}"


def make_section(
    dataset: str, evaluations: Sequence[Evaluation], table: Table, scenes: Sequence[Scene]
) -> Section:
    """Makes the section of one data set, with remarks about missing parts."""
    lines = [line for line in table.lines if line.dataset == dataset]
    columns = [c for c in table.columns if not all(math.isnan(line.values[c.name]) for line in lines)]
    rows = make_rows(dataset, evaluations)
    shown = {version.name for scene in scenes for version in scene.versions if version.kind == "method"}
    without = [e.method for e in evaluations if e.method not in shown]
    remarks = []
    if rows.columns and not rows.lines:
        remarks.append("The values of each image are in rows.csv: too many for this page.")
    if not scenes or any(scene.versions[-1].kind != "hr" for scene in scenes):
        remarks.append(
            f"HR images of {dataset} were not found in their folder: they, bicubic and the error maps are "
            "missing here. The option --data of the report gives their folder."
        )
    if without:
        remarks.append(f"Pictures missing in sr/{dataset}: {', '.join(without)}.")
    return Section(
        dataset=dataset,
        images=lines[0].images,
        table=Table(columns, lines),
        rows=rows,
        scenes=scenes,
        score_title=" / ".join(column.title for column in score_columns(rows.columns)),
        remarks=remarks,
    )


def score_columns(columns: Sequence[Column]) -> list[Column]:
    """Chooses the columns for the score of a picture: the first one of each direction."""
    firsts = {column.better: column for column in reversed(columns)}
    return [firsts[better] for better in ("higher", "lower") if better in firsts]


def make_scene(
    dataset: str,
    image: str,
    evaluations: Sequence[Evaluation],
    pair: ImagePair | None,
    side: int,
    folder: Path,
) -> Scene:
    """Reads all versions of an image, and cuts the same detail out of each.

    Args:
        dataset: the name of its set.
        image: its name.
        evaluations: the evaluations of the methods.
        pair: its HR and LR files, if they were found.
        side: the largest side of the detail.
        folder: the folder of the page, to which links are relative.

    Returns:
        The versions with a picture: bicubic (if it is not a method), the methods, HR.
    """
    paths = {e.method: e.folder / PICTURES / dataset / f"{image}.png" for e in evaluations}
    srs = {method: read_image(path) for method, path in paths.items() if path.is_file()}
    pictures = {("method", method): sr for method, sr in srs.items()}
    if pair is not None:
        scale = evaluations[0].scale
        low, hr = pair.load(scale)
        bicubic = {} if BICUBIC in srs else {("bicubic", BICUBIC): bicubic_upscale(low, scale)}
        pictures = {**bicubic, **pictures, ("hr", "HR"): hr}
    if not pictures:
        return Scene(image, "", 0, 0, (0, 0), [])
    (_, reference), whole = list(pictures.items())[-1]
    for method, sr in srs.items():
        checks.check(
            sr.shape == whole.shape,
            str(paths[method]),
            expected=f"{whole.shape[1]} x {whole.shape[0]} pixels, the size of {reference} of {image}",
            got=f"{sr.shape[1]} x {sr.shape[0]}",
            remedy="evaluate again, or give the folder of the right images with --data",
        )
    place = find_detail(whole, side)
    values = {e.method: e.datasets[dataset].rows[image] for e in evaluations}
    versions = [
        Version(
            kind=kind,
            name=name,
            uri=picture_uri(np.ascontiguousarray(picture[place])),
            score=make_score(values[name]) if kind == "method" else "",
            link=quote(os.fsencode(os.path.relpath(paths[name], folder))) if kind == "method" else "",
        )
        for (kind, name), picture in pictures.items()
    ]
    height, width = whole[place].shape[:2]
    first = next(iter(pictures.values()))
    # At first the magnifiers show the region where the first and the last version differ most.
    rows, columns = find_detail(np.subtract(whole[place], first[place], dtype=np.int64), FOCUS_SIDE)
    focus = (columns.start + FOCUS_SIDE // 2, rows.start + FOCUS_SIDE // 2)
    return Scene(image, describe_part(place, whole.shape), width, height, focus, versions)


def make_score(row: Mapping[str, float]) -> str:
    """Formats the values for the score of a picture."""
    columns = score_columns(choose_columns(set(row)))
    return " / ".join(column.write(row[column.name]) for column in columns)


def describe_part(place: tuple[slice, slice], shape: tuple[int, ...]) -> str:
    """Describes the shown part of an image with the given shape."""
    rows, columns = place
    size = f"{columns.stop - columns.start} \u00d7 {rows.stop - rows.start}"
    whole = f"{shape[1]} \u00d7 {shape[0]}"
    if size == whole:
        return f"{whole} pixels"
    return f"{size} of {whole} pixels, from column {columns.start}, row {rows.start}"
