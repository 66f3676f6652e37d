"""The feature trunks against torch, tap by tap, with torchvision's layer indices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch_trunks import randomize, to_convolutions, torch_features, torch_trunk

from decloss_jax.checks import UserError
from decloss_jax.models.features import extract_features, max_pool_2x2, normalize_imagenet, valid_sizes

# Tap and torchvision's index of the layer whose output it is.
INDICES = {
    "vgg19": {
        "conv1_1": 0, "relu1_2": 3, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_4": 16, "relu3_4": 17,
        "conv4_1": 19, "conv4_4": 25, "conv5_1": 28, "conv5_4": 34, "relu5_4": 35,
    },
    "vgg16": {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "conv5_3": 28, "relu5_3": 29},
    "alexnet": {"conv1": 0, "relu1": 1, "relu2": 4, "relu3": 7, "conv4": 8, "relu4": 9, "relu5": 11},
}  # fmt: skip


def images(n, height, width, seed=0):
    return np.random.default_rng(seed).standard_normal((n, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("network", INDICES)
def test_extract_features_equals_torch_at_every_tap(network):
    trunk = torch_trunk(network, width=16)
    randomize(trunk)
    x = images(2, 45, 70)
    taps = tuple(INDICES[network])
    features = jax.jit(lambda w, x: extract_features(network, w, x, taps=taps))(to_convolutions(trunk), x)
    nchw = torch.from_numpy(x.transpose(0, 3, 1, 2))
    for tap, index in INDICES[network].items():
        expected = torch_features(trunk, nchw, index).detach().numpy().transpose(0, 2, 3, 1)
        assert features[tap].shape == expected.shape, tap
        np.testing.assert_allclose(features[tap], expected, rtol=0, atol=1e-5, err_msg=tap)
        assert valid_sizes(network, 45, [tap])[tap] == expected.shape[1], tap
        assert valid_sizes(network, 70, [tap])[tap] == expected.shape[2], tap


@pytest.mark.parametrize("network", ["vgg16", "alexnet"])
def test_extract_features_of_padded_images_are_those_of_the_images(network):
    trunk = torch_trunk(network, width=16)
    randomize(trunk)
    weights, taps = to_convolutions(trunk), tuple(INDICES[network])
    padded = images(2, 64, 72)  # what lies outside is not zero: it must not matter
    sizes = np.asarray([[45, 71], [64, 50]])
    together = jax.jit(lambda x, valid: extract_features(network, weights, x, taps=taps, valid=valid))(
        padded, sizes
    )
    together = jax.tree.map(np.asarray, together)
    extract = jax.jit(lambda x: extract_features(network, weights, x, taps=taps))
    for i, (height, width) in enumerate(sizes):
        alone = jax.tree.map(np.asarray, extract(padded[i : i + 1, :height, :width]))
        for tap in taps:
            h, w = alone[tap].shape[1:3]
            np.testing.assert_allclose(together[tap][i, :h, :w], alone[tap][0], rtol=0, atol=1e-5)
            assert not together[tap][i, h:].any()
            assert not together[tap][i, :, w:].any()


def test_extract_features_computes_no_more_than_the_taps_need():
    weights = to_convolutions(torch_trunk("vgg16", width=16))
    x = images(1, 32, 32)

    def convolutions(taps):
        text = str(jax.make_jaxpr(lambda x: extract_features("vgg16", weights, x, taps=taps))(x))
        return text.count("conv_general_dilated[")

    assert convolutions(["relu1_2"]) == 2
    assert convolutions(["conv3_1", "relu1_1"]) == 5
    assert convolutions(["conv5_3"]) == 13


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_max_pool_2x2_and_its_gradient_equal_torch_also_for_equal_values(size):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, *size, 4)).astype(np.float32)  # few values: in most windows some are equal
    y, pull_back = jax.vjp(max_pool_2x2, x)
    slopes = rng.random(y.shape, np.float32)
    nchw = torch.from_numpy(x.transpose(0, 3, 1, 2)).requires_grad_()
    expected = torch.nn.functional.max_pool2d(nchw, 2)
    expected.backward(torch.from_numpy(slopes.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(y, expected.detach().permute(0, 2, 3, 1))
    np.testing.assert_array_equal(pull_back(slopes)[0], nchw.grad.permute(0, 2, 3, 1))


def test_max_pool_2x2_passes_nan_on_and_has_a_gradient_without_scatter_or_sort():
    x = np.zeros((4, 2, 2, 1), np.float32)
    x[np.arange(4), [0, 0, 1, 1], [0, 1, 0, 1]] = np.nan
    assert np.isnan(max_pool_2x2(x)).all()
    text = str(jax.make_jaxpr(jax.grad(lambda x: max_pool_2x2(x).sum()))(x))
    assert "select" in text
    assert not any(word in text for word in ("scatter", "sort", "reduce_window"))


def test_normalize_imagenet_is_torchvisions():
    x = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(x) - mean) / std
    np.testing.assert_allclose(normalize_imagenet(jnp.asarray(x)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "taps", "message"),
    [
        ("vgg11", ["conv1_1"], "one of vgg19, vgg16, alexnet"),
        ("vgg16", ["conv5_4"], "nearest: conv5_"),
        ("vgg19", ["pool"], "tap of vgg19"),
        ("alexnet", [], "at least one"),
    ],
)
def test_extract_features_refuses_unknown_names(network, taps, message):
    with pytest.raises(UserError, match=message):
        extract_features(network, [], images(1, 8, 8), taps=taps)
