"""Refuses values that are not finite, before a checkpoint can hold them."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax import Array

from decloss_jax import checks


class NonFiniteLoss(checks.UserError):
    """A loss, a gradient or the state of training is not finite."""


@jax.jit
def are_finite(tree: Any) -> Any:
    """Tells for each array whether all its values are finite; compiled once for each kind of state."""
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)


def check_finite(step: int, metrics: dict[str, Array], *, stage: str, saved: int | None) -> None:
    """Raises `NonFiniteLoss`, which names the first term that is not finite."""
    if metrics["finite"]:
        return
    losses = [name for name in metrics if name.startswith("loss/") and name != "loss/total"]
    suspects = (*losses, "gradient_norm", "discriminator/gradient_norm")
    broken = next(
        (name for name in suspects if name in metrics and not jnp.isfinite(metrics[name])), "loss/total"
    )
    to_lower = f"{stage}.learning_rate or the weight of the term"
    if broken.startswith("discriminator/"):
        to_lower = "discriminator.learning_rate_ratio"
    refuse_numbers(broken, step, stage, got=float(metrics[broken]), saved=saved, to_lower=to_lower)


def check_finite_state(step: int, state: Any, *, stage: str, saved: int | None) -> None:
    """Raises `NonFiniteLoss`, which names the first array of the state with a value that is not finite."""
    for path, is_finite in jax.tree_util.tree_leaves_with_path(jax.device_get(are_finite(state))):
        if not is_finite:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            rate = f"{stage}.learning_rate"
            refuse_numbers(name, step, stage, got="inf or nan among them", saved=saved, to_lower=rate)


def refuse_numbers(
    name: str, step: int, stage: str, *, got: object, saved: int | None, to_lower: str
) -> NoReturn:
    """Raises `NonFiniteLoss` with the step, the kept checkpoint and the remedy."""
    kept = f"no checkpoint of {stage} yet" if saved is None else f"the checkpoint of step {saved} is kept"
    raise NonFiniteLoss(
        f"{name} at step {step} ({stage}): expected finite numbers, got {got}; {kept}: lower "
        f"--config.{to_lower}, or set --config.gradient_clip_norm, in a new workdir."
    )
