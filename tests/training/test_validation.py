"""Validation on whole images: its values, its strips, and its use of the devices."""

import functools
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from decloss_jax.inference import upscale, upscale_each, windows
from decloss_jax.metrics import psnr
from decloss_jax.models import EDSR
from decloss_jax.training.state import draw_params
from decloss_jax.training.validation import validate

MODEL = EDSR(scale=2, features=4, blocks=1)
PARAMS = draw_params(MODEL, 0)
SIZES = [(12, 16)] * 4 + [(16, 12)] + [(12, 16)] * 4


@dataclass
class InMemory:
    """Random pairs with the methods of `data.cache.PairedImages`."""

    hrs: list

    def __post_init__(self):
        self.names = tuple(f"image_{index}" for index in range(len(self.hrs)))

    def __len__(self):
        return len(self.hrs)

    def low(self, index):
        return self.hrs[index][::2, ::2]

    def hr(self, index):
        return self.hrs[index]

    def size(self, index):
        return self.hrs[index].shape[:2]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return InMemory([rng.integers(0, 256, (2 * h, 2 * w, 3), dtype=np.uint8) for h, w in SIZES])


def test_validate_measures_every_image_and_keeps_eight_devices_at_work(images, monkeypatch):
    at_work, apply_in_strips, shown = [], windows.apply_in_strips, {}

    def record(model, params, low, valid, *, dtype):
        at_work.append([(shard.device, shard.data.shape[0]) for shard in low.addressable_shards])
        return apply_in_strips(model, params, low, valid, dtype=dtype)

    monkeypatch.setattr(windows, "apply_in_strips", record)
    values = validate(
        PARAMS,
        images,
        upscale_each=functools.partial(upscale_each, MODEL),
        scale=2,
        samples=5,
        show=shown.__setitem__,
        stopped=lambda: False,
    )
    assert at_work == [[(device, 1) for device in jax.devices()], [(jax.devices()[0], 1)]]
    srs = [upscale(MODEL, PARAMS, images.low(index), dtype=np.uint8) for index in range(len(images))]
    for channel in ("y", "rgb"):
        alone = [psnr(sr, hr, crop_border=2, channel=channel) for sr, hr in zip(srs, images.hrs, strict=True)]
        assert values[f"psnr_{channel}"] == np.mean(alone)
    assert sorted(shown) == list(images.names[:5])
    height, width = 2 * SIZES[4][0], 2 * SIZES[4][1]
    assert shown["image_4"].shape == (height, 3 * width, 3)
    np.testing.assert_array_equal(shown["image_4"][:, width : 2 * width], srs[4])


def test_validate_ends_between_images_when_stopped(images):
    asked = []

    def stopped():
        asked.append(True)
        return len(asked) == 2

    each = functools.partial(upscale_each, MODEL)
    options = {"upscale_each": each, "scale": 2, "samples": 0, "show": print, "stopped": stopped}
    assert validate(PARAMS, images, **options) is None
    assert len(asked) == 2
