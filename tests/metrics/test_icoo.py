"""ICOO against loops over the definition, and the properties that comparisons of methods need."""

import math

import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.data.images import read_image
from decloss_jax.metrics import icoo
from decloss_jax.metrics.icoo import CHUNK, cut_mini_patches, ratios
from decloss_jax.ops.resize import bicubic_upscale

SIZES = ((40, 30), (25, 60), (33, 33))


def images(seed, sizes=SIZES):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def score_by_loops(sr_patches, hr_patches):
    """Eq. 8, 9 with mean squared errors, one pair at a time: the list of P_i."""
    scores = []
    for s in sr_patches:
        distances = [np.mean((s.astype(float) - y.astype(float)) ** 2) for y in hr_patches]
        k = int(np.argmin(distances))
        others = sum(d for j, d in enumerate(distances) if j != k)
        scores.append(distances[k] / others if others else 0.0)
    return scores


def flat_images(sizes=SIZES):
    return [np.full((*size, 3), 77, np.uint8) for size in sizes]


@pytest.mark.parametrize("flat", [0, 1])
@pytest.mark.parametrize("pool", ["dataset", "image"])
def test_icoo_equals_loops(pool, flat):
    sr, hr = flat_images()[:flat] + images(0)[flat:], flat_images()[:flat] + images(1)[flat:]
    values = []
    for sr_round, hr_round in zip(*cut_mini_patches(sr, hr, seed=5, rounds=2), strict=True):
        if pool == "dataset":
            s, y = sr_round.reshape(-1, 432), hr_round.reshape(-1, 432)
            values.append(-10 * math.log10(sum(score_by_loops(s, y))))
        else:
            own = [score_by_loops(s, y) for s, y in zip(sr_round, hr_round, strict=True)]
            values.append(-10 * math.log10(np.mean(own)))
    assert icoo(sr, hr, seed=5, rounds=2, pool=pool) == pytest.approx(np.mean(values), abs=1e-10)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pool", ["dataset", "image"])
def test_icoo_of_equal_flat_images_is_infinite(pool):
    assert icoo(flat_images(), flat_images(), seed=0, rounds=2, pool=pool) == math.inf


def test_ratios_in_chunks_equal_one_matrix():
    rng = np.random.default_rng(0)
    sr, hr = (rng.integers(0, 256, (n, 5), dtype=np.uint8) for n in (7, 2 * CHUNK + 3))
    distances = np.sum((sr[:, None].astype(int) - hr[None].astype(int)) ** 2, axis=2)
    smallest = distances.min(axis=1)
    np.testing.assert_allclose(ratios(sr, hr), smallest / (distances.sum(axis=1) - smallest), rtol=1e-12)


def test_mini_patches_lie_in_their_image_and_count_as_the_paper_says():
    sr, hr = images(0), images(1)
    sr_patches, hr_patches = cut_mini_patches(sr, hr, seed=0, rounds=3)
    assert sr_patches.shape == (3, 3, 8, 432)
    assert hr_patches.shape == (3, 3, 100, 432)
    for patches, image in ((sr_patches[2, 1], sr[1]), (hr_patches[2, 1], hr[1])):
        windows = np.lib.stride_tricks.sliding_window_view(image, (12, 12, 3)).reshape(-1, 432)
        found = {window.tobytes() for window in windows.reshape(-1, 12, 12, 3).transpose(0, 3, 1, 2)}
        assert all(patch.tobytes() in found for patch in patches)
    assert len({patch.tobytes() for patch in hr_patches[:, 0].reshape(-1, 432)}) > 100


def test_mini_patches_are_independent_of_the_method_and_of_further_images():
    hr = images(1)
    first, candidates = cut_mini_patches(images(0), hr, seed=0, rounds=2)
    second, same = cut_mini_patches(hr, hr, seed=0, rounds=2)
    np.testing.assert_array_equal(candidates, same)
    again, _ = cut_mini_patches(images(0)[:1], hr[:1], seed=0, rounds=2)
    np.testing.assert_array_equal(first[:, :1], again)
    # Where SR and HR are the same picture, the SR patches must not be the HR patches' places.
    assert not {p.tobytes() for p in second[0, 0]} & {p.tobytes() for p in same[0, 0][:8]}


@pytest.mark.parametrize("pool", ["dataset", "image"])
def test_icoo_depends_on_the_seed_alone(pool):
    sr, hr = images(0), images(1)
    assert icoo(sr, hr, seed=1, pool=pool) == icoo(iter(sr), iter(hr), seed=1, pool=pool)
    assert icoo(sr, hr, seed=1, pool=pool) != icoo(sr, hr, seed=2, pool=pool)


def test_icoo_of_bicubic_images_is_above_that_of_hr(shared):
    hr = [read_image(path) for path in sorted((shared / "data" / "BSD100" / "HR").iterdir())[:20]]
    low = [read_image(path) for path in sorted((shared / "data" / "BSD100" / "LRx4").iterdir())[:20]]
    hr = [image[: 4 * small.shape[0], : 4 * small.shape[1]] for image, small in zip(hr, low, strict=True)]
    bicubic = [bicubic_upscale(image, 4) for image in low]
    for pool, smallest, largest in (("dataset", 2.5, 5.0), ("image", 1.0, 3.0)):
        gap = icoo(bicubic, hr, seed=0, rounds=3, pool=pool) - icoo(hr, hr, seed=0, rounds=3, pool=pool)
        assert smallest < gap < largest, pool


def test_icoo_refuses_bad_input():
    sr, hr = images(0), images(1)
    with pytest.raises(UserError, match="one of dataset, image"):
        icoo(sr, hr, seed=0, pool="all")
    with pytest.raises(UserError, match="rounds"):
        icoo(sr, hr, seed=0, rounds=0)
    with pytest.raises(UserError, match="at least one pair"):
        icoo([], [], seed=0)
    with pytest.raises(UserError, match=r"image pair 2 .* got none and uint8"):
        icoo(sr[:2], hr, seed=0)
    with pytest.raises(UserError, match="image pair 0"):
        icoo([s / 255 for s in sr], hr, seed=0)
    with pytest.raises(UserError, match="at least 12 pixels"):
        icoo([s[:11] for s in sr], [h[:11] for h in hr], seed=0)
