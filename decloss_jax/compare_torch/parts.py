"""The parts of the package that are compared, each run on both sides with equal weights and inputs.

A part yields comparisons: our arrays, PyTorch's arrays, and the bound of their relative difference.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from decloss_jax.compare_torch import torch_losses, torch_networks
from decloss_jax.compare_torch.adversarial import (
    compare_adversarial,
    compare_discriminator,
    compare_ranker,
    compare_ranking,
)
from decloss_jax.compare_torch.flow import compare_srflow
from decloss_jax.compare_torch.inputs import (
    BACKWARD,
    BACKWARD_FEATURES,
    BACKWARD_GENERATOR,
    DECLOSS,
    FORWARD,
    Comparison,
    as_dithered_floats,
    as_doubles,
    bicubic_pair,
    crops,
    make_twin,
    random_params,
    state_dict,
    to_numpy,
    to_torch,
)
from decloss_jax.compare_torch.training import (
    ADVERSARIAL_STEPS,
    STEPS,
    compare_adversarial_training,
    compare_training,
)
from decloss_jax.losses.decloss import decloss
from decloss_jax.losses.perceptual import perceptual_loss
from decloss_jax.losses.pixel import l1_loss
from decloss_jax.metrics.lpips import LPIPS_NETWORKS, lpips_padded
from decloss_jax.models import EDSR, MSRResNet, RRDBNet, SRFlow, SRResNet
from decloss_jax.models.features import TRUNKS, extract_features, last_convolution, normalize_imagenet
from decloss_jax.weights import trunks
from decloss_jax.weights.tables import Generator

Part = Callable[[], Iterable[Comparison]]


def compare_generator(model: Generator, params: Mapping[str, Any] | None = None) -> Iterator[Comparison]:
    """Compares output and gradients of a generator; with random parameters if none are given."""
    params = random_params(model) if params is None else params
    low = as_dithered_floats(crops(model.scale)[0])
    direction = np.random.default_rng(1).normal(size=crops(model.scale)[1].shape).astype(np.float32)
    twin = make_twin(model, params)
    sr = jax.jit(model.apply)({"params": params}, low)
    yield Comparison("output", {"sr": sr}, {"sr": to_numpy(twin(to_torch(low)))}, FORWARD)

    with jax.enable_x64(True):
        precise, (params, low) = model.clone(dtype=jnp.float64), as_doubles((params, low))

        def along(params: Any, low: Any) -> jax.Array:
            sr: Any = precise.apply({"params": params}, low)
            return jnp.mean(sr * direction)

        of_params, of_low = jax.jit(jax.grad(along, argnums=(0, 1)))(params, low)
        of_params = state_dict(model, of_params)
    images = to_torch(low)
    (twin.double()(images).float() * to_torch(direction)).mean().backward()
    their_gradients = {name: p.grad.numpy() for name, p in twin.named_parameters() if p.grad is not None}
    yield Comparison("gradient of input", {"low": of_low}, {"low": to_numpy(images.grad)}, BACKWARD_GENERATOR)
    yield Comparison("gradient of weights", of_params, their_gradients, BACKWARD_GENERATOR)


def compare_image_loss(
    ours: Callable[[Any, Any, Any], jax.Array],
    theirs: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    frozen: Any = (),
    through_features: bool = False,
) -> Iterator[Comparison]:
    """Compares a loss and its gradient with respect to sr.

    Args:
        ours: (frozen, sr, hr) -> a value, or one per image, which are averaged for the gradient.
        theirs: the same in torch.
        frozen: NumPy arrays for both.
        through_features: take the gradient in float64.
    """
    sr, hr = bicubic_pair()
    if through_features:
        sr, hr = sr[:2], hr[:2]  # the feature networks are slow
    yield Comparison(
        "output",
        {"value": jax.jit(ours)(frozen, sr, hr)},
        {"value": theirs(frozen, to_torch(sr), to_torch(hr)).detach().numpy()},
        FORWARD,
    )
    with jax.enable_x64(through_features):
        if through_features:
            sr, hr, frozen = as_doubles((sr, hr, frozen))
        gradient = jax.jit(jax.grad(lambda sr, *rest: jnp.mean(ours(rest[1], sr, rest[0]))))(sr, hr, frozen)
        images = to_torch(sr)
        theirs(frozen, images, to_torch(hr).detach()).mean().backward()
        bound = BACKWARD_FEATURES if through_features else BACKWARD
        yield Comparison("gradient of sr", {"sr": gradient}, {"sr": to_numpy(images.grad)}, bound)


def has_vgg19() -> bool:
    """Tells whether a file of VGG-19's weights is given; a comparison does not download it."""
    return bool(os.environ.get(trunks.VGG19_VARIABLE))


