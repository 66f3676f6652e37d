"""rgb_to_y against hand-computed values and scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.ops.color import rgb_to_y


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((0, 0, 0), 16.0), ((1, 1, 1), 235.0), ((1, 0, 0), 81.481), ((0, 1, 0), 144.553), ((0, 0, 1), 40.966)],
)
def test_rgb_to_y_corners_of_the_cube(rgb, expected):
    image = np.full((2, 3, 3), rgb, np.float64)
    np.testing.assert_allclose(rgb_to_y(image), np.full((2, 3), expected), rtol=0, atol=1e-12)


def test_rgb_to_y_equals_scikit_image():
    from skimage.color import rgb2ycbcr

    images = np.random.default_rng(0).random((2, 5, 7, 3))
    np.testing.assert_allclose(rgb_to_y(images), rgb2ycbcr(images)[..., 0], rtol=0, atol=1e-11)


def test_rgb_to_y_takes_jax_arrays():
    images = np.random.default_rng(1).random((4, 5, 3), np.float32)
    y = rgb_to_y(jnp.asarray(images))
    assert isinstance(y, jnp.ndarray)
    np.testing.assert_allclose(y, rgb_to_y(images), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (3, 4, 5), (4, 3)])
def test_rgb_to_y_refuses_other_shapes(shape):
    with pytest.raises(UserError, match="expected shape"):
        rgb_to_y(np.zeros(shape))
