"""The step with a discriminator equals a plain loop on any number of devices, and repeats no pass."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import crops, prepare, small_config, train

from configs import base
from decloss_jax.host import parallel
from decloss_jax.models import VGGDiscriminator, build_model
from decloss_jax.training.adversary import build_adversary, draw_variables
from decloss_jax.training.state import draw_params

STEPS = 5
FEATURES = 4
LEVELS = ("discriminator/real", "discriminator/fake")


def adversarial_config(term: str, statistics: str = "global"):
    config = small_config()
    config.finetune.weights = base.loss_weights(l1=1.0, **{term: 0.1})
    config.discriminator.features = FEATURES
    config.discriminator.statistics = statistics
    config.discriminator.learning_rate_ratio = 2.0
    return config


@pytest.fixture(scope="module", params=["gan", "ragan"])
def on_one_device(request):
    return request.param, *train(adversarial_config(request.param), 1, STEPS)


def log_sigmoid(x):
    return -jnp.logaddexp(0, -x)


def two_sides(term: str, real, fake):
    """L_G and L_D as printed by Goodfellow et al. 2014 and by Jolicoeur-Martineau 2018, with log sigmoid."""
    if term == "gan":
        return -log_sigmoid(fake).mean(), -(log_sigmoid(real).mean() + log_sigmoid(-fake).mean())
    real_above, fake_above = real - fake.mean(), fake - real.mean()
    generator = -(log_sigmoid(-real_above).mean() + log_sigmoid(fake_above).mean()) / 2
    discriminator = -(log_sigmoid(real_above).mean() + log_sigmoid(-fake_above).mean()) / 2
    return generator, discriminator


def test_make_train_step_with_discriminator_equals_a_plain_loop(on_one_device):
    """Both networks are updated from the state before the step, on the same SR images."""
    term, state, history = on_one_device
    config = adversarial_config(term)
    generator = build_model(config.model)
    discriminator = VGGDiscriminator(features=FEATURES, input_size=32)
    variables = draw_variables(discriminator, config.seed)
    params = [draw_params(generator, config.seed), variables["params"]]
    statistics = variables["batch_stats"]
    moments = [[jax.tree.map(jnp.zeros_like, tree) for _ in range(2)] for tree in params]

    def judge(weights, statistics, images):
        return discriminator.apply(
            {"params": weights, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
        )

    def of_generator(weights, other, low, hr):
        sr = generator.apply({"params": weights}, low)
        real, fake = (judge(other, statistics, images)[0] for images in (hr, sr))
        return jnp.mean(jnp.abs(sr - hr)) + 0.1 * two_sides(term, jax.lax.stop_gradient(real), fake)[0]

    def of_discriminator(weights, sr, hr):
        real, moved = judge(weights, statistics, hr)
        fake, moved = judge(weights, moved["batch_stats"], sr)
        return two_sides(term, real, fake)[1], moved["batch_stats"]

    for index in range(STEPS):
        batch = crops(index)
        low, hr = (np.float32(batch[key] / 255) for key in ("low", "hr"))
        sr = generator.apply({"params": params[0]}, low)
        value, gradient = jax.value_and_grad(of_generator)(*params, low, hr)
        (its_value, statistics), its_gradient = jax.value_and_grad(of_discriminator, has_aux=True)(
            params[1], sr, hr
        )
        assert history[index]["loss/total"] == pytest.approx(float(value), rel=2e-5)
        assert history[index]["loss/discriminator"] == pytest.approx(float(its_value), rel=2e-5)
        rate = 1e-3 * ((index + 1) / 4 if index < 4 else 1.0)
        first, second = 1 - 0.9 ** (index + 1), 1 - 0.999 ** (index + 1)
        for side, (of_side, rate_of_side) in enumerate(((gradient, rate), (its_gradient, 2 * rate))):
            m, v = moments[side]
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, of_side)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, of_side)
            moments[side] = [m, v]
            params[side] = jax.tree.map(
                lambda p, m, v, rate=rate_of_side, first=first, second=second: (
                    p - rate * (m / first) / (jnp.sqrt(v / second) + 1e-8)
                ),
                params[side],
                m,
                v,
            )
    ends = (state.params, state.discriminator.params, state.discriminator.batch_stats)
    if term == "ragan":  # uses only differences of logits: the gradient of their bias is 0 up to rounding,
        for tree in (ends[1], params[1]):  # which Adam amplifies
            tree["linear2"].pop("bias")
    for ours, expected in zip(ends, (*params, statistics), strict=True):
        # Adam normalises small gradients and amplifies the rounding errors that depend on the processor; the
        # parameters have moved by about 1e-2.
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=5e-4 * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("devices", [8])
def test_make_train_step_with_discriminator_gives_the_same_losses_on_more_devices(devices, on_one_device):
    term, _, expected = on_one_device
    _, history = train(adversarial_config(term), devices, STEPS)
    for here, there in zip(history, expected, strict=True):
        if term == "ragan":  # see above: rounding determines the common offset of the logits
            here, there = (
                {name: value for name, value in metrics.items() if name not in LEVELS}
                for metrics in (here, there)
            )
        assert here == pytest.approx(there, rel=2e-4)


def test_discriminator_loss_has_statistics_of_each_device_when_asked_to():
    """Against each share of the batch judged separately; the running statistics are averaged."""
    config = adversarial_config("gan", "device")
    adversary = build_adversary(config, "finetune", parallel.data_mesh(jax.devices()[:4]))
    variables = draw_variables(adversary.model, 0)
    images = crops(0)["hr"].astype(np.float32) / 255
    logits, statistics = jax.jit(adversary.judge)(variables, images)
    alone = [
        adversary.model.apply(variables, images[part], train=True, mutable=["batch_stats"])
        for part in (slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8))
    ]
    np.testing.assert_allclose(logits, np.concatenate([each for each, _ in alone]), rtol=1e-4, atol=1e-6)
    means = jax.tree.map(
        lambda *leaves: np.mean(leaves, axis=0), *(moved["batch_stats"] for _, moved in alone)
    )
    for ours, expected in zip(jax.tree.leaves(statistics), jax.tree.leaves(means), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    whole, _ = build_adversary(adversarial_config("gan"), "finetune", parallel.data_mesh()).judge(
        variables, images
    )
    assert np.abs(whole - logits).max() > 1e-3  # the two kinds of statistics do differ


def test_make_train_step_passes_each_image_through_the_discriminator_once():
    """n convolutions: forward of hr and sr 2 n, gradients of weights 2 n, of images 2 (n - 1), of sr n."""

    step, state, mesh = prepare(adversarial_config("ragan"), 1)
    hlo = jax.jit(step).lower(state, parallel.shard_batch(crops(0), mesh)).compile().as_text()
    n = 6  # three stages of two
    assert len(re.findall(r" convolution\(.*VGGDiscriminator", hlo)) == 7 * n - 2
