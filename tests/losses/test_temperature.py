"""What the temperatures of the contrastive loss do: nothing to the gradient where they divide, as printed."""

import functools
import math

import jax
import numpy as np
import pytest

from decloss_jax.losses.contrast import spatial_contrast, spatial_contrast_dense

FORMS = (functools.partial(spatial_contrast, tile_size=5), spatial_contrast_dense)
TEMPERATURES = ((0.5, 1.5), (1.0, 10.0))


@functools.cache
def patches():
    """SR and HR mini-patches of which some are alike, and others not."""
    random = np.random.default_rng(0)
    hr = random.normal(size=(24, 12)).astype(np.float32) * 0.02 + np.repeat([[0.2], [0.6]], 12, axis=0)
    return (hr + random.normal(size=hr.shape) * 0.05).astype(np.float32), hr.astype(np.float32)


def loss_and_gradient(form, temperature, t_pos, t_neg):
    options = {"threshold_db": 10.0, "t_pos": t_pos, "t_neg": t_neg, "temperature": temperature}
    loss, gradient = jax.jit(jax.value_and_grad(functools.partial(form, **options)))(*patches())
    return float(loss), np.asarray(gradient)


@pytest.mark.parametrize("form", FORMS)
def test_printed_temperatures_move_the_loss_by_a_constant_and_leave_the_gradient(form):
    loss, gradient = loss_and_gradient(form, "scale", 1.0, 1.0)
    assert np.abs(gradient).max() > 1e-3
    for t_pos, t_neg in TEMPERATURES:
        other_loss, other_gradient = loss_and_gradient(form, "scale", t_pos, t_neg)
        assert other_loss - loss == pytest.approx(math.log(t_pos / t_neg), abs=1e-5)
        np.testing.assert_array_equal(other_gradient, gradient)


@pytest.mark.parametrize("form", FORMS)
def test_temperatures_in_the_exponent_change_the_gradient(form):
    _, gradient = loss_and_gradient(form, "exponent", 1.0, 1.0)
    for t_pos, t_neg in TEMPERATURES:
        _, other = loss_and_gradient(form, "exponent", t_pos, t_neg)
        assert np.abs(other - gradient).max() > 0.1 * np.abs(gradient).max()
