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
        expected = 2e-4 * step / 10 if step < 10 else 1e-4 * (1 + math.cos(math.pi * (step - 10) / 90))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-10)


def test_build_schedule_restarts_with_shrinking_peaks():
    schedule = build_schedule({**STAGE, "restarts": 2}, "pretrain")
    assert [float(schedule(10 + 30 * cycle)) for cycle in range(3)] == pytest.approx([2e-4, 6e-5, 1.8e-5])
    assert float(schedule(10 + 15)) == pytest.approx(1e-4)  # half-way down the first cycle


def test_build_schedule_constant():
    schedule = build_schedule({**STAGE, "schedule": "constant", "warmup_steps": 0}, "pretrain")
    assert float(schedule(0)) == float(schedule(99)) == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 0.0, "learning_rate: expected a value above 0"),
        ("warmup_steps", 100, "warmup_steps: expected 0 to 99"),
        ("restarts", 95, "restarts"),
        ("schedule", "linear", "expected one of cosine, constant"),
    ],
)
def test_build_schedule_refuses(field, value, message):
    with pytest.raises(checks.UserError, match=message):
        build_schedule({**STAGE, field: value}, "pretrain")


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
