"""Spatial contrastive loss of mini-patches (Eq. 18-23).

`spatial_contrast_dense` is the paper's definition in full [P,P] matrices; read it first.
`contrast_terms` computes the same loss in memory linear in P (strips.py), and training uses it;
`spatial_contrast` returns the loss alone. docs/decloss.md derives the gradient and lists the costs.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import ParamSpec

import jax.numpy as jnp
from jax import Array, lax

from decloss_jax import checks
from decloss_jax.losses.similarity import mask_vectors, unit_vectors
from decloss_jax.losses.strips import Plan, mean_log_ratio

Options = ParamSpec("Options")

# e^(1/t), summed over all mini-patches, has to fit float32 (at most e^88).
LOWEST_TEMPERATURE = 1 / 70

# Maps the printed (t_pos, t_neg) to those in the exponents and a constant that is added to the loss.
# "exponent": e^(S/t). "scale": e^S / t, as printed; t then leaves the sums and no gradient depends on it.
TEMPERATURES: dict[str, Callable[[float, float], tuple[float, float, float]]] = {
    "exponent": lambda t_pos, t_neg: (t_pos, t_neg, 0.0),
    "scale": lambda t_pos, t_neg: (1.0, 1.0, math.log(t_pos / t_neg)),
}

# Precision of the products on accelerators; CPUs compute in float32 with each of them.
PRECISIONS: dict[str, lax.PrecisionLike] = {
    "highest": lax.Precision.HIGHEST,  # float32
    "high": lax.Precision.HIGH,  # TF32 on GPUs, three bfloat16 products on TPUs
    "default": lax.Precision.DEFAULT,  # TF32 on GPUs, one bfloat16 product on TPUs
    "bf16": lax.DotAlgorithmPreset.BF16_BF16_F32,  # one bfloat16 product, summed in float32
}


def spatial_contrast_dense(
    sr_patches: Array,
    hr_patches: Array,
    *,
    threshold_db: float,
    t_pos: float,
    t_neg: float,
    max_value: float = 1.0,
    temperature: str = "exponent",
) -> Array:
    """Spatial contrastive loss as the paper states it, in full matrices (Eq. 18-23); for small P.

    Self pairs count, as printed. An anchor without a negative has no term and is left out of the mean.

    Args, Returns, Raises: as `contrast_terms` without its last three options; returns the loss alone.
    """
    _check_patches(sr_patches, hr_patches)
    t_pos, t_neg, constant = _temperatures(temperature, t_pos, t_neg)
    dot = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)

    hr_patches = lax.stop_gradient(hr_patches)
    u = unit_vectors(sr_patches, max_value=max_value)
    v = unit_vectors(hr_patches, max_value=max_value)
    s_sr = dot(u, u.T)  # Eq. 18
    s_hr = dot(u, v.T)  # Eq. 19

    # M_ij >= eta exactly where |v_i - v_j| <= MAX 10^(-eta/20), which one product decides.
    detail, cut = mask_vectors(hr_patches, threshold_db=threshold_db, max_value=max_value)
    positive = dot(detail, detail.T) >= cut[:, None] + cut  # Eq. 20

    t = jnp.where(positive, t_pos, t_neg)
    scores = jnp.exp(s_sr / t) + 2 * jnp.exp(s_hr / t)
    q_pos = jnp.sum(scores, axis=1, where=positive)  # Eq. 21
    q_neg = jnp.sum(scores, axis=1, where=~positive)  # Eq. 22

    used = q_neg != 0
    losses = constant - jnp.log(q_pos / jnp.where(used, q_neg, 1))
    return jnp.sum(losses, where=used) / jnp.maximum(jnp.sum(used), 1)  # Eq. 23


def contrast_terms(
    sr_patches: Array,
    hr_patches: Array,
    *,
    threshold_db: float,
    t_pos: float,
    t_neg: float,
    max_value: float = 1.0,
    temperature: str = "exponent",
    tile_size: int | None = None,
    axis_name: str | None = None,
    precision: str = "high",
) -> tuple[Array, dict[str, Array]]:
    """Spatial contrastive loss (Eq. 18-23) in memory linear in P, and the shares of anchors and positives.

    Args:
        sr_patches: [P,D] vectors u, enhanced SR mini-patches.
        hr_patches: [P,D] vectors v, enhanced HR mini-patches at the same places; no gradient flows into them.
        threshold_db: eta, dB; a pair whose HR vectors are at least this similar is positive (Eq. 20).
        t_pos: temperature of the positives, above 0; at least 1/70 with "exponent".
        t_neg: temperature of the negatives, likewise.
        max_value: MAX, the largest pixel value, above 0.
        temperature: "exponent" (e^(S/t)) or "scale" (e^S / t, as printed: the gradient ignores t).
        tile_size: the largest number of anchors in one strip, above 0. None: chosen for the platform.
        axis_name: inside `jax.shard_map`, the mesh axis over which the mini-patches are spread. The arguments
            are then this device's share, and the loss is that of all mini-patches, the same on each device.
            None: these mini-patches alone.
        precision: of the products on accelerators: "highest", "high", "default" or "bf16" (`PRECISIONS`).
            The mask is always computed in float32.

    Returns:
        The loss, a dimensionless scalar, differentiable once in `sr_patches`; and {"anchors": share of
        anchors that have a negative, "positives": mean share of positives per anchor}, both in [0,1].

    Raises:
        UserError: shapes that differ or are not [P,D], an unknown name, a value out of its range.
    """
    _check_patches(sr_patches, hr_patches)
    checks.check_positive("max_value", max_value)
    checks.check_positive("tile_size", 1 if tile_size is None else tile_size)
    t_pos, t_neg, constant = _temperatures(temperature, t_pos, t_neg)
    plan = Plan(
        k_pos=1 / t_pos,
        k_neg=1 / t_neg,
        threshold_db=threshold_db,
        max_value=max_value,
        tile_size=tile_size,
        axis_name=axis_name,
        precision=checks.look_up(PRECISIONS, precision, "precision"),
    )
    mean, anchors, positives = mean_log_ratio(plan, unit_vectors(sr_patches, max_value=max_value), hr_patches)
    loss = jnp.where(anchors > 0, mean + constant, 0.0)
    return loss, {"anchors": anchors, "positives": positives}


def value_of(terms: Callable[Options, tuple[Array, dict[str, Array]]], name: str) -> Callable[Options, Array]:
    """Returns the function `name`, which takes the arguments of `terms` and returns its first value alone."""

    @functools.wraps(terms)
    def value(*args: Options.args, **options: Options.kwargs) -> Array:
        return terms(*args, **options)[0]

    value.__name__ = value.__qualname__ = name
    value.__signature__ = inspect.signature(terms).replace(return_annotation=Array)  # type: ignore[attr-defined]
    value.__doc__ = f"Returns the first value of `{terms.__name__}`, the loss; takes the same arguments."
    return value


spatial_contrast = value_of(contrast_terms, "spatial_contrast")


def _check_patches(sr_patches: Array, hr_patches: Array) -> None:
    checks.check_same_shape("sr_patches", sr_patches, "hr_patches", hr_patches)
    checks.check(
        sr_patches.ndim == 2 and len(sr_patches) > 0,
        "sr_patches",
        expected="shape [P,D] with P above 0",
        got=f"shape {list(sr_patches.shape)}",
        remedy="cut the images with extract_patches first",
    )


def _temperatures(temperature: str, t_pos: float, t_neg: float) -> tuple[float, float, float]:
    checks.check_positive("t_pos", t_pos)
    checks.check_positive("t_neg", t_neg)
    in_exponents = checks.look_up(TEMPERATURES, temperature, "temperature")(t_pos, t_neg)
    checks.check(
        min(in_exponents[:2]) >= LOWEST_TEMPERATURE,
        "t_pos and t_neg",
        expected=f"at least {LOWEST_TEMPERATURE:.4f} (below, e^(1/t) does not fit float32)",
        got=f"{t_pos} and {t_neg}",
        remedy="raise the lower one",
    )
    return in_exponents
