"""PSNR and SSIM against BasicSR's values, a float64 loop, and hand-made images."""

import json
import math

import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.metrics.fidelity import psnr, ssim


def random_pair(shape=(23, 31, 3), noise=20, seed=0):
    rng = np.random.default_rng(seed)
    hr = rng.integers(0, 256, shape, dtype=np.uint8)
    sr = np.clip(hr + rng.normal(0, noise, shape), 0, 255).astype(np.uint8)
    return sr, hr


@pytest.mark.parametrize("function", [psnr, ssim])
def test_fidelity_equals_basicsr(shared, function):
    with np.load(shared / "golden" / "psnr_ssim.npz") as golden:
        cases = json.loads(str(golden["values_json"]))
        for case in cases:
            sr, hr = golden[f"{case['image']}_sr"], golden[f"{case['image']}_hr"]
            value = function(sr, hr, crop_border=case["crop_border"], channel=case["channel"])
            assert value == pytest.approx(case[function.__name__], abs=1e-6), case
    assert len(cases) == 12


def test_psnr_of_a_constant_difference():
    hr = np.full((9, 8, 3), 100, np.uint8)
    assert psnr(hr + 5, hr, crop_border=2) == pytest.approx(20 * math.log10(255 / 5), abs=1e-12)
    # Five grey levels in all channels are 5/255 of Y's swing of 219.
    expected = 20 * math.log10(255 / (219 * 5 / 255))
    assert psnr(hr + 5, hr, crop_border=0, channel="y") == pytest.approx(expected, abs=1e-9)


def test_psnr_in_strips_equals_one_mean():
    sr, hr = random_pair((37, 9, 3))
    difference = sr.astype(np.float64) - hr
    luma = difference @ [65.481, 128.553, 24.966] / 255
    for channel, errors in (("rgb", difference), ("y", luma)):
        expected = 10 * math.log10(255**2 / np.mean(errors**2))
        assert psnr(sr, hr, crop_border=0, channel=channel) == pytest.approx(expected, abs=1e-12)


def test_psnr_of_equal_images_is_infinite():
    _, hr = random_pair()
    assert psnr(hr, hr, crop_border=0) == math.inf
    assert psnr(hr, hr, crop_border=4, channel="y") == math.inf


def test_psnr_ignores_the_border():
    sr, hr = random_pair()
    changed = sr.copy()
    changed[:4], changed[-4:], changed[:, :4], changed[:, -4:] = 0, 255, 0, 255
    assert psnr(changed, hr, crop_border=4) == psnr(sr, hr, crop_border=4)
    assert psnr(changed, hr, crop_border=3) < psnr(sr, hr, crop_border=3)


def ssim_by_loops(sr, hr):
    """One channel of SSIM, one window at a time."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for y in range(sr.shape[0] - 10):
        for x in range(sr.shape[1] - 10):
            a, b = sr[y : y + 11, x : x + 11], hr[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
            )
    return np.mean(values)


def test_ssim_equals_loops():
    sr, hr = random_pair((33, 21, 3))  # 23 rows of windows: two strips
    expected = np.mean([ssim_by_loops(sr[..., c].astype(float), hr[..., c].astype(float)) for c in range(3)])
    assert ssim(sr, hr, crop_border=0) == pytest.approx(expected, abs=1e-10)


def test_ssim_of_equal_images_is_one():
    _, hr = random_pair()
    assert ssim(hr, hr, crop_border=4) == pytest.approx(1.0, abs=1e-12)


def test_ssim_is_symmetric():
    sr, hr = random_pair()
    assert ssim(sr, hr, crop_border=1) == pytest.approx(ssim(hr, sr, crop_border=1), abs=1e-14)


@pytest.mark.parametrize("function", [psnr, ssim])
def test_fidelity_refuses_bad_input(function):
    sr, hr = random_pair()
    with pytest.raises(UserError, match="equal shapes"):
        function(sr[1:], hr, crop_border=0)
    with pytest.raises(UserError, match="uint8 of shape"):
        function(sr.astype(np.float32), hr, crop_border=0)
    with pytest.raises(UserError, match="uint8 of shape"):
        function(sr[None], hr[None], crop_border=0)
    with pytest.raises(UserError, match="crop_border"):
        function(sr, hr, crop_border=12)
    with pytest.raises(UserError, match="crop_border"):
        function(sr, hr, crop_border=-1)
    with pytest.raises(UserError, match="one of rgb, y"):
        function(sr, hr, crop_border=0, channel="luma")


def test_ssim_refuses_images_below_its_window():
    _, hr = random_pair((18, 40, 3))
    assert ssim(hr, hr, crop_border=3) == pytest.approx(1.0)
    with pytest.raises(UserError, match="at least 11 x 11"):
        ssim(hr, hr, crop_border=4)
