"""PSNR on the validation images during training, and sample strips for the eye."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from decloss_jax import checks
from decloss_jax.data.cache import PairedImages
from decloss_jax.metrics.fidelity import psnr
from decloss_jax.ops.detail import find_detail
from decloss_jax.ops.padding import Size

# (params, read, sizes) -> index and SR image of each image, uint8, in any order; as `inference.upscale_each`.
UpscaleEach = Callable[[Any, Callable[[int], np.ndarray], Sequence[Size]], Iterable[tuple[int, np.ndarray]]]


def check_sizes(images: PairedImages, scale: int) -> None:
    """Raises `UserError` for an image that has no pixel inside the border of s pixels."""
    for index, name in enumerate(images.names):
        checks.check(
            min(images.size(index)) > 2 * scale,
            f"validation image {name}",
            expected=f"more than {2 * scale} pixels on each side",
            got=" x ".join(map(str, images.size(index))),
            remedy="take it out of the folder",
        )


SAMPLE_SIDE = 256  # HR pixels; a smaller image is shown whole


def strip(low: np.ndarray, sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Joins low (each pixel repeated to the size of hr), sr and hr side by side: uint8 [H,3W,3]."""
    scale = hr.shape[0] // low.shape[0]
    return np.concatenate([low.repeat(scale, axis=0).repeat(scale, axis=1), sr, hr], axis=1)


def sample_place(hr: np.ndarray, scale: int) -> tuple[slice, slice]:
    """Chooses the part of an image for its strips, the same in every evaluation: rows and columns in LR."""
    rows, columns = find_detail(hr, SAMPLE_SIDE)
    return slice(rows.start // scale, rows.stop // scale), slice(
        columns.start // scale, columns.stop // scale
    )


def validate(
    params: Any,
    images: PairedImages,
    *,
    upscale_each: UpscaleEach,
    scale: int,
    samples: int,
    show: Callable[[str, np.ndarray], None],
    stopped: Callable[[], bool],
) -> dict[str, float] | None:
    """Measures the generator on whole images.

    Args:
        params: its parameters.
        images: pairs of uint8 images.
        upscale_each: makes the SR images.
        scale: s; also the border that is cropped, as in BasicSR.
        samples: the number of images, from the first on, to show as strips (low | sr | hr of the part with
            the most detail).
        show: receives the name of an image and its strip, uint8 [H,3W,3].
        stopped: called before each image except the first.

    Returns:
        {"psnr_y": dB, "psnr_rgb": dB}, means over the images; empty without images; None if `stopped`
        returned true.
    """
    count = len(images)
    if count == 0:
        return {}
    values: dict[str, list[float]] = {"psnr_y": [0.0] * count, "psnr_rgb": [0.0] * count}
    sizes = [(height // scale, width // scale) for height, width in map(images.size, range(count))]
    for done, (index, sr) in enumerate(upscale_each(params, images.low, sizes)):
        if done > 0 and stopped():
            return None
        hr = images.hr(index)
        for channel in ("y", "rgb"):
            values[f"psnr_{channel}"][index] = psnr(sr, hr, crop_border=scale, channel=channel)
        if index < samples:
            place = sample_place(hr, scale)
            large = tuple(slice(scale * side.start, scale * side.stop) for side in place)
            show(images.names[index], strip(images.low(index)[place], sr[large], hr[large]))
    return {name: float(np.mean(column)) for name, column in values.items()}
