"""PSNR on the validation images during training, and sample strips to look at."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from PIL import Image

from decloss_jax import checks
from decloss_jax.data.cache import PairedImages
from decloss_jax.inference import upscale
from decloss_jax.metrics.fidelity import psnr
from decloss_jax.ops.padding import shared_shapes
from decloss_jax.ops.quantize import to_uint8


def check_sizes(images: PairedImages, scale: int) -> None:
    """Raises `UserError` for an image that is gone when the border of s pixels is cut, by its name."""
    for index, name in enumerate(images.names):
        checks.check(
            min(images.size(index)) > 2 * scale,
            f"validation image {name}",
            expected=f"more than {2 * scale} pixels on each side",
            got=" x ".join(map(str, images.size(index))),
            remedy="take it out",
        )


def strip(low: np.ndarray, sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Puts low (each pixel repeated to the size of hr), sr and hr side by side: uint8 [H,3W,3]."""
    scale = hr.shape[0] // low.shape[0]
    return np.concatenate([low.repeat(scale, axis=0).repeat(scale, axis=1), sr, hr], axis=1)


def validate(
    model: nn.Module,
    params: Any,
    images: PairedImages,
    *,
    scale: int,
    samples: int,
    sample_prefix: Path,
) -> dict[str, float]:
    """Measures the generator on whole images.

    Args:
        model: the generator.
        params: its parameters, on one device.
        images: pairs of uint8 images, at least one.
        scale: s; also the border that is cut, as in BasicSR.
        samples: how many of the first images are written as strips (low / sr / hr).
        sample_prefix: path of the strips without the image's name.

    Returns:
        {"psnr_y": dB, "psnr_rgb": dB}, means over the images.
    """
    shapes = shared_shapes(images.low(index).shape[:2] for index in range(len(images)))
    values: dict[str, list[float]] = {"psnr_y": [], "psnr_rgb": []}
    for index in range(len(images)):
        low, hr = np.asarray(images.low(index)), np.asarray(images.hr(index))
        sr = to_uint8(upscale(model, params, low, shape=shapes[low.shape[:2]]))
        values["psnr_y"].append(psnr(sr, hr, crop_border=scale, channel="y"))
        values["psnr_rgb"].append(psnr(sr, hr, crop_border=scale, channel="rgb"))
        if index < samples:
            sample_prefix.parent.mkdir(parents=True, exist_ok=True)
            path = sample_prefix.with_name(f"{sample_prefix.name}_{images.names[index]}.png")
            Image.fromarray(strip(low, sr, hr)).save(path)
    return {name: float(np.mean(column)) for name, column in values.items()}
