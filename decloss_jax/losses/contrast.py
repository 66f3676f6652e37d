"""Spatial contrastive loss (Eq. 18-23), exact, in memory linear in the number of mini-patches.

With u the SR and v the HR mini-patches of a batch (v is constant), hats for unit vectors:

    S_sr[i,j] = u^_i . u^_j        S_hr[i,j] = u^_i . v^_j                                        Eq. 18, 19
    positive[i,j]: -20 log10(|v_i - v_j| / MAX) >= eta                                            Eq. 20
    Q_pos[i] = sum over positive j of e^(S_sr[i,j] / t_pos) + 2 e^(S_hr[i,j] / t_pos)             Eq. 21
    Q_neg[i] = the same over the other j, with t_neg                                              Eq. 22
    L = -mean_i log(Q_pos[i] / Q_neg[i])                                                          Eq. 23

Self pairs are counted, as printed. An anchor i without a negative has no term and is left out of the mean.
`spatial_contrast_dense` says this in full matrices; `spatial_contrast` gives the same numbers strip by strip.
docs/decloss.md derives the gradient and the costs.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decloss_jax import checks

# A vector shorter than this share of MAX is what rounding leaves of a flat patch (a float32 transform of
# values up to MAX is off by about 1e-7 MAX): its direction is noise, and the gradient of its cosine would be
# 1e6 and more. It counts as the zero vector: cosine 0, gradient 0.
ZERO_NORM = 1e-6
# e^(1/t), summed over all mini-patches, has to fit float32 (at most e^88).
LOWEST_TEMPERATURE = 1 / 70

PRECISIONS = {"highest": lax.Precision.HIGHEST, "high": lax.Precision.HIGH, "default": lax.Precision.DEFAULT}


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


class Patches(NamedTuple):
    """What the strips need of a set of mini-patches: unit vectors, and the mask's vectors and cuts."""

    sr: Array  # [P,D] unit vectors u^
    hr: Array  # [P,D] unit vectors v^
    detail: Array  # [P,D] v less the mean of all v
    cut: Array  # [P]: i and j are positive where detail_i . detail_j >= cut_i + cut_j

    def rows(self, start: Array | int, count: int) -> "Patches":
        return Patches(*(lax.dynamic_slice_in_dim(part, start, count) for part in self))


