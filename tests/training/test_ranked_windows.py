"""The windows that a Ranker learns from: which are kept, how they are labelled, stored and paired."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.data.cache import DecodedImage, PairedImages, write_array
from decloss_jax.metrics.niqe import distance_to_pristine, niqe, niqe_features
from decloss_jax.ops.color import rgb_to_gray
from decloss_jax.training import ranked_windows
from decloss_jax.training.ranked_windows import (
    Network,
    RankedWindows,
    Rules,
    open_ranked_windows,
    pair_batches,
    rank_windows,
    sharpness,
    starts,
)

SIDE = 200
RULES = Rules(SIDE, sharpness=0.0, niqe_difference=0.0, windows_per_image=200)
NETWORKS = [Network(None, level, f"sha{level}") for level in range(3)]


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "comparison" / "niqe.npz") as arrays:
        return dict(arrays)


def textures(seed: int, height: int = 304, width: int = 324) -> np.ndarray:
    """Three noisy versions of one picture, uint8 [3,H,W,3], some parts smoother than others."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = 127 + 60 * np.sin(rows / 17 + columns / (9 + seed)) + 30 * np.sin(columns / 5)
    noise = rng.normal(0, 1, (3, height, width, 3)) * np.array([4, 9, 14])[:, None, None, None]
    return np.clip(waves[..., None] + noise * (columns / width)[..., None], 0, 255).astype(np.uint8)


def test_sharpness_and_gray_equal_the_reference(golden):
    for row in json.loads(str(golden["rows_json"])):
        gray = rgb_to_gray(golden[f"image/{row['name']}"])
        assert sharpness(gray) == pytest.approx(row["sharpness_sum"], rel=1e-9), row["name"]
        height, width = (side // 96 * 96 for side in gray.shape)
        value = distance_to_pristine(niqe_features(gray[:height, :width]))
        assert value == pytest.approx(row["ideal_gray_border0"], abs=1e-9), row["name"]


@pytest.mark.parametrize(("length", "expected"), [(296, []), (297, [0]), (444, [0]), (445, [0, 148])])
def test_a_window_that_touches_the_far_edge_is_left_out(length, expected):
    assert list(starts(length, 296)) == expected


def plain_loop(results: np.ndarray, least: float, difference: float) -> list[list[float]]:
    """The authors' loop over windows, with MATLAB's indices from 1."""
    kept = []
    for top in range(1, results.shape[1] - SIDE + 1, SIDE // 2):
        for left in range(1, results.shape[2] - SIDE + 1, SIDE // 2):
            patches = [each[top - 1 : top - 1 + SIDE, left - 1 : left - 1 + SIDE] for each in results]
            gan, better = (rgb_to_gray(patch) for patch in patches[1:])
            apart = [distance_to_pristine(niqe_features(gray[:192, :192])) for gray in (gan, better)]
            if sharpness(better) >= least and abs(apart[0] - apart[1]) > difference:
                labels = [round(niqe(patch, crop_border=4), 6) for patch in patches]
                kept.append([top - 1, left - 1, *labels])
    return kept


def test_kept_windows_and_labels_equal_a_plain_loop():
    results = textures(0)
    everything = plain_loop(results, 0, 0)
    assert len(everything) == 4
    sharp = [
        sharpness(rgb_to_gray(results[2, int(row[0]) :, int(row[1]) :][:SIDE, :SIDE])) for row in everything
    ]
    middle = float(np.median(sharp))
    with ThreadPoolExecutor(2) as pool:
        np.testing.assert_array_equal(rank_windows(results, RULES, pool), everything)
        for rules in (RULES._replace(sharpness=middle), RULES._replace(niqe_difference=0.2)):
            expected = plain_loop(results, rules.sharpness, rules.niqe_difference)
            assert 0 < len(expected) < 4
            np.testing.assert_array_equal(rank_windows(results, rules, pool), expected)
        two = rank_windows(results, RULES._replace(windows_per_image=2), pool)
    assert len(two) == 2
    assert all(row in everything for row in two.tolist())


@pytest.fixture
def images(tmp_path):
    """Four LR images; `fake_networks` gives their results."""
    stored = []
    for seed in range(4):
        file = tmp_path / "cache" / f"{seed}.low.npy"
        write_array(file, np.full((76, 81, 3), seed, np.uint8))
        low = DecodedImage(file, np.load(file, mmap_mode="r").offset, (76, 81, 3))
        stored.append((low, low))
    return PairedImages(scale=4, names=tuple("abcd"), stored=tuple(stored))


@pytest.fixture
def upscaled(monkeypatch):
    """Replaces the networks; lists the (level, image) that they were given. One goes backwards."""
    asked: list[tuple[int, int]] = []

    def fake(model, level, read, sizes):
        for number in range(len(sizes))[:: -1 if level == 1 else 1]:
            seed = int(read(number)[0, 0, 0])
            asked.append((level, seed))
            yield number, textures(seed)[level]

    monkeypatch.setattr(ranked_windows, "upscale_each", fake)
    return asked


def test_open_ranked_windows_gives_each_network_its_place(images, upscaled, tmp_path):
    windows = open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path)
    assert len(windows) == 16
    assert sorted(upscaled) == [(level, seed) for level in range(3) for seed in range(4)]
    for index, (image, top, left) in enumerate(windows.places):
        expected = textures(image)[:, top : top + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(windows.window(index), expected)
        labels = [round(niqe(each, crop_border=4), 6) for each in expected]
        np.testing.assert_array_equal(windows.niqe[index], labels)


def test_ranking_goes_on_after_an_interruption_and_is_done_once(images, upscaled, tmp_path, monkeypatch):
    expected = open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path / "whole")
    written: list[Path] = []

    def write(file, array):
        if len(written) == 3:
            raise KeyboardInterrupt  # between the results of the second image and its windows
        written.append(file)
        write_array(file, array)

    monkeypatch.setattr(ranked_windows, "write_array", write)
    with pytest.raises(KeyboardInterrupt):
        open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path)
    monkeypatch.setattr(ranked_windows, "write_array", write_array)
    upscaled.clear()
    windows = open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path)
    assert len(set(upscaled)) == 3 * 3  # one image was whole
    np.testing.assert_array_equal(windows.places, expected.places)
    np.testing.assert_array_equal(windows.niqe, expected.niqe)
    upscaled.clear()
    open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path)
    assert not upscaled


