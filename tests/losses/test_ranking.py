"""The losses of RankSRGAN against reference values, a plain loop, and known gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.losses.ranking import rank_content_loss, ranking_loss

CONTENT_WEIGHT = 0.03


@pytest.fixture
def golden(shared):
    return np.load(shared / "golden" / "comparison" / "ranksrgan_losses.npz")


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_losses_equal_the_reference(golden, dtype, tolerance):
    with jax.enable_x64(dtype is np.float64):
        first, second, target = (golden[name].astype(dtype) for name in ("score1", "score2", "y"))
        value, gradients = jax.value_and_grad(ranking_loss, argnums=(0, 1))(first, second, target)
        actual = {"rank_loss": value, "rank_grad1": gradients[0], "rank_grad2": gradients[1]}
        for bias, suffix in ((0.0, ""), (1.5, "_bias_1_5")):
            value, gradient = jax.value_and_grad(rank_content_loss)(first, bias=bias)
            actual |= {
                f"content_loss{suffix}": CONTENT_WEIGHT * value,
                f"content_grad{suffix}": CONTENT_WEIGHT * gradient,
            }
    for name, array in actual.items():
        assert array.dtype == dtype
        np.testing.assert_allclose(array, golden[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_ranking_loss_equals_a_plain_loop(margin):
    random = np.random.default_rng(0)
    first, second = random.normal(0, 4, (2, 40))
    target = random.choice([-1.0, 1.0], 40)
    total = 0.0
    for one, other, sign in zip(first, second, target, strict=True):
        difference = min(5.0, max(-5.0, one)) - min(5.0, max(-5.0, other))
        total += max(0.0, margin - sign * difference)
    columns = (jnp.asarray(values[:, None], jnp.float32) for values in (first, second, target))
    np.testing.assert_allclose(ranking_loss(*columns, margin=margin), total / 40, rtol=1e-5)


def test_ranking_loss_has_a_gradient_only_at_pairs_in_the_wrong_order():
    first, second, target = (
        jnp.array([[1.0], [1.0], [6.0]]),
        jnp.array([[0.0], [0.0], [7.0]]),
        -jnp.ones((3, 1)),
    )
    target = target.at[0].set(1.0)  # this pair is in order, by more than the margin
    gradient = jax.grad(ranking_loss)(first, second, target)
    np.testing.assert_allclose(gradient, [[0.0], [1 / 3], [0.0]])  # the third is beyond the clamp


def test_rank_content_loss_sums_over_the_batch():
    scores = jnp.array([[0.0], [2.0]])
    np.testing.assert_allclose(rank_content_loss(scores), 0.5 + 1 / (1 + np.exp(-2)), rtol=1e-6)
    doubled = jnp.concatenate([scores, scores])
    np.testing.assert_allclose(rank_content_loss(doubled), 2 * rank_content_loss(scores), rtol=1e-6)
