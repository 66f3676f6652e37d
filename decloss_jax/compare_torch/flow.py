"""SRFlow on both sides: latents, density, and the gradient of the density."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from decloss_jax.compare_torch import torch_srflow
from decloss_jax.compare_torch.inputs import (
    BACKWARD_FEATURES,
    FORWARD,
    Comparison,
    as_dithered_floats,
    as_doubles,
    crops,
    to_numpy,
    to_torch,
)
from decloss_jax.models import SRFlow
from decloss_jax.weights import srflow


def compare_srflow(model: SRFlow, params: Mapping[str, Any] | None = None) -> Iterator[Comparison]:
    """Compares latents, bits per pixel and their gradient; with random parameters if none are given."""
    params = random_params(model) if params is None else params
    low, hr = (as_dithered_floats(images[:2]) for images in crops(model.scale))
    encode = functools.partial(model.apply, method="encode")
    latents, bits = jax.jit(encode)({"params": params}, low, hr)
    state = torch_state(model, params)
    their_latents, their_bits = torch_srflow.encode(state, to_torch(low), to_torch(hr), model)
    names = ("eps", "z")
    yield Comparison(
        "latents",
        dict(zip(names, latents, strict=True)),
        dict(zip(names, map(to_numpy, their_latents), strict=True)),
        FORWARD,
    )
    yield Comparison("bits per pixel", {"bits": bits}, {"bits": to_numpy(their_bits)}, FORWARD)
    decode = jax.jit(functools.partial(model.apply, method="decode"))
    back = decode({"params": params}, low, [jnp.asarray(to_numpy(latent)) for latent in their_latents])
    yield Comparison("decoding of theirs", {"hr": back}, {"hr": hr}, FORWARD)

    with jax.enable_x64(True):
        params, low, hr = as_doubles((params, low, hr))

        def mean_bits(params: Any, low: Any, hr: Any) -> jax.Array:
            result: Any = encode({"params": params}, low, hr)
            return jnp.mean(result[1])

        of_params, of_low, of_hr = jax.jit(jax.grad(mean_bits, argnums=(0, 1, 2)))(params, low, hr)
        ours = srflow.from_params(model, of_params) | {"low": of_low, "hr": of_hr}
    state = {key: tensor.requires_grad_() for key, tensor in torch_state(model, params).items()}
    images = {"low": to_torch(low), "hr": to_torch(hr)}
    torch_srflow.encode(state, images["low"], images["hr"], model)[1].mean().backward()
    theirs = {name: to_numpy(image.grad) for name, image in images.items()}
    theirs |= {key: tensor.grad.numpy() for key, tensor in state.items() if tensor.grad is not None}
    yield Comparison("gradients", {key: ours[key] for key in theirs}, theirs, BACKWARD_FEATURES)


def torch_state(model: SRFlow, params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the state dict under the authors' names."""
    return {key: torch.from_numpy(array.copy()) for key, array in srflow.from_params(model, params).items()}


def random_params(model: SRFlow) -> Any:
    """Draws parameters that make every layer act: orthogonal matrices, the rest uniform as in torch."""
    random = np.random.default_rng(0)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key == "matrix":
            return np.linalg.qr(random.standard_normal(leaf.shape))[0].astype(np.float32)
        bound = 1 / np.sqrt(np.prod(leaf.shape[-4:-1])) if path[-1].key == "kernel" else 0.1
        return random.uniform(-bound, bound, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)
