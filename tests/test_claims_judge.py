"""benchmarks/claims.py: its judges (lattices, grain of a given cost, what counts as better) and its table."""

import sys

import numpy as np
import pytest
from command_line import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import claims
import claims_judge as judge

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
        shares = {name: lattice * share for name, share in white.items()}
        return {"values": values(alex, vgg), "shares": shares, "control": {"values": values(*control)}}

    better = run(0.35, 0.28, (0.36, 0.28))
    better["control"]["values"]["lpips_vgg"] = better["values"]["lpips_vgg"]
    assert judge.verdict(better, first, white) == []
    assert judge.verdict(run(0.35, 0.31, (0.4, 0.4)), first, white) == ["lpips_vgg does not fall"]
    assert judge.verdict(run(0.35, 0.28, (0.35, 0.28)), first, white) == ["grain does as well"]
    assert judge.verdict(run(0.35, 0.28, (0.34, 0.29)), first, white) == ["grain does as well"]
    lattice = judge.verdict(run(0.35, 0.28, (0.4, 0.4), lattice=2.0), first, white)
    assert lattice == ["lattice (period 4)", "lattice (period 8, 3x3)"]


def test_table_has_changes_from_stage_1_of_the_same_seed():
    def run(name: str, seed: int, psnr: float, lpips: float) -> dict:
        values = {
            "psnr_rgb": [psnr] * 2,
            "lpips_alex": [lpips] * 2,
            "lpips_vgg": [lpips] * 2,
            "niqe": [5.0] * 2,
        }
        values["icoo"] = 20.0
        white = judge.white_noise_shares(claims.SIDE)
        control = {"base": "L1 alone", "strength": 0.1, "values": values}
        return {"setting": name, "seed": seed, "values": values, "shares": white, "control": control}

    runs = [run("stage 1", 0, 20.0, 0.5), run("stage 1", 1, 30.0, 0.8), run("L1 alone", 1, 30.0, 0.8)]
    runs.append(run("notched, luma, 5e-5", 1, 29.0, 0.6))
    row = claims.table(runs, judge.white_noise_shares(claims.SIDE)).splitlines()[-1]
    assert row.startswith(
        "| notched, luma, 5e-5 | 1 | -1.000 | -25.0% | -25.0% | +0.00 | +0.00 | 1.0, 1.0, 1.0 |"
    )
    assert row.endswith("| 0.100 on L1 alone | +0.0000 ± 0.0000 | +0.0000 ± 0.0000 | grain does as well |")
