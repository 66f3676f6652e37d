"""Reconstruction in strips of rows, against the whole image at once."""

import numpy as np
import pytest
from small_networks import image, make, whole

from decloss_jax.inference import strips, upscale
from decloss_jax.models import EDSR, RRDBNet


@pytest.mark.parametrize(
    ("rows", "model", "shape"),
    [
        (16, EDSR(scale=3, features=4, blocks=1), (90, 16)),
        (33, RRDBNet(features=4, blocks=1, growth=4), None),
    ],
)
def test_upscale_in_strips_equals_the_whole_image(monkeypatch, rows, model, shape):
    monkeypatch.setattr(strips, "SMALLEST_STRIP", rows)
    monkeypatch.setattr(strips, "STRIP_AREA", 1)
    strips.apply_in_strips.clear_cache()
    low = image(70, 9)
    params = make(model)
    expected = whole(model, params, low)
    np.testing.assert_allclose(upscale(model, params, low, shape=shape), expected, rtol=0, atol=2e-6)
    strips.apply_in_strips.clear_cache()
