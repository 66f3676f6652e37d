"""The perceptual loss against BasicSR's, rebuilt in torch, on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch_trunks import randomize, to_convolutions, torch_features, torch_trunk

from decloss_jax.checks import UserError
from decloss_jax.losses.perceptual import perceptual_loss
from decloss_jax.models.features import extract_features, normalize_imagenet

INDICES = {"relu1_2": 3, "conv3_4": 16, "conv5_4": 34}  # of torchvision's VGG-19


def images(seed):
    return np.random.default_rng(seed).random((2, 48, 40, 3), np.float32)


def basicsr_loss(trunk, sr, hr, weights, criterion):
    """Sum over the taps of weight times L1 or MSE of VGG's features of ImageNet-normalised images."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    distance = {"l1": torch.nn.functional.l1_loss, "l2": torch.nn.functional.mse_loss}[criterion]
    return sum(
        weight
        * distance(
            torch_features(trunk, (sr - mean) / std, INDICES[tap]),
            torch_features(trunk, (hr - mean) / std, INDICES[tap]).detach(),
        )
        for tap, weight in weights.items()
    )


@pytest.mark.parametrize(
    ("criterion", "weights"),
    [("l1", {"conv5_4": 1.0}), ("l2", {"relu1_2": 0.1, "conv3_4": 2.0, "conv5_4": 1.0})],
)
def test_perceptual_loss_and_gradient_equal_basicsr(criterion, weights):
    trunk = torch_trunk("vgg19", width=8)
    randomize(trunk)
    convolutions, sr, hr = to_convolutions(trunk), images(0), images(1)

    def loss(sr):
        def features(x):
            return extract_features("vgg19", convolutions, normalize_imagenet(x), taps=tuple(weights))

        return perceptual_loss(features(sr), features(hr), weights=weights, criterion=criterion)

    value, gradient = jax.jit(jax.value_and_grad(loss))(sr)
    torch_sr = torch.from_numpy(sr.transpose(0, 3, 1, 2)).requires_grad_()
    expected = basicsr_loss(trunk, torch_sr, torch.from_numpy(hr.transpose(0, 3, 1, 2)), weights, criterion)
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    expected_gradient = torch_sr.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=1e-5 * np.abs(expected_gradient).max()
    )


def test_perceptual_loss_of_handmade_features():
    sr = {"a": jnp.asarray([[1.0, 2.0]]), "b": jnp.asarray([4.0])}
    hr = {"a": jnp.asarray([[0.0, 5.0]]), "b": jnp.asarray([2.0]), "unused": jnp.zeros(3)}
    weights = {"a": 10.0, "b": 1.0}
    assert float(perceptual_loss(sr, hr, weights=weights)) == pytest.approx(10 * 2.0 + 2.0)
    assert float(perceptual_loss(sr, hr, weights=weights, criterion="l2")) == pytest.approx(10 * 5.0 + 4.0)


def test_perceptual_loss_has_no_gradient_into_hr():
    features = {"a": jnp.asarray([1.0, -2.0])}
    gradient = jax.grad(lambda hr: perceptual_loss(features, {"a": hr}, weights={"a": 1.0}))(jnp.zeros(2))
    np.testing.assert_array_equal(gradient, np.zeros(2))


def test_perceptual_loss_refuses_bad_input():
    features = {"a": jnp.zeros((2, 3))}
    with pytest.raises(UserError, match="one of l1, l2"):
        perceptual_loss(features, features, weights={"a": 1.0}, criterion="huber")
    with pytest.raises(UserError, match="tap of the SR features"):
        perceptual_loss(features, features, weights={"b": 1.0})
    with pytest.raises(UserError, match="equal shapes"):
        perceptual_loss(features, {"a": jnp.zeros((3, 2))}, weights={"a": 1.0})
    with pytest.raises(UserError, match="at least one tap"):
        perceptual_loss(features, features, weights={})
