"""PSNR and SSIM by BasicSR's conventions, in float64.

Order of work, for both: images of 8 bits, cut the border, take Y where asked (not rounded), measure one image
pair. A data set's value is the mean of its images' values.
"""

import numpy as np

from decloss_jax import checks
from decloss_jax.ops.color import rgb_to_y

PEAK = 255.0  # largest value of 8 bits; also for Y, whose own range ends at 235

# SSIM (Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004).
WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2


def psnr(sr_uint8: np.ndarray, hr_uint8: np.ndarray, *, crop_border: int, channel: str = "rgb") -> float:
    """Computes the peak signal-to-noise ratio, 10 log10(255^2 / mean((sr - hr)^2)).

    Args:
        sr_uint8: [H,W,3] uint8.
        hr_uint8: the same shape.
        crop_border: pixels cut off each side; the field's habit is the scale.
        channel: "rgb" (mean over all three) or "y" (BT.601 luma, 16..235).

    Returns:
        Decibels; infinity for equal images.

    Raises:
        UserError: other shapes or dtypes, a border that leaves nothing, an unknown channel.
    """
    sr, hr = prepare(sr_uint8, hr_uint8, crop_border=crop_border, channel=channel, smallest=1)
    error = np.mean((sr - hr) ** 2)
    return float("inf") if error == 0 else float(10.0 * np.log10(PEAK**2 / error))


def ssim(sr_uint8: np.ndarray, hr_uint8: np.ndarray, *, crop_border: int, channel: str = "rgb") -> float:
    """Computes the structural similarity with an 11x11 Gaussian window of sigma 1.5.

    SSIM = (2 m_s m_h + C1) (2 c_sh + C2) / ((m_s^2 + m_h^2 + C1) (v_s + v_h + C2)), with the windowed means
    m, variances v and covariance c; the mean over all pixels whose window lies inside, and all channels.

    Args:
        sr_uint8: [H,W,3] uint8.
        hr_uint8: the same shape.
        crop_border: pixels cut off each side; the field's habit is the scale.
        channel: "rgb" (mean of the three channels' values) or "y" (BT.601 luma, 16..235).

    Returns:
        A number in [-1,1]; 1 for equal images.

    Raises:
        UserError: other shapes or dtypes, fewer than 11 pixels left on a side, an unknown channel.
    """
    sr, hr = prepare(sr_uint8, hr_uint8, crop_border=crop_border, channel=channel, smallest=WINDOW_SIZE)
    mean_sr, mean_hr = windowed_mean(sr), windowed_mean(hr)
    variances = windowed_mean(sr**2 + hr**2) - mean_sr**2 - mean_hr**2
    covariance = windowed_mean(sr * hr) - mean_sr * mean_hr
    luminance = (2 * mean_sr * mean_hr + C1) / (mean_sr**2 + mean_hr**2 + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return float(np.mean(luminance * structure))


def prepare(
    sr_uint8: np.ndarray, hr_uint8: np.ndarray, *, crop_border: int, channel: str, smallest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks a pair, cuts its border and takes the channel; float64 [H',W',C] with values in 0..255.

    Raises:
        UserError: other shapes or dtypes, fewer than `smallest` pixels left on a side, an unknown channel.
    """
    checks.check_same_shape("sr", sr_uint8, "hr", hr_uint8)
    for name, image in (("sr", sr_uint8), ("hr", hr_uint8)):
        checks.check_uint8_image(name, image)
    take = checks.look_up(CHANNELS, channel, "channel")
    height, width = (side - 2 * crop_border for side in hr_uint8.shape[:2])
    checks.check(
        crop_border >= 0 and min(height, width) >= smallest,
        "crop_border",
        expected=f"at least {smallest} x {smallest} of {list(hr_uint8.shape[:2])} pixels left inside it",
        got=crop_border,
        remedy="cut less or measure larger images",
    )
    inside = np.s_[crop_border : crop_border + height, crop_border : crop_border + width]
    return take(sr_uint8[inside]), take(hr_uint8[inside])


def take_rgb(image_uint8: np.ndarray) -> np.ndarray:
    """Returns the three channels, float64 [H,W,3] in 0..255."""
    return image_uint8.astype(np.float64)


def take_y(image_uint8: np.ndarray) -> np.ndarray:
    """Returns the luma, float64 [H,W,1] in 16..235."""
    return rgb_to_y(image_uint8 / PEAK)[..., None]


CHANNELS = {"rgb": take_rgb, "y": take_y}


def windowed_mean(images: np.ndarray) -> np.ndarray:
    """Averages [H,W,C] under the Gaussian window where it lies inside: [H-10,W-10,C]; rows, then columns."""
    offsets = np.arange(WINDOW_SIZE) - WINDOW_SIZE // 2
    weights = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    weights /= weights.sum()
    height, width = (side - WINDOW_SIZE + 1 for side in images.shape[:2])
    rows = sum(weight * images[k : k + height] for k, weight in enumerate(weights))
    return sum(weight * rows[:, k : k + width] for k, weight in enumerate(weights))
