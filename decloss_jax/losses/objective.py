"""The weighted sum of the loss terms (Eq. 26)."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

# Maps (sr, hr) to a raw value and further scalars for the journal.
TermFunction = Callable[[Array, Array], tuple[Array, dict[str, Array]]]


def objective(
    sr: Array, hr: Array, *, terms: Mapping[str, TermFunction], weights: Mapping[str, float]
) -> tuple[Array, dict[str, Array]]:
    """Adds up the weighted terms: L = sum_k w_k L_k (Eq. 26).

    Args:
        sr: [N,H,W,C] in [0,1], not clipped.
        hr: the same shape.
        terms: the functions of the terms, by name.
        weights: one factor for each term.

    Returns:
        The total, a scalar, and the scalars `loss/total`, `loss/NAME` (raw), `weighted/NAME` for each term,
        and the further scalars of the terms.
    """
    total = jnp.zeros(())
    metrics: dict[str, Array] = {}
    for name, term in terms.items():
        value, details = term(sr, hr)
        weighted = weights[name] * value
        total += weighted
        metrics |= {f"loss/{name}": value, f"weighted/{name}": weighted} | details
    return total, {"loss/total": total} | metrics
