"""The size, the overlap and the positions of tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import make

from decloss_jax.inference import tiles
from decloss_jax.inference.tiles import (
    choose_tile,
    choose_tiles,
    choose_window,
    cut,
    geometry,
    receptive_radius,
)
from decloss_jax.models import EDSR, MSRResNet, RRDBNet, SRResNet
from decloss_jax.models.edsr import DIV2K_MEAN


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
    # With positive weights only, every pixel in the receptive field changes the result.
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


@pytest.mark.parametrize(
    "model",
    [EDSR(blocks=2), RRDBNet(blocks=2), RRDBNet(scale=2, blocks=2), SRResNet(blocks=2), MSRResNet(blocks=2)],
)
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
        monkeypatch.setattr(tiles, "available_bytes", lambda devices, free=free: free)
        tile = choose_tile(model, devices)
        assert tile % 4 == 0
        fits = geometry(model).bytes * tile**2 <= min(free / 2, 2**29)
        assert fits or tile == 32
        assert geometry(model).bytes * (tile + 4) ** 2 > min(free / 2, 2**29)


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
