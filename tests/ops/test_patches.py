"""Mini-patches against slices taken one by one."""

import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.ops.patches import extract_patches


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_extract_patches_equals_slices(patch_size):
    images = np.random.default_rng(0).random((2, 8, 12, 3)).astype(np.float32)
    expected = [
        image[y : y + patch_size, x : x + patch_size].ravel()
        for image in images
        for y in range(0, 8, patch_size)
        for x in range(0, 12, patch_size)
    ]
    np.testing.assert_array_equal(extract_patches(images, patch_size), expected)


@pytest.mark.parametrize("patch_size", [3, 5, 0])
def test_extract_patches_refuses_sizes_that_do_not_divide(patch_size):
    with pytest.raises(UserError, match="patch_size"):
        extract_patches(jnp.zeros((1, 8, 12, 3)), patch_size)


def test_extract_patches_refuses_one_image_without_batch_axis():
    with pytest.raises(UserError, match=r"\[N,H,W,C\]"):
        extract_patches(jnp.zeros((8, 12, 3)), 4)
