"""ICOO, the paper's index of texture (Eq. 8-11), in float64.

Each SR mini-patch is compared with its nearest neighbour among HR mini-patches that are cut independently.
The index measures texture, not fidelity: over-sharpened or misplaced detail scores like HR. Its value depends
on the number of images and is not comparable with the paper's (docs/metrics.md); only differences between
methods are meaningful.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from decloss_jax import checks

PATCH_SIZE = 12  # Sec. 5.2
SR_PATCHES = 8  # per image, Sec. 5.2
HR_PATCHES = 100  # per image, Sec. 5.2
ROUNDS = 10  # Sec. 5.2
CHUNK = 2000  # HR mini-patches compared at once: 13 MB of distances for 100 images

POOLS = ("dataset", "image")


def icoo(
    sr_images: Iterable[np.ndarray],
    hr_images: Iterable[np.ndarray],
    *,
    seed: int,
    rounds: int = ROUNDS,
    pool: str = "dataset",
) -> float:
    """Computes -10 log10 sum_i P_i, P_i = d(y_k, s_i) / sum_{j != k} d(y_j, s_i), averaged over rounds.

    In each round 8 SR mini-patches s and, independently, 100 HR mini-patches y (12x12) are cut from each
    image at random; y_k is the nearest to s_i, and d the mean squared difference. Where the mini-patches are
    cut depends on the seed and the images' sizes alone, so methods are compared on the same ones.

    Args:
        sr_images: uint8 [H,W,3], any sizes of at least 12x12; each is read once, so a generator works.
        hr_images: as many, of the same sizes.
        seed: determines the mini-patches.
        rounds: number of rounds.
        pool: "dataset" (Eq. 11 as printed: the HR mini-patches of all images are candidates and the sum runs
            over all SR mini-patches), or "image" (the 100 of the same image; the mean over all SR
            mini-patches, which does not depend on the number of images).

    Returns:
        Decibels; lower is better. Infinity if every P is 0, for instance for equal flat images.

    Raises:
        UserError: no image, other shapes or dtypes, images too small, an unknown pool.
    """
    checks.look_up(dict.fromkeys(POOLS), pool, "pool of icoo")
    checks.check_positive("rounds of icoo", rounds)
    sr, hr = cut_mini_patches(sr_images, hr_images, seed=seed, rounds=rounds)
    if pool == "dataset":
        totals = [np.sum(ratios(merge(s), merge(h))) for s, h in zip(sr, hr, strict=True)]
    else:
        totals = [
            np.mean([ratios(own_s, own_h) for own_s, own_h in zip(s, h, strict=True)])
            for s, h in zip(sr, hr, strict=True)
        ]
    with np.errstate(divide="ignore"):  # log10(0) gives the infinity
        return float(np.mean(-10.0 * np.log10(totals)))


def merge(patches: np.ndarray) -> np.ndarray:
    """Joins the mini-patches of all images: [images,n,D] -> [images n,D]."""
    return patches.reshape(-1, patches.shape[-1])


def cut_mini_patches(
    sr_images: Iterable[np.ndarray], hr_images: Iterable[np.ndarray], *, seed: int, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the mini-patches of all rounds: uint8 [rounds,images,8,D] of SR, [rounds,images,100,D] of HR."""
    all_sr, all_hr = [], []
    for index, (sr, hr) in enumerate(itertools.zip_longest(sr_images, hr_images)):
        check_pair(index, sr, hr)
        size = hr.shape[:2]
        rngs = [np.random.default_rng((seed, round_, index)) for round_ in range(rounds)]
        all_sr.append([cut_at_random(sr, SR_PATCHES, size, rng) for rng in rngs])
        all_hr.append([cut_at_random(hr, HR_PATCHES, size, rng) for rng in rngs])
    checks.check(
        bool(all_hr), "images for icoo", expected="at least one pair", got="none", remedy="pass some"
    )
    return np.stack(all_sr, axis=1), np.stack(all_hr, axis=1)


def check_pair(index: int, sr: Any, hr: Any) -> None:
    """Raises `UserError` unless both images exist, are uint8 [H,W,3] of one size, and hold a mini-patch."""
    found = ["none" if image is None else f"{image.dtype} {list(image.shape)}" for image in (sr, hr)]
    fits = hr is not None and hr.dtype == np.uint8 and hr.ndim == 3 and hr.shape[-1] == 3
    checks.check(
        fits and found[0] == found[1] and min(hr.shape[:2]) >= PATCH_SIZE,
        f"image pair {index} for icoo",
        expected=f"two uint8 images of one shape [H,W,3], at least {PATCH_SIZE} pixels a side",
        got=" and ".join(found),
        remedy="pass as many SR as HR images, quantized, in the same order",
    )


def cut_at_random(
    image: np.ndarray, count: int, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Cuts `count` mini-patches at random positions, with replacement: uint8 [count,D]."""
    tops = rng.integers(0, size[0] - PATCH_SIZE + 1, count)
    lefts = rng.integers(0, size[1] - PATCH_SIZE + 1, count)
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH_SIZE, PATCH_SIZE), axis=(0, 1))
    return windows[tops, lefts].reshape(count, -1)


def ratios(sr_patches: np.ndarray, hr_patches: np.ndarray) -> np.ndarray:
    """Computes P (Eq. 8, 9) for each SR mini-patch [p,D] against the candidates [q,D]: [p].

    |s - y|^2 = |s|^2 - 2 s.y + |y|^2 in float64 is exact, because all terms are whole numbers. The factor 1/D
    of the mean squared difference cancels. If all candidates equal the mini-patch, P = 0.
    """
    sr = sr_patches.astype(np.float64)
    sr_squares = np.sum(sr**2, axis=1)
    smallest = np.full(len(sr), np.inf)
    total = np.zeros(len(sr))
    for start in range(0, len(hr_patches), CHUNK):
        hr = hr_patches[start : start + CHUNK].astype(np.float64)
        squares = sr_squares[:, None] - 2.0 * (sr @ hr.T) + np.sum(hr**2, axis=1)
        smallest = np.minimum(smallest, squares.min(axis=1))
        total += squares.sum(axis=1)
    others = total - smallest
    return np.divide(smallest, others, out=np.zeros(len(sr)), where=others > 0)
