"""SRFlow's initial parameters: drawn from a key, then actnorm fitted to the first batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from decloss_jax.models.rrdb import RRDB, RRDBNet
from decloss_jax.models.srflow import encoder, flow, layers

Params = Mapping[str, Any]

HIDDEN_STD = 0.05  # of the hidden convolutions' kernels (Glow's code)
CHANNELS = (12, 24, 96)  # in the three levels: 4 x 3, 4 x 6 after the split, 4 x 24
LEAST_STD = 1e-6  # added to the standard deviation that actnorm divides by


def draw_encoder(key: Array, *, features: int, blocks: int, growth: int) -> Params:
    """Draws the encoder's parameters as RRDBNet does, and stacks those of its blocks."""
    of_ends, of_blocks = jax.random.split(key)
    ends = RRDBNet(features=features, blocks=1, growth=growth, parent=None)
    params = dict(ends.init(of_ends, jnp.zeros((1, 4, 4, 3), jnp.float32))["params"])
    del params["body_0"]
    block = RRDB(features, growth, jnp.float32, parent=None)
    x = jnp.zeros((1, 4, 4, features), jnp.float32)
    draw = jax.vmap(lambda key: block.init(key, x)["params"])
    return {**params, "body": draw(jax.random.split(of_blocks, blocks))}


def draw_flow(key: Array, *, inputs: int, hidden: int, steps: int, transitions: int) -> Params:
    """Draws the flow's parameters: random rotations, N(0, 0.05^2) kernels, and zeros in every last layer."""
    params: dict[str, Any] = {}
    keys = jax.random.split(key, (len(CHANNELS), 2))
    for name, channels, (of_transitions, of_steps) in zip(flow.LEVELS, CHANNELS, keys, strict=True):

        def draw_transition(key: Array, channels: int = channels) -> dict[str, Params]:
            rotation = jax.random.orthogonal(key, channels, dtype=jnp.float32)
            return {"actnorm": zero_actnorm(channels), "mixing": {"matrix": rotation}}

        def draw_step(key: Array, channels: int = channels) -> Params:
            of_mixing, of_injector, of_coupling = jax.random.split(key, 3)
            kept = channels // 2
            return draw_transition(of_mixing, channels) | {
                "injector": draw_network(of_injector, inputs, hidden, 2 * channels),
                "coupling": draw_network(of_coupling, kept + inputs, hidden, 2 * (channels - kept)),
            }

        params[name] = {
            "transitions": jax.vmap(draw_transition)(jax.random.split(of_transitions, transitions)),
            "steps": jax.vmap(draw_step)(jax.random.split(of_steps, steps)),
        }
    params[flow.LEVELS[0]]["split"] = zero_convolution(CHANNELS[0] // 2, CHANNELS[0])
    return params


def draw_network(key: Array, inputs: int, hidden: int, outputs: int) -> dict[str, Params]:
    """Draws the parameters of `layers.shift_and_scale`."""
    kernels = HIDDEN_STD * jax.random.normal(key, (9 * inputs + hidden, hidden), jnp.float32)
    first, second = kernels[: 9 * inputs], kernels[9 * inputs :]
    return {
        "conv1": {"kernel": first.reshape(3, 3, inputs, hidden), **zero_actnorm(hidden)},
        "conv2": {"kernel": second.reshape(1, 1, hidden, hidden), **zero_actnorm(hidden)},
        "conv3": zero_convolution(hidden, outputs),
    }


def zero_actnorm(channels: int) -> dict[str, Array]:
    """Returns the parameters with which actnorm is the identity."""
    return {name: jnp.zeros(channels, jnp.float32) for name in ("bias", "logs")}


def zero_convolution(inputs: int, outputs: int) -> Params:
    """Returns a 3x3 convolution of zeros."""
    return {"kernel": jnp.zeros((3, 3, inputs, outputs), jnp.float32), **zero_actnorm(outputs)}


def fit_actnorms(params: Params, low: Array, hr: Array, stacked_blocks: Sequence[int]) -> Params:
    """Fits every actnorm so that its outputs on this batch have mean 0 and deviation 1 (Glow, Sec. 3.1).

    Each is fitted to the output of the layers before it, which are already fitted; nothing else changes.

    Args:
        params: parameters of an SRFlow.
        low: the first batch, [N,h,w,3] in [0,1].
        hr: [N,4h,4w,3].
        stacked_blocks: as in the model.

    Returns:
        The parameters with which training begins.
    """
    maps = encoder.conditions(params["encoder"], low, stacked_blocks)
    x, fitted = hr, {}
    for name, condition in zip(flow.LEVELS, maps, strict=True):
        level = params["flow"][name]
        x, (transitions, steps) = flow.run_level(
            level, x, condition, transition=fit_transition, step=fit_step
        )
        fitted[name] = level | {"transitions": transitions, "steps": steps}
        if "split" in level:
            x, _, _ = layers.split(level["split"], x)
    return {"encoder": params["encoder"], "flow": fitted}


def fit_once(params: Params, low: Array, hr: Array, stacked_blocks: Sequence[int]) -> Params:
    """Fits the actnorms if none has a bias yet, as the authors' code does: not those of trained weights.

    Args and returns as in `fit_actnorms`.
    """
    is_fresh = jnp.all(params["flow"][flow.LEVELS[0]]["transitions"]["actnorm"]["bias"] == 0)
    fitted = fit_actnorms(params, low, hr, stacked_blocks)
    return jax.tree.map(lambda new, old: jnp.where(is_fresh, new, old), fitted, dict(params))


def fit_transition(params: Params, x: Array) -> tuple[Array, Params]:
    """Fits `flow.transition`; returns its output and its parameters."""
    fitted = {**params, "actnorm": fit_actnorm(x)}
    return flow.transition(fitted, x)[0], fitted


def fit_step(params: Params, x: Array, condition: Array) -> tuple[Array, Params]:
    """Fits `flow.conditional_step`; returns its output and its parameters."""
    x, fitted = fit_transition(params, x)
    injector = fit_network(params["injector"], condition)
    x, _ = layers.injector(injector, x, condition)
    kept = x[..., : x.shape[-1] // 2]
    coupling = fit_network(params["coupling"], jnp.concatenate([kept, condition], axis=-1))
    y, _ = layers.coupling(coupling, x, condition)
    return y, {**fitted, "injector": injector, "coupling": coupling}


def fit_network(params: Params, x: Array) -> Params:
    """Fits the two actnorms inside `layers.shift_and_scale`."""
    fitted = dict(params)
    for name in ("conv1", "conv2"):
        kernel = params[name]["kernel"]
        fitted[name] = {"kernel": kernel, **fit_actnorm(layers.convolve(kernel, x))}
        x = jax.nn.relu(layers.scaled_convolution(fitted[name], x))
    return fitted


def fit_actnorm(x: Array) -> dict[str, Array]:
    """Returns the bias and the logs that normalise every channel of [N,H,W,C]."""
    std = jnp.std(x, axis=(0, 1, 2))
    return {"bias": -jnp.mean(x, axis=(0, 1, 2)), "logs": -jnp.log(std + LEAST_STD)}
