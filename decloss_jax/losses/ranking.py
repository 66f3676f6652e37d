"""The losses of RankSRGAN (Zhang et al., ICCV 2019), on the scores R of the Ranker: higher is worse.

ranking       L = E max(0, m - y (c(R(x_1)) - c(R(x_2)))), c clamps to [-5,5]; trains the Ranker
rank-content  L = sum sigmoid(R(sr) - b); the frozen Ranker judges the generator's images
"""

import jax
import jax.numpy as jnp
from jax import Array

SCORE_LIMIT = 5.0  # of the clamp (RankSRGAN's code); no gradient beyond it


def ranking_loss(first: Array, second: Array, target: Array, *, margin: float = 0.5) -> Array:
    """Computes the margin ranking loss: 0 for pairs that are in order by at least the margin.

    Args:
        first: [N,1], scores of the first image of each pair.
        second: [N,1], those of the second.
        target: [N,1], 1 where the first should have the higher score, -1 where the second should.
        margin: m, 0.5 in RankSRGAN.

    Returns:
        A scalar of 0 or more, the mean over the pairs.
    """
    difference = clamp_scores(first) - clamp_scores(second)
    return jnp.mean(jax.nn.relu(margin - target * difference))


def rank_content_loss(scores: Array, *, bias: float = 0.0) -> Array:
    """Computes the Ranker's penalty of images, summed over the batch, so that it grows with the batch size.

    Args:
        scores: [N,1], R(sr).
        bias: b, subtracted from each score.

    Returns:
        A scalar in 0..N.
    """
    return jnp.sum(jax.nn.sigmoid(scores - bias))


def clamp_scores(scores: Array) -> Array:
    """Limits scores to -5..5."""
    return jnp.clip(scores, -SCORE_LIMIT, SCORE_LIMIT)
