"""The adversarial losses against golden float64 values, float64 formulas, and themselves on devices."""

import jax
import numpy as np
import pytest

from decloss_jax.host import parallel
from decloss_jax.losses.adversarial import (
    gan_discriminator_loss,
    gan_generator_loss,
    ragan_discriminator_loss,
    ragan_generator_loss,
)

# All as functions of (real, fake).
LOSSES = {
    "gan_generator": lambda real, fake: gan_generator_loss(fake),
    "gan_discriminator": gan_discriminator_loss,
    "ragan_generator": ragan_generator_loss,
    "ragan_discriminator": ragan_discriminator_loss,
}


def cost(logits, target):
    """Cross-entropy with the target, and its derivative, in float64: mean over the logits."""
    sign = np.where(target, -1.0, 1.0)
    sigmoid = np.exp(-np.logaddexp(0, -sign * logits))
    return np.logaddexp(0, sign * logits).mean(), sign * sigmoid / logits.size


def oracle(name, real, fake):
    """Value and gradients (real, fake), by the chain rule, in float64."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    kind, side = name.split("_")
    target = side == "discriminator"  # the label that the real images should get
    if kind == "gan":
        (of_real, d_real), (of_fake, d_fake) = cost(real, True), cost(fake, not target)
        return (of_real + of_fake, d_real, d_fake) if target else (of_fake, 0 * real, d_fake)
    (of_real, d_real), (of_fake, d_fake) = (
        cost(real - fake.mean(), target),
        cost(fake - real.mean(), not target),
    )
    to_real, to_fake = (d_real - d_fake.sum() / real.size) / 2, (d_fake - d_real.sum() / fake.size) / 2
    return (of_real + of_fake) / 2, to_real if target else 0 * real, to_fake


def logits(seed, n=16, spread=3.0):
    random = np.random.default_rng(seed)
    return tuple((spread * random.standard_normal((n, 1))).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("name", LOSSES)
def test_adversarial_losses_equal_golden_values_and_gradients(name, shared):
    golden = np.load(shared / "golden" / "adversarial.npz")
    real, fake = (golden[f"{side}_logits"].astype(np.float32) for side in ("real", "fake"))
    value, gradient = jax.jit(jax.value_and_grad(LOSSES[name], argnums=1))(real, fake)
    np.testing.assert_allclose(value, golden[name], rtol=1e-6)
    np.testing.assert_allclose(gradient, golden[f"{name}_grad_fake"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_adversarial_losses_equal_float64_in_both_gradients(name):
    real, fake = logits(0)
    value, gradients = jax.value_and_grad(LOSSES[name], argnums=(0, 1))(real, fake)
    expected, *expected_gradients = oracle(name, real, fake)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [100.0, 1000.0, 1e30])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_adversarial_losses_stay_finite_and_right_at_huge_logits(name, size, signs):
    real, fake = (np.full((2, 1), sign * size, np.float32) for sign in signs)
    value, gradients = jax.value_and_grad(LOSSES[name], argnums=(0, 1))(real, fake)
    expected, *expected_gradients = oracle(name, real, fake)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_adversarial_losses_are_those_of_the_global_batch_on_any_number_of_devices(name, devices):
    real, fake = logits(1)
    split = parallel.batch_sharding(parallel.data_mesh(jax.devices()[:devices]))
    compiled = jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)), in_shardings=(split, split))
    value, gradients = compiled(real, fake)
    expected, *expected_gradients = oracle(name, real, fake)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=0, atol=1e-7)
