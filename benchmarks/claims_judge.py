"""Judges changed pictures: metrics, the share of a lattice in the change, and grain of the same PSNR cost.

Pictures are [N,H,W,3] floats in [0,1]. Frequencies are in cycles
per pixel.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from decloss_jax.metrics import icoo, lpips_each, niqe, psnr
from decloss_jax.ops.fourier import lattice_bins
from decloss_jax.ops.quantize import to_uint8

BORDER = 4  # pixels, for PSNR
LPIPS = ("lpips_alex", "lpips_vgg")
# Name -> (period, margin in bins): the exact frequencies of a lattice of 4 pixels, and those of 8 pixels with
# 3x3 and 9x9 bins, which also see a lattice whose strength varies over the picture.
SHARES = {"period 4": (4, 0), "period 8, 3x3": (8, 1), "period 8, 9x9": (8, 4)}
NO_LATTICE = 1.5  # `lattice_excess` at most; grain has 1.0 to 1.3
BANDS = ((0, 0.125), (0.125, 0.25), (0.25, 0.5))  # the LR images have the frequencies below 0.125
GRAIN_BAND = (0.25, 0.5)
SR_BAND = (0.125, 0.25)  # where SR still has the texture that it lacks in `GRAIN_BAND`
LOCAL_SIGMA = 4.0  # pixels, of the Gaussian that averages HR's local power


def measure(pictures: np.ndarray, hr: np.ndarray) -> dict[str, Any]:
    """Returns lists of PSNR (dB), both LPIPS and NIQE, one value for each picture, and ICOO (dB) of all."""
    pairs = [(to_uint8(picture), to_uint8(truth)) for picture, truth in zip(pictures, hr, strict=True)]
    values: dict[str, Any] = {"psnr_rgb": psnr_of(pictures, hr).tolist()}
    for net in ("alex", "vgg"):
        values[f"lpips_{net}"] = [float(value) for value in lpips_each(*zip(*pairs, strict=True), net=net)]
    values["niqe"] = [niqe(picture) for picture, _ in pairs]
    values["icoo"] = icoo(*zip(*pairs, strict=True), seed=0)
    return values


def psnr_of(pictures: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Returns PSNR RGB of each picture after rounding to 8 bits, dB."""
    pairs = zip(pictures, hr, strict=True)
    return np.array([psnr(to_uint8(a), to_uint8(b), crop_border=BORDER) for a, b in pairs])


def lattice_shares(change: np.ndarray) -> dict[str, float]:
    """Returns the fraction of the power of the change [N,H,W,C] in each of `SHARES`, without the mean's."""
    power = np.sum(np.abs(np.fft.fft2(change.astype(np.float64), axes=(1, 2))) ** 2, axis=(0, 3))
    power[0, 0] = 0
    total = power.sum()
    return {
        name: float(power[lattice_bins(*power.shape, period=period, margin=margin)].sum() / total)
        for name, (period, margin) in SHARES.items()
    }


def white_noise_shares(side: int) -> dict[str, float]:
    """Returns what `lattice_shares` expects of white noise in squares: the fraction of the bins."""
    return {
        name: float(lattice_bins(side, side, period=period, margin=margin).sum() / (side**2 - 1))
        for name, (period, margin) in SHARES.items()
    }


def lattice_excess(shares: Mapping[str, float], white_noise: Mapping[str, float]) -> float:
    """Returns the power per bin at most 1 bin from (k/8, l/8), relative to that 2 to 4 bins away.

    It is near 1 for any change with a smooth spectrum, white or not.
    """
    inner, outer = "period 8, 3x3", "period 8, 9x9"
    inside = shares[inner] / white_noise[inner]
    outside = (shares[outer] - shares[inner]) / (white_noise[outer] - white_noise[inner])
    return inside / outside