def vgg19_name() -> str:
    """Returns VGG-19's name for the table, which says if its weights are random."""
    return "VGG-19" if has_vgg19() else "VGG-19 (random weights)"


def feature_weights(network: str) -> Any:
    """Returns the weights of a feature network; random ones for VGG-19 without its file."""
    if network != "vgg19" or has_vgg19():
        return trunks.load_trunk(network)
    random = np.random.default_rng(2)
    weights, channels = [], 3
    for layer in TRUNKS[network]:
        if layer.name != "pool":
            width = min(64 * 2 ** (int(layer.name[4]) - 1), 512)
            kernel = random.standard_normal((3, 3, channels, width), np.float32) * np.sqrt(2 / (9 * channels))
            weights.append({"kernel": kernel.astype(np.float32), "bias": np.zeros(width, np.float32)})
            channels = width
    return tuple(weights)


def compare_features(network: str) -> Iterator[Comparison]:
    """Compares every convolution's output, and the gradient through the whole trunk."""
    weights, images = feature_weights(network), as_dithered_floats(crops(4)[1][:2])
    taps = tuple(layer.name for layer in TRUNKS[network] if layer.name != "pool")

    def ours(images: Any, weights: Any) -> dict[str, jax.Array]:
        return extract_features(network, weights, normalize_imagenet(images), taps=taps)

    def theirs(images: torch.Tensor, weights: Any) -> dict[str, torch.Tensor]:
        normalized = torch_losses.normalize(images, torch_losses.IMAGENET_MEAN, torch_losses.IMAGENET_STD)
        return torch_networks.trunk_features(network, weights, normalized)

    their_features = theirs(to_torch(images), weights)
    yield Comparison(
        "taps", jax.jit(ours)(images, weights), {tap: to_numpy(their_features[tap]) for tap in taps}, FORWARD
    )
    with jax.enable_x64(True):
        images, weights = as_doubles((images, weights))
        gradient = jax.jit(jax.grad(lambda images, weights: ours(images, weights)[taps[-1]].mean()))(
            images, weights
        )
        tensor = to_torch(images)
        theirs(tensor, weights)[taps[-1]].mean().backward()
        yield Comparison(
            "gradient of image", {"image": gradient}, {"image": to_numpy(tensor.grad)}, BACKWARD_FEATURES
        )


