"""The forms of the spatial contrastive loss that benchmarks/contrast.py compares, each as fast as possible.

A form takes [P,D] float32 arrays and eta, and returns a function without arguments that gives the loss and
its gradient with respect to the SR vectors. All of them decide the mask by one product, and take one
exponential per pair and matrix.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from decloss_jax.losses.contrast import spatial_contrast, spatial_contrast_dense

Measured = Callable[[], tuple[Any, Any]]

T_POS, T_NEG = 0.5, 1.5  # Sec. 5.1


def jitted(form: Callable, threshold_db: float, **changes: Any) -> Any:
    """Value and gradient of one of our two forms under jit."""
    options = {"threshold_db": threshold_db, "t_pos": T_POS, "t_neg": T_NEG, **changes}
    return jax.jit(jax.value_and_grad(partial(form, **options)))


def jax_form(form: Callable, sr: np.ndarray, hr: np.ndarray, threshold_db: float, **changes: Any) -> Measured:
    """One of our two forms, compiled."""
    compiled, inputs = jitted(form, threshold_db, **changes), jax.device_put((sr, hr))
    return lambda: jax.block_until_ready(compiled(*inputs))


def torch_loss(sr: Any, hr: Any, threshold_db: float) -> Any:
    """Eq. 18-23 in PyTorch, in full matrices."""
    import torch
    from torch.nn.functional import normalize

    with torch.no_grad():
        detail = hr - hr.mean(0)
        cut = detail.square().sum(1) / 2 - 10 ** (-threshold_db / 10) / 4
        positive = detail @ detail.T >= cut[:, None] + cut
        k = torch.where(positive, 1 / T_POS, 1 / T_NEG)
        hr = normalize(hr, dim=1)
    sr = normalize(sr, dim=1)
    scores = torch.exp(k * (sr @ sr.T)) + 2 * torch.exp(k * (sr @ hr.T))
    q_pos = torch.where(positive, scores, 0).sum(1)
    q_neg = torch.where(positive, 0, scores).sum(1)
    used = q_neg > 0
    logs = torch.log(torch.where(used, q_neg, 1)) - torch.log(q_pos)
    return torch.where(used, logs, 0).sum() / used.sum().clamp(min=1)


def torch_form(sr: np.ndarray, hr: np.ndarray, threshold_db: float, *, compiled: bool) -> Measured:
    """The PyTorch loss with autograd's gradient; `compiled` sends it through torch.compile."""
    import torch

    loss_of = torch.compile(torch_loss) if compiled else torch_loss
    vectors, hr_vectors = torch.from_numpy(sr).requires_grad_(), torch.from_numpy(hr)

    def measured() -> tuple[Any, Any]:
        loss = loss_of(vectors, hr_vectors, threshold_db)
        (gradient,) = torch.autograd.grad(loss, vectors)
        return loss.item(), gradient.numpy()

    return measured


FORMS: dict[str, Callable[[np.ndarray, np.ndarray, float], Measured]] = {
    "ours": partial(jax_form, spatial_contrast),
    "dense": partial(jax_form, spatial_contrast_dense),
    "torch": partial(torch_form, compiled=False),
    "torch compiled": partial(torch_form, compiled=True),
}
