import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.ops.quantize import to_uint8


def test_to_uint8_returns_every_grey_level():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(levels.astype(np.float32) / 255), levels)
    np.testing.assert_array_equal(to_uint8(levels / 255), levels)


def test_to_uint8_clips_and_rounds():
    values = np.array([-1.0, -1e-6, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0001, 7.0])
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 0, 1, 255, 255, 255])


def test_to_uint8_rounds_ties_to_even():
    values = np.float32([0.5, 1.5, 2.5, 126.5]) / np.float32(255)
    ties = values * np.float32(255) % 1 == 0.5  # those that float32 holds exactly
    assert ties.any()
    np.testing.assert_array_equal(to_uint8(values)[ties], np.array([0, 2, 2, 126])[ties])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_to_uint8_refuses_values_that_are_not_finite(bad):
    with pytest.raises(UserError, match="NaN or infinite"):
        to_uint8(np.array([0.5] * 11 + [bad]))
