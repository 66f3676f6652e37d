"""One evaluation, from images to files: rows.csv, summary.json, report.html and the pictures."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from decloss_jax import checks
from decloss_jax.data.folder import find_all_pairs
from decloss_jax.data.pairs import ImagePair
from decloss_jax.data.photographs import find_photographs
from decloss_jax.evaluation.conventions import Protocol
from decloss_jax.evaluation.methods import Method
from decloss_jax.evaluation.output import FILES, PICTURES, Result, folder_that_appears, write_method
from decloss_jax.evaluation.report import make_table, write_report
from decloss_jax.evaluation.saved import read_evaluation
from decloss_jax.evaluation.table import Table, table_csv
from decloss_jax.host import console, files
from decloss_jax.metrics import METRICS

PHOTOGRAPHS = "photographs"  # in --data: the held-out photographs of scikit-image

Advance = Callable[[str], None]


@dataclass(frozen=True)
class ImageSet:
    """A data set: its name, its pairs, and its folder or `PHOTOGRAPHS`."""

    name: str
    pairs: Sequence[ImagePair]
    root: str


def run(methods: Sequence[Method], roots: Sequence[str], out: str | Path, protocol: Protocol) -> Table:
    """Evaluates methods on data sets and writes everything to a folder, which appears only at the end.

    Args:
        methods: the methods to measure, all of one scale.
        roots: folders with HR/ and optionally LRx{s}/ (or another layout of `data/folder.py`); "photographs"
            means the held-out photographs of scikit-image.
        out: the folder. It directly holds the files of a single method. Several methods have a folder each in
            it, together with table.csv and report.html for all. An earlier evaluation is replaced.
        protocol: how it is measured.

    Returns:
        The table of all methods and sets.

    Raises:
        UserError: a set that is missing, empty or damaged, or an `out` that holds other files.
    """
    sets = open_sets(roots, methods[0].scale)
    check_names(methods, sets)
    lows = {each.name: "given" if each.pairs[0].low else "made by MATLAB's bicubic" for each in sets}
    steps = sum(len(each.pairs) for each in sets) * len(methods) * (1 + len(protocol.metrics))
    results: list[Result] = []
    with folder_that_appears(Path(out)) as folder:
        folders = [folder] if len(methods) == 1 else [folder / method.name for method in methods]
        with console.progress("evaluating", steps, unit="value") as advance:
            for each in sets:
                results += evaluate_set(each, methods, folders, protocol, advance)
        for method, own in zip(methods, folders, strict=True):
            of_method = [result for result in results if result.method is method]
            write_method(own, of_method, protocol, lows, {each.name: each.root for each in sets})
        evaluations = [read_evaluation(own) for own in folders]
        pairs, table = pairs_by_name(sets), make_table(evaluations)
        for evaluation in evaluations:
            write_report([evaluation], pairs, evaluation.folder / "report.html")
        if len(methods) > 1:
            (folder / "table.csv").write_text(table_csv(table), encoding="utf-8")
            write_report(evaluations, pairs, folder / "report.html")
    return table


def open_sets(roots: Sequence[str], scale: int, field: str = "--data") -> list[ImageSet]:
    """Lists the pairs of each root; a set has the name of its folder, and the names must differ.

    Raises:
        UserError: a root that is missing or empty, or no roots; the message names `field`.
    """
    checks.check(
        bool(roots), field, expected="at least one folder", got="none", remedy=f"give {field} ROOT[,ROOT...]"
    )
    checks.check(
        all(root.strip() for root in roots),
        field,
        expected="folders separated by single commas",
        got="an empty entry",
        remedy="remove the extra comma",
    )
    sets: list[ImageSet] = []
    for root in roots:
        if root == PHOTOGRAPHS:
            name, place, pairs = PHOTOGRAPHS, PHOTOGRAPHS, find_photographs("validation")
        else:
            folder = files.expand(root).resolve()
            name, place = folder.name, str(folder)
            pairs = find_all_pairs(files.expand(root), scale=scale, field=field)
        checks.check(
            name not in [other.name for other in sets],
            field,
            expected="folders with names of their own",
            got=f"two called {name}",
            remedy="evaluate them one after the other",
        )
        sets.append(ImageSet(name, pairs, place))
    return sets


def check_names(methods: Sequence[Method], sets: Sequence[ImageSet]) -> None:
    """Raises `UserError` for a name that is not text, or a method's name that its folder cannot have."""
    taken = {".", "..", PICTURES} | FILES
    for name in [method.name for method in methods]:
        checks.check(
            name not in taken,
            "name of a method",
            expected="one that the method's folder can have",
            got=repr(name),
            remedy="rename the file of weights",
        )
    images = [name for each in sets for name in (each.name, *(pair.name for pair in each.pairs))]
    for name in [*(method.name for method in methods), *images]:
        checks.check(
            name.encode(errors="ignore").decode() == name,
            "name of a file",
            expected="text in UTF-8",
            got=ascii(name),
            remedy="rename it",
        )


