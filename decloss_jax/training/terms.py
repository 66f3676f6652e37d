"""The terms of the objective (Eq. 26, and those of other methods), built from a config.

A term is a function of (sr, hr); the likelihood is one of the bits per pixel that take the place of sr.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.losses.decloss import decloss_terms
from decloss_jax.losses.perceptual import CRITERIA, perceptual_loss
from decloss_jax.losses.phase import phase_loss
from decloss_jax.losses.pixel import l1_loss
from decloss_jax.losses.ranking import rank_content_loss
from decloss_jax.models import DTYPES
from decloss_jax.models.features import (
    check_taps,
    extract_features,
    last_convolution,
    normalize_imagenet,
    valid_sizes,
)
from decloss_jax.training.adversary import GAMES
from decloss_jax.training.micro_batches import mean_over_micro_batches
from decloss_jax.weights.trunks import load_trunk
from decloss_jax.workdir.network import load_trained_ranker

# Whether the Ranker's batch norms use the statistics of the batch.
RANKER_STATISTICS = {"running": False, "batch": True}
# The mesh axis over which the mini-patches are gathered.
SCOPES = {"global": parallel.DATA_AXIS, "device": None}


class Term(NamedTuple):
    """A term of the objective.

    Attributes:
        value: (frozen, sr, hr) -> (unweighted value, further scalars for the journal).
        frozen: arrays that the term needs and that are neither trained nor saved. They are arguments of the
            compiled step, because constants would be compiled and hashed with it.
    """

    value: Callable[[Any, Array, Array], tuple[Array, dict[str, Array]]]
    frozen: Any = ()


def build_l1(config: Any, mesh: Mesh) -> Term:
    """Returns the L1 term."""
    return Term(lambda frozen, sr, hr: (l1_loss(sr, hr), {}))


def cast(tree: Any, dtype: DTypeLike) -> Any:
    """Returns the arrays of a tree in another dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def build_perceptual(config: Any, mesh: Mesh) -> Term:
    """Returns the perceptual term; reads the weights of its network.

    Raises:
        UserError: missing weights, an unknown network, tap or criterion, or crops so small that the network's
            poolings leave no pixel.
    """
    options = config.perceptual
    taps = tuple(options.taps) or (last_convolution(options.network),)
    factors = tuple(options.tap_weights) or (1.0,) * len(taps)
    checks.check(
        len(taps) == len(factors),
        "perceptual.tap_weights",
        expected=f"one factor for each of the {len(taps)} taps",
        got=len(factors),
        remedy="give perceptual.taps and perceptual.tap_weights the same length",
    )
    check_taps(options.network, taps)
    empty = [
        tap for tap, side in valid_sizes(options.network, config.data.crop_size, taps).items() if side < 1
    ]
    checks.check(
        not empty,
        "data.crop_size",
        expected=f"enough pixels for {', '.join(empty)} of {options.network}",
        got=config.data.crop_size,
        remedy="raise --config.data.crop_size or choose earlier --config.perceptual.taps",
    )
    checks.look_up(CRITERIA, options.criterion, "perceptual.criterion")
    dtype = checks.look_up(DTYPES, options.dtype, "perceptual.dtype")

    def distance(trunk: Any, sr: Array, hr: Array) -> Array:
        def features(images: Array) -> dict[str, Array]:
            # The device's default precision, as in the generator's convolutions (TF32 on recent GPUs).
            low_trunk, inputs = cast((trunk, normalize_imagenet(images)), dtype)
            found = extract_features(options.network, low_trunk, inputs, taps=taps, precision=None)
            return cast(found, jnp.float32)

        weights = dict(zip(taps, factors, strict=True))
        return perceptual_loss(features(sr), features(hr), weights=weights, criterion=options.criterion)

    mean = mean_over_micro_batches(distance, config.micro_batch, mesh)
    trunk = load_trunk(options.network, weights_file=options.weights_file)
    return Term(lambda trunk, sr, hr: (mean(trunk, sr, hr), {}), frozen=trunk)


