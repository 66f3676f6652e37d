"""One update of the generator, and of the discriminator if there is one, compiled once per stage.

With an adversarial term both networks are updated at once: both gradients are computed at the state before
the step and on the same SR images. This equals the usual order (BasicSR), first the generator, then the
discriminator on the same SR images, and needs each network's forward pass only once per image.
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

from decloss_jax.host import parallel
from decloss_jax.losses.objective import TermFunction, objective
from decloss_jax.training.adversary import Adversary
from decloss_jax.training.micro_batches import Network, in_micro_batches
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
    micro_batch: int | None = None,
    ema_decay: float = 0.0,
) -> TrainStep:
    """Compiles the update of a stage; the state is donated, the batch split over the mesh.

    Args:
        model: the generator.
        terms: loss terms by name.
        adversary: the discriminator, if a term is adversarial; the state must then hold one.
        weights: the weights of all terms.
        optimizer: gradients -> directions (without the learning rate); each network has its own moments.
        schedule: updates done in this stage -> learning rate.
        first_step: the value of `state.step` at which the stage begins.
        mesh: the devices.
        micro_batch: images per device that pass through the generator at a time; None: all of its share.
        ema_decay: the decay of the moving average of the generator's parameters, if the state holds one.

    Returns:
        (state, {"low", "hr"} uint8) -> (state after the update, scalars from before the update). The scalars
        are the losses, `learning_rate`, `gradient_norm`, and `finite`, which is false if the total or a
        gradient norm is not finite; with a discriminator also `loss/discriminator`, its mean logits
        `discriminator/real` and `/fake`, and `discriminator/gradient_norm`.
    """
    copies = parallel.replicated(mesh)
    frozen = jax.device_put({name: term.frozen for name, term in terms.items()}, copies)
    generate = in_micro_batches(lambda params, low: model.apply({"params": params}, low), micro_batch, mesh)
    compiled = compile_update(
        functools.partial(
            update, generate, terms, adversary, weights, optimizer, schedule, first_step, ema_decay
        ),
        mesh,
    )
    return lambda state, batch: compiled(state, batch, frozen)


def compile_update(function: Callable[..., Any], mesh: Mesh) -> Any:
    """Compiles (state, batch, frozen arrays) -> (state, scalars), with the state donated."""
    copies, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    shardings = (copies, split, copies)
    return jax.jit(function, in_shardings=shardings, out_shardings=copies, donate_argnums=0)


def update(
    generate: Network,
    terms: Mapping[str, Term],
    adversary: Adversary | None,
    weights: Mapping[str, float],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    first_step: int,
    ema_decay: float,
    state: TrainState,
    batch: dict[str, Array],
    frozen: Any,
) -> tuple[TrainState, Scalars]:
    """Does one update; see `make_train_step`."""
    low, hr = (batch[key].astype(jnp.float32) / 255.0 for key in ("low", "hr"))
    learning_rate = schedule(state.step - first_step)
    functions: dict[str, TermFunction] = {
        name: functools.partial(term.value, frozen[name]) for name, term in terms.items()
    }
    discriminator = state.discriminator
    its_metrics: Scalars = {}
    sr: Any
    sr, to_params = jax.vjp(lambda params: generate(params, low), state.params)
    if adversary is not None and discriminator is not None:
        functions[adversary.term], discriminator, its_metrics = play(
            adversary, optimizer, discriminator, sr, hr, learning_rate
        )

    def loss(sr: Any) -> tuple[Array, Scalars]:
        return objective(sr, hr, terms=functions, weights=weights)

    of_sr, metrics = jax.grad(loss, has_aux=True)(sr)
    (gradients,) = to_params(of_sr)
    params, opt_state = descend(optimizer, gradients, state.opt_state, state.params, learning_rate)
    ema = None if state.ema is None else optax.incremental_update(params, state.ema, 1.0 - ema_decay)
    metrics |= {"learning_rate": learning_rate, "gradient_norm": optax.tree.norm(gradients)} | its_metrics
    watched = ("loss/total", "gradient_norm", "discriminator/gradient_norm")
    metrics["finite"] = jnp.all(jnp.isfinite(jnp.stack([metrics[k] for k in watched if k in metrics])))
    return TrainState(state.step + 1, params, opt_state, discriminator, ema), metrics


def descend(
    optimizer: optax.GradientTransformation,
    gradients: Any,
    opt_state: Any,
    params: Any,
    learning_rate: Array,
) -> tuple[Any, Any]:
    """Returns the parameters and the moments after one update."""
    directions, opt_state = optimizer.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, directions), opt_state


def play(
    adversary: Adversary,
    optimizer: optax.GradientTransformation,
    state: DiscriminatorState,
    sr: Array,
    hr: Array,
    learning_rate: Array,
) -> tuple[TermFunction, DiscriminatorState, Scalars]:
    """Updates the discriminator, and makes the generator's adversarial term.

    Returns:
        The generator's term against the discriminator before the update (see `objective`), the updated
        discriminator, and its scalars from before the update.
    """
    of_params = jax.grad(adversary.discriminator_loss, has_aux=True)
    gradients, (real, batch_stats, metrics) = of_params(state.params, state.batch_stats, sr, hr)
    rate = adversary.learning_rate_ratio * learning_rate
    params, opt_state = descend(optimizer, gradients, state.opt_state, state.params, rate)
    metrics["discriminator/gradient_norm"] = optax.tree.norm(gradients)

    def term(sr: Array, hr: Array) -> tuple[Array, Scalars]:
        return adversary.generator_loss(state.params, state.batch_stats, real, sr), {}

    return term, DiscriminatorState(params, batch_stats, opt_state), metrics
