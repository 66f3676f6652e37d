"""The state of training, which passes from step to step and is saved in checkpoints."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.models import VGGDiscriminator, check_params
from decloss_jax.training.adversary import draw_variables
from decloss_jax.weights import describe
from decloss_jax.weights.generators import ASSUMED
from decloss_jax.workdir import checkpoint
from decloss_jax.workdir.network import load_network


@flax.struct.dataclass
class DiscriminatorState:
    """The discriminator's half of the state.

    Attributes:
        params: its parameters.
        batch_stats: running statistics of its batch norms; training updates them but does not use them.
        opt_state: Adam's moments.
    """

    params: Any
    batch_stats: Any
    opt_state: Any


@flax.struct.dataclass
class TrainState:
    """The whole state of training; everything else is a function of it, the config and the seed.

    Attributes:
        step: updates done, counted over both stages, int32 scalar.
        params: parameters of the generator.
        opt_state: Adam's moments.
        discriminator: the discriminator's state, in a stage with an adversarial term.
        ema: the exponential moving average of `params`, if `ema_decay` is above 0.
    """

    step: Array
    params: Any
    opt_state: Any
    discriminator: DiscriminatorState | None = None
    ema: Any = None

    @property
    def trained(self) -> Any:
        """What evaluation and the next stage take: the moving average, if there is one, else `params`."""
        return self.params if self.ema is None else self.ema


def draw_params(model: nn.Module, seed: int) -> Any:
    """Draws the generator's parameters from the seed."""
    low = jnp.zeros((1, 16, 16, 3), jnp.float32)
    return model.init(jax.random.key(seed), low)["params"]


def initial_params(config: ConfigDict, model: nn.Module, mesh: Mesh) -> Any:
    """Returns the initial parameters of the run, one copy on each device of the mesh.

    They are drawn from the seed, or loaded from `config.init_from`: a workdir (the end of its stage 1, if it
    has one) or a file of weights. If a file does not record EDSR's residual scale, `config.model.res_scale`
    supplies it.

    Raises:
        UserError: weights that do not fit the model; the message names the first wrong one or the attribute
            that differs.
    """
    draw = functools.partial(draw_params, model, config.seed)
    source = config.init_from
    if not source:
        return jax.jit(draw, out_shardings=parallel.replicated(mesh))()
    stages = checkpoint.trained_stages(source)
    load = functools.partial(
        load_network, source, stage=stages[0] if stages else None, key=config.init_from_key
    )
    theirs, params, description = load()
    if description.get("res_scale_from") == ASSUMED and config.model.res_scale is not None:
        theirs, params, description = load(res_scale=config.model.res_scale)
    check_same_network(source, theirs, model)
    remedy = "make config.model describe the network that these weights belong to"
    check_params(f"init_from {source}", model, params, remedy=remedy)
    parallel.say(f"starting from {describe(description)}")
    return jax.device_put(params, parallel.replicated(mesh))


def check_same_network(source: str, theirs: nn.Module, ours: nn.Module) -> None:
    """Raises `UserError` if an attribute differs that the shapes of the parameters may not show.

    Networks of different kinds pass, because `check_params` finds that their parameters differ.
    """
    for name in ("scale", "res_scale", "stacked_blocks"):
        here, there = getattr(ours, name, None), getattr(theirs, name, None)
        checks.check(
            here == there or type(ours) is not type(theirs),
            f"init_from {source}",
            expected=f"a network with {name} {here}",
            got=there,
            remedy=f"set --config.model.{name}={there}",
        )


def fresh_state(
    params: Any,
    *,
    step: int,
    optimizer: optax.GradientTransformation,
    discriminator: VGGDiscriminator | None = None,
    variables: Mapping[str, Any] | None = None,
    seed: int = 0,
    averaged: bool = False,
) -> TrainState:
    """Builds a state from parameters, with moments of zero, a discriminator and a moving average.

    The discriminator starts with `variables`, or with variables drawn from the seed.
    """
    other_side = None
    if discriminator is not None:
        variables = draw_variables(discriminator, seed) if variables is None else variables
        other_side = DiscriminatorState(
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(variables["params"]),
        )
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        discriminator=other_side,
        ema=jax.tree.map(jnp.copy, params) if averaged else None,
    )


def start_stage(
    params: Any,
    first_batch: Mapping[str, Array] | None = None,
    *,
    step: int,
    optimizer: optax.GradientTransformation,
    discriminator: VGGDiscriminator | None,
    variables: Mapping[str, Any] | None = None,
    seed: int,
    averaged: bool = False,
    fit: Callable[[Any, Any], Any] | None = None,
    mesh: Mesh,
) -> TrainState:
    """Builds the initial state of a stage, one copy on each device of the mesh.

    With `fit`, the stage starts from fit(params, first_batch).
    """
    start = functools.partial(
        fresh_state,
        step=step,
        optimizer=optimizer,
        discriminator=discriminator,
        seed=seed,
        averaged=averaged,
    )
    copies = parallel.replicated(mesh)
    if fit is not None:
        params = jax.jit(fit, out_shardings=copies)(params, first_batch)
    return jax.jit(start, out_shardings=copies)(params, variables=variables)


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    discriminator: VGGDiscriminator | None = None,
    averaged: bool = False,
) -> TrainState:
    """Returns the shapes and dtypes of a state, as needed to restore one."""
    return jax.eval_shape(
        lambda: fresh_state(
            draw_params(model, 0),
            step=0,
            optimizer=optimizer,
            discriminator=discriminator,
            averaged=averaged,
        )
    )
