"""BasicSR's discriminator file as Flax variables, run by a few lines written from the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.models import VGGDiscriminator
from decloss_jax.weights import read_torch
from decloss_jax.weights.discriminators import discriminator_variables, state_dict_shapes
from decloss_jax.weights.pickles import Refusal


@pytest.fixture
def tensors(shared):
    return read_torch(shared / "golden" / "discriminator128_after_one_train_forward.pth")


def leaky(x):
    return jnp.where(x > 0, x, 0.2 * x)


def logits_in_training(params, image):
    x = image
    for s in range(5):
        for part, stride in ((0, 1), (1, 2)):
            layer = params[f"conv{s}_{part}"]
            x = jax.lax.conv_general_dilated(
                x,
                layer["kernel"],
                (stride, stride),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            if (s, part) == (0, 0):
                x = x + layer["bias"]
            else:
                norm = params[f"bn{s}_{part}"]
                x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5) * norm["scale"] + norm["bias"]
            x = leaky(x)
    x = x.reshape(len(x), -1)
    x = leaky(x @ params["linear1"]["kernel"] + params["linear1"]["bias"])
    return x @ params["linear2"]["kernel"] + params["linear2"]["bias"]


def test_discriminator_variables_give_the_logits_of_basicsr(shared, tensors):
    golden = np.load(shared / "golden" / "discriminator128.npz")
    model, variables = discriminator_variables(tensors)
    assert (model.features, model.input_size, model.stages) == (8, 128, 5)
    logits = jax.jit(logits_in_training)(variables["params"], golden["image"])
    np.testing.assert_allclose(logits, golden["logits_train"], rtol=0, atol=1e-5)


def test_discriminator_variables_keep_the_running_statistics(tensors):
    statistics = discriminator_variables(tensors)[1]["batch_stats"]
    assert len(statistics) == 9
    for name, leaves in statistics.items():
        np.testing.assert_array_equal(leaves["mean"], tensors[f"{name}.running_mean"])
        np.testing.assert_array_equal(leaves["var"], tensors[f"{name}.running_var"])


def test_state_dict_shapes_count_the_published_parameters():
    def count(model):
        shapes = state_dict_shapes(model).items()
        return sum(int(np.prod(shape)) for key, shape in shapes if "running" not in key)

    assert count(VGGDiscriminator(input_size=128)) == 14_499_401  # BasicSR's
    assert count(VGGDiscriminator(input_size=256)) == 21_055_049


@pytest.mark.parametrize("key", ["conv0_0.weight", "conv2_1.weight", "bn3_0.running_var", "linear2.bias"])
def test_discriminator_variables_name_a_missing_tensor(tensors, key):
    del tensors[key]
    with pytest.raises(Refusal, match=r"another network|instead of"):
        discriminator_variables(tensors)


def test_discriminator_variables_refuse_unknown_and_misshapen_tensors(tensors):
    with pytest.raises(Refusal, match=r"'extra' has the shape .2. instead of none"):
        discriminator_variables({**tensors, "extra": np.ones(2)})
    with pytest.raises(Refusal, match=r"'bn1_0.bias' has the shape .3. instead of .16."):
        discriminator_variables({**tensors, "bn1_0.bias": np.ones(3)})
    with pytest.raises(Refusal, match="another network"):
        discriminator_variables({"conv_first.weight": np.ones((3, 3, 3, 3))})
