"""One update of the generator, and of the discriminator if there is one, compiled once per stage.

The update differentiates what the network gives in the stage (`outputs`): SR images, or bits per pixel.

With an adversarial term both networks are updated at once: both gradients are computed at the state before
the step and on the same SR images. This equals the usual order (BasicSR), first the generator, then the
discriminator on the same SR images, and needs each network's forward pass only once per image.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from decloss_jax.host import parallel
from decloss_jax.losses.objective import TermFunction, objective
from decloss_jax.training.adversary import Adversary
from decloss_jax.training.micro_batches import Network
from decloss_jax.training.outputs import to_floats
from decloss_jax.training.state import DiscriminatorState, TrainState
from decloss_jax.training.terms import Term

Scalars = dict[str, Array]
TrainStep = Callable[[Any, dict[str, Array]], tuple[Any, Scalars]]


class Recipe(NamedTuple):
    """What the update of a stage is made of.

    Attributes:
        network: (params, low, hr) -> what the terms see.
        terms: loss terms by name.
        adversary: the discriminator, if a term is adversarial; the state must then hold one.
        weights: the weights of all terms.
        optimizer: gradients -> directions (without the learning rate); each network has its own moments.
        schedule: updates done in this stage -> learning rate.
        first_step: the value of `state.step` at which the stage begins.
        ema_decay: the decay of the moving average of the generator's parameters, if the state holds one.
    """

    network: Network
    terms: Mapping[str, Term]
    adversary: Adversary | None
    weights: Mapping[str, float]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    first_step: int
    ema_decay: float

    @property
    def frozen(self) -> dict[str, Any]:
        """The frozen arrays of the terms, an argument of `update`."""
        return {name: term.frozen for name, term in self.terms.items()}


def make_train_step(recipe: Recipe, mesh: Mesh) -> TrainStep:
    """Compiles the update of a stage; the state is donated, the batch split over the mesh.

    Returns:
        (state, {"low", "hr"} uint8) -> (state after the update, scalars from before the update). The scalars
        are the losses, `learning_rate`, `gradient_norm`, and `finite`, which is false if the total or a
        gradient norm is not finite; with a discriminator also `loss/discriminator`, its mean logits
        `discriminator/real` and `/fake`, and `discriminator/gradient_norm`.
    """
    frozen = jax.device_put(recipe.frozen, parallel.replicated(mesh))
    compiled = compile_update(functools.partial(update, recipe), mesh)
    return lambda state, batch: compiled(state, batch, frozen)


def compile_update(function: Callable[..., Any], mesh: Mesh) -> Any:
    """Compiles (state, batch, frozen arrays) -> (state, scalars), with the state donated."""
    copies, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    shardings = (copies, split, copies)
    return jax.jit(function, in_shardings=shardings, out_shardings=copies, donate_argnums=0)


def update(
    recipe: Recipe, state: TrainState, batch: dict[str, Array], frozen: Any
) -> tuple[TrainState, Scalars]:
    """Does one update; see `make_train_step`."""
    low, hr = to_floats(batch)
    adversary, optimizer = recipe.adversary, recipe.optimizer
    learning_rate = recipe.schedule(state.step - recipe.first_step)
    functions: dict[str, TermFunction] = {
        name: functools.partial(term.value, frozen[name]) for name, term in recipe.terms.items()
    }
    discriminator = state.discriminator
    its_metrics: Scalars = {}
    output: Any
    output, to_params = jax.vjp(lambda params: recipe.network(params, low, hr), state.params)
    if adversary is not None and discriminator is not None:
        functions[adversary.term], discriminator, its_metrics = play(
            adversary, optimizer, discriminator, output, hr, learning_rate
        )

    def loss(output: Any) -> tuple[Array, Scalars]:
        return objective(output, hr, terms=functions, weights=recipe.weights)

    of_output, metrics = jax.grad(loss, has_aux=True)(output)
    (gradients,) = to_params(of_output)
    params, opt_state = descend(optimizer, gradients, state.opt_state, state.params, learning_rate)
    ema = None
    if state.ema is not None:
        ema = optax.incremental_update(params, state.ema, 1.0 - recipe.ema_decay)
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