def compare_perceptual(network: str, criterion: str) -> Iterator[Comparison]:
    """Compares the perceptual loss on the last convolution, before its activation."""
    tap = last_convolution(network)

    def ours(weights: Any, sr: Any, hr: Any) -> jax.Array:
        of_sr, of_hr = (
            extract_features(network, weights, normalize_imagenet(images), taps=(tap,)) for images in (sr, hr)
        )
        return perceptual_loss(of_sr, of_hr, weights={tap: 1.0}, criterion=criterion)

    def theirs(weights: Any, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return torch_losses.perceptual(sr, hr, network=network, weights=weights, tap=tap, criterion=criterion)

    return compare_image_loss(ours, theirs, frozen=feature_weights(network), through_features=True)


def compare_lpips(net: str) -> Iterator[Comparison]:
    """Compares LPIPS of each pair."""
    network = LPIPS_NETWORKS[net].trunk

    def ours(frozen: Any, sr: Any, hr: Any) -> jax.Array:
        return lpips_padded(*frozen, sr, hr, None, net=net, scaling="official")

    def theirs(frozen: Any, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        weights, linear = frozen
        return torch_losses.lpips(sr, hr, network=network, weights=weights, linear=linear)

    frozen = (trunks.load_trunk(network), trunks.load_lpips_linear(network))
    return compare_image_loss(ours, theirs, frozen=frozen, through_features=True)


def compare_decloss() -> Iterator[Comparison]:
    """Compares the DECLoss of training with full matrices in torch."""
    return compare_image_loss(
        lambda _, sr, hr: decloss(sr, hr, mode="multiply", **DECLOSS),
        lambda _, sr, hr: torch_losses.decloss(sr, hr, **DECLOSS),
    )


def generator_parts(model: Generator | SRFlow, params: Mapping[str, Any]) -> dict[str, Part]:
    """Lists the parts that depend on the network, for a given network and parameters."""
    name = f"{type(model).__name__} x{model.scale}"
    if isinstance(model, SRFlow):
        return {name: functools.partial(compare_srflow, model, params)}
    return {
        name: functools.partial(compare_generator, model, params),
        f"{name}, {STEPS} steps": functools.partial(compare_training, model, params),
    }


LOSS_PARTS: dict[str, Part] = {
    "AlexNet": functools.partial(compare_features, "alexnet"),
    "VGG-16": functools.partial(compare_features, "vgg16"),
    vgg19_name(): functools.partial(compare_features, "vgg19"),
    "L1": lambda: compare_image_loss(
        lambda _, sr, hr: l1_loss(sr, hr), lambda _, sr, hr: torch_losses.l1(sr, hr)
    ),
    f"perceptual, {vgg19_name()}, l1": functools.partial(compare_perceptual, "vgg19", "l1"),
    "perceptual, VGG-16, l1": functools.partial(compare_perceptual, "vgg16", "l1"),
    "perceptual, AlexNet, l2": functools.partial(compare_perceptual, "alexnet", "l2"),
    "DECLoss": compare_decloss,
    "LPIPS alex": functools.partial(compare_lpips, "alex"),
    "LPIPS vgg": functools.partial(compare_lpips, "vgg"),
    "discriminator": compare_discriminator,
    "GAN and RaGAN": compare_adversarial,
    "Ranker": compare_ranker,
    "ranking and rank content": compare_ranking,
}

SMALL_EDSR = EDSR(scale=4, features=16, blocks=2)
SMALL_SRFLOW = SRFlow(
    features=8, blocks=2, growth=4, stacked_blocks=(1, 0), flow_steps=2, hidden=8, unrolled=True
)
PARTS: dict[str, Part] = {
    "EDSR x2": functools.partial(compare_generator, EDSR(scale=2, features=16, blocks=2)),
    "EDSR x3": functools.partial(compare_generator, EDSR(scale=3, features=16, blocks=2, res_scale=0.1)),
    "EDSR x4": functools.partial(compare_generator, SMALL_EDSR),
    "RRDBNet x4": functools.partial(compare_generator, RRDBNet(features=16, blocks=1, growth=8)),
    "SRResNet x4": functools.partial(compare_generator, SRResNet(features=16, blocks=2)),
    "MSRResNet x3": functools.partial(compare_generator, MSRResNet(scale=3, features=16, blocks=2)),
    "SRFlow x4": functools.partial(compare_srflow, SMALL_SRFLOW),
    **LOSS_PARTS,
    f"EDSR x4, {STEPS} steps": functools.partial(compare_training, SMALL_EDSR),
    f"GAN, {ADVERSARIAL_STEPS} steps": functools.partial(compare_adversarial_training, SMALL_EDSR, "gan"),
    f"RaGAN, {ADVERSARIAL_STEPS} steps": functools.partial(compare_adversarial_training, SMALL_EDSR, "ragan"),
}
