"""Measures the rows: trained here, a baseline, or the network of a file."""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import decloss_jax
from decloss_jax import evaluation
from decloss_jax.evaluation.conventions import Protocol
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.evaluation.run import ImageSet, open_sets
from decloss_jax.host import files
from decloss_jax.reproduction.paper import SCALE, PaperRow
from decloss_jax.reproduction.runs import (
    Settings,
    computing_fields,
    config_hash,
    stage_losses,
    train_row,
)
from decloss_jax.workdir import journal

# What a table says of a file of weights; a run of train.py, which is accepted too, has no file.
WEIGHTS = ("file", "workdir", "stage", "step", "sha256", "heat", "seed")


@dataclass(frozen=True)
class Measured:
    """One row with one seed: its config's hash, the values of each data set, and the cost of a step.

    Attributes:
        row: the row.
        seed: of its training; None for a row without one.
        config_hash: of its config; "" without training.
        stage_one_hash: of the stage 1 from which it started; "" without training.
        fields: of its config that affect the result; paths are reduced to their last name.
        versions: of the packages that measured it.
        losses: the terms of its last stage with their weights.
        datasets: data set -> metric -> value; `images` is their number.
        seconds_per_step: median over the journal lines of its last stage; None without training.
        images_per_second: likewise.
        folder: of its evaluation.
        weights: `file` and `sha256` of the weights that took the place of training, with SRFlow's `heat` and
            `seed`; empty without such a file.
    """

    row: PaperRow
    seed: int | None
    config_hash: str
    stage_one_hash: str
    fields: Mapping[str, Any]
    versions: Mapping[str, str]
    losses: Mapping[str, float]
    datasets: Mapping[str, Mapping[str, Any]]
    seconds_per_step: float | None
    images_per_second: float | None
    folder: Path
    weights: Mapping[str, Any] = field(default_factory=dict)


def measure_untrained(row: PaperRow, settings: Settings, protocol: Protocol) -> Measured:
    """Evaluates a baseline, or the network of a file, unless that is done already."""
    given = settings.weights.get(row.name)
    method = given or load_methods(names=[row.method])[0]
    name = f"weights-{given.sha256[:8]}" if given else row.method
    folder = settings.runs / "evaluations" / name / protocol.name
    datasets = evaluate_once([method], settings, protocol, folder)
    weights = {key: method.loaded[key] for key in WEIGHTS if key in method.loaded}
    return Measured(row, None, "", "", {}, journal.versions(), {}, datasets, None, None, folder, weights)


def measure_row(row: PaperRow, seed: int | None, settings: Settings, protocol: Protocol) -> Measured:
    """Trains and evaluates a row unless that is done already, and reads its cost from the journal."""
    if seed is None:
        return measure_untrained(row, settings, protocol)
    workdir, config, first_hash = train_row(row, seed, settings)
    methods = load_methods(workdirs=[str(workdir)])
    folder = settings.runs / "evaluations" / workdir.name / protocol.name
    datasets = evaluate_once(methods, settings, protocol, folder)
    stage = "finetune" if config.finetune.steps else "pretrain"
    speed = images_per_second(workdir, stage)
    return Measured(
        row=row,
        seed=seed,
        config_hash=config_hash(config),
        stage_one_hash=first_hash,
        fields=computing_fields(config),
        versions=journal.versions(),
        losses=stage_losses(config, stage),
        datasets=datasets,
        seconds_per_step=config.batch_size / speed,
        images_per_second=speed,
        folder=folder,
    )


def evaluate_once(
    methods: Sequence[Any], settings: Settings, protocol: Protocol, folder: Path
) -> Mapping[str, Mapping[str, Any]]:
    """Returns the values of each data set; reuses an earlier evaluation of the same weights and images."""
    summary, inputs = folder / "summary.json", folder.with_name(f"{folder.name}.inputs.json")
    now = {
        "version": decloss_jax.__version__,
        "weights": methods[0].sha256,
        "metrics": list(protocol.metrics),
        "images": {each.name: identity(each) for each in open_sets(settings.tests, SCALE, field="--test")},
    }
    measured = summary.is_file() and inputs.is_file() and json.loads(inputs.read_text()) == now
    if not measured:
        evaluation.run(methods, settings.tests, folder, protocol)
        files.write_atomically(inputs, json.dumps(now, indent=1) + "\n")
    return json.loads(summary.read_text())["datasets"]


def identity(image_set: ImageSet) -> str:
    """Returns a hash that changes if an image of the set may have changed."""
    images = [image for pair in image_set.pairs for image in (pair.hr, pair.low) if image is not None]
    return hashlib.sha256("\n".join(image.identity() for image in images).encode()).hexdigest()


def images_per_second(workdir: Path, stage: str) -> float:
    """Returns the median speed over the journal lines of a stage."""
    _, records = journal.read(workdir)
    return statistics.median(
        record["images_per_second"]
        for record in records
        if record["stage"] == stage and "images_per_second" in record
    )
