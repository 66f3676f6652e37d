"""The sums of the spatial contrastive loss and their gradient without a [P,P] matrix: one pass over strips.

Mini-patches lie in n tiles of T vectors. A strip is one tile of anchors against all m tiles of columns (m = n
times the number of devices): 2 m T T floats, the largest thing ever held. Strip after strip:

1. Sweep over the columns: S_sr, S_hr and the mask, one exponential per pair and matrix, kept with the mask in
   its sign: E_sr = +-e^(k S_sr), E_hr = +-2 e^(k S_hr), plus and k_pos for positives, minus and k_neg for
   negatives. Their sums are Q_pos and Q_neg of the strip's anchors, complete at once.
2. The slopes w = k_pos / Q_pos[i] or k_neg / Q_neg[i] (by the sign of E) give dL_i/dS_ij = -w_ij E_ij, hence
   the strip's part of dL/du^_i = -sum_j w_ij E_hr_ij v^_j - sum_j (w_ij + w_ji) E_sr_ij u^_j.
   Anchors that came before know their slopes already, so a pair of tiles is finished when the later one is at
   work: C = (w_ij + w_ji) E_sr_ij serves both tiles, C u^_j for the row and C^T u^_i for the column.

A product of [P,D] with [D,P] is needed once for S_sr, S_hr and the mask, once for the HR part and once (twice
a half) for the SR part of the gradient: 5, with nothing computed again. With k devices the SR part is 2 - 1/k
products in all, as a pair of tiles on two devices is one product for each. Two mini-patches whose details
differ in length by more than the mask's radius cannot be positive, so for tiles of mini-patches sorted by
that length most of the mask's product is left out as well.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decloss_jax.losses.similarity import centred, positive_cuts, unit_vectors


class Plan(NamedTuple):
    """What is fixed when the loss is compiled."""

    k_pos: float  # positives count e^(k_pos S)
    k_neg: float  # negatives count e^(k_neg S)
    radius: float  # mini-patches are positive when their HR vectors are no farther apart
    max_value: float  # MAX
    patches: int  # P of one device
    axis_name: str | None  # mesh axis over which the mini-patches are spread
    precision: lax.PrecisionLike  # of all products but the mask's


class Tiles(NamedTuple):
    """Columns, m tiles of them; without the first axis one tile of anchors."""

    sr: Array  # [m,T,D] unit vectors u^
    hr: Array  # [m,T,D] unit vectors v^
    sr_t: Array  # [m,D,T] the same, lying as the products read them fastest
    hr_t: Array  # [m,D,T]
    detail_t: Array  # [m,D,T] v, centred
    cut: Array  # [m,T] i and j are positive where detail_i . detail_j >= cut_i + cut_j
    shortest: Array  # [m] length of the shortest and
    longest: Array  # [m] of the longest detail in the tile
    log_weight: Array  # [m,T] 0, or -inf for a filling, which then counts e^-inf = 0


Strip = tuple[Array, Array] | None  # E_sr and E_hr, [m,T,T] each; None when only the value is wanted


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_log_ratio(plan: Plan, sr: Array, hr: Array) -> tuple[Array, Array, Array]:
    """Averages log(Q_neg / Q_pos) over the anchors that have a negative; differentiable once, in `sr`.

    Args:
        plan: the options.
        sr: [n,T,D] unit vectors u^ of this device; n T - plan.patches zero vectors may lead them.
        hr: [n,T,D] vectors v of the same mini-patches.

    Returns:
        The mean over all devices (0 without such an anchor), the share of such anchors, and the mean share
        of positives per anchor.
    """
    return _run(plan, sr, hr, with_gradient=False)[0]


def _forward(plan: Plan, sr: Array, hr: Array) -> tuple[tuple[Array, Array, Array], Array]:
    return _run(plan, sr, hr, with_gradient=True)


def _backward(plan: Plan, gradient: Array, cotangents: tuple[Array, Array, Array]) -> tuple[Array, None]:
    return cotangents[0] * gradient, None


mean_log_ratio.defvjp(_forward, _backward)


def _run(
    plan: Plan, sr: Array, hr: Array, *, with_gradient: bool
) -> tuple[tuple[Array, Array, Array], Array]:
    """Returns the three values of `mean_log_ratio` and the gradient of the first (zeros when not wanted)."""
    n, size, depth = sr.shape
    columns = _columns(plan, sr, hr)
    m = len(columns.sr)

    def zeros(*shape: int) -> Array:
        # "Like" makes them vary over the devices of a mesh as `sr` does: a loop's carry must from the start.
        return jnp.zeros_like(sr, shape=shape)

    def add_strip(i: Array, carry: tuple) -> tuple:
        strip, slopes, row_part, column_part, sums = carry
        own = m - n + i
        row = _tile(columns, own)
        near = _may_be_positive(plan, columns, row, depth)
        strip, q_pos, q_neg, positives = _sweep(plan, columns, row, near, strip)
        used = (q_neg > 0) & (row.log_weight == 0)
        q_pos, q_neg = jnp.where(used, q_pos, 1), jnp.where(used, q_neg, 1)
        sums += jnp.stack([jnp.sum(jnp.log(q_neg) - jnp.log(q_pos)), jnp.sum(used), positives])
        if strip is not None:
            slope = jnp.where(used, plan.k_pos / q_pos, 0), jnp.where(used, plan.k_neg / q_neg, 0)
            mine, column_part = _differentiate(plan, columns, own, strip, slope, slopes, column_part)
            row_part = _put(row_part, mine, i)
            slopes = _put(slopes[0], slope[0], own), _put(slopes[1], slope[1], own)
        return strip, slopes, row_part, column_part, sums

    strip = (zeros(m, size, size), zeros(m, size, size)) if with_gradient else None
    slopes = zeros(m, size), zeros(m, size)
    carry = strip, slopes, zeros(n, size, depth), zeros(m, depth, size), zeros(3)
    *_, row_part, column_part, sums = lax.fori_loop(0, n, add_strip, carry)

    if plan.axis_name is not None:
        sums = lax.psum(sums, plan.axis_name)
        column_part = jnp.roll(column_part, (lax.axis_index(plan.axis_name) + 1) * n, axis=0)
        column_part = lax.psum_scatter(column_part, plan.axis_name, tiled=True)
    log_sum, used, positives = sums
    anchors = plan.patches * (m // n)
    gradient = -(row_part + column_part.swapaxes(1, 2)) / jnp.maximum(used, 1)
    return (log_sum / jnp.maximum(used, 1), used / anchors, positives / float(anchors**2)), gradient


def _columns(plan: Plan, sr: Array, hr: Array) -> Tiles:
    """Gathers the tiles of all devices, this device's last, and prepares what each tile needs as columns."""
    both = jnp.stack([sr, hr])
    if plan.axis_name is not None:
        both = lax.all_gather(both, plan.axis_name, axis=1, tiled=True)
        both = jnp.roll(both, -(lax.axis_index(plan.axis_name) + 1) * len(sr), axis=1)
    devices = both.shape[1] // len(sr)
    sr, hr = both
    n, size = len(sr) // devices, sr.shape[1]
    is_filling = jnp.tile((jnp.arange(n * size) < n * size - plan.patches).reshape(n, size), (devices, 1))

    detail = centred(hr, plan.patches * devices, max_value=plan.max_value)
    lengths = jnp.sqrt(jnp.sum(jnp.square(detail), axis=-1))
    hr = unit_vectors(hr, max_value=plan.max_value)
    return Tiles(
        sr=sr,
        hr=hr,
        sr_t=sr.swapaxes(1, 2),
        hr_t=hr.swapaxes(1, 2),
        detail_t=detail.swapaxes(1, 2),
        cut=jnp.where(is_filling, jnp.inf, positive_cuts(detail, plan.radius)),
        shortest=lengths.min(axis=1),
        longest=lengths.max(axis=1),
        log_weight=jnp.where(is_filling, -jnp.inf, 0.0).astype(sr.dtype),
    )


