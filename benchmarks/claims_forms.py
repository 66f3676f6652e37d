"""Forms of DECLoss that only claims.py tries: whitened kernels, and vectors with a constant.

`register` adds them to the package's tables of kernels and colours, for this process.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from decloss_jax.data.sources import build_source
from decloss_jax.losses.decloss import COLORS
from decloss_jax.ops.fourier import KERNELS, NOTCH_PERIOD, lattice_bins, radial_kernel

SIDE = 96  # of the crops of the miniature
MU = 0.2 * SIDE  # bins, of the radial kernel there
CONSTANT = 0.5  # relative to the rms length of HR's vectors with the radial kernel (0.55 without the mean)
Kernel = Callable[..., np.ndarray]


def register(photographs: np.ndarray) -> None:
    """Adds the forms; their constants are measured on luma of HR crops [N,96,96]."""
    amplitude = np.sqrt(np.mean(np.abs(np.fft.rfft2(photographs)) ** 2, axis=0))
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    bins = np.round(SIDE * radius).astype(int)
    profile = np.bincount(bins.ravel(), amplitude.ravel()) / np.bincount(bins.ravel())
    radial = radial_kernel(SIDE, SIDE, alpha=1.0, mu=MU)

    def whitened(of: np.ndarray) -> Kernel:
        """Divides a kernel by HR's mean amplitude; enhanced HR is about as strong as with the radial one."""
        gain = of / profile[bins]
        gain[0, 0] = 0
        gain *= np.sqrt(np.sum((radial * amplitude) ** 2) / np.sum((gain * amplitude) ** 2))
        return lambda height, width, *, alpha, mu: gain

    def radial_and_mean(height: int, width: int, *, alpha: float, mu: float) -> np.ndarray:
        gain = radial_kernel(height, width, alpha=alpha, mu=mu)
        gain[0, 0] = 1
        return gain

    notches = lattice_bins(SIDE, SIDE, period=NOTCH_PERIOD, margin=1)[:, : SIDE // 2 + 1]
    KERNELS["whitened"] = whitened(np.ones_like(radial))
    KERNELS["whitened_notched"] = whitened(np.where(notches, 0.0, 1.0))
    KERNELS["radial_whitened"] = whitened(radial)
    KERNELS["radial_and_mean"] = radial_and_mean

    # sqrt(3) is what "luma" multiplies by. The vectors of HR and of the constant have as many pixels, so the
    # ratio of their lengths is that of the pixels' rms.
    enhanced = np.fft.irfft2(radial * np.fft.rfft2(np.sqrt(3) * photographs), s=(SIDE, SIDE))
    constant = CONSTANT * np.sqrt(np.mean(enhanced**2))

    def luma_and_constant(images: Array) -> Array:
        """Returns luma without its mean, and a second channel that is constant."""
        luma = COLORS["luma"](images)
        luma -= jnp.mean(luma, axis=(1, 2), keepdims=True)
        return jnp.concatenate([luma, jnp.full_like(luma, constant)], axis=-1)

    COLORS["luma_and_constant"] = luma_and_constant


def read_crops(config_data: Any) -> np.ndarray:
    """Returns luma [N,96,96] in [0,1] of the centres of the training photographs."""
    crops = []
    for pair in build_source(config_data, scale=4, split="train"):
        image = pair.hr.load()
        top, left = ((length - SIDE) // 2 for length in image.shape[:2])
        crops.append(image[top : top + SIDE, left : left + SIDE].mean(axis=-1) / 255)
    return np.stack(crops)
