"""MATLAB's bicubic: official LR files bit for bit, BasicSR's values, a float64 loop over the definition."""

import math

import numpy as np
import pytest
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.ops.resize import bicubic_downscale, bicubic_upscale, imresize, mod_crop

BENCHMARKS = {"Set5": (5, 28.432), "Set14": (14, 26.093), "BSD100": (100, 25.962)}  # images, bicubic PSNR-Y


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def pairs(shared, name):
    for path in sorted((shared / "data" / name / "HR").iterdir()):
        yield path.name, read(path), read(path.parent.parent / "LRx4" / path.name)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_bicubic_downscale_meets_official_files(shared, name):
    checked = 0
    for file, hr, low in pairs(shared, name):
        np.testing.assert_array_equal(bicubic_downscale(hr, 4), low, err_msg=f"{name}/{file}")
        checked += 1
    assert checked == BENCHMARKS[name][0]


def luma(image):
    return image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


@pytest.mark.parametrize("name", BENCHMARKS)
def test_bicubic_upscale_gives_the_published_psnr(shared, name):
    values = []
    for _, hr, low in pairs(shared, name):
        error = (luma(bicubic_upscale(low, 4)) - luma(hr))[4:-4, 4:-4]
        values.append(10 * math.log10(255**2 / np.mean(error**2)))
    assert np.mean(values) == pytest.approx(
        BENCHMARKS[name][1], abs=2e-3
    )  # one rounding at the end: +0.001 dB


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imresize_equals_basicsr(shared, scale):
    golden = np.load(shared / "golden" / "imresize.npz")
    low, hr = golden["low_uint8"] / 255, golden["hr_uint8"] / 255
    # BasicSR computes its coordinates in float32: 2e-6 at x3, 2e-7 otherwise.
    np.testing.assert_allclose(imresize(low, scale, edge="mirror"), golden[f"up_x{scale}"], atol=3e-6)
    np.testing.assert_allclose(imresize(hr, 1 / scale, edge="mirror"), golden[f"down_x{scale}"], atol=3e-6)


def loop_resize_row(row, scale, edge):
    """The definition for one row of numbers: a loop over output pixels and over all taps in reach."""

    def cubic(x):
        x = abs(x)
        if x <= 1:
            return (1.5 * x - 2.5) * x * x + 1
        return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0

    def outside(j):
        if edge == "clamp":
            return min(max(j, 0), len(row) - 1)
        while not 0 <= j < len(row):
            j = -1 - j if j < 0 else 2 * len(row) - 1 - j
        return j

    shrink = min(scale, 1.0)
    resized = []
    for i in range(math.ceil(round(len(row) * scale, 6))):
        u = (i + 0.5) / scale - 0.5
        reach = range(math.floor(u - 2 / shrink) - 1, math.ceil(u + 2 / shrink) + 2)
        weights = [cubic(shrink * (u - j)) for j in reach]
        total = sum(w * row[outside(j)] for w, j in zip(weights, reach, strict=True))
        resized.append(total / sum(weights))
    return np.array(resized)


@pytest.mark.parametrize("edge", ["clamp", "mirror"])
@pytest.mark.parametrize("scale", [4, 3, 2, 1.5, 1, 1 / 2, 1 / 3, 1 / 4, 0.3])
def test_imresize_equals_loop(scale, edge):
    image = np.random.default_rng(0).uniform(size=(9, 14, 2))
    for channel in range(2):
        rows = np.stack([loop_resize_row(r, scale, edge) for r in image[..., channel].T]).T
        expected = np.stack([loop_resize_row(r, scale, edge) for r in rows])
        np.testing.assert_allclose(imresize(image, scale, edge=edge)[..., channel], expected, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("resize", [bicubic_downscale, bicubic_upscale])
def test_bicubic_rounds_half_up_after_each_dimension(resize, scale):
    image = np.random.default_rng(1).choice(np.array([0, 255, 128], np.uint8), size=(12, 24, 3))
    factor = 1 / scale if resize is bicubic_downscale else scale

    def steps(values, axis):
        moved = np.moveaxis(values.astype(float), axis, -1)
        resized = np.apply_along_axis(loop_resize_row, -1, moved, factor, "clamp")
        # Exact ties come out a hair below one half in either order of summation when thirds are involved.
        return np.moveaxis(np.clip(np.floor(resized + 0.5 + 1e-9), 0, 255), -1, axis)

    difference = np.abs(resize(image, scale) - steps(steps(image, 0), 1))
    assert difference.max() <= (1 if scale == 3 else 0)
    assert np.mean(difference > 0) < 0.02


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_resize_handles_images_smaller_than_the_kernel(side):
    image = np.full((side, side, 3), 200, np.uint8)
    for scale in (2, 3, 4):
        assert np.all(bicubic_downscale(image, scale) == 200)
        assert np.all(bicubic_upscale(image, scale) == 200)
        for edge in ("clamp", "mirror"):
            np.testing.assert_allclose(imresize(image, 1 / scale, edge=edge), 200, atol=1e-9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imresize_has_matlabs_size_at_every_length(scale):
    for length in range(1, 130):
        image = np.zeros((length, 1, 1))
        assert imresize(image, 1 / scale).shape[0] == math.ceil(length / scale)
    assert imresize(np.zeros((27, 27, 1)), 7 / 3).shape == (63, 63, 1)


def test_imresize_keeps_float32():
    assert imresize(np.zeros((8, 8, 3), np.float32), 1 / 2).dtype == np.float32
    assert imresize(np.zeros((8, 8, 3), np.uint8), 1 / 2).dtype == np.float64


def test_mod_crop_cuts_bottom_and_right():
    image = np.arange(11 * 14 * 3).reshape(11, 14, 3)
    np.testing.assert_array_equal(mod_crop(image, 4), image[:8, :12])
    np.testing.assert_array_equal(mod_crop(image[:8, :12], 4), image[:8, :12])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: imresize(np.zeros((8, 8, 3)), 0.5, edge="clamb"), "nearest: clamp"),
        (lambda: imresize(np.zeros((8, 8)), 0.5), "shape \\[8, 8\\]"),
        (lambda: imresize(np.zeros((8, 8, 3)), 0), "above 0"),
        (lambda: bicubic_downscale(np.zeros((8, 8, 3)), 4), "uint8"),
        (lambda: bicubic_downscale(np.zeros((8, 8, 3), np.uint8), 0.25), "whole number"),
        (lambda: mod_crop(np.zeros((8, 8, 3)), 0), "whole number"),
    ],
)
def test_resize_refuses_by_one_sentence(call, named):
    with pytest.raises(UserError, match=named):
        call()
