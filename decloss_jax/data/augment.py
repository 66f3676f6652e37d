"""Random crops and symmetries of a pair, the same for the LR and the HR image."""

import numpy as np

PIXEL = np.dtype("V3")  # three bytes that stay together


def random_crop(
    rng: np.random.Generator, low: np.ndarray, hr: np.ndarray, *, scale: int, crop_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the same random square out of both images, at a whole LR pixel; every place is equally likely.

    Args:
        rng: chooses the place.
        low: [h,w,C].
        hr: [s h,s w,C].
        scale: s.
        crop_size: side of the square in HR pixels, a multiple of s, not larger than the HR image.

    Returns:
        (low, hr), views of [crop_size/s,crop_size/s,C] and [crop_size,crop_size,C].
    """
    low_size = crop_size // scale
    top = int(rng.integers(low.shape[0] - low_size + 1))
    left = int(rng.integers(low.shape[1] - low_size + 1))
    return (
        low[top : top + low_size, left : left + low_size],
        hr[scale * top : scale * top + crop_size, scale * left : scale * left + crop_size],
    )


def random_symmetry(
    rng: np.random.Generator, low: np.ndarray, hr: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Applies one of the eight symmetries of the square to both images: flips and quarter turns.

    Args:
        rng: chooses the symmetry; each of the eight is equally likely.
        low: [h,h,C].
        hr: [s h,s h,C].

    Returns:
        (low, hr), views of the same shapes.
    """
    flip_rows, flip_columns, transpose = rng.integers(2, size=3)

    def turn(image: np.ndarray) -> np.ndarray:
        image = image[::-1] if flip_rows else image
        image = image[:, ::-1] if flip_columns else image
        return image.swapaxes(0, 1) if transpose else image

    return turn(low), turn(hr)


def copy_pixels(source: np.ndarray, target: np.ndarray) -> None:
    """Copies [H,W,3] uint8 into an array of the same shape; views of turned images take little longer.

    Each pixel is copied as one item: byte by byte, NumPy takes three times as long for mirrored columns.
    """
    target.view(PIXEL)[...] = source.view(PIXEL)
