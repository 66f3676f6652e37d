"""The spatial contrastive loss and its gradient without a [P,P] matrix: one loop over strips of anchors.

A strip is T anchors against all columns (the P mini-patches of each device). It holds everything its
anchors need, so value and gradient take one pass. With E_sr = e^(k S_sr) and E_hr = 2 e^(k S_hr), where k is
1/t_pos for positives and 1/t_neg for negatives,

    L_i = log Q_neg[i] - log Q_pos[i]                         Q: the sums of E_sr + E_hr (Eq. 21, 22)
    w_ij = k_pos / Q_pos[i] for positives, -k_neg / Q_neg[i] for negatives
    -dL_i/du_i = sum_j w_ij (E_hr_ij v_j + E_sr_ij u_j)       the row part, of the anchors (unit vectors)
    -dL_i/du_j = w_ij E_sr_ij u_i                             the column part, of every mini-patch

The columns of a strip are processed in tiles that fit a CPU's cache; on accelerators the strip is one tile.
The lengths of all loops are known when the loss is compiled, and nothing depends on the data.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decloss_jax.losses.similarity import mask_vectors, unit_vectors

# Anchors in a strip and columns in a tile, at most, on CPUs (benchmarks/contrast.py compares sizes).
CPU_TILE = 512
# Bytes of a strip on accelerators, and of each of its pairs: XLA keeps two float32 values at a time.
STRIP_BYTES = 384 * 2**20
PAIR_BYTES = 8


class Plan(NamedTuple):
    """Options that are fixed when the loss is compiled."""

    k_pos: float  # positives count e^(k_pos S)
    k_neg: float  # negatives count e^(k_neg S)
    threshold_db: float  # eta, dB
    max_value: float  # MAX
    tile_size: int | None  # anchors in a strip, at most; None: chosen for the platform
    axis_name: str | None  # mesh axis over which the mini-patches are spread
    precision: lax.PrecisionLike  # of all products except the mask's


class Columns(NamedTuple):
    """The mini-patches that all anchors are compared with."""

    sr: Array  # [P,D] unit vectors u
    hr: Array  # [P,D] unit vectors v
    detail: Array  # [P,D] and
    cut: Array  # [P]: i and j are positive where detail_i . detail_j >= cut_i + cut_j


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_log_ratio(plan: Plan, sr: Array, hr: Array) -> tuple[Array, Array, Array]:
    """Averages log(Q_neg / Q_pos) over the anchors that have a negative; differentiable once, in `sr`.

    Args:
        plan: the options.
        sr: [P,D] unit vectors u of this device.
        hr: [P,D] vectors v of the same mini-patches.

    Returns:
        The mean over all devices (0 without such an anchor), the share of such anchors, and the mean share
        of positives per anchor.
    """
    return _value(plan, sr, hr)


@functools.partial(jax.jit, static_argnums=0)  # when compiled, the unused gradient is not computed
def _value(plan: Plan, sr: Array, hr: Array) -> tuple[Array, Array, Array]:
    return _value_and_gradient(plan, sr, hr)[0]


def _value_and_gradient(plan: Plan, sr: Array, hr: Array) -> tuple[tuple[Array, Array, Array], Array]:
    """Returns the three values of `mean_log_ratio` and the gradient of the first, [P,D]."""
    patches = len(sr)
    all_sr, all_hr, first = sr, hr, jnp.zeros((), jnp.int32)
    if plan.axis_name is not None:
        all_sr, all_hr = lax.all_gather(jnp.stack([sr, hr]), plan.axis_name, axis=1, tiled=True)
        first = lax.axis_index(plan.axis_name) * patches
    detail, cut = mask_vectors(all_hr, threshold_db=plan.threshold_db, max_value=plan.max_value)
    unit_hr = unit_vectors(all_hr, max_value=plan.max_value)
    columns = Columns(all_sr, unit_hr, detail, cut)
    own = functools.partial(lax.dynamic_slice_in_dim, start_index=first, slice_size=patches)

    on_cpu = plan.tile_size or CPU_TILE
    on_accelerator = plan.tile_size or max(1, STRIP_BYTES // (PAIR_BYTES * len(all_sr)))
    of_anchors, column_part = lax.platform_dependent(
        (sr, own(detail), own(cut)),
        columns,
        cpu=functools.partial(_loop, plan=plan, strip_size=on_cpu, tile_size=on_cpu),
        default=functools.partial(_loop, plan=plan, strip_size=on_accelerator, tile_size=len(all_sr)),
    )
    log_ratios, used, positives, row_part = of_anchors
    sums = jnp.stack([log_ratios.sum(), used.sum(), positives.sum()])
    if plan.axis_name is not None:
        sums = lax.psum(sums, plan.axis_name)
        column_part = lax.psum_scatter(column_part, plan.axis_name, tiled=True)
    log_sum, used_sum, positive_sum = sums
    anchors = float(len(all_sr))
    gradient = -(row_part + column_part) / jnp.maximum(used_sum, 1)
    return (log_sum / jnp.maximum(used_sum, 1), used_sum / anchors, positive_sum / anchors**2), gradient


def _backward(plan: Plan, gradient: Array, cotangents: tuple[Array, Array, Array]) -> tuple[Array, None]:
    return cotangents[0] * gradient, None


mean_log_ratio.defvjp(_value_and_gradient, _backward)


def _loop(
    anchors: tuple[Array, Array, Array], columns: Columns, *, plan: Plan, strip_size: int, tile_size: int
) -> tuple[tuple[Array, Array, Array, Array], Array]:
    """Goes through the strips of this device's anchors (unit SR vectors, detail, cut).

    Returns:
        For each anchor L_i, whether it has a negative, the number of its positives, and the row part [P,D]
        of -dL/du; and for each column the column part.
    """
    sr = anchors[0]
    # Zero vectors pad the last strip and add nothing to the column part. The padding of the last tile is
    # never positive (cut +inf), and `_add_strip` does not count it as negative.
    strips = tuple(_split(x, strip_size) for x in anchors)
    tiles = Columns(*(_split(x, tile_size) for x in columns))
    tiles = tiles._replace(cut=_split(columns.cut, tile_size, fill=jnp.inf))
    # `zeros_like` makes the zeros vary over the devices of a mesh as `sr` does, as a loop's carry must.
    column_part = jnp.zeros_like(sr, shape=tiles.sr.swapaxes(1, 2).shape)
    column_part, of_anchors = lax.scan(functools.partial(_add_strip, plan, tiles), column_part, strips)
    of_anchors = jax.tree.map(functools.partial(_join, count=len(sr)), of_anchors)
    return of_anchors, _join(column_part.swapaxes(1, 2), len(columns.sr))


def _add_strip(
    plan: Plan, tiles: Columns, column_part: Array, strip: tuple[Array, Array, Array]
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """Compares the T anchors of one strip with all tiles of columns.

    Returns:
        The column part [m,D,C] with the strip's share added; for each anchor the values that `_loop` returns.
    """
    sr, detail, cut = strip
    dot = functools.partial(jnp.matmul, precision=plan.precision)

    def compare(sums: Array, tile: Columns) -> tuple[Array, tuple[Array, Array, Array]]:
        gram = jnp.matmul(detail, tile.detail.T, precision=lax.Precision.HIGHEST)
        positive = gram >= cut[:, None] + tile.cut  # Eq. 20
        k = jnp.where(positive, plan.k_pos, plan.k_neg)
        e_sr = jnp.exp(k * dot(sr, tile.sr.T))
        e_hr = 2 * jnp.exp(k * dot(sr, tile.hr.T))
        scores = e_sr + e_hr
        sums += jnp.stack(
            [
                jnp.sum(scores, axis=1, where=positive),  # Eq. 21
                jnp.sum(scores, axis=1, where=~positive & (tile.cut < jnp.inf)),  # Eq. 22
                jnp.sum(positive, axis=1, dtype=sums.dtype),
            ]
        )
        return sums, (e_sr, e_hr, positive)

    (q_pos, q_neg, positives), kept = lax.scan(compare, jnp.zeros_like(sr, shape=(3, len(sr))), tiles)
    used = q_neg != 0  # NaN is used, and seen
    q_neg = jnp.where(used, q_neg, 1)
    slope_pos = jnp.where(used, plan.k_pos / q_pos, 0)[:, None]
    slope_neg = jnp.where(used, -plan.k_neg / q_neg, 0)[:, None]

    def differentiate(row_part: Array, tile: tuple) -> tuple[Array, Array]:
        (e_sr, e_hr, positive), columns, column_part = tile
        w = jnp.where(positive, slope_pos, slope_neg)
        row_part += dot(w * e_sr, columns.sr) + dot(w * e_hr, columns.hr)
        return row_part, column_part + dot(sr.T, w * e_sr)

    row_part, column_part = lax.scan(differentiate, jnp.zeros_like(sr), (kept, tiles, column_part))
    log_ratio = jnp.where(used, jnp.log(q_neg) - jnp.log(q_pos), 0)
    return column_part, (log_ratio, used, positives, row_part)


def _split(x: Array, size: int, fill: float = 0.0) -> Array:
    """Splits [P,...] into as few equal parts [n,T,...], T <= size, as possible; pads the last one."""
    n = -(-len(x) // size)
    size = -(-len(x) // n)
    padding = [(0, n * size - len(x)), *[(0, 0)] * (x.ndim - 1)]
    return jnp.pad(x, padding, constant_values=fill).reshape(n, size, *x.shape[1:])


def _join(parts: Array, count: int) -> Array:
    """Undoes `_split`: [n,T,...] becomes [count,...]."""
    return parts.reshape(-1, *parts.shape[2:])[:count]
