"""NIQE, the distance of an image's statistics from those of pristine photographs, in float64.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal Processing
Letters 20(3), 2013. No reference image is needed. The statistics of the photographs are the authors' own
(`niqe_pristine.npz`; their notice is in `niqe_pristine.txt`).
"""

import functools
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.special

from decloss_jax import checks
from decloss_jax.ops.color import Y_OFFSET, Y_WEIGHTS
from decloss_jax.ops.resize import imresize

BLOCK = 96  # pixels; half of it at half the resolution
WINDOW_RADIUS, WINDOW_SIGMA = 3, 7 / 6  # of the Gaussian for local means and deviations
# Rounding leaves about 1e-14 in flat areas, whose signs would count in the fit; real differences are larger.
FLAT = 1e-9
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, below, and both diagonals
SHAPES = 0.2 + 0.001 * np.arange(9801)  # candidates for the shape of the fitted distribution, 0.2 to 10
PRISTINE = Path(__file__).with_name("niqe_pristine.npz")


def niqe(image: np.ndarray, *, crop_border: int = 0) -> float:
    """Computes sqrt((m - m_p)^T ((C + C_p) / 2)^-1 (m - m_p)) for mean m and covariance C of block features.

    The 36 features of a 96x96 block of the luma describe its locally normalised values and their products
    with neighbours, at two scales; m_p and C_p are those of pristine photographs.

    Args:
        image: [H,W,3] uint8; rows and columns beyond multiples of 96, at the bottom and on the right, are
            not used.
        crop_border: pixels cut off each side first.

    Returns:
        A number of 0 or more, for photographs about 2 to 10; lower is better.

    Raises:
        UserError: not a uint8 image [H,W,3], or fewer than two blocks that are not flat.
    """
    value = niqe_or_nan(image, crop_border=crop_border)
    checks.check(
        not np.isnan(value),
        "image for NIQE",
        expected=f"at least two blocks of {BLOCK}x{BLOCK} pixels that are not flat, inside the border",
        got=f"{' x '.join(map(str, image.shape[:2]))} pixels and a border of {crop_border}",
        remedy="measure a larger image",
    )
    return value


def niqe_or_nan(image: np.ndarray, *, crop_border: int) -> float:
    """Computes NIQE as `niqe` does; NaN for an image with fewer than two blocks that are not flat.

    Raises:
        UserError: not a uint8 image [H,W,3], or a border below 0.
    """
    checks.check_uint8_image("image", image)
    checks.check_range("crop_border", crop_border, 0)
    bottom, right = (max(0, side - crop_border) for side in image.shape[:2])
    return niqe_of_luma(luma_8bit(image[crop_border:bottom, crop_border:right]))


def niqe_of_luma(luma: np.ndarray) -> float:
    """Computes NIQE of whole numbers [H,W] in 0..255; NaN for fewer than two blocks that are not flat."""
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    if height * width < 2 * BLOCK**2:
        return float("nan")
    return distance_to_pristine(niqe_features(luma[:height, :width].astype(np.float64)))


def luma_8bit(image: np.ndarray) -> np.ndarray:
    """Computes BT.601 luma 16..235, rounded half up in exact integers: uint8 [H,W,3] -> int32 [H,W]."""
    weights = np.rint(1000 * np.array(Y_WEIGHTS)).astype(np.int32)  # Y times 255000 is a whole number
    half = 255_000 // 2
    return (image.astype(np.int32) @ weights + (255_000 * int(Y_OFFSET) + half)) // 255_000


