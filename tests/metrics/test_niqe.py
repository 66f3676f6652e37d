"""NIQE against reference values in float64, MATLAB's own number, BasicSR's, and known distributions."""

import json

import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.metrics import METRICS, niqe
from decloss_jax.metrics.niqe import distance_to_pristine, fit_asymmetric_gaussian, niqe_features

MATLAB_BABOON = 5.72957338  # R2021a on Set14's baboon, by a comment in BasicSR


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "comparison" / "niqe.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def rows(golden):
    return {row["name"]: row for row in json.loads(str(golden["rows_json"]))}


@pytest.mark.parametrize("border", [0, 4])
def test_niqe_equals_the_reference(golden, rows, border):
    for name, row in rows.items():
        value = niqe(golden[f"image/{name}"], crop_border=border)
        # A few pixels of Y lie between two levels.
        assert abs(value - row[f"ideal_y_border{border}"]) < 2e-5, name
        assert abs(value - row[f"basicsr_y_border{border}"]) < 1e-2, name


def test_niqe_equals_matlab(golden):
    assert abs(niqe(golden["image/set14_001"]) - MATLAB_BABOON) < 1e-6


@pytest.mark.parametrize("name", ["set5_4", "set14_011_bicubic", "flat_block"])
def test_niqe_features_equal_the_reference(golden, rows, name):
    luma = golden[f"y/{name}"]
    height, width = (side // 96 * 96 for side in luma.shape)
    features = niqe_features(luma[:height, :width].astype(np.float64))
    np.testing.assert_allclose(features, golden[f"features_ideal/{name}/border0"], rtol=0, atol=1e-12)
    assert abs(distance_to_pristine(features) - rows[name]["ideal_y_border0"]) < 1e-9


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 5.0])
def test_fit_asymmetric_gaussian_recovers_a_known_distribution(shape):
    random = np.random.default_rng(0)
    left, right, count = 0.5, 2.0, 10**6
    sizes = random.gamma(1 / shape, size=count) ** (1 / shape)  # of density exp(-|x|^shape)
    below = random.uniform(size=count) < left / (left + right)
    values = np.where(below, -left, right) * sizes
    found = fit_asymmetric_gaussian(values.reshape(1, 1000, 1000))
    np.testing.assert_allclose(np.ravel(found), [shape, left, right], rtol=0.03)


def test_niqe_ignores_pixels_beyond_the_last_whole_block(golden):
    image = golden["image/set5_5"]
    height, width = (side // 96 * 96 for side in image.shape[:2])
    changed = image.copy()
    changed[height:], changed[:, width:] = 0, 255
    assert niqe(changed) == niqe(image)


@pytest.mark.parametrize("size", [(191, 95), (96, 96), (10, 10)])
def test_niqe_says_that_an_image_is_too_small(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r"image for NIQE: expected at least two blocks of 96x96 pixels"):
        niqe(image)


def test_niqe_says_that_a_border_leaves_too_little():
    image = np.random.default_rng(0).integers(0, 256, (192, 96, 3), dtype=np.uint8)
    assert niqe(image) > 0
    with pytest.raises(UserError, match=r"192 x 96 pixels and a border of 1"):
        niqe(image, crop_border=1)


def test_niqe_says_that_an_image_is_flat():
    with pytest.raises(UserError, match=r"that are not flat"):
        niqe(np.full((288, 288, 3), 200, np.uint8))


def test_niqe_refuses_floats():
    with pytest.raises(UserError, match=r"expected uint8 of shape \[H,W,3\]"):
        niqe(np.zeros((288, 288, 3)))


def test_niqe_column_is_nan_for_an_image_without_a_value(golden):
    image = golden["image/set5_3"]
    values = list(METRICS["niqe"].function([image, image[:100, :100]], [image, image], crop_border=4))
    assert values[0] == niqe(image, crop_border=4)
    assert np.isnan(values[1])