def build_decloss(config: Any, mesh: Mesh) -> Term:
    """Returns the DECLoss term; each device computes it for its own images.

    Under plain jit a transform of a sharded batch gathers the batch onto every device, hence `shard_map`. The
    scope "global" gathers only the mini-patch vectors; with "device", or one device, nothing is gathered.
    """
    options = config.decloss
    scope_axis = checks.look_up(SCOPES, options.scope, "decloss.scope")
    axis_name = scope_axis if mesh.size > 1 else None
    checks.check_divisible("data.crop_size", config.data.crop_size, "decloss.patch_size", options.patch_size)
    local = functools.partial(
        decloss_terms,
        patch_size=options.patch_size,
        alpha=options.alpha,
        mu=options.mu * config.data.crop_size,
        mode=options.mode,
        kernel=options.kernel,
        color=options.color,
        threshold_db=options.threshold_db,
        t_pos=options.t_pos,
        t_neg=options.t_neg,
        temperature=options.temperature,
        tile_size=options.tile_size,
        precision=options.precision,
        axis_name=axis_name,
    )

    def of_shard(frozen: Any, sr: Array, hr: Array) -> tuple[Array, dict[str, Array]]:
        value, shares = local(sr, hr)
        if axis_name is None:
            value, shares = jax.lax.pmean((value, shares), parallel.DATA_AXIS)
        return value, {f"decloss/{name}": share for name, share in shares.items()}

    split = PartitionSpec(parallel.DATA_AXIS)
    specs = (PartitionSpec(), split, split)
    return Term(jax.shard_map(of_shard, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()))


def build_rank_content(config: Any, mesh: Mesh) -> Term:
    """Returns RankSRGAN's term, a sum over the global batch; reads the weights of its frozen Ranker.

    Raises:
        UserError: no file of weights, a file without a Ranker, or an unknown kind of batch statistics.
    """
    options = config.ranker
    of_batch = checks.look_up(RANKER_STATISTICS, options.statistics, "ranker.statistics")
    checks.check(
        bool(options.weights_file),
        "ranker.weights_file",
        expected="the file of the Ranker or its run, for the term rank_content",
        got="none",
        remedy="name it with --config.ranker.weights_file",
    )
    ranker, variables, _ = load_trained_ranker(options.weights_file)

    def value(variables: Any, sr: Array, hr: Array) -> tuple[Array, dict[str, Array]]:
        scores, _ = ranker.apply(variables, sr, train=of_batch, mutable=["batch_stats"])
        return rank_content_loss(scores, bias=options.bias), {}

    return Term(value, frozen=variables)


def build_phase(config: Any, mesh: Mesh) -> Term:
    """Returns the term against lattices of the upsampler's period; it is not the paper's."""
    period = config.model.scale
    return Term(lambda frozen, sr, hr: (phase_loss(sr, hr, period=period), {}))


def build_likelihood(config: Any, mesh: Mesh) -> Term:
    """Returns SRFlow's negative log-likelihood in bits per pixel, the mean of [N]."""
    return Term(lambda frozen, bits, hr: (jnp.mean(bits), {}))


TERMS: dict[str, Callable[[Any, Mesh], Term]] = {
    "l1": build_l1,
    "perceptual": build_perceptual,
    "decloss": build_decloss,
    "rank_content": build_rank_content,
    "likelihood": build_likelihood,
    "phase": build_phase,
}


def active_weights(config: Any, stage: str) -> dict[str, float]:
    """Returns the weights of `config.STAGE.weights` that are not zero, including adversarial ones.

    Raises:
        UserError: all weights are zero, or an unknown term.
    """
    weights = {name: weight for name, weight in config[stage].weights.items() if weight != 0.0}
    for name in weights:
        checks.look_up({**TERMS, **GAMES}, name, f"{stage}.weights")
    checks.check(
        bool(weights),
        f"{stage}.weights",
        expected="at least one weight other than 0",
        got="none",
        remedy=f"set --config.{stage}.weights.l1, or skip the stage with --config.{stage}.steps=0",
    )
    return weights


def build_terms(config: Any, stage: str, mesh: Mesh) -> dict[str, Term]:
    """Builds the terms with a weight other than zero, except adversarial ones (`build_adversary`)."""
    return {name: TERMS[name](config, mesh) for name in active_weights(config, stage) if name in TERMS}
