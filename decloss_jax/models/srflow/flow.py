"""The flow of SRFlow: HR image <-> latents, conditioned on the LR image.

A level squeezes 2x2 pixels into channels, then applies transition steps (actnorm, mixing) and conditional
steps (actnorm, mixing, injector, coupling). After the first level half of the channels leave the flow as
latents (`split`). The parameters of the equal steps of a level are stacked, and one compiled step loops over
them.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from decloss_jax.models.srflow import layers
from decloss_jax.ops.shuffle import pixel_shuffle, pixel_unshuffle

Params = Mapping[str, Any]
Latents = Sequence[Array]  # [eps of the split, z]
Step = Callable[..., tuple[Array, Any]]
LEVELS = ("level1", "level2", "level3")


def transition(params: Params, x: Array) -> tuple[Array, Array]:
    """Applies a step without conditioning: y, log|det|."""
    x, of_norm = layers.actnorm(params["actnorm"], x)
    y, of_mixing = layers.mixing(params["mixing"], x)
    return y, of_norm + of_mixing


def invert_transition(params: Params, y: Array) -> Array:
    """Inverts `transition`."""
    return layers.invert_actnorm(params["actnorm"], layers.invert_mixing(params["mixing"], y))


def conditional_step(params: Params, x: Array, condition: Array) -> tuple[Array, Array]:
    """Applies a step with conditioning: y, log|det| of shape [N]."""
    x, of_transition = transition(params, x)
    x, of_injector = layers.injector(params["injector"], x, condition)
    y, of_coupling = layers.coupling(params["coupling"], x, condition)
    return y, of_transition + of_injector + of_coupling


def invert_conditional_step(params: Params, y: Array, condition: Array) -> Array:
    """Inverts `conditional_step`."""
    y = layers.invert_coupling(params["coupling"], y, condition)
    return invert_transition(params, layers.invert_injector(params["injector"], y, condition))


def run_level(
    params: Params, x: Array, condition: Array, *, transition: Step, step: Step, unrolled: bool = False
) -> tuple[Array, tuple[Any, Any]]:
    """Squeezes and runs the steps of a level; returns y and the stacked second results of the steps."""
    x = pixel_unshuffle(x, 2)
    x, of_transitions = lax.scan(lambda x, p: transition(p, x), x, params["transitions"], unroll=unrolled)
    x, of_steps = lax.scan(lambda x, p: step(p, x, condition), x, params["steps"], unroll=unrolled)
    return x, (of_transitions, of_steps)


def encode(
    params: Params, hr: Array, conditions: Sequence[Array], *, remat: bool = False, unrolled: bool = False
) -> tuple[Latents, Array]:
    """Maps HR images to latents.

    Args:
        params: parameters of the flow.
        hr: [N,H,W,3], H and W multiples of 8.
        conditions: three maps, of a half, a quarter and an eighth of HR's sides.
        remat: recompute the inside of each step in the backward pass.
        unrolled: compile every step separately.

    Returns:
        [eps of the split [N,H/2,W/2,6], z [N,H/8,W/8,96]] and log|det d latents / d hr|, [N].
    """
    step = jax.checkpoint(conditional_step) if remat else conditional_step
    x, latents, log_det = hr, [], jnp.zeros(hr.shape[0], hr.dtype)
    for name, condition in zip(LEVELS, conditions, strict=True):
        level = params[name]
        x, (of_transitions, of_steps) = run_level(
            level, x, condition, transition=transition, step=step, unrolled=unrolled
        )
        log_det += jnp.sum(of_transitions) + jnp.sum(of_steps, axis=0)
        if "split" in level:
            x, eps, of_split = layers.split(level["split"], x)
            latents.append(eps)
            log_det += of_split
    return [*latents, x], log_det


def decode(params: Params, latents: Latents, conditions: Sequence[Array]) -> Array:
    """Inverts `encode`: maps latents to HR images."""
    *eps, x = latents
    for name, condition in zip(reversed(LEVELS), reversed(conditions), strict=True):
        level = params[name]
        if "split" in level:
            x = layers.invert_split(level["split"], x, eps.pop())
        x = _scan_back(functools.partial(invert_conditional_step, condition=condition), x, level["steps"])
        x = _scan_back(invert_transition, x, level["transitions"])
        x = pixel_shuffle(x, 2)
    return x


def _scan_back(inverse: Callable[..., Array], y: Array, params: Params) -> Array:
    return lax.scan(lambda y, p: (inverse(p, y), None), y, params, reverse=True)[0]


def bits_per_pixel(latents: Latents, log_det: Array) -> Array:
    """Returns the negative log-likelihood of the images, in bits per pixel of three channels.

    Args:
        latents: from `encode`; their density is the standard normal one.
        log_det: from `encode`, [N].

    Returns:
        -(log N(latents; 0, 1) + log_det) / (H W ln 2), [N]. The density is that of images in [0,1]. A third
        of the value is bits per dimension; for images in 0..255, add log2(256) to that.
    """
    values = sum(math.prod(latent.shape[1:]) for latent in latents)
    squares = sum(jnp.sum(latent**2, axis=(1, 2, 3)) for latent in latents)
    log_normal = -0.5 * (squares + values * math.log(2 * math.pi))
    return -(log_normal + log_det) / (values / 3 * math.log(2))