def restored(change: np.ndarray, missing: np.ndarray) -> dict[str, list[float]]:
    """Tells how much of a change is detail that HR has: for each of `BANDS`, two numbers.

    They are the power of the change relative to that of the missing detail HR - SR, and the cosine of both:
    1 for true detail, 0 for detail that has nothing to do with HR, as grain.
    """
    spectra = [np.fft.fft2(each.astype(np.float64), axes=(1, 2)) for each in (change, missing)]
    found = {}
    for (low, high), mask in zip(BANDS, band_masks(change.shape[1], BANDS), strict=True):
        of, to = (each[:, mask] for each in spectra)
        power, whole = (float(np.sum(np.abs(each) ** 2)) for each in (of, to))
        found[f"{low:g} to {high:g}"] = [power / whole, cosine(of, to) if power else 0.0]
    return found


def band_masks(size: int, bands: Sequence[tuple[float, float]]) -> list[np.ndarray]:
    """Returns [S,S] masks of the DFT's frequencies in each band; a band that starts at 0 lacks the mean."""
    frequencies = np.fft.fftfreq(size)
    radius = np.hypot(frequencies[:, None], frequencies)
    return [(radius > low) & (radius <= high) for low, high in bands]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b.conj()).real / np.sqrt(np.sum(np.abs(a) ** 2) * np.sum(np.abs(b) ** 2)))


def filtered(planes: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filters planes [N,H,W] with a gain that depends on the radial frequency."""
    _, height, width = planes.shape
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return np.fft.ifft2(np.fft.fft2(planes) * gain(radius)).real


def grain_of(reference: np.ndarray, *, seed: int, measured: tuple[float, float] = GRAIN_BAND) -> np.ndarray:
    """Makes grey noise of `GRAIN_BAND` whose local strength is that of a reference: [N,H,W,1].

    It knows where the reference has texture, and nothing of the texture itself.

    Args:
        reference: HR; or SR, for grain that does not know HR.
        seed: of the noise.
        measured: the band in which the reference's strength is measured.
    """

    def within(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda radius: (radius >= low) & (radius <= high)

    def blur(radius: np.ndarray) -> np.ndarray:
        return np.exp(-2 * (np.pi * LOCAL_SIGMA * radius) ** 2)

    luma = reference.astype(np.float64).mean(axis=-1)
    # Rounding may leave -1e-20.
    power = np.maximum(filtered(filtered(luma, within(*measured)) ** 2, blur), 0)
    noise = filtered(np.random.default_rng(seed).standard_normal(luma.shape), within(*GRAIN_BAND))
    return (np.sqrt(power) * noise / noise.std())[..., None]


def grain_control(plain: np.ndarray, hr: np.ndarray, *, cost: float, seed: int) -> tuple[float, np.ndarray]:
    """Adds grain of a given cost to pictures.

    Args:
        plain: the pictures.
        hr: the ground truth.
        cost: mean loss of PSNR, dB; not above 0 means no grain.
        seed: of the grain.

    Returns:
        The grain's strength relative to HR's, to 1e-4, and the pictures with it.
    """
    grain = grain_of(hr, seed=seed)
    before = psnr_of(plain, hr).mean()
    low, high = 0.0, 4.0
    while cost > 0 and high - low > 1e-4:
        middle = (low + high) / 2
        if before - psnr_of(plain + middle * grain, hr).mean() < cost:
            low = middle
        else:
            high = middle
    return low, plain + low * grain


def difference(values: Mapping[str, Any], others: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """Returns the mean of the paired differences over photographs, and its standard error."""
    differences = np.subtract(values[metric], others[metric])
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


def verdict(run: Mapping[str, Any], plain: Mapping[str, Any], white_noise: Mapping[str, float]) -> list[str]:
    """Returns the reasons for which a run does not count as better than L1 alone; none: it counts.

    Better means: both LPIPS fall; no lattice; and against grain of the same cost one LPIPS is lower and the
    other not higher. "Falls" and "lower" mean by two standard errors, "higher" by one.
    """
    reasons = []
    for metric in LPIPS:
        mean, error = difference(run["values"], plain["values"], metric)
        if mean > -2 * error:
            reasons.append(f"{metric} does not fall")
    if lattice_excess(run["shares"], white_noise) > NO_LATTICE:
        reasons.append("lattice")
    against = [difference(run["values"], run["control"]["values"], metric) for metric in LPIPS]
    lower = any(mean < -2 * error for mean, error in against)
    higher = any(mean > error for mean, error in against)
    if higher or not lower:
        reasons.append("grain does as well")
    return reasons
