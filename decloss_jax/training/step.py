"""One update of the generator, compiled once per stage."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from decloss_jax import parallel
from decloss_jax.losses.objective import objective
from decloss_jax.training.state import TrainState
from decloss_jax.training.terms import Term

TrainStep = Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]


def make_train_step(
    model: nn.Module,
    *,
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    first_step: int,
    mesh: Mesh,
) -> TrainStep:
    """Compiles the update of a stage; the state is donated, the batch split over the mesh.

    Args:
        model: the generator.
        terms: loss terms by name.
        weights: their weights.
        optimizer: gradients -> directions (without the learning rate).
        schedule: updates done in this stage -> learning rate.
        first_step: the value of `state.step` at which the stage begins.
        mesh: the devices.

    Returns:
        (state, {"low", "hr"} uint8) -> (state after the update, scalars of the step before it: the losses,
        `learning_rate`, `gradient_norm`, and `finite`, which is false when total or gradient is not).
    """

    copies, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    frozen_arrays = jax.device_put({name: term.frozen for name, term in terms.items()}, copies)

    def loss(params: Any, low: Array, hr: Array, frozen: Any) -> tuple[Array, dict[str, Array]]:
        functions = {name: functools.partial(term.value, frozen[name]) for name, term in terms.items()}
        sr: Any = model.apply({"params": params}, low)
        return objective(sr, hr, terms=functions, weights=weights)

    def step(state: TrainState, batch: dict[str, Array], frozen: Any) -> tuple[TrainState, dict[str, Array]]:
        low, hr = (batch[key].astype(jnp.float32) / 255.0 for key in ("low", "hr"))
        gradients, metrics = jax.grad(loss, has_aux=True)(state.params, low, hr, frozen)
        learning_rate = schedule(state.step - first_step)
        directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, directions)
        gradient_norm = optax.tree.norm(gradients)
        metrics |= {
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "finite": jnp.isfinite(metrics["loss/total"]) & jnp.isfinite(gradient_norm),
        }
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    compiled = jax.jit(step, in_shardings=(copies, split, copies), out_shardings=copies, donate_argnums=0)
    return lambda state, batch: compiled(state, batch, frozen_arrays)
