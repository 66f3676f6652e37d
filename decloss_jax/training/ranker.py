"""Trains RankSRGAN's Ranker (Zhang et al., ICCV 2019) on pairs that NIQE orders.

The two images of a pair pass through the Ranker in two calls, each with its own batch statistics, and the
running statistics move twice, as in the authors' code. Adam adds `ranker.weight_decay` times the parameters
to the gradient (L2, as torch's Adam).
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax.losses.ranking import ranking_loss
from decloss_jax.models import Ranker
from decloss_jax.ops.quantize import dequantize
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.ranked_windows import PAIRS, SMALLEST_SIDE, RankedWindows, order
from decloss_jax.training.step import Scalars, TrainStep, compile_update, descend


@flax.struct.dataclass
class RankerState:
    """The state of the Ranker's training.

    Attributes:
        step: updates done, int32 scalar.
        params: the Ranker's variables: "params" and the running statistics "batch_stats".
        opt_state: Adam's moments.
    """

    step: Array
    params: Any
    opt_state: Any

    @property
    def trained(self) -> Any:
        """The Ranker's variables."""
        return self.params


def build_ranker_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Builds Adam with L2 weight decay, without its learning rate."""
    return optax.chain(optax.add_decayed_weights(config.ranker.weight_decay), build_optimizer(config))


def draw_ranker(model: Ranker, seed: int) -> Any:
    """Draws the Ranker's variables from the seed."""
    return dict(model.init(jax.random.key(seed), jnp.zeros((1, SMALLEST_SIDE, SMALLEST_SIDE, 3))))


def start_ranker(variables: Any, optimizer: optax.GradientTransformation) -> RankerState:
    """Builds the state before the first update."""
    return RankerState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]))


def update_ranker(
    model: Ranker,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    state: RankerState,
    batch: dict[str, Array],
) -> tuple[RankerState, Scalars]:
    """Does one update.

    Args:
        model: the Ranker.
        optimizer: gradients -> directions.
        schedule: updates done -> learning rate.
        state: before the update.
        batch: as `pair_batches` gives it.

    Returns:
        The state after the update, and scalars from before it: `loss/total`, `ranked_rightly` (the share of
        the pairs), `learning_rate`, `gradient_norm`, `finite`.
    """
    learning_rate = schedule(state.step)

    def loss(params: Any) -> tuple[Array, tuple[Any, Array]]:
        statistics, scores = state.params["batch_stats"], []
        for side in ("first", "second"):
            variables = {"params": params, "batch_stats": statistics}
            score, moved = model.apply(
                variables, dequantize(batch[side]), train=True, mutable=["batch_stats"]
            )
            statistics = moved["batch_stats"]
            scores.append(score)
        rightly = jnp.mean((scores[0] - scores[1]) * batch["target"] > 0)
        return ranking_loss(scores[0], scores[1], batch["target"]), (statistics, rightly)

    before = state.params["params"]
    (value, (statistics, rightly)), gradients = jax.value_and_grad(loss, has_aux=True)(before)
    params, opt_state = descend(optimizer, gradients, state.opt_state, before, learning_rate)
    norm = optax.tree.norm(gradients)
    scalars = {
        "loss/total": value,
        "ranked_rightly": rightly,
        "learning_rate": learning_rate,
        "gradient_norm": norm,
        "finite": jnp.isfinite(value) & jnp.isfinite(norm),
    }
    return RankerState(state.step + 1, {"params": params, "batch_stats": statistics}, opt_state), scalars


def make_ranker_step(
    model: Ranker, optimizer: optax.GradientTransformation, schedule: optax.Schedule, mesh: Mesh
) -> TrainStep:
    """Compiles the update; the state is donated, the batch split over the mesh."""

    def update(state: RankerState, batch: dict[str, Array], frozen: Any) -> tuple[RankerState, Scalars]:
        return update_ranker(model, optimizer, schedule, state, batch)

    compiled = compile_update(update, mesh)
    return lambda state, batch: compiled(state, batch, ())


def compile_judge(model: Ranker) -> Callable[[Any, np.ndarray], Array]:
    """Compiles (variables, uint8 [N,H,W,3]) -> scores [N], with the running statistics."""

    def judge(variables: Any, images: Array) -> Array:
        scores: Any = model.apply(variables, dequantize(images))
        return scores[:, 0]

    return jax.jit(judge)


def measure_ranker(
    judge: Callable[[Any, np.ndarray], Array],
    variables: Any,
    windows: RankedWindows,
    *,
    show: Callable[..., None],
    stopped: Callable[[], bool],
) -> dict[str, float] | None:
    """Returns {"ranked_rightly": the share of the windows' pairs}; {} without windows.

    Returns None if `stopped` returned true, which is asked before each window except the first. Nothing is
    shown.
    """
    rightly: list[bool] = []
    for index in range(len(windows)):
        if index > 0 and stopped():
            return None
        scores, niqe = np.asarray(judge(variables, windows.window(index))), windows.niqe[index]
        rightly += [(scores[a] - scores[b]) * order(niqe[a], niqe[b]) > 0 for a, b in PAIRS]
    return {"ranked_rightly": float(np.mean(rightly))} if rightly else {}
