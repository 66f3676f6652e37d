"""Bicubic resizing as MATLAB's `imresize` does it: the definition of the LR images. NumPy only.

Keys' cubic (a = -0.5) reproduces the official LR images of Set5, Set14 and BSD100 bit for bit, if it is
widened by the scale when shrinking, applied to rows first and columns second, rounded to 8 bits after each of
the two, and coordinates outside the image are clamped to the edge. No framework's bicubic resize equals it.
"""

import functools
import math

import numpy as np

from decloss_jax import checks

CUBIC_WIDTH = 4  # support of Keys' cubic, in pixels


def cubic(x: np.ndarray) -> np.ndarray:
    """Computes Keys' cubic with a = -0.5 (Keys, 1981), which is 0 for |x| >= 2."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1.0
    outer = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1.0, inner, np.where(x < 2.0, outer, 0.0))


def clamp(indices: np.ndarray, length: int) -> np.ndarray:
    """Moves indices outside 0..length-1 to the nearest pixel."""
    return np.clip(indices, 0, length - 1)


def mirror(indices: np.ndarray, length: int) -> np.ndarray:
    """Reflects indices outside 0..length-1 at the image's border; the edge pixel is repeated."""
    indices = np.mod(indices, 2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)


EDGES = {"clamp": clamp, "mirror": mirror}


@functools.lru_cache(maxsize=64)  # a data set has few different sizes
def resize_taps(length: int, scale: float, edge: str) -> tuple[np.ndarray, np.ndarray]:
    """Lists the source pixels of every pixel along one resized side, and their weights.

    Pixel i has its centre at u = (i + 1/2) / scale - 1/2. Its weights are cubic(d), or scale * cubic(scale d)
    when shrinking, for the distances d to the pixels around u, divided by their sum.

    Args:
        length: pixels along the side before resizing.
        scale: factor of the length.
        edge: "clamp" or "mirror", the rule for pixels outside the image.

    Returns:
        Indices [K, ceil(length scale)] and weights of the same shape, K taps per pixel.

    Raises:
        UserError: an unknown edge.
    """
    resized = math.ceil(length * scale - 1e-9)  # 7/3 is not exact: 27 pixels must become 63, not 64
    shrink = min(scale, 1.0)
    width = CUBIC_WIDTH / shrink
    centres = (np.arange(resized) + 0.5) / scale - 0.5
    first = np.floor(centres - width / 2)
    indices = first[None, :] + np.arange(math.ceil(width) + 2)[:, None]
    weights = shrink * cubic(shrink * (centres - indices))
    weights /= weights.sum(axis=0)
    used = np.any(weights != 0, axis=1)
    outside = checks.look_up(EDGES, edge, "edge of resize")
    return outside(indices[used].astype(np.int64), length), weights[used]


def resize_rows(image: np.ndarray, scale: float, edge: str) -> np.ndarray:
    """Resizes the first axis of [H,W,C]; float64 [H',W,C], neither rounded nor clipped."""
    indices, weights = resize_taps(image.shape[0], scale, edge)
    resized = np.zeros((indices.shape[1], *image.shape[1:]))
    for tap, weight in zip(indices, weights, strict=True):
        resized += image[tap] * weight[:, None, None]
    return resized


def resize_columns(image: np.ndarray, scale: float, edge: str) -> np.ndarray:
    """Resizes the second axis of [H,W,C]; float64 [H,W',C], neither rounded nor clipped."""
    turned = np.ascontiguousarray(image.swapaxes(0, 1))
    return np.ascontiguousarray(resize_rows(turned, scale, edge).swapaxes(0, 1))


def imresize(image: np.ndarray, scale: float, *, edge: str = "clamp") -> np.ndarray:
    """Resizes an image by MATLAB's bicubic, antialiased when shrinking, without rounding or clipping.

    Args:
        image: [H,W,C], any range; computed in float64.
        scale: factor of both sides, such as 4, 3, 1/3 or 1/4.
        edge: pixels outside the image: "clamp" repeats the edge pixel (MATLAB's LR files), "mirror" reflects
            at the border (MATLAB's source, BasicSR).

    Returns:
        [ceil(H scale),ceil(W scale),C] in the image's range, overshoot included; float32 for float32,
        float64 otherwise.

    Raises:
        UserError: not an image [H,W,C], a scale not above 0, or an unknown edge.
    """
    check_image(image)
    checks.check_positive("scale of imresize", scale)
    resized = resize_columns(resize_rows(image, scale, edge), scale, edge)
    return resized.astype(np.float32 if image.dtype == np.float32 else np.float64)


def bicubic_downscale(image_uint8: np.ndarray, scale: int) -> np.ndarray:
    """Shrinks an image by a whole factor, bit for bit as the official LR images were made.

    Args:
        image_uint8: [H,W,C] uint8; apply `mod_crop` first if the LR pixels must tile it.
        scale: s, the factor by which both sides shrink.

    Returns:
        [ceil(H/s),ceil(W/s),C] uint8.

    Raises:
        UserError: not a uint8 image [H,W,C], or s not a whole number above 0.
    """
    check_factor(scale)
    return resize_8bit(image_uint8, 1.0 / scale)


def bicubic_upscale(image_uint8: np.ndarray, scale: int) -> np.ndarray:
    """Enlarges an image by a whole factor and rounds as `bicubic_downscale` does: the baseline "bicubic".

    Args:
        image_uint8: [h,w,C] uint8.
        scale: s, the factor by which both sides grow.

    Returns:
        [s h,s w,C] uint8.

    Raises:
        UserError: not a uint8 image [H,W,C], or s not a whole number above 0.
    """
    check_factor(scale)
    return resize_8bit(image_uint8, float(scale))


def mod_crop(image: np.ndarray, scale: int) -> np.ndarray:
    """Cuts rows at the bottom and columns at the right, so that s divides both sides of [H,W,C] (a view)."""
    check_factor(scale)
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def resize_8bit(image_uint8: np.ndarray, scale: float) -> np.ndarray:
    """Resizes rows, then columns, with clamped edges, rounding to 8 bits after each of the two."""
    check_image(image_uint8)
    checks.check(
        image_uint8.dtype == np.uint8,
        "image to resize",
        expected="dtype uint8",
        got=image_uint8.dtype,
        remedy="use imresize for floating-point images",
    )
    rows = round_half_up(resize_rows(image_uint8, scale, "clamp"))
    return round_half_up(resize_columns(rows, scale, "clamp"))


def round_half_up(values: np.ndarray) -> np.ndarray:
    """Rounds 0..255 to uint8 with ties upwards and overshoot clipped: MATLAB's rule, only for resizing."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def check_image(image: np.ndarray) -> None:
    """Raises `UserError` unless `image` has the shape [H,W,C]."""
    checks.check(
        image.ndim == 3 and image.size > 0,
        "image to resize",
        expected="shape [H,W,C]",
        got=f"shape {list(image.shape)}",
        remedy="pass one image with its channels last",
    )


def check_factor(scale: int) -> None:
    """Raises `UserError` unless `scale` is a whole number above 0."""
    checks.check(
        scale >= 1 and scale == int(scale),
        "scale",
        expected="a whole number above 0",
        got=scale,
        remedy="give the factor between the LR and the HR image, such as 4",
    )
