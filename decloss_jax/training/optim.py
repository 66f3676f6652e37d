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
    """Builds Adam without its learning rate, which the step takes from the schedule.

    With `gradient_clip_norm`, gradients g become g min(1, norm / |g|) first, |g| over all parameters.
    """
    adam = optax.scale_by_adam(b1=config["adam_b1"], b2=config["adam_b2"], eps=config["adam_eps"])
    largest = config.get("gradient_clip_norm")
    return adam if largest is None else optax.chain(optax.clip_by_global_norm(largest), adam)


def build_schedule(stage: Mapping[str, Any], name: str) -> optax.Schedule:
    """Builds the learning rate of a stage as a function of the updates done in it.

    Linear warm-up from 0 over `warmup_steps`; then a cosine from the peak to 0 at `steps`, or the constant
    peak; `restarts` cuts that into equal cycles whose peaks shrink by `restart_gamma` (SGDR, Loshchilov and
    Hutter 2017).

    Args:
        stage: `config.pretrain` or `config.finetune`.
        name: its name, for messages.

    Raises:
        UserError: an unknown schedule.
    """
    steps, warmup, peak = stage["steps"], stage["warmup_steps"], stage["learning_rate"]
    cycles = stage["restarts"] + 1
    cycle_steps = (steps - warmup) // cycles
    make_cycles = checks.look_up(SCHEDULES, stage["schedule"], f"{name}.schedule")
    bodies = make_cycles(peak, cycle_steps, cycles, stage["restart_gamma"])
    boundaries = [warmup + cycle * cycle_steps for cycle in range(len(bodies))]
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), *bodies], boundaries)
