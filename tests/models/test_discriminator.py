"""The discriminator against BasicSR's logits, torch, known numbers of parameters, and itself on devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import PartitionSpec
from torch import nn
from torch.nn.functional import leaky_relu

from decloss_jax.checks import UserError
from decloss_jax.host import parallel
from decloss_jax.models.discriminator import VGGDiscriminator, count_stages
from decloss_jax.weights import read_torch
from decloss_jax.weights.discriminators import discriminator_variables


class TorchDiscriminator(nn.Module):
    """BasicSR's definition with any number of stages and any last map."""

    def __init__(self, features, stages, side):
        super().__init__()
        self.stages, before = stages, 3
        for s in range(stages):
            width = min(features * 2**s, 8 * features)
            self.add_module(f"conv{s}_0", nn.Conv2d(before, width, 3, 1, 1, bias=s == 0))
            self.add_module(f"conv{s}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
            if s > 0:
                self.add_module(f"bn{s}_0", nn.BatchNorm2d(width))
            self.add_module(f"bn{s}_1", nn.BatchNorm2d(width))
            before = width
        self.linear1, self.linear2 = nn.Linear(before * side**2, 100), nn.Linear(100, 1)

    def forward(self, x):
        for name in (f"{s}_{part}" for s in range(self.stages) for part in (0, 1)):
            x = getattr(self, f"conv{name}")(x)
            x = leaky_relu(x if name == "0_0" else getattr(self, f"bn{name}")(x), 0.2)
        return self.linear2(leaky_relu(self.linear1(x.flatten(1)), 0.2))


def to_arrays(network):
    return {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def abstract_variables(model):
    image = jnp.zeros((1, model.input_size, model.input_size, 3))
    return jax.eval_shape(model.init, jax.random.key(0), image)


def images(n, size, seed=0):
    return np.random.default_rng(seed).random((n, size, size, 3), np.float32)


def in_training(model):
    """(variables, images) -> logits, running statistics."""

    def apply(variables, x):
        logits, update = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return logits, update["batch_stats"]

    return apply


def close(actual, expected, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected
    )


def test_discriminator_equals_basicsr_in_training(shared):
    golden = np.load(shared / "golden" / "discriminator128.npz")
    tensors = read_torch(shared / "golden" / "discriminator128_after_one_train_forward.pth")
    model, variables = discriminator_variables(tensors)
    assert shapes(variables) == shapes(abstract_variables(model))

    logits, _ = jax.jit(in_training(model))(variables, golden["image"])
    np.testing.assert_allclose(logits, golden["logits_train"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "stages", "side"), [(192, 5, 6), (80, 4, 5)])
@pytest.mark.parametrize("train", [True, False])
def test_discriminator_equals_torch(size, stages, side, train):
    torch.manual_seed(0)
    network = TorchDiscriminator(4, stages, side).train(train)
    for name, tensor in network.state_dict().items():
        if name.startswith("bn") and tensor.ndim:
            tensor.uniform_(0.5, 1.5)
    model, variables = discriminator_variables(to_arrays(network))
    assert (model.features, model.input_size, model.stages) == (4, size, stages)
    x = images(3, size)

    def total(x):
        logits, update = model.apply(variables, x, train=train, mutable=["batch_stats"])
        return jnp.sum(logits**2), (logits, update["batch_stats"])

    (_, (logits, statistics)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(x)
    torch_x = torch.from_numpy(x.transpose(0, 3, 1, 2)).requires_grad_()
    expected = network(torch_x)
    expected.square().sum().backward()
    np.testing.assert_allclose(logits, expected.detach(), rtol=0, atol=1e-5)
    expected_gradient = torch_x.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected_gradient, atol=2e-5 * np.abs(expected_gradient).max())

    expected_statistics = discriminator_variables(to_arrays(network))[1]["batch_stats"]
    if train:  # torch multiplies the batch's variance, a tenth of the new one, by n / (n - 1)
        for name, leaves in statistics.items():
            stage, part = map(int, name[2:].split("_"))
            values = len(x) * (size >> stage + part) ** 2
            old = variables["batch_stats"][name]["var"]
            leaves["var"] = 0.9 * old + (leaves["var"] - 0.9 * old) * values / (values - 1)
    close(statistics, expected_statistics, 1e-6)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (128, 14_499_401),  # BasicSR's VGG-128
        (256, 21_055_049),  # and VGG-256
        (192, 15_523_401),  # five stages, a map of 6x6
    ],
)
def test_discriminator_has_the_known_number_of_parameters(size, count):
    params = abstract_variables(VGGDiscriminator(input_size=size))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_discriminator_starts_as_torch_does():
    model = VGGDiscriminator(features=32, input_size=16)
    params = jax.jit(model.init)(jax.random.key(0), images(1, 16))["params"]
    for layer, fan_in in {"conv0_0": 27, "conv1_1": 16 * 64, "linear1": 16 * 64, "linear2": 100}.items():
        bound = 1 / np.sqrt(fan_in)  # kaiming-uniform, a = sqrt 5, for kernel and bias
        for leaf in params[layer].values():
            assert np.abs(leaf).max() <= bound
            assert leaf.size < 50 or np.abs(leaf).max() > 0.9 * bound
    kernel = params["conv1_1"]["kernel"]
    assert np.std(kernel) == pytest.approx(1 / np.sqrt(3 * 16 * 64), rel=0.02)
    np.testing.assert_array_equal(params["bn0_1"]["scale"], 1)
    np.testing.assert_array_equal(params["bn0_1"]["bias"], 0)


