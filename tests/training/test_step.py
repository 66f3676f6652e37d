"""The compiled step: equal on every number of devices, equal to a plain loop, memory donated, NaN noticed."""

import itertools
import math
import re
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import STEPS, crops, prepare, small_config, train

from configs import base
from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.losses.decloss import decloss
from decloss_jax.models import build_model
from decloss_jax.models.features import extract_features, normalize_imagenet
from decloss_jax.training.state import draw_params
from decloss_jax.training.terms import build_terms
from decloss_jax.weights.trunks import load_trunk


@pytest.fixture(scope="module")
def on_one_device():
    return train(small_config(), 1)


@pytest.mark.parametrize("devices", [2, 8])
def test_make_train_step_gives_the_same_losses_on_more_devices(devices, on_one_device):
    state, history = train(small_config(), devices)
    for here, there in zip(history, on_one_device[1], strict=True):
        assert here == pytest.approx(there, rel=1e-5)
    assert int(state.step) == 5 + STEPS


def test_make_train_step_equals_a_plain_loop(on_one_device):
    """Losses, learning rates and final parameters against Adam written out, on the dense definition."""
    config = small_config()
    model = build_model(config.model)
    params = draw_params(model, config.seed)
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    options = {key: config.decloss[key] for key in ("alpha", "mode", "threshold_db", "t_pos", "t_neg")}

    def losses(params, low, hr):
        sr = model.apply({"params": params}, low)
        contrast = decloss(sr, hr, patch_size=8, mu=0.25 * 32, **options)
        return jnp.mean(jnp.abs(sr - hr)) + 1e-2 * contrast

    for index in range(STEPS):
        batch = crops(index)
        value, gradient = jax.value_and_grad(losses)(
            params, *(np.float32(batch[key] / 255) for key in ("low", "hr"))
        )
        rate = 1e-3 * (
            (index + 1) / 4 if index < 4 else 0.5 * (1 + np.cos(np.pi * (index - 4) / (STEPS - 4)))
        )
        assert on_one_device[1][index]["loss/total"] == pytest.approx(float(value), rel=2e-5)
        assert on_one_device[1][index]["learning_rate"] == pytest.approx(rate, rel=1e-5, abs=1e-9)
        moments[0] = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
        moments[1] = jax.tree.map(lambda m, g: 0.999 * m + 0.001 * g * g, moments[1], gradient)
        first, second = 1 - 0.9 ** (index + 1), 1 - 0.999 ** (index + 1)
        params = jax.tree.map(
            lambda p, m, v, rate=rate, first=first, second=second: (
                p - rate * (m / first) / (jnp.sqrt(v / second) + 1e-8)
            ),
            params,
            *moments,
        )
    for ours, expected in zip(jax.tree.leaves(on_one_device[0].params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-5)


def test_objective_of_the_step_is_the_weighted_sum(on_one_device):
    for metrics in on_one_device[1]:
        assert metrics["loss/total"] == pytest.approx(
            metrics["loss/l1"] + 1e-2 * metrics["loss/decloss"], rel=1e-5
        )
        assert metrics["weighted/decloss"] == pytest.approx(1e-2 * metrics["loss/decloss"], rel=1e-5)
        assert 0 < metrics["decloss/positives"] < 1
        assert metrics["decloss/anchors"] == 1.0


def test_scope_device_averages_the_losses_of_the_shards():
    config = small_config()
    config.decloss.scope = "device"
    mesh = parallel.data_mesh(jax.devices()[:4])
    term = build_terms(config, "finetune", mesh)["decloss"]
    batch = {key: value.astype(np.float32) / 255 for key, value in crops(0).items()}
    sr = batch["low"].repeat(4, 1).repeat(4, 2)
    options = {key: config.decloss[key] for key in ("alpha", "mode", "threshold_db", "t_pos", "t_neg")}
    alone = [
        decloss(sr[part], batch["hr"][part], patch_size=8, mu=8.0, **options)
        for part in (slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8))
    ]
    value, _ = jax.jit(term.value)((), sr, batch["hr"])
    assert float(value) == pytest.approx(float(np.mean(alone)), rel=1e-6)


