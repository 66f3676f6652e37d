"""The training run: stage 1, then stage 2, going on from wherever the workdir stands."""

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checks
from decloss_jax.config import flatten
from decloss_jax.data.cache import PairedImages, open_cache
from decloss_jax.data.pairs import ImagePair
from decloss_jax.data.pipeline import Batch, batches, check_crops
from decloss_jax.data.sources import build_source
from decloss_jax.host import console, parallel
from decloss_jax.models import VGGDiscriminator, build_model
from decloss_jax.training.adversary import Adversary, build_adversary
from decloss_jax.training.optim import build_optimizer, build_schedule
from decloss_jax.training.state import TrainState, abstract_state, initial_params, start_stage
from decloss_jax.training.step import TrainStep, make_train_step
from decloss_jax.training.terms import active_weights, build_terms
from decloss_jax.training.validation import check_sizes, validate
from decloss_jax.workdir import checkpoint
from decloss_jax.workdir.claim import StopRequest, check_same_config, claim, record_config
from decloss_jax.workdir.journal import Journal, summary, versions

# Steps that may be under way on the devices before the loss of the oldest is looked at.
STEPS_IN_FLIGHT = 2
# Batches that are put on the devices before their step comes.
BATCHES_AHEAD = 2


class NonFiniteLoss(checks.UserError):
    """Training came to a loss or a gradient that is not a finite number."""


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the same call goes on from there.

    Attributes:
        by_keyboard: by Ctrl-C, and not by SIGTERM.
    """

    def __init__(self, where: str, stop: StopRequest):
        super().__init__(f"stopped {where}; the same command goes on from there")
        self.by_keyboard = stop.by_keyboard


@dataclass(frozen=True)
class Stage:
    """One stage: updates first_step + 1 to last_step of the run, and the function that does one."""

    name: str
    first_step: int
    last_step: int
    train_step: TrainStep
    discriminator: VGGDiscriminator | None


@dataclass(frozen=True)
class Plan:
    """What a config names, before anything is read or written."""

    mesh: Mesh
    model: nn.Module
    optimizer: optax.GradientTransformation
    images: Sequence[ImagePair]
    validation: Sequence[ImagePair]
    stages: list[Stage]


@dataclass(frozen=True)
class Run:
    """What all stages share."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    model: nn.Module
    optimizer: optax.GradientTransformation
    images: PairedImages
    validation: PairedImages


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Trains what `config` describes in `workdir`, from its last checkpoint if there is one.

    Whatever can be refused is refused before anything is written, cheap checks first.

    Raises:
        UserError: a config that cannot be run, data that cannot be read, a workdir of another run.
        NonFiniteLoss: training diverged; the last good checkpoint is kept.
        Stopped: SIGTERM or Ctrl-C; the state has been saved.
    """
    workdir = Path(workdir).resolve()
    parallel.check_agreement("config", config.to_dict(), "start all processes with the same options")
    parallel.check_agreement("versions", versions(), "install the same packages for all processes")
    check_same_config(workdir, config.to_dict())
    plan = make_plan(config)
    mesh, model, stages = plan.mesh, plan.model, plan.stages
    params = None if checkpoint.trained_stages(workdir) else initial_params(config, model, mesh)
    this = Run(
        config=config,
        workdir=workdir,
        mesh=mesh,
        model=model,
        optimizer=plan.optimizer,
        images=open_images(config, plan.images),
        validation=open_images(config, plan.validation[: config.validation_images]),
    )
    check_crops(this.images, config.model.scale, config.data.crop_size)
    check_sizes(this.validation, config.model.scale)
    for split, images in (("training", this.images), ("validation", this.validation)):
        found = [(name, images.size(i)) for i, name in enumerate(images.names)]
        parallel.check_agreement(f"{split} images", found, "give all processes the same data")
    with claim(workdir) as stop, contextlib.ExitStack() as resources:
        record_config(workdir, config.to_dict())
        saved = {
            stage.name: resources.enter_context(
                checkpoint.StageCheckpoints(workdir, stage.name, config=config.to_dict())
            )
            for stage in stages
        }
        begun = [stage for stage in stages if saved[stage.name].latest_step() is not None]
        if params is None and not begun:  # all checkpoints were damaged
            params = initial_params(config, model, mesh)
        for stage in stages[stages.index(begun[-1]) if begun else 0 :]:
            params = train_stage(this, stage, saved[stage.name], params, stop)
    if parallel.is_first_process():
        console.say(
            summary(workdir) if (workdir / "journal.jsonl").exists() else f"done; {workdir} has no journal"
        )


def make_plan(config: ConfigDict) -> Plan:
    """Builds what a config names without reading an image; nothing is written.

    Raises:
        UserError: whatever of the config cannot be run.
    """
    mesh = parallel.data_mesh()
    check_values(config, mesh)
    model, optimizer = build_model(config.model), build_optimizer(config)
    images, validation = (
        build_source(config.data, scale=config.model.scale, split=split) for split in ("train", "validation")
    )
    return Plan(mesh, model, optimizer, images, validation, plan_stages(config, model, optimizer, mesh))


def check_values(config: ConfigDict, mesh: Mesh) -> None:
    """Raises `UserError` for a number out of its range, where no part of the program is nearer to it."""
    parallel.check_batch_size(config.batch_size, mesh)
    for field, value in flatten(config.to_dict()).items():
        finite = not isinstance(value, float) or math.isfinite(value)
        checks.check(finite, field, expected="a finite number", got=value, remedy=f"change --config.{field}")
    checks.check_range("seed", config.seed, 0, 2**32 - 1)
    checks.check_positive("data.crop_size", config.data.crop_size)
    checks.check_divisible("data.crop_size", config.data.crop_size, "model.scale", config.model.scale)
    for field in ("log_every_steps", "eval_every_steps", "checkpoint_every_steps"):
        checks.check_positive(field, config[field])
    for field in ("validation_images", "sample_images"):
        checks.check_range(field, config[field], 0)
    checks.check_range("data.threads", config.data.threads, 0)


def plan_stages(
    config: ConfigDict, model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh
) -> list[Stage]:
    """Builds the stages that have steps; with `init_from`, stage 2 alone.

    Each step is traced on shapes, so that a mistake in stage 2 is not found after all of stage 1.

    Raises:
        UserError: whatever is wrong with a stage.
    """
    stages: list[Stage] = []
    done = 0
    for name in checkpoint.STAGES:
        options = config[name]
        checks.check_range(f"{name}.steps", options.steps, 0)
        if options.steps == 0 or (name == "pretrain" and config.init_from):
            continue
        adversary = build_adversary(config, name, mesh)
        check_generator_is_trained(config, name, adversary, trained=bool(stages))
        train_step = make_train_step(
            model,
            terms=build_terms(config, name, mesh),
            adversary=adversary,
            weights=active_weights(config, name),
            optimizer=optimizer,
            schedule=build_schedule(options, name),
            first_step=done,
            mesh=mesh,
        )
        discriminator = adversary.model if adversary else None
        jax.eval_shape(train_step, abstract_state(model, optimizer, discriminator), abstract_batch(config))
        stages.append(Stage(name, done, done + options.steps, train_step, discriminator))
        done += options.steps
    checks.check(
        bool(stages),
        "steps of the stages",
        expected="a step to do",
        got="finetune.steps 0, and init_from leaves stage 1 out" if config.init_from else "0 in both",
        remedy="set --config.pretrain.steps or --config.finetune.steps",
    )
    return stages


def check_generator_is_trained(
    config: ConfigDict, stage: str, adversary: Adversary | None, *, trained: bool
) -> None:
    """Raises `UserError` for a stage that would set a discriminator against an untrained generator."""
    checks.check(
        adversary is None or trained or bool(config.init_from) or config.discriminator.untrained_generator,
        f"{stage} with an adversarial term",
        expected="a generator that stage 1 has trained",
        got="no stage 1 and no init_from",
        remedy="set --config.init_from to a run or a file of weights (or, to start from nothing, "
        "--config.discriminator.untrained_generator=True)",
    )


def abstract_batch(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of a global batch."""
    sides = {"low": config.data.crop_size // config.model.scale, "hr": config.data.crop_size}
    return {
        key: jax.ShapeDtypeStruct((config.batch_size, side, side, 3), jnp.uint8)
        for key, side in sides.items()
    }


def open_images(config: ConfigDict, pairs: Sequence[ImagePair]) -> PairedImages:
    """Opens the decoded images of a split; the first use decodes them."""
    return open_cache(pairs, scale=config.model.scale, cache_dir=config.data.cache_dir)


def open_batches(this: Run, start_step: int) -> Iterator[Batch]:
    """Opens this process's share of the batches, from that of step `start_step` + 1."""
    return batches(
        this.images,
        scale=this.config.model.scale,
        crop_size=this.config.data.crop_size,
        batch_size=this.config.batch_size,
        seed=this.config.seed,
        start_step=start_step,
        threads=this.config.data.threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def train_stage(
    this: Run, stage: Stage, saved: checkpoint.StageCheckpoints, params: Any, stop: StopRequest
) -> Any:
    """Trains one stage to its end, from its newest checkpoint or from `params`; returns the parameters."""
    config = this.config
    state, done = begin(this, stage, saved, params)
    unevaluated = saved.unevaluated(done)
    if done == stage.last_step and unevaluated is None:
        parallel.say(f"{stage.name}: complete at step {done}")
        return state.params
    if parallel.any_process(this.mesh, delay=0)(stop.requested()):
        raise Stopped(f"before {stage.name}", stop)
    ahead = parallel.shard_ahead(open_batches(this, done), this.mesh, ahead=BATCHES_AHEAD)
    header = {"config": config.to_dict(), "versions": versions(), "devices": describe_devices()}
    in_flight: deque[tuple[int, dict[str, Array]]] = deque()
    rate = Rate(config.batch_size)
    ask = parallel.any_process(this.mesh, delay=STEPS_IN_FLIGHT)
    steps, silent = stage.last_step - stage.first_step, not parallel.is_first_process()
    with (
        Journal(this.workdir, header=header, step=done, silent=silent) as journal,
        console.progress(stage.name, steps, done=done - stage.first_step, silent=silent) as advance,
    ):

        def asked_to_stop() -> bool:
            return ask(stop.requested())

        def conclude(step: int, record: dict[str, Any], *, evaluating: bool, saving: bool) -> None:
            """Evaluates, writes the journal's line and saves, each where it is due."""
            show = functools.partial(journal.show, step)
            quality = evaluate(this, state, show, asked_to_stop) if evaluating else {}
            if saving:
                check_finite_state(step, state, stage=stage.name, saved=saved.latest_step())
            resumed = unevaluated is not None and step == done
            if quality is None:
                if not resumed:
                    saved.save(step, state, None, unevaluated=record)
                raise Stopped(f"in the evaluation of step {step}, state saved", stop)
            record = record | {f"validation/{name}": value for name, value in quality.items()}
            if record:
                journal.write({"step": step, "stage": stage.name} | record)
            if saving:
                saved.save(step, state, quality or None, replacing=resumed)

        if unevaluated is not None:
            conclude(done, unevaluated, evaluating=True, saving=True)
        for step in range(done + 1, stage.last_step + 1):
            with rate.waiting():
                batch = next(ahead)
            state, metrics = stage.train_step(state, batch)
            rate.count()
            in_flight.append((step, metrics))
            last = step == stage.last_step
            logging = last or step % config.log_every_steps == 0
            evaluating = last or step % config.eval_every_steps == 0
            stopping = asked_to_stop()
            saving = evaluating or stopping or step % config.checkpoint_every_steps == 0
            while len(in_flight) > (0 if logging or saving else STEPS_IN_FLIGHT):
                check_finite(*in_flight.popleft(), stage=stage.name, saved=saved.latest_step())

            record: dict[str, Any] = {}
            if logging:
                record = {name: float(value) for name, value in metrics.items() if name != "finite"}
                record |= rate.values()
            advance(f"loss {record['loss/total']:.5g}" if logging else "")
            conclude(step, record, evaluating=evaluating, saving=saving)
            if logging or saving or step == done + 1:  # the first step was compiled
                rate.restart()
            if stopping and not last:
                raise Stopped(f"at step {step}, state saved", stop)
    return state.params


def begin(this: Run, stage: Stage, saved: checkpoint.StageCheckpoints, params: Any) -> tuple[TrainState, int]:
    """Returns the state from which the stage goes on, and its step."""
    step = saved.latest_step()
    if step is None:
        state = start_stage(
            params,
            step=stage.first_step,
            optimizer=this.optimizer,
            discriminator=stage.discriminator,
            seed=this.config.seed,
            mesh=this.mesh,
        )
        return state, stage.first_step
    if step < stage.last_step:
        parallel.say(f"{stage.name}: going on from the checkpoint of step {step}")
    abstract = abstract_state(this.model, this.optimizer, stage.discriminator)
    return saved.restore(step, abstract, parallel.replicated(this.mesh)), step


def evaluate(
    this: Run, state: TrainState, show: Callable[[str, np.ndarray], None], stopped: Callable[[], bool]
) -> dict[str, float] | None:
    """Measures the generator on the validation images, where there are any; each process does it alike.

    None when `stopped`, which is asked between images: a scheduler may not wait for all of them.
    """
    if len(this.validation) == 0:
        return {}
    return validate(
        this.model,
        parallel.local_copy(state.params),
        this.validation,
        scale=this.config.model.scale,
        samples=this.config.sample_images,
        show=show,
        stopped=stopped,
    )


def check_finite(step: int, metrics: dict[str, Array], *, stage: str, saved: int | None) -> None:
    """Raises `NonFiniteLoss` that names the first term that is not finite."""
    if metrics["finite"]:
        return
    losses = [name for name in metrics if name.startswith("loss/") and name != "loss/total"]
    suspects = (*losses, "gradient_norm", "discriminator/gradient_norm")
    broken = next(
        (name for name in suspects if name in metrics and not jnp.isfinite(metrics[name])), "loss/total"
    )
    to_lower = f"{stage}.learning_rate or the weight of the term"
    if broken.startswith("discriminator/"):
        to_lower = "discriminator.learning_rate_ratio"
    refuse_numbers(broken, step, stage, got=float(metrics[broken]), saved=saved, to_lower=to_lower)


def check_finite_state(step: int, state: TrainState, *, stage: str, saved: int | None) -> None:
    """Raises `NonFiniteLoss` that names the first array of the state with a number that is not finite."""
    finite = jax.jit(lambda state: jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), state))(state)
    for path, is_finite in jax.tree_util.tree_leaves_with_path(finite):
        if not is_finite:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            rate = f"{stage}.learning_rate"
            refuse_numbers(name, step, stage, got="inf or nan among them", saved=saved, to_lower=rate)


def refuse_numbers(
    name: str, step: int, stage: str, *, got: object, saved: int | None, to_lower: str
) -> NoReturn:
    """Raises `NonFiniteLoss`."""
    kept = f"no checkpoint of {stage} yet" if saved is None else f"the checkpoint of step {saved} is kept"
    raise NonFiniteLoss(
        f"{name} at step {step} ({stage}): expected finite numbers, got {got}; {kept}: lower "
        f"--config.{to_lower}, or set --config.gradient_clip_norm, in a new workdir."
    )


def describe_devices() -> str:
    """Describes the devices of the run, as in "8 x cpu"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


class Rate:
    """The speed of training since the last restart; saving and measuring do not count."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        self._start, self._steps, self._waited = time.monotonic(), 0, 0.0

    def count(self) -> None:
        self._steps += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def values(self) -> dict[str, float]:
        """Returns the fields of `journal.MACHINE_FIELDS`."""
        seconds = time.monotonic() - self._start
        return {
            "images_per_second": self._steps * self._batch_size / seconds,
            "data_wait": self._waited / seconds,
        }