@functools.cache
def small():
    """A small discriminator with its variables, 16 images, and its results for them on one device."""
    model, x = VGGDiscriminator(features=4, input_size=16), images(16, 16)
    variables = jax.jit(model.init)(jax.random.key(1), x)
    return model, variables, x, jax.jit(in_training(model))(variables, x)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_discriminator_on_any_number_of_devices_uses_the_statistics_of_the_global_batch(devices):
    model, variables, x, expected = small()
    mesh = parallel.data_mesh(jax.devices()[:devices])
    copies, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    step = jax.jit(in_training(model), in_shardings=(copies, split), out_shardings=(split, copies))
    close(step(variables, x), expected, 1e-6)


@pytest.mark.parametrize("axis_name", [None, parallel.DATA_AXIS])
def test_discriminator_inside_shard_map_uses_the_statistics_of_each_device_or_of_the_axis(axis_name):
    model, variables, x, whole = small()
    apply, split = in_training(model.clone(axis_name=axis_name)), PartitionSpec(parallel.DATA_AXIS)

    def of_shard(variables, x):
        logits, statistics = apply(variables, x)
        return logits, jax.lax.pmean(statistics, parallel.DATA_AXIS)

    mesh = parallel.data_mesh(jax.devices()[:2])
    sharded = jax.shard_map(
        of_shard, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=(split, PartitionSpec())
    )
    logits, statistics = jax.jit(sharded)(variables, x)
    one, other = (jax.jit(in_training(model))(variables, half) for half in (x[:8], x[8:]))
    apart = np.concatenate([one[0], other[0]]), jax.tree.map(lambda a, b: (a + b) / 2, one[1], other[1])
    assert np.abs(apart[0] - whole[0]).max() > 1e-3
    close((logits, statistics), apart if axis_name is None else whole, 1e-6)


def test_discriminator_in_evaluation_judges_each_image_alone():
    model, variables, x, _ = small()
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(variables, x)[:1], apply(variables, x[:1]), rtol=1e-5, atol=1e-6)


def test_count_stages():
    sizes = {8: 1, 12: 1, 14: 1, 16: 2, 48: 3, 96: 4, 128: 5, 160: 5, 192: 5, 224: 5, 256: 6, 384: 6, 512: 7}
    assert {size: count_stages(size) for size in sizes} == sizes


@pytest.mark.parametrize(("size", "remedy"), [(0, 8), (4, 8), (9, 8), (36, 32), (200, 192), (296, 256)])
def test_count_stages_refuses_other_sizes(size, remedy):
    with pytest.raises(UserError, match=rf"got {size}; take {remedy}\."):
        count_stages(size)


def test_discriminator_refuses_other_images():
    model, variables, *_ = small()
    with pytest.raises(UserError, match="expected 16x16 pixels, got 16x32"):
        model.apply(variables, jnp.zeros((1, 16, 32, 3)))
    with pytest.raises(UserError, match=r"expected shape \[N,H,W,3\]"):
        model.apply(variables, jnp.zeros((16, 16, 3)))
