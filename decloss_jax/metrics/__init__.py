"""The metrics, and `METRICS`, the table of the columns that an evaluation can measure.

- `fidelity`: PSNR and SSIM
- `lpips`, `feature_distance`: LPIPS; the network with its weights, and the mathematics alone
- `niqe`: quality without a reference
- `icoo`: the paper's index of texture
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from decloss_jax.metrics.fidelity import psnr, ssim
from decloss_jax.metrics.icoo import icoo
from decloss_jax.metrics.lpips import lpips, lpips_each
from decloss_jax.metrics.niqe import niqe, niqe_or_nan

__all__ = ["METRICS", "METRIC_GROUPS", "Metric", "icoo", "lpips", "lpips_each", "niqe", "psnr", "ssim"]

Images = Sequence[np.ndarray]  # uint8 [H,W,3], of any sizes

ICOO_SEED = 0  # one seed, so that all methods are measured on the same mini-patches


class Metric(NamedTuple):
    """One column of a table.

    Attributes:
        function: (sr_images, hr_images, *, crop_border) -> one value for each image, or one for the set; NaN
            for an image without a value. PSNR, SSIM and NIQE crop the border.
        unit: "dB", or empty.
        better: the direction of improvement.
        of: "image" for one value per image (their mean is the set's value), "set" for one value in all.
        network: the packaged network that the metric uses (`weights/trunks.py`), or empty.
    """

    function: Callable[..., Iterable[float]]
    unit: str
    better: Literal["higher", "lower"]
    of: Literal["image", "set"] = "image"
    network: str = ""


def each(function: Callable[..., float], channel: str) -> Callable[..., Iterator[float]]:
    """Makes a metric of many image pairs from a metric of one pair, for one channel."""

    def measure(sr_images: Images, hr_images: Images, *, crop_border: int) -> Iterator[float]:
        for sr, hr in zip(sr_images, hr_images, strict=True):
            yield function(sr, hr, crop_border=crop_border, channel=channel)

    return measure


def each_lpips(net: str, scaling: str) -> Callable[..., Iterator[float]]:
    """Makes a metric of many image pairs from LPIPS with one network and scaling."""

    def measure(sr_images: Images, hr_images: Images, *, crop_border: int) -> Iterator[float]:
        return lpips_each(sr_images, hr_images, net=net, scaling=scaling)

    return measure


def each_niqe(sr_images: Images, hr_images: Images, *, crop_border: int) -> Iterator[float]:
    """Computes NIQE of each SR image; NaN for one that is too small. The HR images are not used."""
    for sr in sr_images:
        yield niqe_or_nan(sr, crop_border=crop_border)


def icoo_of_set(sr_images: Images, hr_images: Images, *, crop_border: int) -> Iterator[float]:
    """Computes ICOO with the pool "dataset" and the seed that all evaluations share."""
    yield icoo(sr_images, hr_images, seed=ICOO_SEED)


METRICS = {
    "psnr_rgb": Metric(each(psnr, "rgb"), "dB", "higher"),
    "psnr_y": Metric(each(psnr, "y"), "dB", "higher"),
    "ssim_rgb": Metric(each(ssim, "rgb"), "", "higher"),
    "ssim_y": Metric(each(ssim, "y"), "", "higher"),
    "lpips_alex": Metric(each_lpips("alex", "official"), "", "lower", network="alexnet"),
    "lpips_vgg": Metric(each_lpips("vgg", "official"), "", "lower", network="vgg16"),
    "lpips_vgg_unscaled": Metric(each_lpips("vgg", "unscaled_255"), "", "lower", network="vgg16"),
    "niqe": Metric(each_niqe, "", "lower"),
    "icoo": Metric(icoo_of_set, "dB", "lower", of="set"),
}

# The names that --metrics accepts; a group stands for its columns.
METRIC_GROUPS = {
    "psnr": ("psnr_rgb", "psnr_y"),
    "ssim": ("ssim_rgb", "ssim_y"),
    **{name: (name,) for name in METRICS},
}
