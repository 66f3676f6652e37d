"""Whole images by tiles, padding and self-ensemble on all devices, against one plain application."""

import jax
import numpy as np
import pytest
from small_networks import EDSR_PARAMS, EDSR_SMALL, image, make, whole

from decloss_jax.checks import UserError
from decloss_jax.inference import strips, upscale, upscale_each, windows
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.ops.quantize import dequantize, quantize


@pytest.mark.parametrize("size", [(100, 75), (40, 75), (33, 32), (20, 30)])
def test_upscale_tiles_equal_the_whole_image(size):
    low = image(*size)
    expected = whole(EDSR_SMALL, EDSR_PARAMS, low)
    tiled = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=32)
    assert tiled.shape == (4 * size[0], 4 * size[1], 3)
    np.testing.assert_allclose(tiled, expected, rtol=0, atol=2e-6)


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
        (2, (101, 37), {"tile": 96, "overlap": 40}),
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
    params, before = make(model), strips.apply_in_strips._cache_size()
    for size in [(20, 30), (24, 28), (24, 30)]:
        upscale(model, params, image(*size), shape=(24, 30))
    assert strips.apply_in_strips._cache_size() == before + 1
    for size in [(65, 70), (100, 65)]:
        upscale(model, params, image(*size), tile=64)
    assert strips.apply_in_strips._cache_size() == before + 2


def test_upscale_takes_8_bits():
    low = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    from_bytes = upscale(EDSR_SMALL, EDSR_PARAMS, low)
    np.testing.assert_array_equal(from_bytes, upscale(EDSR_SMALL, EDSR_PARAMS, low / np.float32(255)))


def test_self_ensemble_is_the_mean_over_symmetries():
    low = image(36, 30)
    views = []
    for transpose in (False, True):
        for flip_rows in (1, -1):
            for flip_columns in (1, -1):
                view = low[::flip_rows, ::flip_columns]
                view = view.transpose(1, 0, 2) if transpose else view
                sr = whole(EDSR_SMALL, EDSR_PARAMS, view)
                sr = sr.transpose(1, 0, 2) if transpose else sr
                views.append(sr[::flip_rows, ::flip_columns])
    averaged = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=32, self_ensemble=True)
    np.testing.assert_allclose(averaged, np.mean(views, axis=0), rtol=0, atol=2e-6)


def test_upscale_halves_tiles_when_memory_runs_out(monkeypatch, capsys):
    low, apply_in_strips, calls, done = image(100, 70), strips.apply_in_strips, [], []

    def limited(model, params, low, valid, *, dtype):
        calls.append(low.shape[1])
        if low.shape[1] > 50 and len(calls) > 2:  # later, as if another program took the memory
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return apply_in_strips(model, params, low, valid, dtype=dtype)

    monkeypatch.setattr(windows, "apply_in_strips", limited)
    sr = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=64, devices=jax.devices()[:1], advance=done.append)
    np.testing.assert_allclose(sr, whole(EDSR_SMALL, EDSR_PARAMS, low), rtol=0, atol=2e-6)
    assert "memory for 64 LR pixels at once: continuing with tiles of 32" in capsys.readouterr().err
    assert calls[:4] == [64, 64, 64, 32]
    assert done[0] > 0
    assert done[1] == -done[0]
    assert sum(done) == 100 * 70


