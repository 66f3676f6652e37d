"""The runs of the rows: their configs and workdirs, training if it is missing, and measuring.

A workdir's name has its losses, its seed and a hash of the fields that affect the result, so rows that
compute the same share it. Stage 1 is trained once for all rows that agree on it, in a separate workdir; its
last checkpoint is copied into each row's workdir. So the result of a row is the same as if `train.py` had
trained both stages of its config in one run.
"""

import hashlib
import importlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import decloss_jax
from decloss_jax import checks, evaluation
from decloss_jax.config import flatten, is_unset
from decloss_jax.data.folder import split_roots
from decloss_jax.evaluation.conventions import Protocol
from decloss_jax.evaluation.methods import Method, load_methods
from decloss_jax.evaluation.run import ImageSet, open_sets
from decloss_jax.host import console, files
from decloss_jax.reproduction.paper import SCALE, PaperRow
from decloss_jax.training import loop
from decloss_jax.workdir import journal
from decloss_jax.workdir.checkpoint import STAGES
from decloss_jax.workdir.claim import PATH_FIELDS, REPORTING_FIELDS

# Fields that --set cannot change, and what to do instead.
FIXED_FIELDS = {"seed": "give --seeds", "model.scale": "leave it: the paper's numbers are for 4"}
# What a table says of a file of weights; a run of train.py, which is accepted too, has no file.
WEIGHTS = ("file", "workdir", "stage", "step", "sha256", "heat", "seed")
# Blocks of a config that only these terms read.
TERM_BLOCKS = {
    "perceptual": {"perceptual"},
    "decloss": {"decloss"},
    "discriminator": {"gan", "ragan"},
    "ranker": {"rank_content"},
}


@dataclass(frozen=True)
class Settings:
    """The settings that all rows share.

    Attributes:
        size: a name of `paper.SIZES`.
        overrides: config fields that differ from the rows' configs.
        runs: folder of the workdirs.
        tests: folders of the test sets, or "photographs".
        weights: row's name -> the network of a file, which is measured instead of training the row.
    """

    size: str
    overrides: Mapping[str, Any]
    runs: Path
    tests: Sequence[str]
    weights: Mapping[str, Method] = field(default_factory=dict)


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


def import_config(name: str) -> ModuleType:
    """Imports configs/NAME.py, from the checkout that holds the package or from the working directory.

    Raises:
        UserError: it is in neither, for instance if only the package was installed.
    """
    places = (Path(decloss_jax.__file__).parents[1], Path.cwd())
    place = next((each for each in places if (each / "train.py").is_file()), None)
    if place is None:
        checks.fail(
            f"configs/{name}.py",
            expected="the configs of the repository, which an installed package does not include",
            got=f"none in {Path.cwd()}",
            remedy="run the command in a checkout, the folder that holds train.py and configs/",
        )
    if str(place) not in sys.path:
        sys.path.append(str(place))
    return importlib.import_module("configs." + name.replace("/", "."))


def row_config(row: PaperRow, seed: int, settings: Settings) -> ConfigDict:
    """Returns the config of a row at a scale, with the overrides that the row uses, and the seed."""
    config = import_config(row.config).get_config()
    if settings.size == "mini":
        config = import_config("mini").shrink(config)
    fields = flatten(config.to_dict())
    for name, value in settings.overrides.items():
        checks.check(
            name not in FIXED_FIELDS,
            f"--set {name}",
            expected="a field that the table leaves open",
            got="one that it fixes",
            remedy=FIXED_FIELDS.get(name, ""),
        )
        if not (stays_zero(name) and fields[name] == 0):
            config.update_from_flattened_dict({name: value})
    config.seed = seed
    return reset_idle_blocks(config)


def stays_zero(name: str) -> bool:
    """Tells whether a field that is 0 in a row stays 0: rows without stage 2 or a term do not gain them."""
    return name == "finetune.steps" or name.startswith("finetune.weights.")


