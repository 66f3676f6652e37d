"""Enhances the detail of images in Fourier space (Eq. 12-17)."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from decloss_jax import checks

# The gain of the spectrum: the kernel alone, as printed, or added to the image itself.
MODES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "multiply": lambda kernel: kernel,
    "residual": lambda kernel: 1.0 + kernel,
}

# Of "radial_notched": the longest period of the lattices, and the images' smallest side, both in pixels.
NOTCH_PERIOD = 8
SMALLEST_NOTCHED = 32


def separable_kernel(height: int, width: int, *, alpha: float, mu: float) -> np.ndarray:
    """Returns the half-plane kernel of Eq. 15, symmetrised, for the real transform.

    K_N[i] = alpha exp(-(i - (N - 1)/2)^2 / (2 mu^2)) for i = 0 .. N-1 in the DFT's own order: i = 0 is the
    mean and the middle the Nyquist frequency, so low frequencies are suppressed. The kernel is the outer
    product K[i,j] = K_H[i] K_W[j]; its centre (N - 1)/2 lies half a bin below the Nyquist frequency, so
    K[i,j] and K[-i,-j] differ a little. Taking the real part after the inverse transform is the same as
    using their mean, which the real transform can represent.

    Args:
        height: H, pixels.
        width: W, pixels.
        alpha: factor of each axis (alpha^2 altogether), above 0.
        mu: width of the Gaussian in frequency bins, above 0.

    Returns:
        [H, W // 2 + 1] float64, dimensionless gain.
    """

    def axis_kernel(size: int) -> np.ndarray:
        return alpha * np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * mu**2))

    def mirrored(kernel: np.ndarray) -> np.ndarray:
        """K[-i modulo N]."""
        return np.roll(kernel[::-1], 1)

    rows, columns = axis_kernel(height), axis_kernel(width)
    kernel = (np.outer(rows, columns) + np.outer(mirrored(rows), mirrored(columns))) / 2
    return kernel[:, : width // 2 + 1]


def radial_kernel(height: int, width: int, *, alpha: float, mu: float) -> np.ndarray:
    """Returns a kernel that treats all directions alike; it is not the paper's.

    The outer product of Eq. 15 passes mostly diagonal detail, and peaks at the corner of the spectrum. Here
    the Gaussian depends on the radius and peaks at the Nyquist frequency of an axis: the gain is
    alpha^2 exp(-(b - N/2)^2 / (2 mu^2)) at b = N sqrt((i/H)^2 + (j/W)^2) bins from the mean, N = min(H, W).

    Args, Returns: as `separable_kernel`.
    """
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    bins = min(height, width) * (radius - 0.5)
    return alpha**2 * np.exp(-(bins**2) / (2 * mu**2))


def lattice_bins(height: int, width: int, *, period: int, margin: int = 0) -> np.ndarray:
    """Finds the frequencies of patterns that repeat along both axes.

    They are the points (k/period, l/period) cycles per pixel, k and l whole numbers, without the mean. A bin
    belongs to a point if it is at most `margin` bins away along each axis.

    Args:
        height: H, pixels.
        width: W, pixels.
        period: of the patterns, pixels.
        margin: bins.

    Returns:
        [H,W] booleans, in the DFT's order.
    """

    def points_near(size: int) -> tuple[np.ndarray, np.ndarray]:
        """Tells for each bin of an axis whether it is near a point, and whether that point is 0."""
        bins = np.arange(size)
        k = np.round(bins * period / size)
        return np.abs(bins - k * size / period) <= margin, k % period == 0

    (rows, rows_zero), (columns, columns_zero) = points_near(height), points_near(width)
    return np.outer(rows, columns) & ~np.outer(rows_zero, columns_zero)


def radial_notched_kernel(height: int, width: int, *, alpha: float, mu: float) -> np.ndarray:
    """Returns `radial_kernel` without the frequencies of lattices of 8 pixels; it is not the paper's.

    Lattices of 2 and 4 pixels are among them. 8 is the side of the mini-patches, and 4 the stride of the x4
    upsampling. Each of the points (k/8, l/8) cycles per pixel takes its neighbouring bins with it.

    Args, Returns: as `separable_kernel`.

    Raises:
        UserError: H or W below 32, where the notches would leave almost nothing.
    """
    checks.check(
        min(height, width) >= SMALLEST_NOTCHED,
        'images for the kernel "radial_notched"',
        expected=f"height and width of at least {SMALLEST_NOTCHED} pixels",
        got=f"{height} x {width}",
        remedy='use larger crops or the kernel "radial"',
    )
    notches = lattice_bins(height, width, period=NOTCH_PERIOD, margin=1)[:, : width // 2 + 1]
    return np.where(notches, 0.0, radial_kernel(height, width, alpha=alpha, mu=mu))


KERNELS = {
    "separable": separable_kernel,
    "radial": radial_kernel,
    "radial_notched": radial_notched_kernel,
}


def enhance_detail(
    images: Array, *, alpha: float, mu: float, mode: str = "multiply", kernel: str = "separable"
) -> Array:
    """Enhances high frequencies (Eq. 12-17): Re IDFT(K DFT(images)), or Re IDFT((1 + K) DFT(images)).

    Args:
        images: [N,H,W,C], any range.
        alpha: factor of each axis of the kernel, above 0; a Python number.
        mu: width of the kernel's Gaussian in frequency bins, above 0; a Python number.
        mode: "multiply" (the printed equations) or "residual".
        kernel: "separable" (Eq. 15), "radial", the same in all directions, or "radial_notched", that one
            without the frequencies of lattices (`KERNELS`).

    Returns:
        [N,H,W,C] in the unit of `images`; with "multiply" the mean is nearly 0.

    Raises:
        UserError: wrong shape, alpha or mu not above 0, unknown mode or kernel, images too small for it.
    """
    checks.check_images("images", images)
    gain_of = checks.look_up(MODES, mode, "enhancement mode")
    _, height, width, _ = images.shape
    make_kernel = checks.look_up(KERNELS, kernel, "enhancement kernel")
    checks.check_positive("alpha", alpha)
    checks.check_positive("mu", mu)
    gain = gain_of(make_kernel(height, width, alpha=alpha, mu=mu))

    spectrum = jnp.fft.rfft2(images, axes=(1, 2))
    spectrum *= jnp.asarray(gain, images.dtype)[None, :, :, None]
    return jnp.fft.irfft2(spectrum, s=(height, width), axes=(1, 2))