def pairs_by_name(sets: Sequence[ImageSet]) -> dict[str, dict[str, ImagePair]]:
    """Returns data set -> image -> pair."""
    return {each.name: {pair.name: pair for pair in each.pairs} for each in sets}


def evaluate_set(
    image_set: ImageSet,
    methods: Sequence[Method],
    folders: Sequence[Path],
    protocol: Protocol,
    advance: Advance,
) -> list[Result]:
    """Runs every method on every image of a set, writes the pictures, and measures them.

    Args:
        image_set: the set; its images are read once.
        methods: the methods to measure.
        folders: the folders of the methods.
        protocol: how it is measured.
        advance: called after each picture and each value.

    Returns:
        A result for each method.
    """
    names = [pair.name for pair in image_set.pairs]
    lows, hrs = zip(*(pair.load(methods[0].scale) for pair in image_set.pairs), strict=True)
    results = []
    for method, folder in zip(methods, folders, strict=True):
        srs: dict[int, np.ndarray] = {}
        for index, sr in method.upscale_each(lows):
            srs[index] = sr
            write_picture(folder / PICTURES / image_set.name / f"{names[index]}.png", sr)
            advance(f"{image_set.name} {method.name}")
        in_order = [srs[index] for index in range(len(names))]
        results.append(measure_set(image_set.name, method, names, in_order, hrs, protocol, advance))
    return results


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 [H,W,3] as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def measure_set(
    dataset: str,
    method: Method,
    names: Sequence[str],
    srs: Sequence[np.ndarray],
    hrs: Sequence[np.ndarray],
    protocol: Protocol,
    advance: Advance,
) -> Result:
    """Computes all metrics of the protocol for the pictures of one method; errors name the image."""
    of_images: dict[str, list[float]] = {}
    of_set: dict[str, float] = {}
    for column in protocol.metrics:
        metric = METRICS[column]
        values = iter(metric.function(srs, hrs, crop_border=protocol.crop_border))
        if metric.of == "image":
            of_images[column] = []
            for name in names:
                of_images[column].append(next_value(values, f"{dataset}/{name}"))
                advance(f"{dataset} {method.name} {column}")
            of_set[column] = mean_of_existing(of_images[column])
        else:
            of_set[column] = next_value(values, dataset)
            for _ in names:
                advance(f"{dataset} {method.name} {column}")
    return Result(dataset, method, names, of_images, of_set)


def mean_of_existing(values: Sequence[float]) -> float:
    """Averages the values that are not NaN (NIQE of a small image is NaN); NaN if there is none."""
    existing = [value for value in values if not math.isnan(value)]
    return float(np.mean(existing)) if existing else math.nan


def next_value(values: Iterator[float], subject: str) -> float:
    """Returns the next value; adds the name of the image to a `UserError`."""
    try:
        return next(values)
    except checks.UserError as error:
        raise checks.UserError(f"{subject}: {error}") from error