@pytest.mark.parametrize(("scope", "gathers"), [("global", 1), ("device", 0)])
def test_compiled_step_gathers_the_mini_patches_and_nothing_else(scope, gathers):
    """One all-gather: the unit vectors of SR and the vectors of HR, stacked, P D values each. The transforms,
    the network and their gradients stay where the images are; the gradient of the mini-patches goes home by
    one reduce-scatter, which XLA writes as such or as an all-reduce with a slice; everything else is sums.
    """
    config = small_config()
    config.decloss.scope = scope
    config.decloss.tile_size = 8  # of 16 anchors a device
    step, state, mesh = prepare(config, 8)
    hlo = jax.jit(step).lower(state, parallel.shard_batch(crops(0), mesh)).compile().as_text()
    found = re.findall(r"= (\S+) all-gather(?:-start)?\(", hlo)
    assert len(found) == gathers, found
    if gathers:
        shape = [int(size) for size in re.search(r"\[([\d,]+)\]", found[0]).group(1).split(",")]
        assert math.prod(shape) == 2 * 8 * (32 // 8) ** 2 * (8 * 8 * 3)  # 2 P D
    assert "all-to-all" not in hlo
    assert "collective-permute" not in hlo
    loops = [line for line in hlo.splitlines() if " while(" in line]
    assert loops
    assert all("known_trip_count" in loop for loop in loops)  # the host waits for none of them


def test_decloss_term_of_one_device_has_no_loop_for_few_mini_patches():
    term = build_terms(small_config(), "finetune", parallel.data_mesh(jax.devices()[:1]))["decloss"]
    images = jnp.zeros((8, 32, 32, 3))
    program = jax.jit(term.value).lower((), images, images).compile().as_text()
    assert " dot(" in program
    assert not re.search(r" (all-gather(-start)?|while)\(", program)  # neither other devices nor strips


def test_perceptual_term_is_the_distance_of_features():
    """Against the features computed on their own; the trunk is frozen data of the step."""
    config = small_config()
    config.perceptual.network = "alexnet"
    config.perceptual.taps, config.perceptual.tap_weights = ("relu1", "conv2"), (0.5, 2.0)
    config.finetune.weights = base.loss_weights(perceptual=1.0)
    term = build_terms(config, "finetune", parallel.data_mesh(jax.devices()[:1]))["perceptual"]
    batch = {key: value.astype(np.float32) / 255 for key, value in crops(0).items()}
    sr = batch["low"].repeat(4, 1).repeat(4, 2)
    images = (normalize_imagenet(image) for image in (sr, batch["hr"]))
    ours, theirs = (
        extract_features("alexnet", load_trunk("alexnet"), image, taps=("relu1", "conv2")) for image in images
    )
    expected = (
        0.5 * np.abs(ours["relu1"] - theirs["relu1"]).mean()
        + 2 * np.abs(ours["conv2"] - theirs["conv2"]).mean()
    )
    value, _ = term.value(term.frozen, sr, batch["hr"])
    assert float(value) == pytest.approx(float(expected), rel=1e-6)

    config.perceptual.tap_weights = (1.0,)
    with pytest.raises(checks.UserError, match="one factor for each of the 2 taps, got 1"):
        build_terms(config, "finetune", parallel.data_mesh())


@pytest.mark.parametrize(("network", "tap", "smallest"), [("alexnet", "conv5", 31), ("vgg16", "conv5_3", 16)])
def test_perceptual_term_refuses_crops_that_leave_no_feature(network, tap, smallest):
    config = small_config()
    config.perceptual.network = network
    config.finetune.weights = base.loss_weights(perceptual=1.0)
    mesh = parallel.data_mesh(jax.devices()[:1])
    config.data.crop_size = smallest
    term = build_terms(config, "finetune", mesh)["perceptual"]
    hr = np.ones((1, smallest, smallest, 3), np.float32)
    assert np.isfinite(term.value(term.frozen, np.zeros_like(hr), hr)[0])
    config.data.crop_size = smallest - 1
    message = rf"data\.crop_size: expected enough pixels for {tap} of {network}, got {smallest - 1}"
    with pytest.raises(checks.UserError, match=message):
        build_terms(config, "finetune", mesh)


def test_make_train_step_flags_what_is_not_finite():
    config = small_config()
    config.finetune.learning_rate = 1e30
    config.finetune.warmup_steps = 0
    _, history = train(config, 1)
    flags = [metrics["finite"] for metrics in history]
    assert flags[0] == 1.0
    assert flags[-1] == 0.0


def test_build_terms_refuses():
    config = small_config()
    mesh = parallel.data_mesh()
    config.decloss.patch_size = 5
    with pytest.raises(
        checks.UserError, match=r"data\.crop_size: expected a multiple of decloss\.patch_size"
    ):
        build_terms(config, "finetune", mesh)
    config.decloss.patch_size = 8
    config.decloss.scope = "globe"
    with pytest.raises(checks.UserError, match=r"decloss\.scope: expected one of global, device"):
        build_terms(config, "finetune", mesh)
    config.finetune.weights = base.loss_weights()
    with pytest.raises(checks.UserError, match="at least one weight"):
        build_terms(config, "finetune", mesh)
    config.finetune.weights = base.loss_weights(l1=1.0, wgan=1.0)
    with pytest.raises(checks.UserError, match=r"one of l1, perceptual, .*, ragan, got .wgan"):
        build_terms(config, "finetune", mesh)


def test_check_batch_size_names_both_numbers():
    mesh = parallel.data_mesh()
    parallel.check_batch_size(16, mesh)
    with pytest.raises(checks.UserError, match=r"number of devices \(8\), got 12"):
        parallel.check_batch_size(12, mesh)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_shard_ahead_yields_every_batch_in_order(count):
    mesh = parallel.data_mesh(jax.devices()[:4])
    found = list(parallel.shard_ahead((crops(step) for step in range(count)), mesh, ahead=2))
    assert len(found) == count
    for step, batch in enumerate(found):
        for key, expected in crops(step).items():
            np.testing.assert_array_equal(batch[key], expected)
            assert batch[key].sharding == parallel.batch_sharding(mesh)


def test_shard_ahead_reads_two_batches_more_and_ends_its_thread():
    mesh, read, before = parallel.data_mesh(jax.devices()[:4]), [], threading.active_count()

    def batches():
        for step in itertools.count():
            read.append(step)
            yield crops(step)

    stream = parallel.shard_ahead(batches(), mesh, ahead=2)
    for taken in range(1, 4):
        next(stream)
        while len(read) < taken + 2:  # comes without being asked for
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(read) == taken + 2
    stream.close()
    assert threading.active_count() == before


def test_shard_ahead_passes_on_an_error():
    def batches():
        yield crops(0)
        raise OSError("gone")

    stream = parallel.shard_ahead(batches(), parallel.data_mesh(), ahead=2)
    next(stream)
    with pytest.raises(OSError, match="gone"):
        next(stream)