def _may_be_positive(plan: Plan, columns: Tiles, row: Tiles, depth: int) -> Array:
    """Tells for each tile of columns [m] whether any of its lengths comes within reach of the row's."""
    # What rounding may add to the radius, in the mask (see `positive_cuts`) and in the lengths themselves.
    longest = jnp.maximum(columns.longest, row.longest)
    reach = jnp.sqrt(plan.radius * plan.radius + 8 * depth * jnp.finfo(longest.dtype).eps * longest**2)
    return jnp.maximum(columns.shortest - row.longest, row.shortest - columns.longest) <= reach


def _sweep(
    plan: Plan, columns: Tiles, row: Tiles, near: Array, strip: Strip
) -> tuple[Strip, Array, Array, Array]:
    """Fills the strip of one tile of anchors; returns it, Q_pos and Q_neg [T], and how many are positive."""
    order = jnp.argsort(~near)  # tiles that may hold a positive first
    near_count = jnp.sum(near)
    row_detail = row.detail_t.T

    def add_near(k: Array, carry: tuple) -> tuple:
        strip, positive_sum, negative_sum, positives = carry
        column = _tile(columns, order[k])
        gram = jnp.matmul(row_detail, column.detail_t, precision=lax.Precision.HIGHEST)
        positive = gram >= row.cut[:, None] + column.cut
        e_sr, e_hr = _exponentials(plan, row, column, jnp.where(positive, plan.k_pos, plan.k_neg))
        e_sr, e_hr = jnp.where(positive, e_sr, -e_sr), jnp.where(positive, e_hr, -e_hr)
        positive_sum += jnp.maximum(e_sr, 0) + jnp.maximum(e_hr, 0)
        negative_sum += jnp.minimum(e_sr, 0) + jnp.minimum(e_hr, 0)
        return (
            _keep(strip, e_sr, e_hr, order[k]),
            positive_sum,
            negative_sum,
            positives + jnp.sum(positive, axis=0),
        )

    def add_far(k: Array, carry: tuple) -> tuple:
        strip, negative_sum = carry
        e_sr, e_hr = _exponentials(plan, row, _tile(columns, order[k]), plan.k_neg)
        return _keep(strip, -e_sr, -e_hr, order[k]), negative_sum - (e_sr + e_hr)

    # Tiles are summed element by element: faster than a sum along each row, and more exact.
    square = jnp.zeros_like(row.cut, shape=(len(row.cut), len(row.cut)))
    carry = strip, square, square, jnp.zeros_like(row.cut)
    strip, positive_sum, negative_sum, positives = lax.fori_loop(0, near_count, add_near, carry)
    strip, negative_sum = lax.fori_loop(near_count, len(near), add_far, (strip, negative_sum))
    return strip, positive_sum.sum(axis=1), -negative_sum.sum(axis=1), positives.sum()


