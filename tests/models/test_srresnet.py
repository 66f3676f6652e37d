"""SRResNet and MSRResNet against reference values, from files with each naming of their layers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from decloss_jax.checks import UserError
from decloss_jax.models import MSRResNet, SRResNet, build_model
from decloss_jax.weights import load_generator, read_torch, save_generator
from decloss_jax.weights.torch_writer import torch_bytes

GOLDEN = {
    "ranksrgan_generator_x4": SRResNet(scale=4, features=16, blocks=3),
    "ranksrgan_generator_x2": SRResNet(scale=2, features=8, blocks=2),
    "msrresnet_x4": MSRResNet(scale=4, features=16, blocks=3),
}
BASICSR_NAMES = {"recon_trunk": "body", "HRconv": "conv_hr"}  # the layers whose names differ from MMSR's


def check_close(actual, expected, bound=1e-5):
    """The relative difference is the largest difference over the largest absolute value."""
    assert np.max(np.abs(np.asarray(actual, np.float64) - expected)) < bound * np.max(np.abs(expected))


def shapes(tree):
    return {"/".join(path): leaf.shape for path, leaf in flatten_dict(tree).items()}


def write(path, tensors):
    path.write_bytes(torch_bytes("params", tensors, ""))
    return path


@pytest.mark.parametrize("name", GOLDEN)
def test_network_equals_the_reference_and_so_does_its_gradient(shared, name):
    folder = shared / "golden" / "comparison"
    golden = np.load(folder / f"{name}.npz")
    model, params, _ = load_generator(folder / f"{name}.pth")
    assert model == GOLDEN[name]

    def along(low):
        sr = model.apply({"params": params}, low)
        return jnp.sum(sr * golden["cotangent"]), sr

    (_, sr), gradient = jax.jit(jax.value_and_grad(along, has_aux=True))(golden["input"])
    check_close(sr, golden["output"])
    check_close(gradient, golden["grad_input"])


@pytest.mark.parametrize(
    ("name", "rename", "dialect"),
    [
        ("ranksrgan_generator_x4", None, "RankSRGAN (old)"),
        ("msrresnet_x4", BASICSR_NAMES, "BasicSR MSRResNet"),
    ],
)
def test_load_generator_reads_the_other_names_too(shared, tmp_path, name, rename, dialect):
    folder = shared / "golden" / "comparison"
    if rename is None:
        layout = json.loads((folder / "ranksrgan_released_layout.json").read_text())
        old = {new: key for key, new in layout["generator_old_key_to_new_key"]}
        # The layout has 16 blocks, and their number is part of the name of the convolution after them.
        old |= {f"LRconv.{leaf}": f"model.1.sub.3.{leaf}" for leaf in ("weight", "bias")}
    else:
        old = None
    tensors = read_torch(folder / f"{name}.pth")
    renamed = {}
    for key, array in tensors.items():
        first, rest = key.split(".", 1)
        renamed[old[key] if old else f"{rename.get(first, first)}.{rest}"] = array
    model, params, description = load_generator(write(tmp_path / "w.pth", renamed))
    assert description["dialect"] == dialect
    expected_model, expected, _ = load_generator(folder / f"{name}.pth")
    assert model == expected_model
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize(
    ("model", "layout"),
    [(SRResNet(), "generator"), (MSRResNet(), "msrresnet")],
    ids=["SRResNet", "MSRResNet"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_save_generator_writes_the_released_layout(shared, tmp_path, model, layout, suffix):
    text = (shared / "golden" / "comparison" / "ranksrgan_released_layout.json").read_text()
    released = {key: tuple(shape) for key, shape in json.loads(text)[layout]}
    abstract = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), abstract)
    save_generator(tmp_path / f"w{suffix}", model, params)
    other, loaded, _ = load_generator(tmp_path / f"w{suffix}")
    assert other == model
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    if suffix == ".pth":
        written = {key: array.shape for key, array in read_torch(tmp_path / "w.pth").items()}
        if layout == "msrresnet":  # saved under BasicSR's names
            back = {new: old for old, new in BASICSR_NAMES.items()}
            parts = {key: key.split(".", 1) for key in written}
            written = {
                f"{back.get(parts[key][0], parts[key][0])}.{parts[key][1]}": s for key, s in written.items()
            }
        assert written == released


def test_load_generator_names_what_a_file_lacks(shared, tmp_path):
    tensors = read_torch(shared / "golden" / "comparison" / "ranksrgan_generator_x4.pth")
    del tensors["recon_trunk.1.conv2.bias"]
    with pytest.raises(UserError, match=r"RankSRGAN .* without 'recon_trunk.1.conv2.bias'"):
        load_generator(write(tmp_path / "w.pth", tensors))


@pytest.mark.parametrize("network", [SRResNet, MSRResNet])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_network_is_built_from_a_config_and_enlarges_by_its_scale(network, scale):
    config = {"name": network.__name__.lower(), "scale": scale, "features": 4, "blocks": 1, "growth": None}
    model = build_model(config | {"dtype": "bfloat16"})
    assert isinstance(model, network)
    sr, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 5, 6, 3)))
    assert sr.shape == (2, 5 * scale, 6 * scale, 3)
    assert sr.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_build_model_refuses_a_scale_without_a_network():
    model = build_model({"name": "srresnet", "scale": 5})
    with pytest.raises(UserError, match=r"SRResNet scale: expected one of 2, 3, 4, got 5"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_srresnet_starts_as_ranksrgan_does():
    params = jax.jit(SRResNet(features=32, blocks=1).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))[
        "params"
    ]
    layers = {path[:-1]: leaf for path, leaf in flatten_dict(params).items() if path[-1] == "kernel"}
    for path, kernel in layers.items():
        fan_in = np.prod(kernel.shape[:3])
        if path == ("conv_body",):  # torch's default
            assert np.abs(kernel).max() <= 1 / np.sqrt(fan_in)
            np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(3 * fan_in), rtol=0.05)
        else:
            np.testing.assert_allclose(kernel.std(), 0.1 * np.sqrt(2 / fan_in), rtol=0.08)
    biases = {path[:-1]: leaf for path, leaf in flatten_dict(params).items() if path[-1] == "bias"}
    assert {path for path, bias in biases.items() if bias.any()} == {("conv_body",)}


def test_msrresnet_of_zeros_is_the_bilinear_enlargement():
    torch = pytest.importorskip("torch")
    model = MSRResNet(scale=3, features=4, blocks=1)
    low = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    params = jax.tree.map(jnp.zeros_like, jax.eval_shape(model.init, jax.random.key(0), low)["params"])
    tensor = torch.from_numpy(low.transpose(0, 3, 1, 2))
    expected = torch.nn.functional.interpolate(tensor, scale_factor=3, mode="bilinear")
    sr = model.apply({"params": params}, low)
    np.testing.assert_allclose(sr, expected.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-6)
