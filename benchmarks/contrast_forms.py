"""The forms of the spatial contrastive loss that benchmarks/contrast.py compares, each as good as it can be.

Each maker takes [P,D] float32 arrays and returns a function without arguments that gives the loss and its
gradient with respect to the SR vectors. All of them decide the mask by a Gram matrix (KeOps: by differences)
and take one exponential per pair and matrix, having chosen the temperature by the mask first.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from decloss_jax.losses.contrast import spatial_contrast, spatial_contrast_dense

Measured = Callable[[], tuple[float, np.ndarray]]

T_POS, T_NEG = 0.5, 1.5  # Sec. 5.1
CHUNK = 512  # rows of the chunked PyTorch form: the fastest of 256, 512, 1024, 2048


def jax_form(form: Callable, sr: np.ndarray, hr: np.ndarray, threshold_db: float, **changes: int) -> Measured:
    """One of our two forms, compiled."""
    import jax

    compiled = jitted(form, threshold_db, **changes)
    inputs = jax.device_put((sr, hr))
    return lambda: jax.block_until_ready(compiled(*inputs))


def jitted(form: Callable, threshold_db: float, **changes: int) -> Any:
    """Value and gradient of one of our two forms under jit."""
    import jax

    options = {"threshold_db": threshold_db, "t_pos": T_POS, "t_neg": T_NEG, **changes}
    return jax.jit(jax.value_and_grad(partial(form, **options)))


def temporaries_mib(form: Callable, patches: int, depth: int) -> float:
    """MiB that the compiled value and gradient hold beside arguments and results."""
    import jax

    vectors = jax.ShapeDtypeStruct((patches, depth), "float32")
    compiled = jitted(form, 25.0).lower(vectors, vectors).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def equal_lengths(sr: np.ndarray, hr: np.ndarray, threshold_db: float) -> Measured:
    """Our strips on HR vectors of one length, so that no tile is left out of the mask's product."""
    hr = hr - hr.mean(axis=0)
    return jax_form(spatial_contrast, sr, hr / np.linalg.norm(hr, axis=1, keepdims=True), threshold_db)


def torch_vectors(sr: Any, hr: Any, threshold_db: float) -> tuple[Any, Any, Any, Any]:
    """Returns u^, v^, the centred v, and the cuts whose sum a product of centred vectors has to reach."""
    import torch
    from torch.nn.functional import normalize

    with torch.no_grad():
        detail = hr - hr.mean(0)
        cut = detail.square().sum(1) / 2 - 10 ** (-threshold_db / 10) / 4
        hr = normalize(hr, dim=1)
    return normalize(sr, dim=1), hr, detail, cut


def torch_sums(rows: tuple, columns: tuple) -> tuple[Any, Any]:
    """Sums log(Q_neg / Q_pos) over those anchors of some rows that have a negative; returns how many, too."""
    import torch

    sr, _, detail, cut = rows
    all_sr, all_hr, all_detail, all_cut = columns
    with torch.no_grad():
        positive = detail @ all_detail.T >= cut[:, None] + all_cut
        k = torch.where(positive, 1 / T_POS, 1 / T_NEG)
    terms = torch.exp(k * (sr @ all_sr.T)) + 2 * torch.exp(k * (sr @ all_hr.T))
    q_pos = torch.where(positive, terms, 0).sum(1)
    q_neg = torch.where(positive, 0, terms).sum(1)
    used = q_neg > 0
    logs = torch.log(torch.where(used, q_neg, 1)) - torch.log(q_pos)
    return torch.where(used, logs, 0).sum(), used.sum()


def torch_dense_loss(sr: Any, hr: Any, threshold_db: float) -> Any:
    vectors = torch_vectors(sr, hr, threshold_db)
    log_sum, used = torch_sums(vectors, vectors)
    return log_sum / used.clamp(min=1)


def torch_chunked_loss(sr: Any, hr: Any, threshold_db: float) -> Any:
    """Chunks of rows, each computed again in the backward pass instead of kept."""
    from torch.utils.checkpoint import checkpoint

    vectors = torch_vectors(sr, hr, threshold_db)
    sums = [
        checkpoint(torch_sums, rows, vectors, use_reentrant=False)
        for rows in zip(*(part.split(CHUNK) for part in vectors), strict=True)
    ]
    log_sums, used = zip(*sums, strict=True)
    return sum(log_sums) / sum(used).clamp(min=1)


def keops_loss(sr: Any, hr: Any, threshold_db: float) -> Any:
    """KeOps reduces over j without a matrix; positives and negatives in one reduction."""
    import torch
    from pykeops.torch import Vi, Vj

    sr, hr, detail, _ = torch_vectors(sr, hr, threshold_db)
    squares = ((Vi(detail) - Vj(detail)) ** 2).sum(-1)
    positive = (10 ** (-threshold_db / 10) - squares).step()
    k = positive * (1 / T_POS - 1 / T_NEG) + 1 / T_NEG
    terms = (k * (Vi(sr) | Vj(sr))).exp() + 2 * (k * (Vi(sr) | Vj(hr))).exp()
    q_pos, q_neg = (positive * terms).concat((1 - positive) * terms).sum(dim=1).T
    used = q_neg > 0
    logs = torch.log(torch.where(used, q_neg, 1)) - torch.log(q_pos)
    return torch.where(used, logs, 0).sum() / used.sum().clamp(min=1)


def torch_form(
    loss_of: Callable, sr: np.ndarray, hr: np.ndarray, threshold_db: float, compiled: bool = False
) -> Measured:
    """A PyTorch loss with autograd's gradient; `compiled` sends it through torch.compile."""
    import torch

    if compiled:
        loss_of = torch.compile(loss_of)
    vectors, hr = torch.from_numpy(sr).requires_grad_(), torch.from_numpy(hr)

    def measured() -> tuple[float, np.ndarray]:
        loss = loss_of(vectors, hr, threshold_db)
        (gradient,) = torch.autograd.grad(loss, vectors)
        return loss.item(), gradient.numpy()

    return measured


class Form(NamedTuple):
    """One row of the comparison."""

    make: Callable[..., Measured]
    products: int  # of 2 P P D operations that it executes; our share of the mask comes on top
    largest: float  # P; above, it does not fit into 24 GB, or takes hours


FORMS = {
    "ours": Form(partial(jax_form, spatial_contrast), 4, math.inf),
    "ours, equal lengths": Form(equal_lengths, 4, 18_432),
    "dense": Form(partial(jax_form, spatial_contrast_dense), 6, 18_432),  # 3 forward, 3 backward
    "torch dense": Form(partial(torch_form, torch_dense_loss), 6, 18_432),
    "torch compiled": Form(partial(torch_form, torch_dense_loss, compiled=True), 6, 18_432),
    "torch chunked": Form(partial(torch_form, torch_chunked_loss), 9, 73_728),  # the 3 forward ones twice
    # It sums over D pair by pair: from 1,152 to 4,608 mini-patches its time grows 16 times.
    "keops": Form(partial(torch_form, keops_loss), 0, 4608),
}
