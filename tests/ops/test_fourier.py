"""Detail enhancement against the printed equations with explicit DFT matrices in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.ops.fourier import enhance_detail, lattice_bins


def dft_matrix(size: int) -> np.ndarray:
    index = np.arange(size)
    return np.exp(-2j * np.pi * np.outer(index, index) / size)


def printed_enhancement(images: np.ndarray, alpha: float, mu: float, mode: str) -> np.ndarray:
    """Eq. 12-17; the inverse is the conjugate transpose, and the real part is taken at the end."""
    _, height, width, _ = images.shape
    axes = []
    for size in (height, width):
        index = np.arange(size)
        axes.append(alpha * np.exp(-((index - (size - 1) / 2) ** 2) / (2 * mu**2)))
    gain = np.outer(*axes) + (mode == "residual")
    forward_h, forward_w = dft_matrix(height), dft_matrix(width)
    spectrum = np.einsum("ki,nijc,lj->nklc", forward_h, images.astype(np.float64), forward_w)
    spectrum *= gain[None, :, :, None]
    inverse_h, inverse_w = forward_h.conj().T / height, forward_w.conj().T / width
    return np.einsum("ik,nklc,jl->nijc", inverse_h, spectrum, inverse_w).real


@pytest.mark.parametrize(
    ("height", "width", "alpha", "mu", "mode"),
    [
        (16, 16, 1.0, 4.0, "multiply"),
        (16, 16, 3.0, 4.0, "residual"),
        (9, 14, 0.5, 2.0, "multiply"),
        (12, 7, 1.5, 50.0, "multiply"),
        (15, 5, 2.0, 1.0, "residual"),
    ],
)
def test_enhance_detail_equals_printed_equations(height, width, alpha, mu, mode):
    images = np.random.default_rng(height).random((2, height, width, 3)).astype(np.float32)
    expected = printed_enhancement(images, alpha, mu, mode)
    enhanced = enhance_detail(images, alpha=alpha, mu=mu, mode=mode)
    assert enhanced.dtype == jnp.float32
    np.testing.assert_allclose(enhanced, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    ("height", "width", "alpha", "mu", "mode"),
    [(16, 16, 1.0, 3.0, "multiply"), (9, 14, 0.5, 2.0, "multiply"), (12, 7, 2.0, 1.0, "residual")],
)
def test_radial_kernel_depends_on_the_radius_alone(height, width, alpha, mu, mode):
    images = np.random.default_rng(width).random((2, height, width, 3)).astype(np.float32)
    gain = np.empty((height, width))
    for i, j in np.ndindex(height, width):
        radius = ((min(i, height - i) / height) ** 2 + (min(j, width - j) / width) ** 2) ** 0.5
        bins_from_nyquist = min(height, width) * (radius - 0.5)
        gain[i, j] = alpha**2 * np.exp(-(bins_from_nyquist**2) / (2 * mu**2)) + (mode == "residual")
    spectrum = np.fft.fft2(images.astype(np.float64), axes=(1, 2)) * gain[None, :, :, None]
    expected = np.fft.ifft2(spectrum, axes=(1, 2)).real
    enhanced = enhance_detail(images, alpha=alpha, mu=mu, mode=mode, kernel="radial")
    np.testing.assert_allclose(enhanced, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(("kernel", "gain"), [("radial", 1.0), ("separable", 0.153)])
def test_only_the_radial_kernel_keeps_the_finest_stripes(kernel, gain):
    """Gains at the Nyquist frequency of one axis; the separable one's is e^(-15.5^2 / 128), for mu = N/4."""
    stripes = np.tile(np.float32([0, 1]), 16)[None, None, :, None] * np.ones((1, 32, 1, 1), np.float32)
    enhanced = enhance_detail(stripes, alpha=1.0, mu=8.0, kernel=kernel)
    contrast = (enhanced[..., 1::2, :] - enhanced[..., ::2, :]).mean()
    assert contrast == pytest.approx(gain, rel=0.01)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (50, 41)])
def test_notched_kernel_removes_the_frequencies_of_lattices_alone(height, width):
    """A wave goes if it is at most a bin from (k/8, l/8) cycles per pixel; the others stay."""
    rng = np.random.default_rng(height)
    image = rng.standard_normal((1, height, width, 1)).astype(np.float32)
    radial, notched = (
        np.fft.fft2(enhance_detail(image, alpha=1.0, mu=60.0, kernel=kernel)[0, :, :, 0])
        for kernel in ("radial", "radial_notched")
    )
    removed = np.zeros((height, width), bool)
    for point in set(np.ndindex(9, 9)) - {(0, 0), (0, 8), (8, 0), (8, 8)}:  # 8 is 0 again
        row, column = height * point[0] / 8, width * point[1] / 8
        for i, j in np.ndindex(height, width):
            removed[i, j] |= max(abs(i - row), abs(j - column)) <= 1
    tolerance = 1e-4 * np.abs(radial).max()
    np.testing.assert_allclose(notched, np.where(removed, 0, radial), rtol=0, atol=tolerance)
    assert np.abs(radial[removed]).min() > 2 * tolerance


@pytest.mark.parametrize("period", [2, 4, 8])
def test_lattice_bins_hold_the_power_of_a_lattice(period):
    lattice = np.tile(
        np.random.default_rng(period).standard_normal((period, period)), (48 // period, 48 // period)
    )
    power = np.abs(np.fft.fft2(lattice - lattice.mean())) ** 2
    bins = lattice_bins(48, 48, period=period)
    assert bins.sum() == period**2 - 1
    np.testing.assert_allclose(power[bins].sum(), power.sum())


def test_enhance_detail_is_its_own_adjoint():
    """The transform is linear and symmetric, so its gradient is the transform itself."""
    rng = np.random.default_rng(1)
    images, weights = rng.random((2, 2, 12, 10, 3)).astype(np.float32)
    enhance = partial(enhance_detail, alpha=1.0, mu=3.0)
    gradient = jax.grad(lambda x: jnp.sum(weights * enhance(x)))(images)
    np.testing.assert_allclose(gradient, enhance(weights), rtol=0, atol=1e-6)


def test_enhance_detail_takes_flat_images_to_nearly_nothing():
    flat = np.full((1, 32, 32, 3), 0.8, np.float32)
    assert np.abs(enhance_detail(flat, alpha=1.0, mu=4.0)).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mode": "multiple"}, "nearest: multiply"),
        ({"kernel": "radical"}, "nearest: radial"),
        ({"kernel": "radial_notched"}, "at least 32 pixels"),
        ({"mu": 0.0}, "mu"),
        ({"alpha": -1.0}, "alpha"),
    ],
)
def test_enhance_detail_refuses(change, text):
    with pytest.raises(UserError, match=text):
        enhance_detail(jnp.zeros((1, 8, 8, 3)), **{"alpha": 1.0, "mu": 2.0, **change})


def test_enhance_detail_refuses_one_image_without_batch_axis():
    with pytest.raises(UserError, match=r"\[N,H,W,C\]"):
        enhance_detail(jnp.zeros((8, 8, 3)), alpha=1.0, mu=2.0)
