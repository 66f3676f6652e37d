"""The run of a Ranker, built from a config: its stage, its first variables, the windows it learns from."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checks
from decloss_jax.data.folder import split_roots
from decloss_jax.data.pairs import ImagePair
from decloss_jax.host import parallel
from decloss_jax.inference import on_local_devices
from decloss_jax.models import Ranker
from decloss_jax.training.images import Data, open_images
from decloss_jax.training.optim import build_schedule
from decloss_jax.training.ranked_windows import (
    LEVELS,
    SMALLEST_SIDE,
    Network,
    Rules,
    open_ranked_windows,
    pair_batches,
)
from decloss_jax.training.ranker import (
    build_ranker_optimizer,
    compile_judge,
    draw_ranker,
    make_ranker_step,
    measure_ranker,
    start_ranker,
)
from decloss_jax.training.stages import Stage
from decloss_jax.weights import describe
from decloss_jax.workdir.network import load_network

STAGE = "pretrain"  # its only one
HELD_OUT = 10  # the windows of every tenth image are not trained on; RankSRGAN's code holds out 10 %


def build_ranker_stage(config: ConfigDict, mesh: Mesh) -> Stage:
    """Builds the only stage of a Ranker's run, and traces its step on shapes.

    Raises:
        UserError: a stage that cannot be run.
    """
    check_ranker_values(config)
    model, optimizer = Ranker(features=config.model.features), build_ranker_optimizer(config)
    train_step = make_ranker_step(model, optimizer, build_schedule(config[STAGE], STAGE), mesh)
    start = functools.partial(start_ranker, optimizer=optimizer)
    abstract = functools.partial(jax.eval_shape, lambda: start_ranker(draw_ranker(model, 0), optimizer))
    jax.eval_shape(train_step, abstract(), abstract_pairs(config))
    return Stage(
        name=STAGE,
        first_step=0,
        last_step=config[STAGE].steps,
        start=lambda variables, first_batch: jax.jit(start, out_shardings=parallel.replicated(mesh))(
            variables
        ),
        abstract=abstract,
        train_step=train_step,
        evaluate=functools.partial(measure_ranker, compile_judge(model)),
        best="ranked_rightly",
    )


def check_ranker_values(config: ConfigDict) -> None:
    """Raises `UserError` for numbers of a config with which no Ranker can be trained."""
    checks.check_range("model.features", config.model.features, 1)
    checks.check(
        config.data.crop_size >= SMALLEST_SIDE,
        "data.crop_size",
        expected=f"{SMALLEST_SIDE} or more, so that the windows have a NIQE",
        got=config.data.crop_size,
        remedy="raise --config.data.crop_size",
    )
    checks.check_positive("pretrain.steps", config.pretrain.steps)
    for field in ("sharpness", "niqe_difference", "windows_per_image", "weight_decay"):
        checks.check(
            config.ranker[field] is not None,
            f"ranker.{field}",
            expected="a number, to train a Ranker",
            got="None",
            remedy="start from configs/table3/ranker.py, which has RankSRGAN's",
        )
    for field, value in (("init_from", config.init_from), ("finetune.steps", config.finetune.steps)):
        checks.check(
            not value,
            field,
            expected="none for a Ranker, which starts from the seed and has one stage",
            got=value,
            remedy=f"leave out --config.{field}",
        )


def abstract_pairs(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of a global batch."""
    side, count = config.data.crop_size, config.batch_size
    images = jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)
    return {"first": images, "second": images, "target": jax.ShapeDtypeStruct((count, 1), jnp.float32)}


def initial_ranker(config: ConfigDict, mesh: Mesh) -> Any:
    """Returns the Ranker's first variables, drawn from the seed, one copy on each device of the mesh."""
    draw = functools.partial(draw_ranker, Ranker(features=config.model.features), config.seed)
    return jax.jit(draw, out_shardings=parallel.replicated(mesh))()


def load_networks(config: ConfigDict) -> list[Network]:
    """Loads the networks whose results the Ranker learns to order.

    Raises:
        UserError: not three, one that cannot be loaded, or one of another scale.
    """
    paths: Sequence[Any] = split_roots(config.ranker.networks or "")
    checks.check(
        len(paths) == LEVELS,
        "ranker.networks",
        expected="three workdirs or files of weights, separated by commas: PSNR, GAN, a better GAN",
        got=config.ranker.networks or "none",
        remedy="name them with --config.ranker.networks",
    )
    networks = []
    for path in paths:
        model, params, description = load_network(path)
        checks.check(
            model.scale == config.model.scale,
            f"ranker.networks {path}",
            expected=f"a network of scale {config.model.scale}",
            got=model.scale,
            remedy="choose another",
        )
        parallel.say(f"ranking {describe(description)}")
        networks.append(Network(model, on_local_devices(params), description["sha256"]))
    return networks


def open_ranked_data(config: ConfigDict, pairs: Sequence[ImagePair]) -> Data:
    """Opens the ranked windows of the training images; the first use makes them.

    Raises:
        UserError: networks or images that cannot be read, or no windows to train on.
    """
    networks, options = load_networks(config), config.ranker
    rules = Rules(
        config.data.crop_size, options.sharpness, options.niqe_difference, options.windows_per_image
    )
    windows = open_ranked_windows(
        open_images(config, pairs), networks, rules, cache_dir=config.data.cache_dir
    )
    parallel.check_agreement("ranked windows", windows.niqe.tobytes(), "share data.cache_dir")
    held_out = windows.places[:, 0] % HELD_OUT == HELD_OUT - 1
    validation = windows.choose(np.flatnonzero(held_out)[: config.validation_images])
    batches = pair_batches(
        windows.choose(~held_out),
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return Data(batches, validation)
