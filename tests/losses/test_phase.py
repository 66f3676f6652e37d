import jax
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.losses.phase import phase_loss


def by_loops(sr, hr, period):
    """The same, one window and one phase at a time, in float64."""
    error, window, values = np.float64(sr) - np.float64(hr), 6 * period, []
    for image in error:
        for top in range(0, image.shape[0] - window + 1, window):
            for left in range(0, image.shape[1] - window + 1, window):
                for channel in range(image.shape[2]):
                    part = image[top : top + window, left : left + window, channel]
                    means = [part[i::period, j::period].mean() for i in range(period) for j in range(period)]
                    values += [abs(mean - part.mean()) for mean in means]
    return np.mean(values)


@pytest.mark.parametrize(("period", "height", "width"), [(4, 48, 30), (2, 13, 24), (3, 18, 36)])
def test_equals_loops_over_windows_and_phases(period, height, width):
    sr, hr = np.random.default_rng(period).random((2, 2, height, width, 3), np.float32)
    np.testing.assert_allclose(phase_loss(sr, hr, period=period), by_loops(sr, hr, period), rtol=1e-5)


def test_is_the_mean_amplitude_of_a_lattice_and_blind_to_what_has_none():
    hr = np.zeros((1, 48, 48, 1), np.float32)
    lattice = np.tile([[0.1, -0.1], [-0.1, 0.1]], (24, 24)).astype(np.float32)[None, :, :, None]
    np.testing.assert_allclose(phase_loss(hr + lattice, hr, period=4), 0.1, rtol=1e-6)
    stripes = np.sin(2 * np.pi * np.arange(48) / 24)[None, None, :, None] * np.ones_like(hr)  # one per window
    assert phase_loss(hr + 0.7, hr, period=4) < 1e-7
    assert phase_loss((hr + stripes).astype(np.float32), hr, period=2) < 0.13 * np.abs(stripes).mean()


def test_no_gradient_flows_into_hr():
    sr, hr = np.random.default_rng(0).random((2, 1, 24, 24, 3), np.float32)
    assert not np.any(jax.grad(lambda hr: phase_loss(sr, hr, period=4))(hr))
    assert np.any(jax.grad(lambda sr: phase_loss(sr, hr, period=4))(sr))


def test_images_smaller_than_a_window_are_refused():
    images = np.zeros((1, 24, 20, 3), np.float32)
    with pytest.raises(UserError, match="24 pixels"):
        phase_loss(images, images, period=4)
