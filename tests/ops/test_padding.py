"""Few shapes for many sizes, and the masks of the images inside them."""

import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.ops.padding import pad_to, shared_shapes, valid_mask


def test_shared_shapes_keeps_few_sizes():
    sizes = [(320, 480), (480, 320), (320, 480)]
    assert shared_shapes(sizes) == {(320, 480): (320, 480), (480, 320): (480, 320)}


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_shared_shapes_holds_every_size_in_few_shapes(levels):
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(20, 1000, (300, 2))]
    shapes = shared_shapes(sizes, levels=levels)
    assert set(shapes) == set(sizes)
    assert len(set(shapes.values())) <= levels**2
    assert all(shape[0] >= h and shape[1] >= w for (h, w), shape in shapes.items())
    assert {h for h, _ in shapes.values()} <= {h for h, _ in sizes}


def test_pad_to_repeats_the_last_row_and_column():
    image = np.random.default_rng(0).random((3, 4, 2))
    padded = pad_to(image, (5, 6))
    np.testing.assert_array_equal(padded[:3, :4], image)
    np.testing.assert_array_equal(padded, image[[0, 1, 2, 2, 2]][:, [0, 1, 2, 3, 3, 3]])


def test_valid_mask_marks_each_image():
    mask = valid_mask((3, 4), jnp.asarray([[2, 3], [3, 1]]))
    expected = np.zeros((2, 3, 4, 1), bool)
    expected[0, :2, :3] = expected[1, :, :1] = True
    np.testing.assert_array_equal(mask, expected)