def test_upscale_gives_up_when_small_tiles_do_not_fit(monkeypatch):
    def never(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(windows, "apply_in_strips", never)
    with pytest.raises(UserError, match="memory: expected room for the network on 40 LR pixels at once"):
        upscale(EDSR_SMALL, EDSR_PARAMS, image(40, 40))


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


def test_upscale_in_windows_smaller_than_the_tile_equals_the_whole_image():
    low = image(150, 20)
    tiled = upscale(EDSR_SMALL, EDSR_PARAMS, low, tile=140)
    np.testing.assert_allclose(tiled, whole(EDSR_SMALL, EDSR_PARAMS, low), rtol=0, atol=2e-6)


def watch_starts(monkeypatch):
    """Records for each start of the network its devices, and the shape of one device's input."""
    starts, apply_in_strips = [], strips.apply_in_strips

    def record(model, params, low, valid, *, dtype):
        shards = low.addressable_shards
        starts.append(({shard.device for shard in shards}, shards[0].data.shape))
        return apply_in_strips(model, params, low, valid, dtype=dtype)

    monkeypatch.setattr(windows, "apply_in_strips", record)
    return starts


def bytes_of(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def upscale_all(lows, **options):
    sizes = [low.shape[:2] for low in lows]
    return list(upscale_each(EDSR_SMALL, EDSR_PARAMS, lows.__getitem__, sizes, **options))


def test_upscale_each_gives_each_device_an_image_and_starts_the_next_ones_early(monkeypatch):
    starts = watch_starts(monkeypatch)
    lows = bytes_of(*[(12, 10)] * 17)
    srs = upscale_each(EDSR_SMALL, EDSR_PARAMS, lows.__getitem__, [(12, 10)] * 17)
    next(srs)
    assert starts == [(set(jax.local_devices()), (1, 12, 10, 3))] * 2
    assert [index for index, _ in srs] == list(range(1, 17))
    assert len(starts) == 3


def test_upscale_images_equals_one_image_at_a_time_bit_for_bit():
    lows = bytes_of((12, 10), (9, 14), (12, 10), (9, 14), (8, 8), (7, 6), (10, 10), (11, 11), (6, 9))
    results = upscale_in_shape(lows, (12, 14), np.uint8)
    assert sorted(results) == list(range(len(lows)))
    for index, low in enumerate(lows):
        alone = upscale(EDSR_SMALL, EDSR_PARAMS, low, dtype=np.uint8, shape=(12, 14))
        np.testing.assert_array_equal(results[index], alone)


def upscale_in_shape(lows, shape, dtype, **options):
    sizes = [low.shape[:2] for low in lows]
    images = windows.Images(lows.__getitem__, sizes, dict.fromkeys(sizes, shape))
    network = windows.Network(EDSR_SMALL, EDSR_PARAMS, jax.local_devices(), np.dtype(dtype))
    return dict(windows.upscale_images(network, images, **options))


def test_upscale_images_spreads_small_images_and_tiles_of_large_ones_alike(monkeypatch):
    starts = watch_starts(monkeypatch)
    lows = [image(32, 32), image(100, 75), image(32, 20), image(70, 40)]
    results = upscale_in_shape(lows, (32, 32), np.float32, tile=32)
    for low, sr in zip(lows, (results[index] for index in range(4)), strict=True):
        np.testing.assert_allclose(sr, whole(EDSR_SMALL, EDSR_PARAMS, low), rtol=0, atol=2e-6)
    assert set(map(str, starts)) == {str((set(jax.local_devices()), (1, 32, 32, 3)))}


def test_upscale_each_begins_only_unfinished_images_anew_when_memory_runs_out(monkeypatch):
    starts = watch_starts(monkeypatch)
    limited = windows.apply_in_strips

    def run_out(model, params, low, valid, *, dtype):
        if len(starts) >= 2 and low.shape[1] > 36:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return limited(model, params, low, valid, dtype=dtype)

    monkeypatch.setattr(windows, "apply_in_strips", run_out)
    lows = bytes_of(*[(64, 20)] * 4)
    results = upscale_all(lows, devices=jax.devices()[:1])
    assert [index for index, _ in results] == [0, 1, 2, 3]
    assert len(starts) == 2 + 3 * 4  # two whole images, one of them lost; then three in four tiles each
    for index, sr in results:
        expected = quantize(whole(EDSR_SMALL, EDSR_PARAMS, dequantize(lows[index])), np.uint8)
        assert np.abs(sr.astype(int) - expected).max() <= 1
        assert np.mean(sr != expected) < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_upscale_refuses_to_round_what_is_not_finite(value):
    low = image(12, 10)
    low[5, 5] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        upscale(EDSR_SMALL, EDSR_PARAMS, low, dtype=np.uint8)
    assert not np.isfinite(upscale(EDSR_SMALL, EDSR_PARAMS, low)).all()
