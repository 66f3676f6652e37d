"""Adam, and the learning rate as a function of the step alone."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from decloss_jax import checks


def cosine(stage: Mapping[str, Any]) -> optax.Schedule:
    """Half a cosine from the peak to 0 after the warm-up, in `restarts` + 1 equal cycles.

    The peak of cycle k is peak restart_gamma^k (SGDR, Loshchilov and Hutter 2017).
    """
    warmup, cycles = stage["warmup_steps"], stage["restarts"] + 1
    steps = (stage["steps"] - warmup) // cycles
    peaks = [stage["learning_rate"] * stage["restart_gamma"] ** k for k in range(cycles)]
    bodies = [optax.cosine_decay_schedule(peak, steps) for peak in peaks]
    joined = optax.join_schedules(bodies, [k * steps for k in range(1, cycles)])
    return lambda done: joined(done - warmup)


def constant(stage: Mapping[str, Any]) -> optax.Schedule:
    """The peak throughout."""
    return optax.constant_schedule(stage["learning_rate"])


def multistep(stage: Mapping[str, Any]) -> optax.Schedule:
    """The peak, times `gamma` after each of `milestones`, which count the updates of the stage."""
    factors = dict.fromkeys(stage["milestones"], stage["gamma"])
    return optax.piecewise_constant_schedule(stage["learning_rate"], factors)


# Each maps a stage to a function of the updates done in it -> learning rate, without the warm-up.
SCHEDULES = {"cosine": cosine, "constant": constant, "multistep": multistep}


def build_optimizer(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Builds Adam without its learning rate, which the step takes from the schedule.

    With `gradient_clip_norm`, gradients g first become g min(1, norm / |g|), with |g| over all parameters.
    """
    adam = optax.scale_by_adam(b1=config["adam_b1"], b2=config["adam_b2"], eps=config["adam_eps"])
    largest = config.get("gradient_clip_norm")
    return adam if largest is None else optax.chain(optax.clip_by_global_norm(largest), adam)


def build_schedule(stage: Mapping[str, Any], name: str) -> optax.Schedule:
    """Builds the learning rate of a stage as a function of the updates done in it.

    In a warm-up of w updates, update t = 1..w has the rate peak t/w, as in BasicSR; the first rate is not 0.
    A cosine begins after the warm-up; milestones count from the beginning of the stage.

    Args:
        stage: `config.pretrain` or `config.finetune`.
        name: its name, for messages.

    Raises:
        UserError: an unknown schedule.
    """
    body = checks.look_up(SCHEDULES, stage["schedule"], f"{name}.schedule")(stage)
    warmup, peak = stage["warmup_steps"], stage["learning_rate"]
    if warmup == 0:
        return body
    return lambda done: jnp.where(done < warmup, peak * (done + 1) / warmup, body(done))
