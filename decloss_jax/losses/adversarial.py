"""The adversarial losses: GAN (SRGAN) and relativistic average GAN (RaGAN, ESRGAN), on logits.

With D the discriminator's logits, E the mean over a batch, and sp(x) = log(1 + e^x), so that
-log sigmoid(x) = sp(-x), which is finite for every logit:

    GAN     L_G = E sp(-D(sr))
            L_D = E sp(-D(hr)) + E sp(D(sr))
    RaGAN   L_G = (E sp(D(hr) - E D(sr)) + E sp(E D(hr) - D(sr))) / 2
            L_D = (E sp(E D(sr) - D(hr)) + E sp(D(sr) - E D(hr))) / 2

Under jit E is over the global batch on any number of devices. The gradient flows through everything but the
real logits of L_G. (BasicSR's code also holds the two means in RaGAN's L_D constant: the loss is the same,
the gradient is not.)
"""

import jax
import jax.numpy as jnp
from jax import Array


def gan_generator_loss(fake_logits: Array) -> Array:
    """Computes how far the fakes are from passing for real: L_G = E sp(-D(sr)).

    Args:
        fake_logits: [N,1], D(sr), any real numbers.

    Returns:
        A scalar above 0.
    """
    return real_cost(fake_logits)


def gan_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
    """Computes how badly real and fake are told apart: L_D = E sp(-D(hr)) + E sp(D(sr)), not halved.

    Args:
        real_logits: [N,1], D(hr), any real numbers.
        fake_logits: [N,1], D(sr).

    Returns:
        A scalar above 0.
    """
    return real_cost(real_logits) + fake_cost(fake_logits)


def ragan_generator_loss(real_logits: Array, fake_logits: Array) -> Array:
    """Computes L_G = (E sp(D(hr) - E D(sr)) + E sp(E D(hr) - D(sr))) / 2: fakes should look more real.

    Args:
        real_logits: [N,1], D(hr), any real numbers; constants, no gradient flows into them.
        fake_logits: [N,1], D(sr).

    Returns:
        A scalar above 0.
    """
    real_logits = jax.lax.stop_gradient(real_logits)
    return (fake_cost(real_logits - fake_logits.mean()) + real_cost(fake_logits - real_logits.mean())) / 2


def ragan_discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
    """Computes L_D = (E sp(E D(sr) - D(hr)) + E sp(D(sr) - E D(hr))) / 2: real images should look more real.

    Args:
        real_logits: [N,1], D(hr), any real numbers.
        fake_logits: [N,1], D(sr).

    Returns:
        A scalar above 0.
    """
    return (real_cost(real_logits - fake_logits.mean()) + fake_cost(fake_logits - real_logits.mean())) / 2


def real_cost(logits: Array) -> Array:
    """Averages -log sigmoid(x): the cross-entropy of logits that should say "real"."""
    return jnp.mean(jax.nn.softplus(-logits))


def fake_cost(logits: Array) -> Array:
    """Averages -log(1 - sigmoid(x)): the cross-entropy of logits that should say "fake"."""
    return jnp.mean(jax.nn.softplus(logits))
