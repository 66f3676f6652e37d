"""Discriminator, Ranker and the losses of their scores, compared with PyTorch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from decloss_jax.compare_torch import torch_losses, torch_networks
from decloss_jax.compare_torch.inputs import (
    BACKWARD_FEATURES,
    FORWARD,
    Comparison,
    as_dithered_floats,
    as_doubles,
    crops,
    state_of,
    to_numpy,
    to_torch,
)
from decloss_jax.losses import adversarial
from decloss_jax.losses.ranking import rank_content_loss, ranking_loss
from decloss_jax.weights.discriminators import discriminator_variables, ranker_variables

FEATURES = 8

Convert = Callable[[Mapping[str, np.ndarray]], tuple[Any, dict[str, Any]]]


def compare_discriminator() -> Iterator[Comparison]:
    """Compares the discriminator on patches of 64 pixels."""
    torch.manual_seed(0)
    return compare_judge(torch_networks.Discriminator(64, FEATURES), discriminator_variables)


def compare_ranker() -> Iterator[Comparison]:
    """Compares RankSRGAN's Ranker on patches of 64 pixels."""
    torch.manual_seed(0)
    return compare_judge(torch_networks.Ranker(FEATURES), ranker_variables)


def compare_judge(twin: torch.nn.Module, convert: Convert) -> Iterator[Comparison]:
    """Compares the scores in training and in evaluation, and the gradients in training.

    Args:
        twin: the torch network, with random weights.
        convert: its state dict -> our network and its variables.
    """
    images = as_dithered_floats(crops(4)[1])
    twin(to_torch(images))  # moves the running statistics away from their initial values
    model, variables = convert(state_of(twin))

    def logits(variables: Any, images: Any) -> jax.Array:
        return model.apply(variables, images, train=True, mutable="batch_stats")[0]

    training, evaluation = jax.jit(logits)(variables, images), jax.jit(model.apply)(variables, images)
    their_evaluation = twin.eval()(to_torch(images)).detach().numpy()
    twin.train().double()
    with jax.enable_x64(True):
        of_variables, of_images = jax.jit(jax.grad(lambda v, x: logits(v, x).mean(), argnums=(0, 1)))(
            as_doubles(variables), as_doubles(images)
        )
    tensor = to_torch(as_doubles(images))
    their_training = twin(tensor)
    their_training.mean().backward()

    ours = {"training": training, "evaluation": evaluation}
    theirs = {"training": their_training.detach().numpy(), "evaluation": their_evaluation}
    yield Comparison("logits", ours, theirs, FORWARD)
    yield Comparison(
        "gradient of images", {"images": of_images}, {"images": to_numpy(tensor.grad)}, BACKWARD_FEATURES
    )
    yield Comparison("gradient of weights", *flat_gradients(of_variables, twin, convert), FORWARD)


def flat_gradients(
    of_variables: Any, twin: torch.nn.Module, convert: Convert
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns our gradients and torch's, which are converted like weights, under our names."""
    gradients = {name: to_array(p.grad) for name, p in twin.named_parameters()}
    theirs = flatten_dict(convert(state_of(twin) | gradients)[1]["params"], sep="/")
    # A batch norm cancels the bias before it, so the gradient of that bias is only rounding.
    without = {f"conv{name[2:]}/bias" for name in of_variables["params"] if name.startswith("bn")}
    ours = flatten_dict(of_variables["params"], sep="/")
    return (
        {name: leaf for name, leaf in ours.items() if name not in without},
        {name: leaf for name, leaf in theirs.items() if name not in without},
    )


def to_array(gradient: torch.Tensor | None) -> np.ndarray:
    """Converts a gradient to an array; NaN if there is none."""
    return np.array(np.nan) if gradient is None else gradient.numpy()


def compare_adversarial() -> Iterator[Comparison]:
    """Compares both sides of GAN and RaGAN, and their gradients with respect to both logits."""
    random = np.random.default_rng(4)
    real, fake = (
        random.normal(1, 3, (8, 1)).astype(np.float32),
        random.normal(-1, 3, (8, 1)).astype(np.float32),
    )

    def losses(real: Any, fake: Any) -> dict[str, jax.Array]:
        return {
            "gan generator": adversarial.gan_generator_loss(fake),
            "gan discriminator": adversarial.gan_discriminator_loss(real, fake),
            "ragan generator": adversarial.ragan_generator_loss(real, fake),
            "ragan discriminator": adversarial.ragan_discriminator_loss(real, fake),
        }

    values, gradients = jax.jit(losses)(real, fake), jax.jit(jax.jacrev(losses, argnums=(0, 1)))(real, fake)
    tensors = [torch.from_numpy(logits.copy()).requires_grad_() for logits in (real, fake)]
    their_values = torch_losses.gan_losses(*tensors)
    their_gradients = {
        name: np.stack([np.zeros_like(real) if g is None else g.numpy() for g in of_both])
        for name, of_both in (
            (name, torch.autograd.grad(value, tensors, allow_unused=True, retain_graph=True))
            for name, value in their_values.items()
        )
    }
    yield Comparison(
        "output", values, {name: value.detach().numpy() for name, value in their_values.items()}, FORWARD
    )
    ours = {name: jnp.stack(of_both) for name, of_both in gradients.items()}
    yield Comparison("gradient of logits", ours, their_gradients, FORWARD)


def compare_ranking() -> Iterator[Comparison]:
    """Compares RankSRGAN's losses, and their gradients with respect to the first scores."""
    random = np.random.default_rng(5)
    first, second = (random.normal(0, 3, (16, 1)).astype(np.float32) for _ in range(2))
    target = np.sign(random.normal(size=(16, 1))).astype(np.float32)

    def losses(first: Any, second: Any) -> dict[str, jax.Array]:
        return {
            "ranking": ranking_loss(first, second, jnp.asarray(target)),
            "rank content": rank_content_loss(first, bias=0.5),
        }

    values, gradients = jax.jit(losses)(first, second), jax.jit(jax.jacrev(losses))(first, second)
    scores = torch.from_numpy(first.copy()).requires_grad_()
    their_values = {
        "ranking": torch_losses.ranking(scores, torch.from_numpy(second), torch.from_numpy(target)),
        "rank content": torch_losses.rank_content(scores, bias=0.5),
    }
    their_gradients = {
        name: torch.autograd.grad(value, scores)[0].numpy() for name, value in their_values.items()
    }
    detached = {name: value.detach().numpy() for name, value in their_values.items()}
    yield Comparison("output", values, detached, FORWARD)
    yield Comparison("gradient of scores", gradients, their_gradients, FORWARD)
