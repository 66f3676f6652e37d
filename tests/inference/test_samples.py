"""Samples of SRFlow depend on the seed and the image alone."""

import functools

import jax
import numpy as np
import pytest
from srflow_params import random_params

from decloss_jax.checks import UserError
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.inference.samples import choose_upscale, regress, sample
from decloss_jax.inference.tiles import receptive_radius
from decloss_jax.models import EDSR, RRDBNet, SRFlow
from decloss_jax.weights import save_generator

MODEL = SRFlow(features=4, blocks=1, growth=2, stacked_blocks=(0,), flow_steps=1, transitions=1, hidden=4)


@pytest.fixture(scope="module")
def draw():
    """`sample` with the parameters of a network in which every layer acts."""
    return functools.partial(sample, MODEL, random_params(MODEL))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(1).integers(0, 256, (120, 41, 3), np.uint8)


def test_sample_depends_on_seed_heat_and_content(draw, picture):
    wanted = draw(picture, seed=3)
    assert wanted.shape == (480, 164, 3)
    assert wanted.dtype == np.float32
    np.testing.assert_array_equal(draw(picture.copy(), seed=3), wanted)
    assert np.abs(draw(picture, seed=4) - wanted).mean() > 0.01
    changed = picture.copy()
    changed[119, 40] ^= 1
    assert np.abs(draw(changed, seed=3) - wanted)[:100].mean() > 0.01
    np.testing.assert_array_equal(draw(picture, heat=0.0, seed=3), draw(picture, heat=0.0, seed=4))


def test_sample_in_tiles_equals_the_whole(draw, picture):
    overlap = 40
    assert receptive_radius(MODEL) <= overlap
    whole = draw(picture, seed=3, devices=jax.devices()[:1])
    for devices in (jax.devices()[:1], jax.devices()[:3]):
        tiled = draw(picture, seed=3, tile=96, overlap=overlap, devices=devices)
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-5)


def test_sample_rounds_and_crops(draw, picture):
    pixels = []
    rounded = draw(picture, seed=3, dtype=np.uint8, advance=pixels.append)
    exact = np.clip(draw(picture, seed=3), 0, 1)
    np.testing.assert_allclose(rounded / 255.0, exact, rtol=0, atol=0.5 / 255 + 1e-6)
    assert sum(pixels) == 120 * 41


def test_regress_is_the_image_of_the_encoder(draw, picture):
    params = draw.args[1]
    padded = np.pad(picture, ((0, 0), (0, 1), (0, 0)), mode="reflect")[None] / np.float32(255)
    expected = MODEL.apply({"params": params}, padded, method="regress")[0, :, :164]
    np.testing.assert_allclose(regress(*draw.args, picture), expected, rtol=0, atol=1e-6)


def test_sample_refuses_a_negative_heat(draw, picture):
    with pytest.raises(UserError, match="heat"):
        draw(picture, heat=-0.1)


def test_a_sample_of_the_module_has_a_heat(draw):
    model, params = draw.args
    low = np.random.default_rng(2).uniform(size=(2, 4, 4, 3)).astype(np.float32)
    apply = jax.jit(functools.partial(model.apply, method="sample"), static_argnames="heat")
    sr = apply({"params": params}, low, jax.random.key(0), heat=0.9)
    assert sr.shape == (2, 16, 16, 3)
    assert np.abs(sr - apply({"params": params}, low, jax.random.key(1), heat=0.9)).mean() > 0.01


def test_load_methods_samples_with_heat_and_seed(draw, picture, tmp_path):
    save_generator(tmp_path / "flow.safetensors", *draw.args)
    for options in ({}, {"heat": 0.5, "seed": 7}):
        [method] = load_methods(weights=[str(tmp_path / "flow.safetensors")], **options)
        assert method.loaded["heat"] == options.get("heat", 0.9)
        assert method.loaded["seed"] == options.get("seed", 0)
        [(_, sr)] = method.upscale_each([picture])
        np.testing.assert_array_equal(sr, draw(picture, dtype=np.uint8, **options))


@pytest.mark.parametrize("option", ["heat", "seed"])
def test_load_methods_refuses_options_of_no_srflow(option):
    with pytest.raises(UserError, match=f"--{option}: expected a file of SRFlow"):
        load_methods(names=["bicubic"], **{option: 1})


@pytest.mark.parametrize(
    ("model", "options"),
    [(EDSR(), {"heat": 0.9}), (RRDBNet(), {"seed": 0}), (MODEL, {"self_ensemble": True})],
)
def test_choose_upscale_refuses_options_of_other_networks(model, options):
    with pytest.raises(UserError, match=f"--{next(iter(options)).replace('_', '-')}"):
        choose_upscale(model, **options)
