"""The learning rate against plain arithmetic, and Adam against torch's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from decloss_jax import checks
from decloss_jax.training.optim import build_optimizer, build_schedule

STAGE = {
    "steps": 100,
    "learning_rate": 2e-4,
    "warmup_steps": 10,
    "schedule": "cosine",
    "restarts": 0,
    "restart_gamma": 0.3,
}


def test_build_schedule_warms_up_and_falls_as_a_cosine():
    schedule = build_schedule(STAGE, "pretrain")
    for step in range(100):
        expected = 2e-4 * (step + 1) / 10 if step < 10 else 1e-4 * (1 + math.cos(math.pi * (step - 10) / 90))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-10)


def test_build_schedule_restarts_with_shrinking_peaks():
    schedule = build_schedule({**STAGE, "restarts": 2}, "pretrain")
    assert [float(schedule(10 + 30 * cycle)) for cycle in range(3)] == pytest.approx([2e-4, 6e-5, 1.8e-5])
    assert float(schedule(10 + 15)) == pytest.approx(1e-4)  # half-way down the first cycle


@pytest.mark.parametrize("warmup", [0, 10])
def test_build_schedule_multistep_equals_torch(warmup):
    """The rate of each update against torch's MultiStepLR, overwritten by BasicSR's warm-up."""
    stage = {**STAGE, "schedule": "multistep", "milestones": (30, 60, 61), "gamma": 0.5}
    schedule = build_schedule(stage | {"warmup_steps": warmup}, "pretrain")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, stage["milestones"], gamma=0.5)
    for update in range(1, 101):
        rate = 2e-4 * update / warmup if update < warmup else theirs.get_last_lr()[0]
        assert float(schedule(update - 1)) == pytest.approx(rate, rel=1e-6)
        optimizer.step()
        theirs.step()


def test_build_schedule_constant():
    schedule = build_schedule({**STAGE, "schedule": "constant", "warmup_steps": 0}, "pretrain")
    assert float(schedule(0)) == float(schedule(99)) == pytest.approx(2e-4)


def test_build_schedule_refuses_an_unknown_name():
    with pytest.raises(checks.UserError, match="expected one of cosine, constant, multistep"):
        build_schedule({**STAGE, "schedule": "linear"}, "pretrain")


def test_build_optimizer_clips_by_the_global_norm():
    """Against NumPy: gradients whose norm over all arrays exceeds the limit are scaled down before Adam."""
    plain = {"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8}
    ours, adam = build_optimizer(plain | {"gradient_clip_norm": 1.5}), build_optimizer(plain)
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    state, expected_state = ours.init(params), adam.init(params)
    random, shrunk = np.random.default_rng(0), 0
    for _ in range(10):
        gradients = {
            name: random.normal(scale=0.7, size=leaf.shape).astype(np.float32)
            for name, leaf in params.items()
        }
        norm = np.sqrt(sum((np.float64(leaf) ** 2).sum() for leaf in gradients.values()))
        shrunk += norm > 1.5
        clipped = {name: np.float32(leaf * min(1.0, 1.5 / norm)) for name, leaf in gradients.items()}
        directions, state = ours.update(gradients, state)
        expected, expected_state = adam.update(clipped, expected_state)
        for name in params:
            np.testing.assert_allclose(directions[name], expected[name], rtol=1e-5, atol=1e-7)
    assert 0 < shrunk < 10


def test_build_optimizer_equals_torch_adam():
    random = np.random.default_rng(0)
    start = random.normal(size=7).astype(np.float32)
    gradients = random.normal(size=(20, 7)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    adam = torch.optim.Adam([theirs], lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    optimizer = build_optimizer({"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8})
    ours, state = jnp.asarray(start), optimizer.init(jnp.asarray(start))
    for gradient in gradients:
        theirs.grad = torch.from_numpy(gradient)
        adam.step()
        direction, state = jax.jit(optimizer.update)(jnp.asarray(gradient), state)
        ours = ours - 1e-2 * direction
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=1e-6)
