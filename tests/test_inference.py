"""Whole images by tiles, padding and self-ensemble, against one plain application of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax import inference
from decloss_jax.checks import UserError
from decloss_jax.inference import cut, receptive_radius, upscale
from decloss_jax.models import EDSR, RRDBNet


def make(model, seed=0, size=(9, 8)):
    """Random parameters, with biases that would show at a border handled wrongly."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]
    return jax.tree.map(
        lambda p: rng.normal(0, 0.7 / np.sqrt(p.size / p.shape[-1]), p.shape).astype(p.dtype), shapes
    )


def image(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def whole(model, params, low):
    return np.asarray(jax.jit(model.apply)({"params": params}, low[None]))[0]


EDSR_SMALL = EDSR(scale=4, features=8, blocks=2)
EDSR_PARAMS = make(EDSR_SMALL)


@pytest.mark.parametrize("size", [(100, 75), (40, 75), (33, 32), (20, 30)])
def test_upscale_tiles_equal_the_whole_image(size):
    low = image(*size)
    expected = whole(EDSR_SMALL, EDSR_PARAMS, low)
    tiled = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=32)
    assert tiled.shape == (4 * size[0], 4 * size[1], 3)
    np.testing.assert_allclose(tiled, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("scale", "blocks"), [(2, 1), (3, 2), (4, 3)])
def test_receptive_radius_of_edsr_is_tight(scale, blocks):
    model = EDSR(scale=scale, features=4, blocks=blocks)
    params, radius = make(model), receptive_radius(model)
    low = np.repeat(image(41, 3)[None], 2, axis=0)
    low[1, 20] += 0.5
    one, other = jax.jit(model.apply)({"params": params}, low)
    touched = np.flatnonzero(np.abs(one - other).sum(axis=(1, 2))) / scale
    assert 20 - radius <= touched.min() <= 20 - radius + 1
    assert 20 + radius - 1 <= touched.max() <= 21 + radius


def test_upscale_with_too_little_overlap_differs():
    low = image(70, 70)
    expected = whole(EDSR_SMALL, EDSR_PARAMS, low)
    assert np.abs(upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=32, overlap=2) - expected).max() > 1e-4


@pytest.mark.parametrize(
    ("model", "size", "shape"),
    [
        (EDSR_SMALL, (17, 23), (24, 23)),
        (EDSR(scale=3, features=4, blocks=1), (10, 9), (13, 16)),
        (RRDBNet(scale=4, features=4, blocks=1, growth=4), (11, 13), (16, 20)),
        (RRDBNet(scale=4, features=4, blocks=1, growth=4, remat=True), (11, 13), (16, 20)),
        (RRDBNet(scale=2, features=4, blocks=1, growth=4), (10, 14), (16, 16)),
        (RRDBNet(scale=1, features=4, blocks=1, growth=4), (12, 16), (20, 20)),
    ],
)
def test_upscale_padded_equals_unpadded(model, size, shape):
    params, low = make(model, size=(16, 16)), image(*size)
    padded = upscale(model, params, low, shape=shape)
    np.testing.assert_allclose(padded, whole(model, params, low), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("scale", "size", "options"),
    [
        (2, (33, 41), {}),
        (2, (33, 40), {"shape": (47, 43)}),
        (2, (101, 37), {"tile": 96, "overlap": 40}),
        (1, (33, 42), {}),
        (1, (31, 41), {"shape": (47, 43)}),
        (1, (181, 35), {"tile": 176, "overlap": 80}),
    ],
)
def test_upscale_continues_images_by_reflection(scale, size, options):
    model = RRDBNet(scale=scale, features=4, blocks=1, growth=4)
    params, low = make(model, size=(16, 16)), image(*size)
    divisor = 4 // scale
    rows, columns = ([*range(n), *range(n - 2, n - 2 - -n % divisor, -1)] for n in size)
    expected = whole(model, params, low[rows][:, columns])[: scale * size[0], : scale * size[1]]
    np.testing.assert_allclose(upscale(model, params, low, **options), expected, rtol=0, atol=2e-6)


def test_upscale_compiles_once_per_shape():
    model = EDSR(scale=2, features=4, blocks=1)
    params, before = make(model), inference.apply_in_strips._cache_size()
    for size in [(20, 30), (24, 28), (24, 30)]:
        upscale(model, params, image(*size), shape=(24, 30))
    assert inference.apply_in_strips._cache_size() == before + 1
    for size in [(65, 70), (100, 65)]:
        upscale(model, params, image(*size), tile=64)
    assert inference.apply_in_strips._cache_size() == before + 2


def test_upscale_takes_8_bits():
    low = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    from_bytes = upscale(EDSR_SMALL, EDSR_PARAMS, low)
    np.testing.assert_array_equal(from_bytes, upscale(EDSR_SMALL, EDSR_PARAMS, low / np.float32(255)))


def test_self_ensemble_is_the_mean_over_symmetries():
    low = image(12, 10)
    views = []
    for transpose in (False, True):
        for flip_rows in (1, -1):
            for flip_columns in (1, -1):
                view = low[::flip_rows, ::flip_columns]
                view = view.transpose(1, 0, 2) if transpose else view
                sr = whole(EDSR_SMALL, EDSR_PARAMS, view)
                sr = sr.transpose(1, 0, 2) if transpose else sr
                views.append(sr[::flip_rows, ::flip_columns])
    averaged = upscale(EDSR_SMALL, EDSR_PARAMS, low, self_ensemble=True)
    np.testing.assert_allclose(averaged, np.mean(views, axis=0), rtol=0, atol=2e-6)


def test_upscale_halves_tiles_when_memory_runs_out(monkeypatch, capsys):
    low, apply_in_strips = image(100, 70), inference.apply_in_strips

    def limited(model, params, low, valid):
        if low.shape[1] * low.shape[2] > 50 * 50:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return apply_in_strips(model, params, low, valid)

    monkeypatch.setattr(inference, "apply_in_strips", limited)
    sr = upscale(EDSR_SMALL, EDSR_PARAMS, low)
    np.testing.assert_allclose(sr, whole(EDSR_SMALL, EDSR_PARAMS, low), rtol=0, atol=2e-6)
    assert "going on with tiles of 48" in capsys.readouterr().err


def test_upscale_gives_up_when_small_tiles_do_not_fit(monkeypatch):
    def never(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(inference, "apply_in_strips", never)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        upscale(EDSR_SMALL, EDSR_PARAMS, image(40, 40))


@pytest.mark.parametrize(
    ("length", "window", "overlap"), [(100, 32, 8), (33, 32, 12), (1000, 64, 28), (64, 64, 3)]
)
def test_cut_tiles_the_side_and_keeps_the_overlap(length, window, overlap):
    parts = cut(length, window, overlap)
    assert [start for _, start, _ in parts] == [0] + [end for _, _, end in parts[:-1]]
    assert parts[-1][2] == length
    for start, used_from, used_to in parts:
        assert start + window <= length or len(parts) == 1
        assert used_from == 0 or used_from - start >= overlap
        assert used_to == length or start + window - used_to >= overlap


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tile": 30}, "tile"), ({"tile": 16}, "tile"), ({"tile": 32, "overlap": 15}, "overlap")],
)
def test_upscale_refuses_tiles_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        upscale(EDSR_SMALL, EDSR_PARAMS, image(40, 40), **options)


def test_upscale_refuses_a_batch():
    with pytest.raises(UserError, match="one image"):
        upscale(EDSR_SMALL, EDSR_PARAMS, image(8, 8)[None])
