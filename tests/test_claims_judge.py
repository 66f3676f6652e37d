"""benchmarks/claims.py: its judges (lattices, grain of a given cost, what counts as better), table, forms."""

import sys

import numpy as np
import pytest
from command_line import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import claims_forms
import claims_judge as judge
import claims_table

from decloss_jax.losses import decloss
from decloss_jax.ops import fourier
from decloss_jax.ops.patches import extract_patches

SIDE = 48


@pytest.fixture(scope="module")
def hr() -> np.ndarray:
    """Two photographs' stand-ins: texture on the left, nothing on the right."""
    images = np.full((2, SIDE, SIDE, 3), 0.5)
    images[:, :, : SIDE // 2] += 0.1 * np.random.default_rng(0).standard_normal((2, SIDE, SIDE // 2, 3))
    return np.clip(images, 0, 1)


def test_shares_of_white_noise_are_the_fractions_of_bins():
    noise = np.random.default_rng(0).standard_normal((200, SIDE, SIDE, 3))
    shares = judge.lattice_shares(noise)
    assert shares == pytest.approx(judge.white_noise_shares(SIDE), rel=0.03)
    assert judge.lattice_excess(shares, judge.white_noise_shares(SIDE)) == pytest.approx(1, rel=0.03)
    assert judge.white_noise_shares(240)["period 4"] == pytest.approx(15 / (240**2 - 1))


def test_shares_of_a_lattice_are_one():
    rng = np.random.default_rng(0)
    tile = np.tile(rng.standard_normal((2, 4, 4, 3)), (1, SIDE // 4, SIDE // 4, 1))
    lattice = judge.lattice_shares(tile)
    assert lattice == pytest.approx(dict.fromkeys(judge.SHARES, 1))
    waves = np.sin(2 * np.pi * np.arange(SIDE) / SIDE)[None, :, None, None]  # moves power by one bin
    modulated = judge.lattice_shares((tile - tile.mean(axis=(1, 2), keepdims=True)) * waves)
    assert modulated["period 4"] == pytest.approx(0, abs=1e-12)
    assert modulated["period 8, 3x3"] == pytest.approx(1)


def test_grain_lies_where_hr_has_detail_and_in_its_band(hr):
    grain = judge.grain_of(hr, seed=0)[..., 0]
    assert np.std(grain[:, :, 10:14]) > 5 * np.std(grain[:, :, 34:38])
    power = np.sum(np.abs(np.fft.fft2(grain)) ** 2, axis=0)
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
    assert power[(radius > 0.2) & (radius < 0.55)].sum() > 0.95 * power.sum()
    luma = hr.mean(axis=-1)
    detail = np.fft.fft2(luma) * ((radius >= 0.25) & (radius <= 0.5))
    assert np.mean(grain**2) == pytest.approx(np.mean(np.fft.ifft2(detail).real ** 2), rel=0.2)


@pytest.mark.parametrize("cost", [-0.1, 0.0, 0.3])
def test_control_costs_what_it_should(hr, cost):
    first = np.full_like(hr, 0.5)
    strength, control = judge.grain_control(first, hr, cost=cost, seed=0)
    measured = (judge.psnr_of(first, hr) - judge.psnr_of(control, hr)).mean()
    assert measured == pytest.approx(max(cost, 0), abs=0.003)
    assert (strength > 0) == (cost > 0)
    change = control - first
    np.testing.assert_allclose(change, change[..., :1].repeat(3, axis=-1), atol=1e-12)


def test_only_a_run_without_lattice_that_beats_grain_counts_as_better():
    def values(alex: float, vgg: float) -> dict[str, list[float]]:
        noise = 0.001 * np.random.default_rng(0).standard_normal(24)
        return {"lpips_alex": (alex + noise[::-1]).tolist(), "lpips_vgg": (vgg + noise).tolist()}

    white = judge.white_noise_shares(240)
    first = {"values": {"lpips_alex": [0.4] * 24, "lpips_vgg": [0.3] * 24}}

    def run(alex: float, vgg: float, control: tuple[float, float], lattice: float = 1.0) -> dict:
        shares = white | {"period 8, 3x3": lattice * white["period 8, 3x3"]}
        return {"values": values(alex, vgg), "shares": shares, "control": {"values": values(*control)}}

    better = run(0.35, 0.28, (0.36, 0.28))
    better["control"]["values"]["lpips_vgg"] = better["values"]["lpips_vgg"]
    assert judge.verdict(better, first, white) == []
    assert judge.verdict(run(0.35, 0.31, (0.4, 0.4)), first, white) == ["lpips_vgg does not fall"]
    assert judge.verdict(run(0.35, 0.28, (0.35, 0.28)), first, white) == ["grain does as well"]
    assert judge.verdict(run(0.35, 0.28, (0.34, 0.29)), first, white) == ["grain does as well"]
    lattice = judge.verdict(run(0.35, 0.28, (0.4, 0.4), lattice=2.0), first, white)
    assert lattice == ["lattice"]


def test_restored_tells_true_detail_from_noise():
    missing, noise = np.random.default_rng(0).standard_normal((2, 20, SIDE, SIDE, 3))
    for power, cosine in judge.restored(0.3 * missing, missing).values():
        assert (power, cosine) == pytest.approx((0.09, 1))
    for power, cosine in judge.restored(noise, missing).values():
        assert (power, cosine) == pytest.approx((1, 0), abs=0.1)


def test_table_has_means_over_seeds_of_changes_from_the_base(hr):
    def run(name: str, seed: int, psnr: float, lpips: float) -> dict:
        values = {metric: [lpips] * 2 for metric in judge.LPIPS} | {"psnr_rgb": [psnr] * 2, "niqe": [5.0] * 2}
        values["icoo"] = 20.0
        control = {"strength": 0.1, "values": values}
        shares = claims_table.WHITE
        run = {"setting": name, "seed": seed, "values": values, "shares": shares, "control": control}
        return run | {"restores": judge.restored(*np.repeat(hr[None, :1], 2, axis=0))}

    runs = [run("L1 alone", seed, 30.0 + seed, 0.8) for seed in (0, 1)]
    runs += [run("notched, luma, sharp, 5e-5", seed, 29.0 + 2 * seed, 0.6) for seed in (0, 1, 2)]
    row = claims_table.changes("notched, luma, sharp, 5e-5", runs)
    assert row.startswith(
        "| notched, luma, sharp, 5e-5 | 2 | -0.500 ± 0.707 | -25.0% ± 0.0% | -25.0% ± 0.0% "
        "| +0.00 ± 0.00 | +0.00 ± 0.00 | 1.0, 1.0, 1.0 | +1.00, +1.00 |"
    )
    assert row.endswith(
        "| 0.100 ± 0.000 | +0.0000 ± 0.0000 | +0.0000 ± 0.0000 | 0 of 2 (grain does as well) |"
    )
    assert row in claims_table.table(runs)


def test_whitened_kernels_and_vectors_with_a_constant(monkeypatch):
    monkeypatch.setattr(fourier, "KERNELS", dict(fourier.KERNELS))
    monkeypatch.setattr(decloss, "COLORS", dict(decloss.COLORS))
    monkeypatch.setattr(claims_forms, "KERNELS", fourier.KERNELS)
    monkeypatch.setattr(claims_forms, "COLORS", decloss.COLORS)
    rng = np.random.default_rng(0)
    radius = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(96))
    spectrum = np.fft.rfft2(rng.standard_normal((400, 96, 96))) / (radius + 0.01)
    photographs = 0.5 + 0.02 * np.fft.irfft2(spectrum, s=(96, 96))
    claims_forms.register(photographs)

    def enhanced(kernel: str, images: np.ndarray) -> np.ndarray:
        return np.asarray(fourier.enhance_detail(images, alpha=1.0, mu=0.2 * 96, kernel=kernel), np.float64)

    grey = photographs[..., None].astype(np.float32)
    white = np.abs(np.fft.rfft2(enhanced("whitened", grey)[..., 0])) ** 2
    low, high = white[:, (radius > 0.05) & (radius < 0.2)], white[:, (radius > 0.3) & (radius < 0.5)]
    assert low.mean() == pytest.approx(high.mean(), rel=0.05)
    kernels = ("radial", "whitened", "radial_whitened")
    strengths = [np.sqrt(np.mean(enhanced(kernel, grey) ** 2)) for kernel in kernels]
    assert strengths == pytest.approx([strengths[0]] * 3, rel=0.15)

    images = decloss.COLORS["luma_and_constant"](grey.repeat(3, axis=-1))
    constant = enhanced("radial_and_mean", images)[..., 1]
    patches = np.asarray(extract_patches(np.sqrt(3) * enhanced("radial", grey), 8))
    rms_length = np.sqrt(np.mean(np.sum(patches**2, axis=1)))
    np.testing.assert_allclose(8 * constant, 0.5 * rms_length, rtol=0.02)
    assert np.abs(np.mean(images[..., 0], axis=(1, 2))).max() < 1e-6
