"""The weighted sum, and L1, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax import checks
from decloss_jax.losses.objective import objective
from decloss_jax.losses.pixel import l1_loss


def test_objective_adds_weighted_terms_and_reports_each():
    terms = {
        "square": lambda sr, hr: (jnp.sum((sr - hr) ** 2), {"square/max": jnp.max(sr)}),
        "mean": lambda sr, hr: (jnp.mean(sr), {}),
    }
    sr, hr = jnp.asarray([1.0, 2.0, 6.0]), jnp.asarray([1.0, 0.0, 3.0])
    total, metrics = objective(sr, hr, terms=terms, weights={"square": 0.5, "mean": 10.0})
    assert float(total) == 0.5 * 13 + 10 * 3
    assert {name: float(value) for name, value in metrics.items()} == {
        "loss/total": 36.5,
        "loss/square": 13.0,
        "weighted/square": 6.5,
        "square/max": 6.0,
        "loss/mean": 3.0,
        "weighted/mean": 30.0,
    }


def test_l1_loss_and_gradient():
    random = np.random.default_rng(0)
    sr, hr = (random.random((2, 4, 5, 3)).astype(np.float32) for _ in range(2))
    sr[0, :2] = hr[0, :2]  # equal pixels have no gradient
    value, gradient = jax.value_and_grad(l1_loss)(sr, hr)
    assert float(value) == pytest.approx(np.abs(sr.astype(float) - hr).mean(), rel=1e-6)
    np.testing.assert_allclose(gradient, np.sign(sr - hr) / sr.size, rtol=1e-6)
    with pytest.raises(checks.UserError, match="equal shapes"):
        l1_loss(sr, hr[:1])
