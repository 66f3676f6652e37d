"""Spatial contrastive loss of mini-patches (Eq. 18-23).

With u the SR and v the HR mini-patches of a batch (v is constant), hats for unit vectors:

    S_sr[i,j] = u^_i . u^_j        S_hr[i,j] = u^_i . v^_j                                        Eq. 18, 19
    positive[i,j]: -20 log10(|v_i - v_j| / MAX) >= eta                                            Eq. 20
    Q_pos[i] = sum over positive j of e^(S_sr[i,j] / t_pos) + 2 e^(S_hr[i,j] / t_pos)             Eq. 21
    Q_neg[i] = the same over the other j, with t_neg                                              Eq. 22
    L = -mean_i log(Q_pos[i] / Q_neg[i])                                                          Eq. 23

Self pairs are counted, as printed. An anchor without a negative has no term and is left out of the mean.
`spatial_contrast_dense` says this in full [P,P] matrices; `spatial_contrast` gives the same numbers in
memory linear in P (strips.py), and takes the matrices only where they are small enough to be faster.
docs/decloss.md derives the gradient and the costs.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from decloss_jax import checks
from decloss_jax.losses.similarity import centred, positive_cuts, positive_radius, unit_vectors
from decloss_jax.losses.strips import Plan, mean_log_ratio

# e^(1/t), summed over all mini-patches, has to fit float32 (at most e^88).
LOWEST_TEMPERATURE = 1 / 70

# Anchors per strip, at most. A pair of tiles makes 512 x 512 floats: as much as a core's cache holds (1 MiB
# here), and enough for products at full speed on several cores. benchmarks/contrast.py compares sizes.
TILE_SIZE = 512

# Up to here the full matrices stay in the caches and take less time than strips, if more memory
# (docs/decloss.md).
FULL_UP_TO = 1280

# Of the products on accelerators; CPUs compute float32 at any of them.
PRECISIONS: dict[str, lax.PrecisionLike] = {
    "highest": lax.Precision.HIGHEST,  # float32
    "high": lax.Precision.HIGH,  # TF32 on GPUs, three bfloat16 products on TPUs
    "default": lax.Precision.DEFAULT,  # TF32 on GPUs, one bfloat16 product on TPUs
    "bf16": lax.DotAlgorithmPreset.BF16_BF16_F32,  # one bfloat16 product, summed in float32
}


class Temperatures(NamedTuple):
    """Positives count e^(k_pos S), negatives e^(k_neg S), and the loss gets `offset` on top."""

    k_pos: float
    k_neg: float
    offset: float


# "exponent": e^(S/t). "scale": e^S / t, as printed; there t leaves the sums, so no gradient depends on it.
TEMPERATURES: dict[str, Callable[[float, float], Temperatures]] = {
    "exponent": lambda t_pos, t_neg: Temperatures(1 / t_pos, 1 / t_neg, 0.0),
    "scale": lambda t_pos, t_neg: Temperatures(1.0, 1.0, math.log(t_pos / t_neg)),
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

    Args, Returns, Raises: as `contrast_terms`, without its last three options; returns the loss alone.
    """
    _check_patches(sr_patches, hr_patches)
    temperatures = _temperatures(temperature, t_pos, t_neg)
    plan = _plan(temperatures, threshold_db=threshold_db, max_value=max_value, patches=len(sr_patches))
    return _loss(_full_mean_log_ratio(plan, sr_patches, hr_patches), temperatures)


def _full_mean_log_ratio(plan: Plan, sr_patches: Array, hr_patches: Array) -> tuple[Array, Array, Array]:
    """Returns the three values of `strips.mean_log_ratio`, of [P,D] vectors, from full matrices."""
    hr_patches = lax.stop_gradient(hr_patches)
    dot = partial(jnp.matmul, precision=plan.precision)
    sr = unit_vectors(sr_patches, max_value=plan.max_value)
    hr = unit_vectors(hr_patches, max_value=plan.max_value)
    detail = centred(hr_patches, plan.patches, max_value=plan.max_value)
    cut = positive_cuts(detail, plan.radius)

    positive = jnp.matmul(detail, detail.T, precision=lax.Precision.HIGHEST) >= cut[:, None] + cut
    k = jnp.where(positive, plan.k_pos, plan.k_neg)
    terms = jnp.exp(k * dot(sr, sr.T)) + 2 * jnp.exp(k * dot(sr, hr.T))
    q_pos = jnp.sum(terms, axis=1, where=positive)
    q_neg = jnp.sum(terms, axis=1, where=~positive)

    used = q_neg > 0
    logs = jnp.log(jnp.where(used, q_neg, 1)) - jnp.log(q_pos)
    mean = jnp.sum(logs, where=used) / jnp.maximum(jnp.sum(used), 1)
    return mean, jnp.mean(used), jnp.mean(positive)


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
    precision: str = "highest",
) -> tuple[Array, dict[str, Array]]:
    """Spatial contrastive loss (Eq. 18-23) in memory O(P D + tile P), with the shares behind it.

    Args:
        sr_patches: [P,D] vectors u, enhanced SR mini-patches.
        hr_patches: [P,D] vectors v, enhanced HR mini-patches of the same places; no gradient flows into them.
        threshold_db: eta, dB: pairs whose HR vectors are at least this alike (Eq. 20) are positive.
        t_pos: temperature of the positives, above 0; at least 1/70 with "exponent".
        t_neg: temperature of the negatives, likewise.
        max_value: MAX, the largest pixel value, above 0.
        temperature: "exponent" (e^(S/t)) or "scale" (e^S / t, as printed: the gradient ignores t).
        tile_size: anchors per strip at most, above 0. None: `TILE_SIZE`, or full matrices for up to
            `FULL_UP_TO` mini-patches on one device, where they are faster.
        axis_name: inside `jax.shard_map`, the mesh axis over which the mini-patches are spread: the arguments
            are this device's share, the columns are those of all devices, and the loss is the global one, the
            same on each device. None: these mini-patches alone.
        precision: of the products on accelerators: "highest", "high", "default" or "bf16" (`PRECISIONS`); the
            mask is always computed in float32.

    Returns:
        The loss, a dimensionless scalar, differentiable once in `sr_patches`; and {"anchors": share of
        anchors that have a negative, "positives": mean share of positives per anchor}, both in [0,1].

    Raises:
        UserError: shapes that differ or are not [P,D], an unknown name, a value out of its range.
    """
    _check_patches(sr_patches, hr_patches)
    temperatures = _temperatures(temperature, t_pos, t_neg)
    plan = _plan(
        temperatures,
        threshold_db=threshold_db,
        max_value=max_value,
        patches=len(sr_patches),
        axis_name=axis_name,
        precision=precision,
    )
    if tile_size is None and axis_name is None and len(sr_patches) <= FULL_UP_TO:
        ratio = _full_mean_log_ratio(plan, sr_patches, hr_patches)
    else:
        ratio = mean_log_ratio(plan, *_sorted_tiles(plan, sr_patches, hr_patches, tile_size))
    _, anchors, positives = ratio
    return _loss(ratio, temperatures), {"anchors": anchors, "positives": positives}


