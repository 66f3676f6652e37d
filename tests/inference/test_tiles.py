"""Whole images by tiles, padding and self-ensemble, against one plain application of the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.inference import tiles as inference
from decloss_jax.inference.tiles import (
    choose_tile,
    choose_tiles,
    choose_window,
    cut,
    geometry,
    receptive_radius,
    upscale,
)
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.models.edsr import DIV2K_MEAN
from decloss_jax.ops.quantize import dequantize, quantize


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


@pytest.mark.parametrize(
    "model",
    [
        EDSR(scale=2, features=4, blocks=1),
        EDSR(scale=3, features=4, blocks=2),
        EDSR(scale=4, features=4, blocks=3),
        RRDBNet(scale=4, features=4, blocks=1, growth=4),
        RRDBNet(scale=2, features=4, blocks=1, growth=4),
        RRDBNet(scale=8, features=4, blocks=1, growth=4),
        RRDBNet(scale=1, features=4, blocks=1, growth=4, unshuffle=False),
        EDSR(scale=8, features=4, blocks=1),
    ],
)
def test_receptive_radius_is_tight(model):
    # Where all weights are positive and there is nothing else, no light is lost on the way, however little.
    params = jax.tree.map(lambda p: 0.1 * (p.ndim > 1) + np.zeros_like(p), make(model, size=(16, 16)))
    radius = receptive_radius(model)
    middle = 2 * (radius // 2 + 1)
    low = np.zeros((2, 2 * middle, 4, 3), np.float32) + (DIV2K_MEAN if isinstance(model, EDSR) else 0)
    low[1, middle] += 1
    one, other = jax.jit(model.apply)({"params": params}, np.float32(low))
    touched = np.flatnonzero(np.abs(one - other).sum(axis=(1, 2))) / model.scale
    cell = geometry(model).divisor
    assert middle - radius <= touched.min() < middle - radius + 1 + cell
    assert middle + radius - cell < touched.max() < middle + radius + 1


def test_receptive_radius_of_the_published_networks():
    assert receptive_radius(EDSR(scale=4, features=64, blocks=16)) == 36
    assert receptive_radius(EDSR(scale=4, features=256, blocks=32, res_scale=0.1)) == 68
    assert receptive_radius(RRDBNet(scale=4, features=64, blocks=23, growth=32)) == 349


@pytest.mark.parametrize("model", [EDSR(blocks=2), RRDBNet(blocks=2), RRDBNet(scale=2, blocks=2)])
def test_geometry_knows_what_extracting_features_takes(model):
    low = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), low)
    program = jax.jit(functools.partial(model.apply, method="extract")).lower(variables, low).compile()
    memory = program.memory_analysis()
    taken = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 64**2
    assert taken == pytest.approx(geometry(model).bytes, rel=0.05)


def test_choose_tile_fits_into_the_memory(monkeypatch):
    model, devices = EDSR(), jax.local_devices()
    for free in (10**6, 10**8, 3 * 10**8, 10**12):
        monkeypatch.setattr(inference, "available_bytes", lambda devices, free=free: free)
        tile = choose_tile(model, devices)
        assert tile % 4 == 0
        fits = geometry(model).bytes * tile**2 <= min(free / 2, 2**29)
        assert fits or tile == 32
        assert geometry(model).bytes * (tile + 4) ** 2 > min(free / 2, 2**29)


@pytest.mark.parametrize("rows", [16, 33, 100])
def test_upscale_in_strips_equals_the_whole_image(monkeypatch, rows):
    monkeypatch.setattr(inference, "SMALLEST_STRIP", rows)
    monkeypatch.setattr(inference, "STRIP_AREA", 1)
    inference.apply_in_strips.clear_cache()
    low = image(70, 9)
    for model in (EDSR_SMALL, EDSR(scale=3, features=4, blocks=1), RRDBNet(features=4, blocks=1, growth=4)):
        params = make(model)
        expected = whole(model, params, low)
        np.testing.assert_allclose(upscale(model, params, low), expected, rtol=0, atol=2e-6)
        padded = upscale(model, params, low, shape=(90, 16))
        np.testing.assert_allclose(padded, expected, rtol=0, atol=2e-6)
    inference.apply_in_strips.clear_cache()


@pytest.mark.parametrize("options", [{}, {"self_ensemble": True}])
def test_upscale_is_the_same_on_any_number_of_devices(options):
    low = image(100, 75)
    one, two, all_of_them = (
        upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=32, devices=jax.devices()[:count], **options)
        for count in (1, 2, 8)
    )
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-6)
    np.testing.assert_allclose(all_of_them, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_upscale_quantizes(dtype):
    low = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (50, 33, 3), dtype)
    expected = quantize(upscale(EDSR_SMALL, EDSR_PARAMS, dequantize(low), tile=32), dtype)
    result = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=32, dtype=dtype)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("model", "tile"), [(EDSR_SMALL, 32), (RRDBNet(2, 4, 1, 4), 64)])
def test_upscale_reports_every_pixel_once(model, tile):
    done = []
    upscale(model, make(model, size=(16, 16)), image(101, 75), tile=tile, advance=done.append)
    assert sum(done) == 101 * 75
    assert len(done) > 1


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


@pytest.mark.parametrize(("size", "tile"), [((12, 10), None), ((50, 33), 32)])
def test_self_ensemble_is_the_mean_over_symmetries(size, tile):
    low = image(*size)
    views = []
    for transpose in (False, True):
        for flip_rows in (1, -1):
            for flip_columns in (1, -1):
                view = low[::flip_rows, ::flip_columns]
                view = view.transpose(1, 0, 2) if transpose else view
                sr = whole(EDSR_SMALL, EDSR_PARAMS, view)
                sr = sr.transpose(1, 0, 2) if transpose else sr
                views.append(sr[::flip_rows, ::flip_columns])
    averaged = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=tile, self_ensemble=True)
    np.testing.assert_allclose(averaged, np.mean(views, axis=0), rtol=0, atol=2e-6)


def test_upscale_halves_tiles_when_memory_runs_out(monkeypatch, capsys):
    low, apply_in_strips, calls, done = image(100, 70), inference.apply_in_strips, [], []

    def limited(model, params, low, valid):
        calls.append(low.shape[1])
        if low.shape[1] > 50 and len(calls) > 1:  # not at once: another program takes the memory meanwhile
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return apply_in_strips(model, params, low, valid)

    monkeypatch.setattr(inference, "apply_in_strips", limited)
    sr = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=64, devices=jax.devices()[:1], advance=done.append)
    np.testing.assert_allclose(sr, whole(EDSR_SMALL, EDSR_PARAMS, low), rtol=0, atol=2e-6)
    assert "not enough memory for 64 LR pixels at once: going on with tiles of 32" in capsys.readouterr().err
    assert calls[:3] == [64, 64, 32]
    assert done[0] > 0
    assert done[1] == -done[0]
    assert sum(done) == 100 * 70


def test_upscale_gives_up_when_small_tiles_do_not_fit(monkeypatch):
    def never(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(inference, "apply_in_strips", never)
    with pytest.raises(UserError, match="memory: expected room for the network on 40 LR pixels at once"):
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


def test_choose_tiles_says_when_they_are_too_small_to_be_exact(capsys):
    devices = jax.local_devices()
    assert choose_tiles(EDSR(), 80, None, devices) == (80, 36)
    assert choose_tiles(EDSR(), 48, 10, devices) == (48, 10)
    assert capsys.readouterr().err == ""
    assert choose_tiles(EDSR(), 48, None, devices) == (48, 20)
    assert "tiles of 48 overlap by 20 LR pixels" in capsys.readouterr().err


def test_choose_tiles_makes_room_for_an_overlap_that_is_asked_for():
    tile, overlap = choose_tiles(RRDBNet(), None, 349, jax.local_devices())
    assert overlap == 349
    assert 3 * 349 <= tile < 3 * 349 + 4


def test_choose_window_takes_the_smallest_tiles_that_suffice():
    assert choose_window((100, 30), (100, 48), 724, 36, 1) == (100, 48)
    height, width = choose_window((680, 1024), (680, 1024), 724, 36, 1)
    assert (height, width) == (680, 576)
    assert len(cut(1024, 576, 36)) == len(cut(1024, 724, 36)) == 2
    assert len(cut(1024, 576 - 64, 36)) > 2
    for side in range(725, 5000, 97):
        (_, window) = choose_window((1, side), (1, side), 724, 36, 1)
        assert window % 64 == 0 or window == 724
        assert len(cut(side, window, 36)) == len(cut(side, 724, 36))


def test_upscale_in_windows_smaller_than_the_tile_equals_the_whole_image():
    low = image(150, 20)
    tiled = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=140)
    np.testing.assert_allclose(tiled, whole(EDSR_SMALL, EDSR_PARAMS, low), rtol=0, atol=2e-6)