def niqe_features(luma: np.ndarray) -> np.ndarray:
    """Computes the features of all blocks: [H,W] in 0..255, sides multiples of 96 -> [blocks,36].

    Blocks are counted down the columns first, as in the authors' code. Each has 18 features at full and 18 at
    half the resolution. The features that are undefined for a flat block are NaN.
    """
    half = imresize(luma[..., None], 0.5, edge="mirror")[..., 0]
    scales = ((normalize(luma), BLOCK), (normalize(half), BLOCK // 2))
    rows = luma.shape[0] // BLOCK
    features = [
        [block_features(cut_row(normalized, row, side)) for row in range(rows)] for normalized, side in scales
    ]
    both = np.concatenate([np.stack(of_scale, axis=1) for of_scale in features], axis=-1)
    return both.reshape(-1, both.shape[-1])  # [columns,rows,36] before


def cut_row(normalized: np.ndarray, row: int, side: int) -> np.ndarray:
    """Cuts one row of blocks out of [H,W]: [columns,side,side]."""
    strip = normalized[row * side : (row + 1) * side]
    return np.ascontiguousarray(strip.reshape(side, -1, side).swapaxes(0, 1))


def normalize(luma: np.ndarray) -> np.ndarray:
    """Subtracts the local mean and divides by the local deviation plus 1: [H,W] -> [H,W]."""
    mean = blur(luma)
    deviation = np.sqrt(np.abs(blur(luma**2) - mean**2))
    centred = luma - mean
    centred[np.abs(centred) < FLAT] = 0.0
    return centred / (deviation + 1.0)


def blur(luma: np.ndarray) -> np.ndarray:
    """Averages [H,W] under a 7x7 Gaussian window."""
    offsets = np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    weights = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    weights /= weights.sum()
    # "nearest" repeats the pixels at the edge.
    rows = scipy.ndimage.correlate1d(luma, weights, axis=0, mode="nearest")
    return scipy.ndimage.correlate1d(rows, weights, axis=1, mode="nearest")


def block_features(blocks: np.ndarray) -> np.ndarray:
    """Describes blocks [n,side,side] of normalised values: [n,18].

    Two features of the values themselves (the shape of the distribution, and the mean of its two scales), and
    four of the products with each of the four neighbours (shape, mean, left and right scale). The neighbour
    beyond a block's edge is the pixel at its opposite edge.
    """
    shape, left, right = fit_asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = fit_asymmetric_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * scipy.special.gamma(2 / shape) / scipy.special.gamma(1 / shape)
        features += [shape, mean, left, right]
    return np.stack(features, axis=-1)


def fit_asymmetric_gaussian(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits the asymmetric generalised Gaussian to each block [n,side,side] by its moments.

    Returns:
        The shape, and the left and the right scale, [n] each. A block without values on both sides of 0 gets
        the shape 0.2, the first candidate, and NaN for the scale of a side without values.
    """
    values = blocks.reshape(len(blocks), -1)
    below, above = np.minimum(values, 0.0), np.maximum(values, 0.0)
    squares_below, squares_above = (np.einsum("ni,ni->n", side, side) for side in (below, above))
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt(squares_below / np.count_nonzero(below, axis=1))
        right = np.sqrt(squares_above / np.count_nonzero(above, axis=1))
        ratio = left / right
        # The squared mean of |x| over the mean of x^2.
        flatness = (above - below).mean(axis=1) ** 2 * values.shape[1] / (squares_below + squares_above)
        flatness *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = nearest_shape(flatness)
    scale = np.sqrt(scipy.special.gamma(1 / shape) / scipy.special.gamma(3 / shape))
    return shape, left * scale, right * scale


def nearest_shape(flatness: np.ndarray) -> np.ndarray:
    """Finds the shape in `SHAPES` whose flatness is nearest to each value; the first shape for NaN."""
    of_shapes = flatness_of_shapes()
    index = np.searchsorted((of_shapes[1:] + of_shapes[:-1]) / 2, flatness)
    return SHAPES[np.where(np.isnan(flatness), 0, index)]


@functools.cache
def flatness_of_shapes() -> np.ndarray:
    """Computes (E|x|)^2 / E x^2 of the generalised Gaussian, which rises with the shape, for all `SHAPES`."""
    gamma = scipy.special.gamma
    return gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def distance_to_pristine(features: np.ndarray) -> float:
    """Computes the distance of the features [blocks,36] from those of pristine photographs.

    The mean of a feature ignores NaN, and the covariance ignores blocks with NaN. Returns NaN for fewer than
    two blocks without NaN.
    """
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        return float("nan")
    pristine_mean, pristine_covariance = load_pristine()
    difference = np.nanmean(features, axis=0) - pristine_mean
    inverse = np.linalg.pinv((np.cov(complete, rowvar=False) + pristine_covariance) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


@functools.cache
def load_pristine() -> tuple[np.ndarray, np.ndarray]:
    """Returns mean [36] and covariance [36,36] of the features of pristine photographs."""
    with np.load(PRISTINE, allow_pickle=False) as arrays:
        return arrays["mean"], arrays["covariance"]
