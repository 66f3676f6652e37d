"""Checks a config and builds everything it names, before an image is read or anything is written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checks
from decloss_jax.config import flatten
from decloss_jax.data.pairs import ImagePair
from decloss_jax.data.sources import build_source
from decloss_jax.host import parallel
from decloss_jax.models import VGGDiscriminator, build_model
from decloss_jax.training.adversary import Adversary, build_adversary, read_variables
from decloss_jax.training.optim import build_optimizer, build_schedule
from decloss_jax.training.state import abstract_state
from decloss_jax.training.step import TrainStep, make_train_step
from decloss_jax.training.terms import active_weights, build_terms
from decloss_jax.workdir.checkpoint import STAGES

# Numbers that must be above 0 if they are set.
POSITIVE = (
    "data.crop_size",
    "adam_eps",
    "gradient_clip_norm",
    "micro_batch",
    "discriminator.features",
    "discriminator.learning_rate_ratio",
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
    "validation_images": (0, math.inf),
    "sample_images": (0, math.inf),
}


@dataclass(frozen=True)
class Stage:
    """One stage: updates first_step + 1 to last_step of the run, and the function for one update."""

    name: str
    first_step: int
    last_step: int
    train_step: TrainStep
    discriminator: VGGDiscriminator | None
    its_variables: Mapping[str, Any] | None  # the discriminator's initial variables; None: from the seed


@dataclass(frozen=True)
class Plan:
    """Everything that a config names."""

    mesh: Mesh
    model: nn.Module
    optimizer: optax.GradientTransformation
    images: Sequence[ImagePair]
    validation: Sequence[ImagePair]
    stages: list[Stage]


def make_plan(config: ConfigDict) -> Plan:
    """Builds everything that a config names; reads no image and writes nothing.

    Raises:
        UserError: a config that cannot be run.
    """
    mesh = parallel.data_mesh()
    check_values(config, mesh)
    checks.check(
        config.model.name != "srflow",
        "model.name",
        expected="a network that losses on SR images can train",
        got="srflow, whose likelihood loss is not implemented",
        remedy="choose edsr or rrdb; evaluate.py and upscale accept files of SRFlow",
    )
    model, optimizer = build_model(config.model), build_optimizer(config)
    images, validation = (
        build_source(config.data, scale=config.model.scale, split=split) for split in ("train", "validation")
    )
    return Plan(mesh, model, optimizer, images, validation, plan_stages(config, model, optimizer, mesh))


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


def plan_stages(
    config: ConfigDict, model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh
) -> list[Stage]:
    """Builds the stages that have steps; with `init_from`, only stage 2.

    Each step is traced on shapes, so that a mistake in stage 2 is found before stage 1 starts.

    Raises:
        UserError: a stage that cannot be run.
    """
    stages: list[Stage] = []
    done = 0
    for name in STAGES:
        options = config[name]
        if options.steps == 0 or (name == "pretrain" and config.init_from):
            continue
        adversary = build_adversary(config, name, mesh)
        check_generator_is_trained(config, name, adversary, trained=bool(stages))
        train_step = make_train_step(
            model,
            terms=build_terms(config, name, mesh),
            adversary=adversary,
            weights=active_weights(config, name),
            optimizer=optimizer,
            schedule=build_schedule(options, name),
            first_step=done,
            mesh=mesh,
            micro_batch=config.micro_batch,
            ema_decay=config.ema_decay,
        )
        discriminator = adversary.model if adversary else None
        state = abstract_state(model, optimizer, discriminator, averaged=config.ema_decay > 0)
        jax.eval_shape(train_step, state, abstract_batch(config))
        variables = read_variables(config, discriminator) if discriminator else None
        stages.append(Stage(name, done, done + options.steps, train_step, discriminator, variables))
        done += options.steps
    checks.check(
        bool(stages),
        "steps of the stages",
        expected="at least one step",
        got="finetune.steps 0, and init_from skips stage 1" if config.init_from else "0 in both",
        remedy="set --config.pretrain.steps or --config.finetune.steps",
    )
    return stages


def check_generator_is_trained(
    config: ConfigDict, stage: str, adversary: Adversary | None, *, trained: bool
) -> None:
    """Raises `UserError` for a stage that would train a discriminator against an untrained generator."""
    checks.check(
        adversary is None or trained or bool(config.init_from) or config.discriminator.untrained_generator,
        f"{stage} with an adversarial term",
        expected="a generator that stage 1 has trained",
        got="no stage 1 and no init_from",
        remedy="set --config.init_from to a run or a file of weights (or, to start from random weights, "
        "--config.discriminator.untrained_generator=True)",
    )


def abstract_batch(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of a global batch."""
    sides = {"low": config.data.crop_size // config.model.scale, "hr": config.data.crop_size}
    return {
        key: jax.ShapeDtypeStruct((config.batch_size, side, side, 3), jnp.uint8)
        for key, side in sides.items()
    }