def config_hash(config: ConfigDict) -> str:
    """Returns 8 digits that two configs share only if they compute the same, wherever the data are."""
    return hashlib.sha256(json.dumps(computing_fields(config), sort_keys=True).encode()).hexdigest()[:8]


def computing_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields that affect the result of a config, with paths reduced to their last name."""
    idle = idle_blocks(config)
    fields = {
        name: value
        for name, value in flatten(config.to_dict()).items()
        if name not in REPORTING_FIELDS and name.partition(".")[0] not in idle and not is_unset(name, value)
    }
    return without_paths(fields)


def idle_blocks(config: ConfigDict) -> set[str]:
    """Returns the unused blocks of a config: stages without steps, options of unused terms."""
    idle_stages = {stage for stage in STAGES if config[stage].steps == 0}
    terms = {term for stage in set(STAGES) - idle_stages for term in stage_losses(config, stage)}
    return idle_stages | {block for block, readers in TERM_BLOCKS.items() if not terms & readers}


def reset_idle_blocks(config: ConfigDict) -> ConfigDict:
    """Returns the config with base's values in unused blocks, so that equal hashes mean equal configs."""
    config = config.copy_and_resolve_references()
    base = import_config("base").get_config()
    for stage in STAGES:
        base[stage].steps = config[stage].steps
    for name in idle_blocks(config):
        config[name] = base[name]
    return config


def without_paths(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields with paths reduced to their last names."""
    return {
        name: ",".join(path.name for path in split_roots(value)) if name in PATH_FIELDS else value
        for name, value in fields.items()
    }


def stage_one_config(config: ConfigDict) -> ConfigDict:
    """Returns the config of stage 1 alone: equal for all configs that agree on it."""
    alone = config.copy_and_resolve_references()
    alone.finetune.steps = 0
    return reset_idle_blocks(alone)


def train_row(row: PaperRow, seed: int, settings: Settings) -> tuple[Path, ConfigDict, str]:
    """Trains the missing part of a row; returns its workdir, its config, and the hash of its stage 1.

    Raises:
        UserError: anything that `training.loop.run` refuses, and a config with init_from.
        Stopped: Ctrl-C or SIGTERM; the same call resumes.
    """
    config = row_config(row, seed, settings)
    checks.check(
        config.init_from == "" and config.pretrain.steps > 0,
        f"configs/{row.config}.py",
        expected="a stage 1 of its own",
        got="none",
        remedy="do not change init_from and pretrain.steps",
    )
    first = stage_one_config(config)
    first_hash = config_hash(first)
    first_workdir = settings.runs / f"{config.model.name}-stage1-seed{seed}-{first_hash}"
    console.say(f"{row.name}, seed {seed}: stage 1 in {first_workdir}")
    loop.run(first, first_workdir)
    if config.finetune.steps == 0:
        return first_workdir, first, first_hash
    losses = "-".join(stage_losses(config, "finetune"))
    workdir = settings.runs / f"{config.model.name}-{losses}-seed{seed}-{config_hash(config)}"
    adopt_stage_one(first_workdir, workdir, first.pretrain.steps)
    console.say(f"{row.name}, seed {seed}: stage 2 in {workdir}")
    loop.run(config, workdir)
    return workdir, config, first_hash


def stage_losses(config: ConfigDict, stage: str) -> dict[str, float]:
    """Returns the terms of a stage with their weights."""
    return {name: weight for name, weight in config[stage].weights.items() if weight}


def adopt_stage_one(source: Path, workdir: Path, step: int) -> None:
    """Copies the last checkpoint of stage 1 into a workdir that has none."""
    target = workdir / "checkpoints" / "pretrain"
    if target.exists():
        return
    partial = target.with_name("pretrain.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source / "checkpoints" / "pretrain" / str(step), partial / str(step))
    os.replace(partial, target)


def is_trained(row: PaperRow, settings: Settings) -> bool:
    """Tells whether a row is trained: it has a config, and no weights in place of training."""
    return bool(row.config) and row.name not in settings.weights


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
