"""Golden values of Eq. 12-23 for the whole loss, from an independent float64 oracle."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.losses.contrast import spatial_contrast_dense
from decloss_jax.losses.decloss import decloss, decloss_terms
from decloss_jax.ops.fourier import enhance_detail
from decloss_jax.ops.patches import extract_patches

ENHANCEMENT = ("alpha", "mu", "mode")
CONTRAST = ("threshold_db", "t_pos", "t_neg", "temperature")


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict:
    with np.load(shared / "golden" / "decloss.npz") as file:
        values = dict(file)
    values["cases"] = json.loads(str(values.pop("cases_json")))
    return values


def options(case: dict, names: tuple[str, ...]) -> dict:
    return {name: case[name] for name in names}


def patches_of(images: jax.Array, case: dict) -> jax.Array:
    return extract_patches(enhance_detail(images, **options(case, ENHANCEMENT)), case["patch_size"])


def dense_decloss(sr: jax.Array, hr: jax.Array, case: dict) -> jax.Array:
    return spatial_contrast_dense(patches_of(sr, case), patches_of(hr, case), **options(case, CONTRAST))


def tiled_decloss(sr: jax.Array, hr: jax.Array, case: dict, tile_size: int | None = None) -> jax.Array:
    return decloss(
        sr, hr, patch_size=case["patch_size"], tile_size=tile_size, **options(case, ENHANCEMENT + CONTRAST)
    )


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("form", [dense_decloss, tiled_decloss])
def test_decloss_equals_golden_loss_and_gradient(golden, form, index):
    case = golden["cases"][index]
    compiled = jax.jit(jax.value_and_grad(partial(form, case=case)))
    loss, gradient = compiled(golden["sr"], golden["hr"])
    expected = golden[f"case{index}_grad_sr"]
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("tile_size", [1, 7, 32, 1000])
def test_decloss_does_not_depend_on_tile_size(golden, tile_size):
    case = golden["cases"][0]
    compiled = jax.jit(jax.value_and_grad(partial(tiled_decloss, case=case, tile_size=tile_size)))
    loss, gradient = compiled(golden["sr"], golden["hr"])
    expected = golden["case0_grad_sr"]
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("index", range(6))
def test_decloss_terms_equal_golden_shares(golden, index):
    case = golden["cases"][index]
    _, shares = decloss_terms(
        jnp.asarray(golden["sr"]),
        jnp.asarray(golden["hr"]),
        patch_size=case["patch_size"],
        **options(case, ENHANCEMENT + CONTRAST),
    )
    anchors = 1 - case["anchors_without_negative"] / case["anchors"]
    np.testing.assert_allclose(shares["positives"], case["positive_fraction"], rtol=1e-6)
    np.testing.assert_allclose(shares["anchors"], anchors, rtol=1e-6)


@pytest.mark.parametrize("index", range(6))
def test_enhance_detail_and_extract_patches_equal_golden(golden, index):
    case = golden["cases"][index]
    images = jnp.asarray(golden["sr"])
    for value, key in (
        (enhance_detail(images, **options(case, ENHANCEMENT)), "enhanced_sr"),
        (patches_of(images, case), "patches_sr"),
    ):
        expected = golden[f"case{index}_{key}"]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))
