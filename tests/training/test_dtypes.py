"""bfloat16 for the networks of the losses: parameters, losses and gradients stay float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import crops, small_config

from configs import base
from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.training.adversary import build_adversary, draw_variables
from decloss_jax.training.terms import build_terms


def images():
    batch = {key: np.float32(value) / 255 for key, value in crops(0).items()}
    return batch["low"][:2].repeat(4, 1).repeat(4, 2), batch["hr"][:2]


def losses_of(dtype: str):
    """The perceptual and the discriminator loss as functions of SR, and their inputs."""
    config, mesh = small_config(), parallel.data_mesh(jax.devices()[:1])
    config.perceptual.network, config.perceptual.taps = "alexnet", ("conv2",)
    config.perceptual.dtype = config.discriminator.dtype = dtype
    config.discriminator.features = 2
    config.finetune.weights = base.loss_weights(perceptual=1.0, gan=1.0)
    term = build_terms(config, "finetune", mesh)["perceptual"]
    adversary = build_adversary(config, "finetune", mesh)
    variables = draw_variables(adversary.model, 0)
    hr = images()[1]

    def of_discriminator(sr):
        return adversary.discriminator_loss(variables["params"], variables["batch_stats"], sr, hr)[0]

    return (lambda sr: term.value(term.frozen, sr, hr)[0]), of_discriminator, variables


def test_losses_of_networks_in_bfloat16_are_near_those_in_float32():
    sr = jnp.asarray(images()[0])
    for ours, exact in zip(losses_of("bfloat16")[:2], losses_of("float32")[:2], strict=True):
        program = str(jax.make_jaxpr(jax.value_and_grad(ours))(sr))
        convolutions = [line for line in program.splitlines() if "conv_general_dilated[" in line]
        assert convolutions
        assert all("bf16[" in line.split("=")[0] for line in convolutions)
        (value, slope), (wanted, its_slope) = (
            jax.jit(jax.value_and_grad(function))(sr) for function in (ours, exact)
        )
        assert value.dtype == slope.dtype == jnp.float32
        assert 0 < abs(float(value - wanted)) < 0.02 * abs(float(wanted))
        assert float(jnp.vdot(slope, its_slope)) > 0.9 * float(
            jnp.linalg.norm(slope) * jnp.linalg.norm(its_slope)
        )


def test_discriminator_in_bfloat16_keeps_float32_parameters_and_statistics():
    leaves = jax.tree.leaves(losses_of("bfloat16")[2])
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("section", "build"), [("perceptual", build_terms), ("discriminator", build_adversary)]
)
def test_unknown_dtypes_are_refused(section, build):
    config = small_config()
    config.perceptual.network, config[section].dtype = "alexnet", "float16"
    config.perceptual.taps = ("conv2",)
    config.finetune.weights = base.loss_weights(perceptual=1.0, gan=1.0)
    with pytest.raises(checks.UserError, match=rf"{section}\.dtype: expected one of float32, bfloat16"):
        build(config, "finetune", parallel.data_mesh())