def test_damaged_and_foreign_results_are_made_again(images, upscaled, tmp_path):
    before = open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path)
    results, windows = (sorted((tmp_path / "ranked").glob(f"*.{kind}.npy")) for kind in ("sr", "windows"))
    results[0].write_bytes(results[0].read_bytes()[:1000])
    write_array(windows[1], np.zeros((2, 3)))
    upscaled.clear()
    after = open_ranked_windows(images, NETWORKS, RULES, cache_dir=tmp_path)
    assert len(set(upscaled)) == 2 * 3
    np.testing.assert_array_equal(after.niqe, before.niqe)
    upscaled.clear()
    others = [*NETWORKS[:2], NETWORKS[2]._replace(sha256="another")]
    open_ranked_windows(images, others, RULES, cache_dir=tmp_path)
    assert len(set(upscaled)) == 4 * 3


@pytest.fixture
def windows(tmp_path):
    """Five windows of 8 pixels, of which each pixel says the level and the window."""
    array = np.empty((3, 8, 40, 3), np.uint8)
    for level in range(3):
        array[level] = 10 * level + np.arange(40)[None, :, None] // 8
    write_array(tmp_path / "sr.npy", array)
    image = DecodedImage(tmp_path / "sr.npy", np.load(tmp_path / "sr.npy", mmap_mode="r").offset, array.shape)
    places = np.array([[0, 0, 8 * i] for i in range(5)])
    niqe_values = np.random.default_rng(0).permutation(15).reshape(5, 3).astype(float)
    niqe_values[4] = 3.0  # a tie
    return RankedWindows(8, (image,), places, niqe_values)


def test_pairs_are_one_window_of_two_networks_in_the_order_of_niqe(windows):
    batches = pair_batches(windows, batch_size=6, seed=3)
    seen = []
    for step in range(40):
        batch = batches[step]
        for first, second, (target,) in zip(*batch.values(), strict=True):
            assert np.unique(first).size == np.unique(second).size == 1
            (a, window), (b, other) = (divmod(int(each.flat[0]), 10) for each in (first, second))
            assert window == other
            assert target == (1 if windows.niqe[window, a] >= windows.niqe[window, b] else -1)
            seen.append((window, a, b))
    names, counts = np.unique(np.array(seen)[:, 1:], axis=0, return_counts=True)
    assert names.tolist() == [[1, 0], [2, 0], [2, 1]]
    assert min(counts) > 60  # of 240
    epochs = np.array(seen)[:, 0].reshape(-1, 5)
    assert (np.sort(epochs, axis=1) == np.arange(5)).all()


def test_pairs_depend_on_seed_and_step_alone(windows):
    whole, again, other = (pair_batches(windows, batch_size=6, seed=seed) for seed in (3, 3, 4))
    shares = [pair_batches(windows, batch_size=6, seed=3, process_index=i, process_count=2) for i in (0, 1)]
    for step in (17, 2):
        for name, array in whole[step].items():
            np.testing.assert_array_equal(again[step][name], array)
            np.testing.assert_array_equal(np.concatenate([each[step][name] for each in shares]), array)
    assert any((whole[step]["first"] != other[step]["first"]).any() for step in range(3))


def test_pairs_need_a_window(windows):
    with pytest.raises(UserError, match=r"ranked windows to train on: expected at least one .* got none"):
        pair_batches(windows.choose(np.zeros(5, bool)), batch_size=6, seed=0)
