"""The stages of a run, built from a config: what the loop calls, and what an update is made of."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checks
from decloss_jax.models import SRFlow
from decloss_jax.training.adversary import GAMES, build_adversary, read_variables
from decloss_jax.training.micro_batches import in_micro_batches
from decloss_jax.training.optim import build_schedule
from decloss_jax.training.outputs import choose_output
from decloss_jax.training.state import abstract_state, start_stage
from decloss_jax.training.step import Recipe, TrainStep, make_train_step
from decloss_jax.training.terms import active_weights, build_terms
from decloss_jax.training.validation import validate
from decloss_jax.workdir.checkpoint import STAGES


class State(Protocol):
    """The state of training, a tree of arrays: everything that a checkpoint holds."""

    @property
    def trained(self) -> Any:
        """What validation and the next stage take."""


@dataclass(frozen=True)
class Stage:
    """One stage: updates first_step + 1 to last_step of the run, and all that the loop knows of its network.

    Attributes:
        name: one of `checkpoint.STAGES`.
        first_step, last_step: updates of the run before the stage, and at its end.
        start: (what the stage before has trained, the first batch) -> the initial state.
        abstract: () -> the shapes and dtypes of a state, as needed to restore one.
        train_step: (state, batch) -> (state after the update, scalars from before it). The scalars include
            `loss/total` and `finite`, which is false if training must stop; `finite.check_finite` names the
            first `loss/...` or `gradient_norm` that is not finite.
        evaluate: (what has been trained, `Data.validation`, show, stopped) -> metrics; empty if there is
            nothing to measure, None if `stopped` returned true. As `validation.validate`.
        best: the metric whose highest value marks the best checkpoint.
    """

    name: str
    first_step: int
    last_step: int
    start: Callable[[Any, dict[str, jax.Array]], State]
    abstract: Callable[[], State]
    train_step: TrainStep
    evaluate: Callable[..., dict[str, float] | None]
    best: str = "psnr_y"


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
        if config[name].steps == 0 or (name == "pretrain" and config.init_from):
            continue
        check_generator_is_trained(config, name, trained=bool(stages))
        stages.append(build_stage(config, name, model, optimizer, mesh, first_step=done))
        done = stages[-1].last_step
    checks.check(
        bool(stages),
        "steps of the stages",
        expected="at least one step",
        got="finetune.steps 0, and init_from skips stage 1" if config.init_from else "0 in both",
        remedy="set --config.pretrain.steps or --config.finetune.steps",
    )
    return stages


def build_stage(
    config: ConfigDict,
    name: str,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    first_step: int,
) -> Stage:
    """Builds a stage and traces its step on shapes.

    Raises:
        UserError: a stage that cannot be run.
    """
    recipe = build_recipe(config, name, model, optimizer, mesh, first_step=first_step)
    output = choose_output(model, recipe.weights, stage=name)
    discriminator = recipe.adversary.model if recipe.adversary else None
    train_step = make_train_step(recipe, mesh)
    abstract = functools.partial(
        abstract_state, model, optimizer, discriminator, averaged=config.ema_decay > 0
    )
    jax.eval_shape(train_step, abstract(), abstract_batch(config))
    start = functools.partial(
        start_stage,
        step=first_step,
        optimizer=optimizer,
        discriminator=discriminator,
        variables=read_variables(config, discriminator) if discriminator else None,
        seed=config.seed,
        averaged=config.ema_decay > 0,
        fit=functools.partial(output.fit, model) if output.fit else None,
        mesh=mesh,
    )
    evaluate = functools.partial(
        validate,
        upscale_each=functools.partial(output.upscale_each, model),
        scale=config.model.scale,
        samples=config.sample_images,
    )
    last_step = first_step + config[name].steps
    return Stage(name, first_step, last_step, start, abstract, train_step, evaluate)


def build_recipe(
    config: ConfigDict,
    name: str,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    first_step: int,
) -> Recipe:
    """Builds what the update of a stage is made of; the devices of the mesh need not exist.

    Raises:
        UserError: terms or a discriminator that cannot be built.
    """
    weights = active_weights(config, name)
    output = choose_output(model, weights, stage=name)
    give = functools.partial(output.give, for_gradients(model, mesh))
    return Recipe(
        network=in_micro_batches(give, config.micro_batch, mesh),
        terms=build_terms(config, name, mesh),
        adversary=build_adversary(config, name, mesh),
        weights=weights,
        optimizer=optimizer,
        schedule=build_schedule(config[name], name),
        first_step=first_step,
        ema_decay=config.ema_decay,
    )


def for_gradients(model: nn.Module, mesh: Mesh) -> nn.Module:
    """Returns the model in the form whose gradients the devices compute fastest (`SRFlow.unrolled`)."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return model.clone(unrolled=True) if on_cpu and isinstance(model, SRFlow) else model


def check_generator_is_trained(config: ConfigDict, stage: str, *, trained: bool) -> None:
    """Raises `UserError` for a stage that would train a discriminator against an untrained generator."""
    adversarial = bool(active_weights(config, stage).keys() & GAMES.keys())
    checks.check(
        not adversarial or trained or bool(config.init_from) or config.discriminator.untrained_generator,
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
