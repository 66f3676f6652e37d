"""LPIPS against the official package's values; padding and shapes; gradients."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.metrics import lpips, lpips_each
from decloss_jax.metrics.feature_distance import lpips_distance, unit_norm
from decloss_jax.metrics.lpips import lpips_padded, lpips_weights
from decloss_jax.ops.padding import pad_to, shared_shapes

CASES = [
    ("alex", "official", "lpips_alex"),
    ("vgg", "official", "lpips_vgg"),
    ("alex", "unscaled_255", "lpips_alex_unscaled_0_255"),
]
NAMES = ("img_001", "img_003", "img_005")


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "lpips.npz") as file:
        return dict(file)


def random_images(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def to_floats(images):
    return np.stack(images).astype(np.float32) / 255


@pytest.mark.parametrize(("net", "scaling", "key"), CASES)
def test_lpips_equals_the_official_package(golden, net, scaling, key):
    sr, hr = (to_floats([golden[f"{name}_{which}"] for name in NAMES]) for which in ("sr", "hr"))
    expected = [golden[f"{name}_{key}"] for name in NAMES]
    np.testing.assert_allclose(lpips(sr, hr, net=net, scaling=scaling), expected, rtol=0, atol=1e-5)


def test_lpips_each_of_mixed_sizes_equals_lpips_in_few_shapes(golden, monkeypatch):
    of_two = functools.partial(shared_shapes, levels=2)
    monkeypatch.setattr(sys.modules["decloss_jax.metrics.lpips"], "shared_shapes", of_two)
    heights = (48, 33, 45, 40)  # padded to 45 and 48
    pairs = [
        [golden[f"{NAMES[i % 3]}_{which}"][:height, :40] for which in ("sr", "hr")]
        for i, height in enumerate(heights)
    ]
    before = lpips_padded._cache_size()
    values = list(lpips_each(*zip(*pairs, strict=True), net="alex"))
    assert len(values) == 4
    assert lpips_padded._cache_size() == before + 2
    alone = lpips(*(to_floats([image]) for image in pairs[1]), net="alex")
    assert values[1] == pytest.approx(float(alone[0]), abs=1e-6)


def test_lpips_padded_with_vgg_equals_lpips_of_the_image_alone(golden):
    sizes = ((33, 40), (48, 44))
    pairs = [
        [golden[f"{name}_{which}"][:height, :width] for which in ("sr", "hr")]
        for name, (height, width) in zip(NAMES, sizes, strict=False)
    ]
    padded = [np.stack([pad_to(image, (48, 44)) for image in images]) for images in zip(*pairs, strict=True)]
    values = lpips_padded(*lpips_weights("vgg"), *padded, np.asarray(sizes), net="vgg", scaling="official")
    alone = lpips(*(to_floats([image]) for image in pairs[0]), net="vgg")
    assert values[0] == pytest.approx(float(alone[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda image: image / 255, "float64 of shape"),
        (lambda image: image.astype(np.int64), "int64 of shape"),
        (lambda image: image[None], r"shape \[1, 40, 40, 3\]"),
        (lambda image: image[..., :1], r"shape \[40, 40, 1\]"),
    ],
)
def test_lpips_each_refuses_images_that_are_not_uint8(change, got):
    sr, hr = (change(random_images((40, 40), seed=seed)[0]) for seed in (0, 1))
    with pytest.raises(UserError, match=f"sr: expected uint8 of shape .* got .*{got}"):
        list(lpips_each([sr], [hr], net="alex"))


value_and_gradient = jax.jit(jax.value_and_grad(lambda sr, hr: lpips(sr, hr, net="alex").sum()))


def test_lpips_gradient_at_equal_inputs_is_finite():
    image = np.zeros((1, 40, 40, 3), np.float32)
    image[:, 20:] = to_floats(random_images((20, 40)))
    value, gradient = value_and_gradient(image, image)
    assert abs(value) < 1e-12
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_lpips_gradient_is_the_slope():
    sr, hr = (jnp.asarray(to_floats(random_images((40, 40), seed=seed))) for seed in (0, 1))
    gradient = value_and_gradient(sr, hr)[1]
    direction = gradient / jnp.linalg.norm(gradient)
    step = 0.02
    above, below = (value_and_gradient(sr + sign * step * direction, hr)[0] for sign in (1, -1))
    assert float(above - below) / (2 * step) == pytest.approx(float(jnp.linalg.norm(gradient)), rel=0.02)


def test_unit_norm_of_zero_features_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: unit_norm(x).sum())(jnp.zeros((1, 1, 1, 4)))
    assert value == 0
    assert np.isfinite(gradient).all()


def test_lpips_distance_of_handmade_features():
    sr = [jnp.asarray([3.0, 4.0]).reshape(1, 1, 1, 2) * jnp.ones((1, 2, 1, 1))]
    hr = [jnp.asarray([0.0, 7.0]).reshape(1, 1, 1, 2) * jnp.ones((1, 2, 1, 1))]
    expected = 10 * 0.6**2 + 100 * 0.2**2
    linear = [np.asarray([10.0, 100.0])]
    np.testing.assert_allclose(lpips_distance(sr, hr, linear), [expected], rtol=1e-6)
    np.testing.assert_allclose(
        lpips_distance(sr, hr, linear, areas=[jnp.asarray([4])]), [expected / 2], rtol=1e-6
    )


def test_lpips_refuses_bad_input():
    sr, hr = (to_floats(random_images((40, 48), seed=seed)) for seed in (0, 1))
    with pytest.raises(UserError, match="equal shapes"):
        lpips(sr[:, 1:], hr)
    with pytest.raises(UserError, match=r"\[N,H,W,3\]"):
        lpips(sr[0], hr[0])
    with pytest.raises(UserError, match="divide 8-bit images by 255"):
        lpips(np.uint8(255 * sr), np.uint8(255 * hr))
    with pytest.raises(UserError, match=r"sr: expected values in \[0,1\], got -1 to"):
        lpips(2 * sr - 1, 2 * hr - 1)
    with pytest.raises(UserError, match=r"values in \[0,1\]"):
        lpips(255 * sr, 255 * hr)
    with pytest.raises(UserError, match="one of alex, vgg"):
        lpips(sr, hr, net="squeeze")
    with pytest.raises(UserError, match="one of official, unscaled_255"):
        lpips(sr, hr, scaling="tanh")
    assert np.isfinite(lpips(sr[:, :31, :31], hr[:, :31, :31], net="alex")).all()
    with pytest.raises(UserError, match="30 x 48"):
        lpips(sr[:, :30], hr[:, :30], net="alex")
