"""Pixel shuffle against torch's."""

import numpy as np
import pytest
import torch

from decloss_jax import checks
from decloss_jax.ops.shuffle import pixel_shuffle, pixel_unshuffle


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_has_torch_channel_order(factor):
    features = np.random.default_rng(0).normal(size=(2, 5, 4, 3 * factor**2)).astype(np.float32)
    theirs = torch.nn.functional.pixel_shuffle(torch.from_numpy(features).permute(0, 3, 1, 2), factor)
    ours = pixel_shuffle(features, factor)
    np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1))


@pytest.mark.parametrize("factor", [2, 4])
def test_pixel_unshuffle_has_torch_channel_order(factor):
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    theirs = torch.nn.functional.pixel_unshuffle(torch.from_numpy(images).permute(0, 3, 1, 2), factor)
    np.testing.assert_array_equal(pixel_unshuffle(images, factor), theirs.permute(0, 2, 3, 1))


def test_pixel_shuffle_refuses_odd_sizes():
    with pytest.raises(checks.UserError, match="channels of pixel_shuffle"):
        pixel_shuffle(np.zeros((1, 2, 2, 6)), 2)
    with pytest.raises(checks.UserError, match="width of the image"):
        pixel_unshuffle(np.zeros((1, 2, 3, 3)), 2)
