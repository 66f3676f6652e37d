"""One update of the generator, and of the discriminator where there is one, compiled once per stage.

With an adversarial term both sides move at once: both gradients are taken at the state before the step and on
the same SR images. That is the usual order "first the generator, then the discriminator on the SR images of
before" (BasicSR), and needs each network's forward pass only once per image.
"""

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
from decloss_jax.losses.objective import TermFunction, objective
from decloss_jax.training.adversary import Adversary
from decloss_jax.training.state import DiscriminatorState, TrainState
from decloss_jax.training.terms import Term

Scalars = dict[str, Array]
TrainStep = Callable[[TrainState, dict[str, Array]], tuple[TrainState, Scalars]]


def make_train_step(
    model: nn.Module,
    *,
    terms: Mapping[str, Term],
    adversary: Adversary | None = None,
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
        adversary: the discriminator, when a term is adversarial; the state must hold one, too.
        weights: the weights of all terms.
        optimizer: gradients -> directions (without the learning rate); both networks have moments of their
            own.
        schedule: updates done in this stage -> learning rate.
        first_step: the value of `state.step` at which the stage begins.
        mesh: the devices.

    Returns:
        (state, {"low", "hr"} uint8) -> (state after the update, scalars of the step before it: the losses,
        `learning_rate`, `gradient_norm`, and `finite`, which is false when total or gradient is not; with a
        discriminator also `loss/discriminator`, its mean logits `discriminator/real` and `/fake`, and
        `discriminator/gradient_norm`).
    """

    copies, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    frozen_arrays = jax.device_put({name: term.frozen for name, term in terms.items()}, copies)

    def loss(
        params: Any, state: TrainState, low: Array, hr: Array, frozen: Any
    ) -> tuple[Array, tuple[Scalars, Array]]:
        functions: dict[str, TermFunction] = {
            name: functools.partial(term.value, frozen[name]) for name, term in terms.items()
        }
        if adversary is not None and state.discriminator is not None:
            functions[adversary.term] = functools.partial(adversarial_term, adversary, state.discriminator)
        sr: Any = model.apply({"params": params}, low)
        total, metrics = objective(sr, hr, terms=functions, weights=weights)
        return total, (metrics, sr)

    def step(state: TrainState, batch: dict[str, Array], frozen: Any) -> tuple[TrainState, Scalars]:
        low, hr = (batch[key].astype(jnp.float32) / 255.0 for key in ("low", "hr"))
        learning_rate = schedule(state.step - first_step)
        gradients, (metrics, sr) = jax.grad(loss, has_aux=True)(state.params, state, low, hr, frozen)
        params, opt_state = descend(optimizer, gradients, state.opt_state, state.params, learning_rate)
        gradient_norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(metrics["loss/total"]) & jnp.isfinite(gradient_norm)
        metrics |= {"learning_rate": learning_rate, "gradient_norm": gradient_norm}

        discriminator = state.discriminator
        if adversary is not None and discriminator is not None:
            discriminator, its_metrics = move_discriminator(
                adversary, optimizer, discriminator, sr, hr, learning_rate
            )
            finite &= jnp.isfinite(its_metrics["discriminator/gradient_norm"])
            metrics |= its_metrics
        after = TrainState(
            step=state.step + 1, params=params, opt_state=opt_state, discriminator=discriminator
        )
        return after, metrics | {"finite": finite}

    compiled = jax.jit(step, in_shardings=(copies, split, copies), out_shardings=copies, donate_argnums=0)
    return lambda state, batch: compiled(state, batch, frozen_arrays)


def descend(
    optimizer: optax.GradientTransformation,
    gradients: Any,
    opt_state: Any,
    params: Any,
    learning_rate: Array,
) -> tuple[Any, Any]:
    """Returns parameters and moments after one update."""
    directions, opt_state = optimizer.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, directions), opt_state


def adversarial_term(
    adversary: Adversary, discriminator: DiscriminatorState, sr: Array, hr: Array
) -> tuple[Array, Scalars]:
    """The generator's adversarial term (see `objective`), against the discriminator as it is."""
    variables = {"params": discriminator.params, "batch_stats": discriminator.batch_stats}
    return adversary.generator_loss(variables, sr, hr), {}


def move_discriminator(
    adversary: Adversary,
    optimizer: optax.GradientTransformation,
    state: DiscriminatorState,
    sr: Array,
    hr: Array,
    learning_rate: Array,
) -> tuple[DiscriminatorState, Scalars]:
    """Updates the discriminator on given SR images; returns its state and the scalars of before."""
    of_params = jax.grad(adversary.discriminator_loss, has_aux=True)
    gradients, (batch_stats, metrics) = of_params(state.params, state.batch_stats, sr, hr)
    rate = adversary.learning_rate_ratio * learning_rate
    params, opt_state = descend(optimizer, gradients, state.opt_state, state.params, rate)
    metrics["discriminator/gradient_norm"] = optax.tree.norm(gradients)
    return DiscriminatorState(params=params, batch_stats=batch_stats, opt_state=opt_state), metrics
