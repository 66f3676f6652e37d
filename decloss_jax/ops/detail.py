"""Chooses the part of an image that shows how methods differ."""

import numpy as np

DETAIL_STEP = 32  # pixels between the places that are tried


def find_detail(image: np.ndarray, side: int) -> tuple[slice, slice]:
    """Finds the part with the largest variance, where methods differ most.

    Args:
        image: [H,W,3].
        side: largest height and width of the part; a smaller image is taken whole.

    Returns:
        Rows and columns.
    """
    height, width = (min(side, size) for size in image.shape[:2])
    tops = np.arange(0, image.shape[0] - height + 1, DETAIL_STEP)[:, None]
    lefts = np.arange(0, image.shape[1] - width + 1, DETAIL_STEP)
    values = image.astype(np.int64)

    def sums(of: np.ndarray) -> np.ndarray:
        """Sums over each place, by differences of the image's cumulative sums."""
        total = np.pad(of.sum(-1).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        bottoms, rights = tops + height, lefts + width
        return total[bottoms, rights] - total[tops, rights] - total[bottoms, lefts] + total[tops, lefts]

    count = height * width * image.shape[2]
    variance = sums(values**2) / count - (sums(values) / count) ** 2
    row, column = np.unravel_index(np.argmax(variance), variance.shape)
    top, left = int(tops[row, 0]), int(lefts[column])
    return slice(top, top + height), slice(left, left + width)