def _exponentials(plan: Plan, row: Tiles, column: Tiles, k: Array | float) -> tuple[Array, Array]:
    """Returns e^(k S_sr) and 2 e^(k S_hr) of a pair of tiles, [T,T] each."""
    dot = functools.partial(jnp.matmul, precision=plan.precision)
    e_sr = jnp.exp(k * dot(row.sr, column.sr_t) + column.log_weight)
    e_hr = jnp.exp(k * dot(row.sr, column.hr_t) + (column.log_weight + math.log(2)))
    return e_sr, e_hr


def _differentiate(
    plan: Plan,
    columns: Tiles,
    own: Array,
    strip: tuple[Array, Array],
    slope: tuple[Array, Array],
    slopes: tuple[Array, Array],
    column_part: Array,
) -> tuple[Array, Array]:
    """Returns -sum_i dL_i/du^ from one strip: of its own anchors [T,D], and added to the columns' part."""
    dot = functools.partial(jnp.matmul, precision=plan.precision)
    e_sr, e_hr = strip
    row_t = columns.sr_t[own]
    row_pos, row_neg = slope[0][:, None], slope[1][:, None]

    def add_hr(j: Array, mine: Array) -> Array:
        e = e_hr[j]
        return mine + dot(e * jnp.where(e > 0, row_pos, row_neg), columns.hr[j])

    def add_sr(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        mine, column_part = carry
        # A tile that has not come yet, and any tile of another device, has slopes 0: its own strip adds them.
        e = e_sr[j]
        c = e * jnp.where(e > 0, row_pos + slopes[0][j], row_neg + slopes[1][j])
        return mine + dot(c, columns.sr[j]), _put(column_part, column_part[j] + dot(row_t, c), j)

    mine = lax.fori_loop(0, len(columns.sr), add_hr, jnp.zeros_like(columns.sr[0]))
    return lax.fori_loop(0, own + 1, add_sr, (mine, column_part))


def _tile(tiles: Tiles, index: Array) -> Tiles:
    return Tiles(*(part[index] for part in tiles))


def _put(parts: Array, part: Array, index: Array) -> Array:
    return lax.dynamic_update_index_in_dim(parts, part, index, axis=0)


def _keep(strip: Strip, e_sr: Array, e_hr: Array, index: Array) -> Strip:
    return None if strip is None else (_put(strip[0], e_sr, index), _put(strip[1], e_hr, index))
