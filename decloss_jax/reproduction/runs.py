"""The runs of the rows: their configs and workdirs, and training if it is missing.

A workdir's name has its losses, its seed and a hash of the fields that affect the result, so rows that
compute the same share it. Stage 1 is trained once for all rows that agree on it, in a separate workdir; its
last checkpoint is copied into each row's workdir. So the result of a row is the same as if `train.py` had
trained both stages of its config in one run.

A row with the term rank_content first has its Ranker trained, and before it the networks whose results the
Ranker orders; their runs are shared in the same way.
"""

import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import decloss_jax
from decloss_jax import checks
from decloss_jax.config import flatten, is_unset
from decloss_jax.data.folder import split_roots
from decloss_jax.evaluation.methods import Method
from decloss_jax.host import console
from decloss_jax.models.ranker import NAME as RANKER
from decloss_jax.reproduction.paper import PaperRow
from decloss_jax.training import loop
from decloss_jax.workdir.checkpoint import STAGES, is_complete
from decloss_jax.workdir.claim import PATH_FIELDS, REPORTING_FIELDS

# Fields that --set cannot change, and what to do instead.
FIXED_FIELDS = {"seed": "give --seeds", "model.scale": "leave it: the paper's numbers are for 4"}
# Blocks of a config that only these terms, or networks, read.
TERM_BLOCKS = {
    "perceptual": {"perceptual"},
    "decloss": {"decloss"},
    "discriminator": {"gan", "ragan"},
    "ranker": {"rank_content", RANKER},
}
RANKER_ROW = PaperRow("Ranker", "table3/ranker")
# The networks whose results a Ranker orders; the first is the stage 1 of the second.
SRGAN, ESRGAN = PaperRow("SRGAN", "table3/srgan"), PaperRow("ESRGAN", "table1/09_rrdb_perceptual_ragan")


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
        if reaches(name, config) and not (stays_zero(name) and fields[name] == 0):
            config.update_from_flattened_dict({name: value})
    config.seed = seed
    return reset_idle_blocks(config)


def reaches(name: str, config: ConfigDict) -> bool:
    """Tells whether --set changes a field of a config; a Ranker's own training stays as its config says."""
    of_ranker = name.startswith("ranker.") or name in REPORTING_FIELDS
    of_data = name.startswith("data.") and name != "data.crop_size"
    return config.model.name != RANKER or of_ranker or of_data


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
    readers_here = terms | {config.model.name}
    return idle_stages | {block for block, readers in TERM_BLOCKS.items() if not readers_here & readers}


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
    first_workdir, first = train_stage_one(row, config, settings)
    if config.finetune.steps == 0:
        return first_workdir, first, config_hash(first)
    if needs_ranker(config):
        config.ranker.weights_file = str(train_ranker(seed, settings))
    losses = "-".join(stage_losses(config, "finetune"))
    workdir = settings.runs / f"{config.model.name}-{losses}-seed{seed}-{config_hash(config)}"
    adopt_stage_one(first_workdir, workdir, first.pretrain.steps)
    train_missing(config, workdir, f"{row.name}, seed {seed}: stage 2")
    return workdir, config, config_hash(first)


def train_stage_one(row: PaperRow, config: ConfigDict, settings: Settings) -> tuple[Path, ConfigDict]:
    """Trains the missing part of a row's stage 1; returns its workdir and its config."""
    checks.check(
        config.init_from == "" and config.pretrain.steps > 0,
        f"configs/{row.config}.py",
        expected="a stage 1 of its own",
        got="none",
        remedy="do not change init_from and pretrain.steps",
    )
    first = stage_one_config(config)
    workdir = settings.runs / f"{config.model.name}-stage1-seed{config.seed}-{config_hash(first)}"
    train_missing(first, workdir, f"{row.name}, seed {config.seed}: stage 1")
    return workdir, first


def train_missing(config: ConfigDict, workdir: Path, name: str) -> None:
    """Trains a run to its end; does not open a complete one, so that several calls can use it at once."""
    stage = "finetune" if config.finetune.steps else "pretrain"
    last = config.pretrain.steps + config.finetune.steps
    if not is_complete(workdir, stage, last):
        console.say(f"{name} in {workdir}")
        loop.run(config, workdir)


def needs_ranker(config: ConfigDict) -> bool:
    """Tells whether a config has the term rank_content and no Ranker for it."""
    return "rank_content" in stage_losses(config, "finetune") and not config.ranker.weights_file


def rows_to_check(row: PaperRow, settings: Settings) -> list[PaperRow]:
    """Returns the rows whose training the row needs, and the row itself."""
    needed = [SRGAN, ESRGAN, RANKER_ROW] if needs_ranker(row_config(row, 0, settings)) else []
    return [*needed, row]


def train_ranker(seed: int, settings: Settings) -> Path:
    """Trains the missing part of a Ranker and of the networks that it orders; returns its workdir."""
    psnr, _ = train_stage_one(SRGAN, row_config(SRGAN, seed, settings), settings)
    networks = [psnr, *(train_row(row, seed, settings)[0] for row in (SRGAN, ESRGAN))]
    config = row_config(RANKER_ROW, seed, settings)
    config.ranker.networks = ",".join(map(str, networks))
    workdir = settings.runs / f"{RANKER}-seed{seed}-{config_hash(config)}"
    train_missing(config, workdir, f"{RANKER_ROW.name}, seed {seed}")
    return workdir


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