def unit_vectors(vectors: Array, zero_norm: float) -> Array:
    """Divides each row of [P,D] by its norm; rows shorter than `zero_norm` become 0, with gradient 0."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    is_zero = squares < zero_norm**2
    return jnp.where(is_zero, 0.0, vectors / jnp.sqrt(jnp.where(is_zero, 1.0, squares)))


def mask_cuts(detail: Array, threshold_db: float, max_value: float) -> Array:
    """Returns cuts c [P]: |v_i - v_j| <= MAX 10^(-eta/20) where v_i . v_j >= c_i + c_j."""
    squares = jnp.sum(jnp.square(detail), axis=-1)
    radius2 = max_value**2 * 10 ** (-threshold_db / 10)
    rounding = detail.shape[-1] * jnp.finfo(detail.dtype).eps
    return squares / 2 - jnp.maximum(radius2 / 4, rounding * squares / 2)


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
    """Spatial contrastive loss as the paper prints it, with full [P,P] matrices (Eq. 18-23)."""
    k_pos, k_neg, offset = _check(sr_patches, hr_patches, t_pos, t_neg, max_value, temperature)
    hr_patches = lax.stop_gradient(hr_patches)
    dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)

    sr = unit_vectors(sr_patches, ZERO_NORM * max_value)
    hr = unit_vectors(hr_patches, ZERO_NORM * max_value)
    detail = hr_patches - hr_patches.mean(axis=0)
    cut = mask_cuts(detail, threshold_db, max_value)

    positive = dot(detail, detail.T) >= cut[:, None] + cut
    k = jnp.where(positive, k_pos, k_neg)
    terms = jnp.exp(k * dot(sr, sr.T)) + 2 * jnp.exp(k * dot(sr, hr.T))
    q_pos = jnp.sum(terms, axis=1, where=positive)
    q_neg = jnp.sum(terms, axis=1, where=~positive)
    used = q_neg > 0
    logs = jnp.where(used, jnp.log(jnp.where(used, q_neg, 1)) - jnp.log(q_pos) + offset, 0)
    return jnp.sum(logs) / jnp.maximum(jnp.sum(used), 1)


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
    """Spatial contrastive loss in strips of rows, with its own gradient (Eq. 18-23)."""
    temperatures = _check(sr_patches, hr_patches, t_pos, t_neg, max_value, temperature)
    hr_patches = lax.stop_gradient(hr_patches)
    count = sr_patches.shape[0]
    total = count if axis_name is None else count * lax.axis_size(axis_name)
    mean = hr_patches.mean(axis=0)
    detail = hr_patches - (mean if axis_name is None else lax.pmean(mean, axis_name))
    patches = Patches(
        sr=unit_vectors(sr_patches, ZERO_NORM * max_value),
        hr=unit_vectors(hr_patches, ZERO_NORM * max_value),
        detail=detail,
        cut=mask_cuts(detail, threshold_db, max_value),
    )
    plan = Plan(
        tile=min(tile_size or default_tile(total), count),
        axis_name=axis_name,
        precision=checks.look_up(PRECISIONS, precision, "precision"),
        k_pos=temperatures.k_pos,
        k_neg=temperatures.k_neg,
    )
    mean_log, anchors, positives = _strip_loss(plan, patches.sr, patches)
    loss = jnp.where(anchors > 0, mean_log + temperatures.offset, 0.0)
    return loss, {"anchors": anchors, "positives": positives}


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
    """Spatial contrastive loss in strips: the first value of `contrast_terms`."""
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


def default_tile(columns: int) -> int:
    return max(64, 2**22 // columns // 64 * 64)


class Plan(NamedTuple):
    tile: int
    axis_name: str | None
    precision: lax.Precision
    k_pos: float
    k_neg: float


def _over_strips(total, size, body, carry):
    full, rest = divmod(total, size)
    carry = lax.fori_loop(0, full, lambda index, c: body(index * size, size, c), carry)
    return body(full * size, rest, carry) if rest else carry


def _exponentials(plan, rows, columns):
    dot = partial(jnp.matmul, precision=plan.precision)
    positive = jnp.matmul(rows.detail, columns.detail.T, precision=lax.Precision.HIGHEST) >= (
        rows.cut[:, None] + columns.cut
    )
    k = jnp.where(positive, plan.k_pos, plan.k_neg)
    sign = jnp.where(positive, 1.0, -1.0)
    e_sr = sign * jnp.exp(k * dot(rows.sr, columns.sr.T))
    e_hr = sign * jnp.exp(k * dot(rows.sr, columns.hr.T))
    return e_sr, e_hr


def _sums(e_sr, e_hr):
    q_pos = jnp.sum(jnp.maximum(e_sr, 0) + 2 * jnp.maximum(e_hr, 0), axis=1)
    q_neg = -jnp.sum(jnp.minimum(e_sr, 0) + 2 * jnp.minimum(e_hr, 0), axis=1)
    return q_pos, q_neg, jnp.mean(e_sr > 0, axis=1)


def _value_and_gradient(plan, patches, with_gradient):
    count, depth = patches.sr.shape
    columns = _gather(plan.axis_name, patches)
    others = columns.sr[count:]
    dot = partial(jnp.matmul, precision=plan.precision)

    def strip(start, size, carry):
        gradient, slopes, scattered, (log_sum, used_sum, positive_sum) = carry
        rows = patches.rows(start, size)
        e_sr, e_hr = _exponentials(plan, rows, columns)
        q_pos, q_neg, positives = _sums(e_sr, e_hr)
        used = q_neg > 0
        q_neg = jnp.where(used, q_neg, 1)
        logs = jnp.where(used, jnp.log(q_neg) - jnp.log(q_pos), 0)
        sums = (log_sum + logs.sum(), used_sum + used.sum(), positive_sum + positives.sum())
        if not with_gradient:
            return gradient, slopes, scattered, sums

        own = jnp.stack([jnp.where(used, plan.k_pos / q_pos, 0), jnp.where(used, plan.k_neg / q_neg, 0)])
        slopes = lax.dynamic_update_slice_in_dim(slopes, own, start, axis=1)

        def weigh(e, pos, neg):
            return e * jnp.where(e > 0, pos, neg)

        mine = 2 * dot(weigh(e_hr, own[0][:, None], own[1][:, None]), columns.hr)

        def square(column_start, column_size, carry):
            gradient, mine = carry
            e = lax.dynamic_slice_in_dim(e_sr, column_start, column_size, axis=1)
            there = lax.dynamic_slice_in_dim(slopes, column_start, column_size, axis=1)
            c = weigh(e, own[0][:, None] + there[0], own[1][:, None] + there[1])
            mine += dot(c, lax.dynamic_slice_in_dim(patches.sr, column_start, column_size))
            theirs = lax.dynamic_slice_in_dim(gradient, column_start, column_size) + dot(c.T, rows.sr)
            return lax.dynamic_update_slice_in_dim(gradient, theirs, column_start, axis=0), mine

        gradient, mine = lax.fori_loop(
            0, start // plan.tile, lambda j, c: square(j * plan.tile, plan.tile, c), (gradient, mine)
        )
        e = lax.dynamic_slice_in_dim(e_sr, start, size, axis=1)
        c = weigh(e, own[0][:, None] + own[0], own[1][:, None] + own[1])
        mine += dot(c, rows.sr)
        if others.shape[0]:
            c = weigh(e_sr[:, count:], own[0][:, None], own[1][:, None])
            mine += dot(c, others)
            scattered += dot(c.T, rows.sr)
        gradient = lax.dynamic_update_slice_in_dim(
            gradient, lax.dynamic_slice_in_dim(gradient, start, size) + mine, start, axis=0
        )
        return gradient, slopes, scattered, sums

    zeros = partial(jnp.zeros, dtype=patches.sr.dtype)
    carry = (
        zeros((count, depth)),
        zeros((2, count)),
        zeros(others.shape),
        (zeros(()), zeros(()), zeros(())),
    )
    carry = jax.tree.map(lambda x: _varying(plan.axis_name, x), carry)
    gradient, _, scattered, sums = _over_strips(count, plan.tile, strip, carry)
    if plan.axis_name is not None:
        sums = lax.psum(sums, plan.axis_name)
        if with_gradient and others.shape[0]:
            everywhere = jnp.concatenate([gradient, scattered])
            everywhere = jnp.roll(everywhere, count * lax.axis_index(plan.axis_name), axis=0)
            gradient = lax.psum_scatter(everywhere, plan.axis_name, tiled=True)
    log_sum, used, positives = sums
    total = columns.sr.shape[0]
    scale = 1 / jnp.maximum(used, 1)
    return (log_sum * scale, used / total, positives / total), -gradient * scale


def _varying(axis_name, x):
    return x if axis_name is None else lax.pcast(x, axis_name, to="varying")


def _gather(axis_name, patches):
    if axis_name is None:
        return patches
    count = patches.sr.shape[0]

    def gather(part):
        return jnp.roll(
            lax.all_gather(part, axis_name, tiled=True), -count * lax.axis_index(axis_name), axis=0
        )

    return jax.tree.map(gather, patches)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _strip_loss(plan, sr, patches):
    return _value_and_gradient(plan, patches, with_gradient=False)[0]


def _strip_loss_fwd(plan, sr, patches):
    return _value_and_gradient(plan, patches, with_gradient=True)


def _strip_loss_bwd(plan, gradient, cotangents):
    return cotangents[0] * gradient, None


_strip_loss.defvjp(_strip_loss_fwd, _strip_loss_bwd)


def _check(
    sr_patches: Array, hr_patches: Array, t_pos: float, t_neg: float, max_value: float, temperature: str
) -> Temperatures:
    checks.check_same_shape("sr_patches", sr_patches, "hr_patches", hr_patches)
    checks.check(
        sr_patches.ndim == 2,
        "sr_patches",
        expected="shape [P,D]",
        got=f"shape {list(sr_patches.shape)}",
        remedy="cut the images with extract_patches first",
    )
    checks.check_positive("max_value", max_value)
    checks.check_positive("t_pos", t_pos)
    checks.check_positive("t_neg", t_neg)
    temperatures = checks.look_up(TEMPERATURES, temperature, "temperature")(t_pos, t_neg)
    checks.check(
        max(temperatures.k_pos, temperatures.k_neg) <= 1 / LOWEST_TEMPERATURE,
        "t_pos and t_neg",
        expected=f"at least {LOWEST_TEMPERATURE:.4f}, or e^(1/t) overflows",
        got=f"{t_pos} and {t_neg}",
        remedy="raise the lower one",
    )
    return temperatures
