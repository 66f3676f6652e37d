"""LPIPS v0.1: a pretrained network, its packaged weights, and the distance of its features.

This file combines `models/features.py`, `weights/trunks.py` and `feature_distance.py`, so it is a tier above
the other metrics, which hold no network.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from decloss_jax import checks
from decloss_jax.metrics.feature_distance import lpips_distance, lpips_input
from decloss_jax.models.features import extract_features, valid_sizes
from decloss_jax.ops.padding import pad_to, shared_shapes
from decloss_jax.weights.trunks import load_lpips_linear, load_trunk


class LpipsNetwork(NamedTuple):
    """A trunk and the taps that LPIPS compares (the official code, v0.1)."""

    trunk: str
    taps: tuple[str, ...]


LPIPS_NETWORKS = {
    "alex": LpipsNetwork("alexnet", ("relu1", "relu2", "relu3", "relu4", "relu5")),
    "vgg": LpipsNetwork("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
}

# A network overshoots [0,1] a little; values further outside come from images of another range.
RANGE_TOLERANCE = 0.25


def lpips(sr: Array, hr: Array, *, net: str = "alex", scaling: str = "official") -> Array:
    """Computes LPIPS v0.1 with the official weights; differentiable.

    Args:
        sr: [N,H,W,3] floats in [0,1].
        hr: the same shape.
        net: "alex" (AlexNet) or "vgg" (VGG-16).
        scaling: "official" ([0,1] becomes [-1,1]), or "unscaled_255" ([0,1] becomes 0..255), which serves
            only to reproduce Table 3 of the paper.

    Returns:
        [N]; 0 for equal images, lower is better.

    Raises:
        UserError: other shapes, integers, another range, images below 31 (alex) or 16 (vgg) pixels a side, an
            unknown net or scaling.
    """
    for name, images in (("sr", sr), ("hr", hr)):
        checks.check_images(name, images, channels=3)
        check_range(name, images)
    checks.check_same_shape("sr", sr, "hr", hr)
    check_size(net, hr.shape[1:3])
    trunk, linear = lpips_weights(net)
    return lpips_padded(trunk, linear, sr, hr, None, net=net, scaling=scaling)


def lpips_each(
    sr_images: Sequence[np.ndarray], hr_images: Sequence[np.ndarray], *, net: str, scaling: str = "official"
) -> Iterator[float]:
    """Computes LPIPS of many images of any sizes, with at most 16 compiled shapes.

    Images are padded to shared shapes without changing their values (`ops/padding.py`).

    Args:
        sr_images: uint8 [H,W,3].
        hr_images: as many, of the same sizes.
        net: "alex" or "vgg".
        scaling: as in `lpips`.

    Yields:
        The value of each image, in order.

    Raises:
        UserError: other shapes or dtypes, images too small for the network, an unknown net or scaling.
    """
    trunk, linear = lpips_weights(net)
    shapes = shared_shapes(hr.shape[:2] for hr in hr_images)
    padded = {shape for size, shape in shapes.items() if size != shape}
    for sr, hr in zip(sr_images, hr_images, strict=True):
        checks.check_same_shape("sr", sr, "hr", hr)
        for name, image in (("sr", sr), ("hr", hr)):
            checks.check_uint8_image(name, image)
        check_size(net, hr.shape[:2])
        shape = shapes[hr.shape[:2]]
        valid = np.asarray([hr.shape[:2]]) if shape in padded else None
        pair = [pad_to(image, shape)[None] for image in (sr, hr)]
        yield float(lpips_padded(trunk, linear, *pair, valid, net=net, scaling=scaling)[0])


@functools.partial(jax.jit, static_argnames=("net", "scaling"))
def lpips_padded(trunk: Any, linear: Any, sr: Any, hr: Any, valid: Any, *, net: str, scaling: str) -> Array:
    """Computes LPIPS of images that are padded at the bottom and on the right; [N].

    Args:
        trunk: the network's convolutions.
        linear: the weights of the channels.
        sr: [N,H,W,3] in [0,1], or uint8.
        hr: the same.
        valid: [N,2], height and width of the images themselves; None if they are not padded.
        net: "alex" or "vgg".
        scaling: as in `lpips`.
    """
    network, taps = LPIPS_NETWORKS[net]
    both = jnp.concatenate([sr, hr])
    both = lpips_input(both / jnp.float32(255) if both.dtype == jnp.uint8 else both, scaling)
    twice = None if valid is None else jnp.concatenate([valid, valid])
    features = extract_features(network, trunk, both, taps=taps, valid=twice)
    sr_features, hr_features = zip(*(jnp.split(features[tap], 2) for tap in taps), strict=True)
    areas = None
    if valid is not None:
        sizes = valid_sizes(network, valid, taps)
        areas = [jnp.prod(sizes[tap], axis=-1) for tap in taps]
    return lpips_distance(sr_features, hr_features, linear, areas=areas)


@functools.lru_cache
def lpips_weights(net: str) -> tuple[Any, Any]:
    """Loads the trunk and the weights of the channels of an LPIPS network onto the device."""
    network = checks.look_up(LPIPS_NETWORKS, net, "LPIPS net").trunk
    with jax.ensure_compile_time_eval():  # the cache must not keep tracers of a first call under jit
        return jax.tree.map(jnp.asarray, (load_trunk(network), load_lpips_linear(network)))


def check_range(name: str, images: Array) -> None:
    """Raises `UserError` unless the images are floats of about [0,1]; traced values are not checked."""
    checks.check(
        jnp.issubdtype(images.dtype, jnp.floating),
        name,
        expected="floats in [0,1]",
        got=images.dtype,
        remedy="divide 8-bit images by 255",
    )
    if isinstance(images, jax.core.Tracer) or images.size == 0:
        return
    smallest, largest = float(images.min()), float(images.max())
    checks.check(
        smallest >= -RANGE_TOLERANCE and largest <= 1.0 + RANGE_TOLERANCE,
        name,
        expected="values in [0,1]",
        got=f"{smallest:.3g} to {largest:.3g}",
        remedy="scale the images to [0,1]; lpips converts them to the network's range",
    )


def check_size(net: str, size: tuple[int, ...]) -> None:
    """Raises `UserError` unless every layer of the network leaves at least one pixel."""
    network, taps = checks.look_up(LPIPS_NETWORKS, net, "LPIPS net")
    sides = valid_sizes(network, np.asarray(size), taps)
    checks.check(
        all(side.min() >= 1 for side in sides.values()),
        f"images for LPIPS ({net})",
        expected="enough pixels for the network's poolings",
        got=" x ".join(map(str, size)),
        remedy="measure larger images",
    )
