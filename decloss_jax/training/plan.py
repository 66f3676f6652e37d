"""Checks a config and builds everything it names, before an image is read or anything is written."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checks
from decloss_jax.config import flatten
from decloss_jax.data.sources import build_source
from decloss_jax.host import parallel
from decloss_jax.models import build_model
from decloss_jax.models.ranker import NAME as RANKER
from decloss_jax.training.images import Data, open_data
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.ranker_stage import build_ranker_stage, initial_ranker, open_ranked_data
from decloss_jax.training.stages import Stage, plan_stages
from decloss_jax.training.state import initial_params
from decloss_jax.workdir.checkpoint import STAGES

# Numbers that must be above 0 if they are set.
POSITIVE = (
    "data.crop_size",
    "adam_eps",
    "gradient_clip_norm",
    "micro_batch",
    "discriminator.features",
    "discriminator.learning_rate_ratio",
    "ranker.windows_per_image",
    "log_every_steps",
    "eval_every_steps",
    "checkpoint_every_steps",
)
# Field -> smallest and largest value.
RANGES = {
    "seed": (0, 2**32 - 1),
    "data.threads": (0, math.inf),
    "adam_b1": (0.0, 0.999999),
    "adam_b2": (0.0, 0.999999),
    "ema_decay": (0.0, 0.999999),
    "ranker.sharpness": (0.0, math.inf),
    "ranker.niqe_difference": (0.0, math.inf),
    "ranker.weight_decay": (0.0, math.inf),
    "validation_images": (0, math.inf),
    "sample_images": (0, math.inf),
}


@dataclass(frozen=True)
class Plan:
    """Everything that a config names.

    Attributes:
        mesh: all devices.
        stages: those that have steps, in order.
        initial_params: () -> what the first stage starts from; it may read a file of weights.
        open_data: () -> the open data; it reads images.
    """

    mesh: Mesh
    stages: list[Stage]
    initial_params: Callable[[], Any]
    open_data: Callable[[], Data]


def make_plan(config: ConfigDict) -> Plan:
    """Builds everything that a config names; reads no image and writes nothing.

    Raises:
        UserError: a config that cannot be run.
    """
    mesh = parallel.data_mesh()
    check_values(config, mesh)
    if config.model.name == RANKER:
        return Plan(
            mesh,
            [build_ranker_stage(config, mesh)],
            functools.partial(initial_ranker, config, mesh),
            functools.partial(
                open_ranked_data,
                config,
                build_source(config.data, scale=config.model.scale, split="train"),
            ),
        )
    model, optimizer = build_model(config.model), build_optimizer(config)
    images, validation = (
        build_source(config.data, scale=config.model.scale, split=split) for split in ("train", "validation")
    )
    return Plan(
        mesh,
        plan_stages(config, model, optimizer, mesh),
        functools.partial(initial_params, config, model, mesh),
        functools.partial(open_data, config, images, validation),
    )


def check_values(config: ConfigDict, mesh: Mesh) -> None:
    """Checks the numbers of a config; the builders check names and the sizes of networks.

    Raises:
        UserError: a number that is not finite or out of range, or two that do not fit together.
    """
    fields = {field: value for field, value in flatten(config.to_dict()).items() if value is not None}
    for field, value in fields.items():
        finite = not isinstance(value, float) or math.isfinite(value)
        checks.check(finite, field, expected="a finite number", got=value, remedy=f"change --config.{field}")
    for field in POSITIVE:
        if field in fields:
            checks.check_positive(field, fields[field])
    for field, (smallest, largest) in RANGES.items():
        if field in fields:
            checks.check_range(field, fields[field], smallest, largest)
    parallel.check_batch_size(config.batch_size, mesh)
    if config.micro_batch is not None:
        checks.check_divisible(
            "images of a device (batch_size / devices)",
            config.batch_size // mesh.size,
            "micro_batch",
            config.micro_batch,
        )
    checks.check_divisible("data.crop_size", config.data.crop_size, "model.scale", config.model.scale)
    for name in STAGES:
        checks.check_range(f"{name}.steps", config[name].steps, 0)
        if config[name].steps > 0:
            check_schedule(config[name], name)


def check_schedule(stage: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` unless warm-up and cycles of a stage fit into its steps and its milestones rise."""
    steps, warmup = stage["steps"], stage["warmup_steps"]
    checks.check_positive(f"{name}.learning_rate", stage["learning_rate"])
    checks.check(
        0 <= warmup < steps,
        f"{name}.warmup_steps",
        expected=f"0 to {steps - 1}, below {name}.steps",
        got=warmup,
        remedy=f"shorten the warm-up with --config.{name}.warmup_steps or lengthen the stage",
    )
    checks.check_positive(f"{name}.gamma", stage["gamma"])
    milestones = list(stage["milestones"])
    checks.check(
        milestones == sorted(set(milestones)) and all(each > 0 for each in milestones),
        f"{name}.milestones",
        expected="increasing numbers of updates above 0",
        got=milestones,
        remedy=f"change --config.{name}.milestones",
    )
    checks.check(
        0 <= stage["restarts"] < steps - warmup,
        f"{name}.restarts",
        expected=f"0 or more, and fewer than the {steps - warmup} steps after the warm-up",
        got=stage["restarts"],
        remedy=f"change --config.{name}.restarts",
    )