def spatial_contrast(
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
    precision: str = "highest",
) -> Array:
    """Spatial contrastive loss: the first value of `contrast_terms`, which see; same arguments."""
    loss, _ = contrast_terms(
        sr_patches,
        hr_patches,
        threshold_db=threshold_db,
        t_pos=t_pos,
        t_neg=t_neg,
        max_value=max_value,
        temperature=temperature,
        tile_size=tile_size,
        axis_name=axis_name,
        precision=precision,
    )
    return loss


def _loss(ratio: tuple[Array, Array, Array], temperatures: Temperatures) -> Array:
    """Adds the offset to the mean of `mean_log_ratio`, where there is an anchor."""
    mean, anchors, _ = ratio
    return jnp.where(anchors > 0, mean + temperatures.offset, 0.0)


def _plan(
    temperatures: Temperatures,
    *,
    threshold_db: float,
    max_value: float,
    patches: int,
    axis_name: str | None = None,
    precision: str = "highest",
) -> Plan:
    checks.check_positive("max_value", max_value)
    return Plan(
        k_pos=temperatures.k_pos,
        k_neg=temperatures.k_neg,
        radius=positive_radius(threshold_db, max_value=max_value),
        max_value=max_value,
        patches=patches,
        axis_name=axis_name,
        precision=checks.look_up(PRECISIONS, precision, "precision"),
    )


def _sorted_tiles(
    plan: Plan, sr_patches: Array, hr_patches: Array, tile_size: int | None
) -> tuple[Array, Array]:
    """Returns tiles of unit SR vectors and of HR vectors; neighbours in the length of their detail share one.

    So few pairs of tiles can hold positives; the loss knows no order.
    """
    tile_size = TILE_SIZE if tile_size is None else tile_size
    checks.check_positive("tile_size", tile_size)
    hr_patches = lax.stop_gradient(hr_patches)
    detail = centred(hr_patches, plan.patches, max_value=plan.max_value)
    order = jnp.argsort(jnp.sum(jnp.square(detail), axis=1))
    sr_tiles = _tiles(sr_patches[order], tile_size)
    return unit_vectors(sr_tiles, max_value=plan.max_value), _tiles(hr_patches[order], tile_size)


def _tiles(patches: Array, tile_size: int) -> Array:
    """Splits [P,D] into as few tiles [n,T,D], T <= tile_size, as possible, filled up with zeros in front."""
    count, depth = patches.shape
    n = -(-count // tile_size)
    size = -(-count // n)
    return jnp.pad(patches, ((n * size - count, 0), (0, 0))).reshape(n, size, depth)


def _check_patches(sr_patches: Array, hr_patches: Array) -> None:
    checks.check_same_shape("sr_patches", sr_patches, "hr_patches", hr_patches)
    checks.check(
        sr_patches.ndim == 2 and len(sr_patches) > 0,
        "sr_patches",
        expected="shape [P,D] with P above 0",
        got=f"shape {list(sr_patches.shape)}",
        remedy="cut the images with extract_patches first",
    )


def _temperatures(temperature: str, t_pos: float, t_neg: float) -> Temperatures:
    checks.check_positive("t_pos", t_pos)
    checks.check_positive("t_neg", t_neg)
    temperatures = checks.look_up(TEMPERATURES, temperature, "temperature")(t_pos, t_neg)
    checks.check(
        max(temperatures.k_pos, temperatures.k_neg) * LOWEST_TEMPERATURE <= 1,
        "t_pos and t_neg",
        expected=f"at least {LOWEST_TEMPERATURE:.4f} (below, e^(1/t) does not fit float32)",
        got=f"{t_pos} and {t_neg}",
        remedy="raise the lower one",
    )
    return temperatures
