"""Pads images of many sizes to a few shapes, so that few programs are compiled; no value changes.

A compiled program has one shape. Images of other sizes are padded at the bottom and on the right, and every
convolution sees zeros outside the image's own area, as its zero padding would give.
"""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jax import Array

LEVELS = 4  # heights, and as many widths: at most 16 shapes

Size = tuple[int, int]  # height, width


def shared_shapes(sizes: Iterable[Size], *, levels: int = LEVELS) -> dict[Size, Size]:
    """Chooses a few shapes that hold all sizes.

    Heights and widths are each rounded up to one of at most `levels` values, which divide the images into
    groups of about equal size. Sides with no more than `levels` values keep them and need no padding.

    Args:
        sizes: height and width of each image.
        levels: number of heights and of widths.

    Returns:
        For each size the shape to pad to; at most levels^2 shapes.
    """
    sizes = list(sizes)
    heights = side_levels([height for height, _ in sizes], levels)
    widths = side_levels([width for _, width in sizes], levels)

    def at_least(values: list[int], side: int) -> int:
        return min(value for value in values if value >= side)

    return {(h, w): (at_least(heights, h), at_least(widths, w)) for h, w in sizes}


def side_levels(sides: list[int], levels: int) -> list[int]:
    """Returns the distinct sides, or if there are more, the largest of each of `levels` equal groups."""
    distinct = sorted(set(sides))
    if len(distinct) <= levels:
        return distinct
    shares = np.arange(1, levels + 1) / levels
    return sorted({int(side) for side in np.quantile(sides, shares, method="higher")})


def pad_to(images: np.ndarray, shape: Size) -> np.ndarray:
    """Pads [...,H,W,C] to `shape` by repeating the last row and the last column.

    Interpolation then sees the same values as at an image's edge; convolutions see zeros (`valid_mask`).
    """
    missing = [(0, side - had) for side, had in zip(shape, images.shape[-3:-1], strict=True)]
    return np.pad(images, [(0, 0)] * (images.ndim - 3) + missing + [(0, 0)], mode="edge")


def valid_mask(shape: Size, valid: Array) -> Array:
    """Marks the pixels of the images themselves.

    Args:
        shape: H and W of the padded images.
        valid: [N,2] integers, height and width of each image.

    Returns:
        [N,H,W,1] booleans.
    """
    rows = jnp.arange(shape[0])[None, :, None, None] < valid[:, 0, None, None, None]
    columns = jnp.arange(shape[1])[None, None, :, None] < valid[:, 1, None, None, None]
    return rows & columns
