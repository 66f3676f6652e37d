"""The generators against BasicSR's outputs, the published parameter counts, and torch's initialisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_names import basicsr_params

from decloss_jax import checks
from decloss_jax.models import EDSR, RRDBNet, build_model

GOLDEN = {
    "edsr_small_x2": EDSR(scale=2, features=16, blocks=4, res_scale=0.1),
    "edsr_small_x3": EDSR(scale=3, features=16, blocks=4),
    "edsr_small_x4": EDSR(scale=4, features=16, blocks=4),
    "rrdb_small_x4": RRDBNet(scale=4, features=16, blocks=3, growth=8),
}


def parameter_count(model) -> int:
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", GOLDEN)
def test_generator_equals_basicsr(name, shared):
    golden = np.load(shared / "golden" / f"{name}.npz")
    params = basicsr_params(shared / "golden" / f"{name}.pth")
    sr = GOLDEN[name].apply({"params": params}, golden["low"])
    np.testing.assert_allclose(sr, golden["high"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (EDSR(scale=2), 1_369_859),
        (EDSR(scale=3), 1_554_499),
        (EDSR(scale=4), 1_517_571),
        (EDSR(scale=2, features=256, blocks=32, res_scale=0.1), 40_729_603),
        (EDSR(scale=3, features=256, blocks=32, res_scale=0.1), 43_680_003),
        (EDSR(scale=4, features=256, blocks=32, res_scale=0.1), 43_089_923),
        (RRDBNet(), 16_697_987),
    ],
)
def test_generator_has_the_published_number_of_parameters(model, count):
    assert parameter_count(model) == count


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_rrdb_scales(scale):
    model = RRDBNet(scale=scale, features=8, blocks=1, growth=4)
    low = jnp.zeros((2, 8, 12, 3))
    sr, variables = model.init_with_output(jax.random.key(0), low)
    assert sr.shape == (2, 8 * scale, 12 * scale, 3)
    channels = 3 * {1: 16, 2: 4, 4: 1}[scale]
    assert variables["params"]["conv_first"]["kernel"].shape == (3, 3, channels, 8)


def test_conv3x3_starts_as_torch_does():
    params = EDSR(features=64, blocks=1).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    conv = params["body_0"]["conv1"]
    bound = 1 / np.sqrt(9 * 64)  # kaiming-uniform, a = sqrt 5, for kernel and bias
    for leaf in (conv["kernel"], conv["bias"]):
        assert np.abs(leaf).max() <= bound
        assert np.abs(leaf).max() > 0.9 * bound
    assert np.std(conv["kernel"]) == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_rrdb_dense_blocks_start_small():
    params = RRDBNet(features=64, blocks=1).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    conv = params["body_0"]["rdb2"]["conv3"]  # 64 + 2 * 32 input channels
    assert np.std(conv["kernel"]) == pytest.approx(0.1 * np.sqrt(2 / (9 * 128)), rel=0.02)
    assert np.abs(conv["kernel"]).max() > 3 * np.std(conv["kernel"])  # a whole normal, not a truncated one
    assert not np.any(conv["bias"])


@pytest.mark.parametrize("model", [EDSR(features=8, blocks=2), RRDBNet(features=8, blocks=1, growth=4)])
def test_bfloat16_keeps_float32_parameters_and_output(model):
    low = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
    exact, variables = model.init_with_output(jax.random.key(0), low)
    rough = model.clone(dtype=jnp.bfloat16).apply(variables, low)
    assert rough.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert 0 < np.abs(rough - exact).max() < 0.05


def test_remat_changes_nothing_but_memory():
    model = RRDBNet(features=8, blocks=1, growth=4)
    low = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), low)

    def gradient(network):
        return jax.jit(jax.grad(lambda v: jnp.sum(network.apply(v, low) ** 2)))(variables)

    for plain, remat in zip(
        jax.tree.leaves(gradient(model)), jax.tree.leaves(gradient(model.clone(remat=True))), strict=True
    ):
        np.testing.assert_allclose(plain, remat, rtol=1e-5, atol=1e-6)


def test_build_model_refuses_options_that_the_network_lacks():
    assert build_model({"name": "edsr", "scale": 3, "growth": None}) == EDSR(scale=3)
    with pytest.raises(checks.UserError, match=r"model\.growth: expected an option of edsr"):
        build_model({"name": "edsr", "growth": 32})
    with pytest.raises(checks.UserError, match="nearest: edsr"):
        build_model({"name": "edrs"})
    with pytest.raises(checks.UserError, match="EDSR scale: expected one of 2, 3, 4, 8, got 5"):
        EDSR(scale=5).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
