"""PSNR and SSIM by BasicSR's conventions, in float64, strip by strip.

Both take 8-bit images, crop the border, convert to Y if asked (not rounded), and measure one image pair. The
value of a data set is the mean over its images.
"""

import numpy as np

from decloss_jax import checks
from decloss_jax.ops.color import Y_OFFSET, Y_WEIGHTS

PEAK = 255.0  # largest 8-bit value; also used for Y, whose own range ends at 235

# SSIM (Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004).
WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2

STRIP = 16  # rows measured at once, so that the working memory stays in the processor's cache
Y_OF_LEVELS = np.asarray(Y_WEIGHTS) / PEAK


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
    sr, hr = crop_pair(sr_uint8, hr_uint8, crop_border=crop_border, channel=channel, smallest=1)
    total = 0.0
    for start in range(0, hr.shape[0], STRIP):
        rows = np.s_[start : start + STRIP]
        difference = np.subtract(sr[rows], hr[rows], dtype=np.int16).astype(np.float64)
        if channel == "y":
            difference = difference @ Y_OF_LEVELS  # the offset cancels
        total += np.vdot(difference, difference)
    error = total / (hr.size if channel == "rgb" else hr.size // 3)
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
    sr, hr = crop_pair(sr_uint8, hr_uint8, crop_border=crop_border, channel=channel, smallest=WINDOW_SIZE)
    take = CHANNELS[channel]
    sums, count = 0.0, 0
    for start in range(0, hr.shape[0] - WINDOW_SIZE + 1, STRIP):
        rows = np.s_[start : start + STRIP + WINDOW_SIZE - 1]
        values = ssim_map(take(sr[rows]), take(hr[rows]))
        sums, count = sums + np.sum(values), count + values.size
    return float(sums / count)


def ssim_map(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Computes SSIM of [H,W,C] for each place of the window: [H-10,W-10,C]; H is at most `STRIP` + 10."""
    mean_sr, mean_hr = windowed_mean(sr), windowed_mean(hr)
    product, squares = mean_sr * mean_hr, mean_sr**2 + mean_hr**2
    covariance = windowed_mean(sr * hr) - product
    variances = windowed_mean(sr**2 + hr**2) - squares
    return (2 * product + C1) / (squares + C1) * ((2 * covariance + C2) / (variances + C2))


def crop_pair(
    sr_uint8: np.ndarray, hr_uint8: np.ndarray, *, crop_border: int, channel: str, smallest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks a pair and its channel, and cuts its border: uint8 [H',W',3].

    Raises:
        UserError: other shapes or dtypes, fewer than `smallest` pixels left on a side, an unknown channel.
    """
    checks.check_same_shape("sr", sr_uint8, "hr", hr_uint8)
    for name, image in (("sr", sr_uint8), ("hr", hr_uint8)):
        checks.check_uint8_image(name, image)
    checks.look_up(CHANNELS, channel, "channel")
    height, width = (side - 2 * crop_border for side in hr_uint8.shape[:2])
    checks.check(
        crop_border >= 0 and min(height, width) >= smallest,
        "crop_border",
        expected=f"at least {smallest} x {smallest} of {list(hr_uint8.shape[:2])} pixels left inside it",
        got=crop_border,
        remedy="cut less or measure larger images",
    )
    inside = np.s_[crop_border : crop_border + height, crop_border : crop_border + width]
    return sr_uint8[inside], hr_uint8[inside]


def take_rgb(image_uint8: np.ndarray) -> np.ndarray:
    """Returns the three channels, float64 [H,W,3] in 0..255."""
    return image_uint8.astype(np.float64)


def take_y(image_uint8: np.ndarray) -> np.ndarray:
    """Returns the luma, float64 [H,W,1] in 16..235."""
    return (image_uint8 @ Y_OF_LEVELS + Y_OFFSET)[..., None]


CHANNELS = {"rgb": take_rgb, "y": take_y}


def gaussian_window() -> np.ndarray:
    """Returns the weights of the window along one side, [11]; their sum is 1."""
    offsets = np.arange(WINDOW_SIZE) - WINDOW_SIZE // 2
    weights = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    return weights / weights.sum()


WINDOW = gaussian_window()
# Row i averages rows i to i+10 of a strip.
DOWN = sum(weight * np.eye(STRIP, STRIP + WINDOW_SIZE - 1, k) for k, weight in enumerate(WINDOW))


def windowed_mean(images: np.ndarray) -> np.ndarray:
    """Averages [H,W,C] under the Gaussian window where it lies inside: [H-10,W-10,C]; H as in `ssim_map`."""
    height, width, channels = images.shape
    inside = width - WINDOW_SIZE + 1
    rows = DOWN[: height - WINDOW_SIZE + 1, :height] @ images.reshape(height, -1)

    def shifted(k: int) -> np.ndarray:
        return rows[:, channels * k : channels * (k + inside)]

    middle = WINDOW_SIZE // 2
    mean = WINDOW[middle] * shifted(middle)
    for k in range(middle):  # the window is symmetric
        mean += WINDOW[k] * (shifted(k) + shifted(WINDOW_SIZE - 1 - k))
    return mean.reshape(-1, inside, channels)
