"""Golden values of Eq. 12-23 for the whole loss, from an independent float64 oracle."""

import inspect
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from decloss_jax.checks import UserError
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


def assert_gradient_equals(gradient: jax.Array, expected: np.ndarray) -> None:
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("index", range(6))
def test_dense_form_equals_golden(golden, index):
    case = golden["cases"][index]

    def dense_decloss(sr: jax.Array, hr: jax.Array) -> jax.Array:
        return spatial_contrast_dense(patches_of(sr, case), patches_of(hr, case), **options(case, CONTRAST))

    loss, gradient = jax.jit(jax.value_and_grad(dense_decloss))(golden["sr"], golden["hr"])
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-6)
    assert_gradient_equals(gradient, golden[f"case{index}_grad_sr"])


@pytest.mark.parametrize("tile_size", [7, 100])
@pytest.mark.parametrize("index", range(6))
def test_decloss_equals_golden(golden, index, tile_size):
    case = golden["cases"][index]
    function = partial(
        decloss_terms,
        patch_size=case["patch_size"],
        tile_size=tile_size,
        **options(case, ENHANCEMENT + CONTRAST),
    )
    (loss, shares), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(golden["sr"], golden["hr"])
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-6)
    assert_gradient_equals(gradient, golden[f"case{index}_grad_sr"])
    anchors = 1 - case["anchors_without_negative"] / case["anchors"]
    np.testing.assert_allclose(shares["positives"], case["positive_fraction"], rtol=1e-6)
    np.testing.assert_allclose(shares["anchors"], anchors, rtol=1e-6)


def test_decloss_without_options_is_the_papers(golden):
    """The defaults are those of the config; mu is a quarter of the shorter side."""
    sr, hr = (jnp.asarray(golden[name])[:, :16] for name in ("sr", "hr"))
    assert sr.shape[2] > 16
    config = get_config().decloss
    names = ("patch_size", "alpha", "mode", "kernel", "color", *CONTRAST, "tile_size", "precision")
    expected, _ = decloss_terms(sr, hr, mu=config.mu * 16, **{name: config[name] for name in names})
    np.testing.assert_allclose(decloss(sr, hr), expected, rtol=1e-6)
    defaults = {name: parameter.default for name, parameter in inspect.signature(decloss).parameters.items()}
    assert {name: defaults[name] for name in names} == {name: config[name] for name in names}


@pytest.mark.parametrize("index", range(6))
def test_enhancement_and_patches_equal_golden(golden, index):
    case = golden["cases"][index]
    images = jnp.asarray(golden["sr"])
    for value, key in (
        (enhance_detail(images, **options(case, ENHANCEMENT)), "enhanced_sr"),
        (patches_of(images, case), "patches_sr"),
    ):
        expected = golden[f"case{index}_{key}"]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(("n", "mode"), [(1, "multiply"), (3, "residual")])
def test_decloss_of_flat_images_is_finite(n, mode):
    """One black image, or a black, a gray and a white one: no negatives, or vectors without direction."""
    flat = np.linspace(0.0, 1.0, n, dtype=np.float32)[:, None, None, None] * np.ones(
        (n, 16, 16, 3), np.float32
    )
    function = partial(
        decloss, patch_size=4, alpha=1.0, mu=4.0, mode=mode, threshold_db=25.0, t_pos=0.5, t_neg=1.5
    )
    loss, gradient = jax.jit(jax.value_and_grad(function))(flat, flat)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_luma_is_the_loss_of_the_grey_images(golden):
    """Grey images have the same loss in RGB; the gradient is grey."""
    sr, hr = (jnp.asarray(golden[name])[:, :32, :32] for name in ("sr", "hr"))
    grey_sr, grey_hr = (np.repeat(x.mean(axis=-1, keepdims=True), 3, axis=-1) for x in (sr, hr))
    function = partial(decloss, mu=8.0, threshold_db=20.0)
    expected, of_grey = jax.value_and_grad(function)(jnp.asarray(grey_sr), grey_hr)
    loss, gradient = jax.value_and_grad(partial(function, color="luma"))(sr, hr)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.repeat(gradient[..., :1], 3, axis=-1))
    assert_gradient_equals(gradient, np.repeat(of_grey.mean(axis=-1, keepdims=True), 3, axis=-1))
    assert np.abs(loss - function(sr, hr)) > 1e-3


def test_decloss_refuses_what_does_not_fit():
    function = partial(decloss, alpha=1.0, mu=4.0, mode="multiply", threshold_db=25.0, t_pos=0.5, t_neg=1.5)
    images = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(UserError, match="patch_size"):
        function(images, images, patch_size=5)
    with pytest.raises(UserError, match="sr and hr"):
        function(images, images[:, :8], patch_size=4)
    with pytest.raises(UserError, match="nearest: luma"):
        function(images, images, color="lumen")
