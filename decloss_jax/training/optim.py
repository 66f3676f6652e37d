"""Adam, and the learning rate as a function of the step alone."""

from collections.abc import Mapping
from typing import Any

import optax

from decloss_jax import checks


def cosine_cycles(peak: float, steps: int, cycles: int, gamma: float) -> list[optax.Schedule]:
    """Returns cosines from peak gamma^k to 0, one for each cycle of `steps`."""
    return [optax.cosine_decay_schedule(peak * gamma**cycle, steps) for cycle in range(cycles)]


def constant_cycles(peak: float, steps: int, cycles: int, gamma: float) -> list[optax.Schedule]:
    """Returns the constants peak gamma^k, one for each cycle of `steps`."""
    return [optax.constant_schedule(peak * gamma**cycle) for cycle in range(cycles)]


SCHEDULES = {"cosine": cosine_cycles, "constant": constant_cycles}


def build_optimizer(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Builds Adam without its learning rate, which the step takes from the schedule; clipped when asked to.

    Raises:
        UserError: a decay rate outside 0 to 0.999999, an epsilon or a norm that is not positive.
    """
    for name in ("adam_b1", "adam_b2"):
        checks.check_range(name, config[name], 0.0, 0.999999)
    checks.check_positive("adam_eps", config["adam_eps"])
    adam = optax.scale_by_adam(b1=config["adam_b1"], b2=config["adam_b2"], eps=config["adam_eps"])
    largest = config.get("gradient_clip_norm")
    return adam if largest is None else clip_gradients(adam, largest)


def clip_gradients(optimizer: optax.GradientTransformation, largest: float) -> optax.GradientTransformation:
    """Returns an optimizer that shrinks gradients g first: g min(1, largest / |g|), |g| over all parameters.

    Its state is the optimizer's own (that of `optax.chain` would be another), so checkpoints are alike.
    """
    checks.check_positive("gradient_clip_norm", largest)
    clip = optax.clip_by_global_norm(largest)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        clipped, _ = clip.update(gradients, optax.EmptyState())
        return optimizer.update(clipped, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def build_schedule(stage: Mapping[str, Any], name: str) -> optax.Schedule:
    """Builds the learning rate of a stage as a function of the updates done in it.

    Linear warm-up from 0 over `warmup_steps`; then a cosine from the peak to 0 at `steps`, or the constant
    peak; `restarts` cuts that into equal cycles whose peaks shrink by `restart_gamma` (SGDR, Loshchilov and
    Hutter 2017).

    Args:
        stage: `config.pretrain` or `config.finetune`.
        name: its name, for messages.

    Raises:
        UserError: an unknown schedule, or a warm-up that does not end before the stage does.
    """
    steps, warmup, peak = stage["steps"], stage["warmup_steps"], stage["learning_rate"]
    checks.check_positive(f"{name}.learning_rate", peak)
    checks.check(
        0 <= warmup < steps,
        f"{name}.warmup_steps",
        expected=f"0 to {steps - 1}, below {name}.steps",
        got=warmup,
        remedy=f"shorten the warm-up with --config.{name}.warmup_steps or lengthen the stage",
    )
    cycles = stage["restarts"] + 1
    cycle_steps = (steps - warmup) // cycles
    checks.check(
        stage["restarts"] >= 0 and cycle_steps > 0,
        f"{name}.restarts",
        expected=f"0 or more, and fewer than the {steps - warmup} steps after the warm-up",
        got=stage["restarts"],
        remedy=f"change --config.{name}.restarts",
    )
    make_cycles = checks.look_up(SCHEDULES, stage["schedule"], f"{name}.schedule")
    bodies = make_cycles(peak, cycle_steps, cycles, stage["restart_gamma"])
    boundaries = [warmup + cycle * cycle_steps for cycle in range(len(bodies))]
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), *bodies], boundaries)
