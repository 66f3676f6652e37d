"""Crops and symmetries, on images whose pixels hold their own coordinates."""

import numpy as np
import pytest

from decloss_jax.data.augment import copy_pixels, random_crop, random_symmetry


def coordinates(height, width):
    """[H,W,2] with (row, column) of each pixel."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns], axis=-1)


def assert_aligned(low, hr, scale):
    """Checks that each LR pixel shows the s x s HR pixels that it stands for."""
    blocks = np.floor_divide(hr, scale)
    np.testing.assert_array_equal(blocks, low.repeat(scale, axis=0).repeat(scale, axis=1))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_random_crop_is_aligned_and_reaches_every_place(scale):
    low, hr = coordinates(5, 7), coordinates(5 * scale, 7 * scale)
    rng = np.random.default_rng(0)
    corners = set()
    for _ in range(400):
        low_crop, hr_crop = random_crop(rng, low, hr, scale=scale, crop_size=3 * scale)
        assert low_crop.shape == (3, 3, 2)
        assert hr_crop.shape == (3 * scale, 3 * scale, 2)
        assert_aligned(low_crop, hr_crop, scale)
        assert tuple(hr_crop[0, 0]) == tuple(scale * low_crop[0, 0])
        corners.add(tuple(map(int, low_crop[0, 0])))
    assert corners == {(top, left) for top in range(3) for left in range(5)}


def test_random_crop_takes_the_whole_image():
    low, hr = coordinates(3, 3), coordinates(12, 12)
    low_crop, hr_crop = random_crop(np.random.default_rng(0), low, hr, scale=4, crop_size=12)
    np.testing.assert_array_equal(low_crop, low)
    np.testing.assert_array_equal(hr_crop, hr)


def test_random_symmetry_draws_all_eight_alike_and_aligned():
    low, hr = coordinates(3, 3), coordinates(12, 12)
    expected = {np.rot90(image, turns).tobytes() for turns in range(4) for image in (hr, hr[:, ::-1])}
    rng = np.random.default_rng(0)
    counts = {}
    for _ in range(800):
        turned_low, turned_hr = random_symmetry(rng, low, hr)
        assert_aligned(turned_low, turned_hr, 4)
        counts[turned_hr.tobytes()] = counts.get(turned_hr.tobytes(), 0) + 1
    assert set(counts) == expected
    assert min(counts.values()) > 60  # 100 on average; below 60 with a chance of 2e-5


def test_copy_pixels_copies_turned_images():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    for turns in range(4):
        for source in (np.rot90(image, turns), np.rot90(image, turns)[:, ::-1]):
            target = np.zeros((2, 6, 6, 3), np.uint8)
            copy_pixels(source, target[1])
            np.testing.assert_array_equal(target[1], source)
            assert not target[0].any()
