"""The training run: stage 1, then stage 2, going on from wherever the workdir stands."""

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from decloss_jax import checkpoint, checks, console, parallel
from decloss_jax.data.cache import PairedImages, open_cache
from decloss_jax.data.pipeline import batches, check_crops
from decloss_jax.data.sources import build_source
from decloss_jax.journal import Journal, versions
from decloss_jax.models import build_model
from decloss_jax.training.optim import build_optimizer, build_schedule
from decloss_jax.training.state import TrainState, abstract_state, initial_params, start_stage
from decloss_jax.training.step import make_train_step
from decloss_jax.training.terms import Term, build_terms
from decloss_jax.training.validation import validate
from decloss_jax.training.workdir import StopRequest, claim, record_config

# Steps that may be under way on the devices before the loss of the oldest is looked at.
STEPS_IN_FLIGHT = 2


class NonFiniteLoss(checks.UserError):
    """Training came to a loss or a gradient that is not a finite number."""


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the same call goes on from there."""


@dataclass(frozen=True)
class Stage:
    """One stage, ready to be compiled: updates first_step + 1 to last_step of the run."""

    name: str
    first_step: int
    last_step: int
    terms: dict[str, Term]
    weights: dict[str, float]
    schedule: optax.Schedule


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

    Raises:
        UserError: a config that cannot be run, data that cannot be read, a workdir of another run.
        NonFiniteLoss: training diverged; the last good checkpoint is kept.
        Stopped: SIGTERM or Ctrl-C; the state has been saved.
    """
    workdir = Path(workdir).resolve()
    mesh = parallel.data_mesh()
    parallel.check_batch_size(config.batch_size, mesh)
    check_intervals(config)
    stages = plan_stages(config, mesh)
    model = build_model(config.model)
    this = Run(
        config=config,
        workdir=workdir,
        mesh=mesh,
        model=model,
        optimizer=build_optimizer(config),
        images=open_images(config, "train"),
        validation=open_images(config, "validation"),
    )
    check_crops(this.images, config.model.scale, config.data.crop_size)
    with claim(workdir, config) as stop, contextlib.ExitStack() as resources:
        saved = {
            stage.name: resources.enter_context(
                checkpoint.StageCheckpoints(workdir, stage.name, config=config.to_dict())
            )
            for stage in stages
        }
        begun = [stage for stage in stages if saved[stage.name].latest_step() is not None]
        params = None if begun else initial_params(config, model, mesh)
        record_config(workdir, config.to_dict())
        for stage in stages[stages.index(begun[-1]) if begun else 0 :]:
            params = train_stage(this, stage, saved[stage.name], params, stop)


def check_intervals(config: ConfigDict) -> None:
    """Raises `UserError` unless the loop's intervals are positive."""
    for field in ("log_every_steps", "eval_every_steps", "checkpoint_every_steps"):
        checks.check_positive(field, config[field])


def plan_stages(config: ConfigDict, mesh: Mesh) -> list[Stage]:
    """Builds the stages that have steps; with `init_from`, stage 2 alone.

    Raises:
        UserError: whatever is wrong with a stage, before anything is read or written.
    """
    stages: list[Stage] = []
    done = 0
    for name in checkpoint.STAGES:
        options = config[name]
        checks.check(
            options.steps >= 0,
            f"{name}.steps",
            expected="0 (leave the stage out) or more",
            got=options.steps,
            remedy=f"change --config.{name}.steps",
        )
        if options.steps == 0 or (name == "pretrain" and config.init_from):
            continue
        terms = build_terms(config, name, mesh)
        stages.append(
            Stage(
                name=name,
                first_step=done,
                last_step=done + options.steps,
                terms=terms,
                weights={term: options.weights[term] for term in terms},
                schedule=build_schedule(options, name),
            )
        )
        done += options.steps
    checks.check(
        bool(stages),
        "pretrain.steps and finetune.steps",
        expected="a step to do",
        got="none",
        remedy="set --config.pretrain.steps or --config.finetune.steps",
    )
    return stages


def open_images(config: ConfigDict, split: str) -> PairedImages:
    """Opens the decoded images of a split; the first use decodes them."""
    pairs = build_source(config.data, scale=config.model.scale, split=split)
    if split == "validation":
        pairs = pairs[: config.validation_images]
    return open_cache(pairs, scale=config.model.scale, cache_dir=config.data.cache_dir)


def train_stage(
    this: Run, stage: Stage, saved: checkpoint.StageCheckpoints, params: Any, stop: StopRequest
) -> Any:
    """Trains one stage to its end, from its newest checkpoint or from `params`; returns the parameters."""
    config = this.config
    state, done = begin(this, stage, saved, params)
    if done == stage.last_step:
        return state.params
    train_step = make_train_step(
        this.model,
        terms=stage.terms,
        weights=stage.weights,
        optimizer=this.optimizer,
        schedule=stage.schedule,
        first_step=stage.first_step,
        mesh=this.mesh,
    )
    stream = batches(
        this.images,
        scale=config.model.scale,
        crop_size=config.data.crop_size,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=done,
        threads=config.data.threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    header = {"config": config.to_dict(), "versions": versions(), "devices": describe_devices()}
    in_flight: deque[tuple[int, dict[str, Array]]] = deque()
    rate = Rate(config.batch_size)
    steps = stage.last_step - stage.first_step
    with (
        Journal(this.workdir, header=header, step=done, silent=jax.process_index() != 0) as journal,
        console.progress(stage.name, steps, done=done - stage.first_step) as advance,
    ):
        for step in range(done + 1, stage.last_step + 1):
            state, metrics = train_step(state, parallel.shard_batch(next(stream), this.mesh))
            rate.count()
            in_flight.append((step, metrics))
            last = step == stage.last_step
            logging = last or step % config.log_every_steps == 0
            evaluating = last or step % config.eval_every_steps == 0
            # Processes must leave at the same step, so where there are several they agree, now and then.
            stopping = (logging or jax.process_count() == 1) and parallel.any_process(stop.requested())
            saving = evaluating or stopping or step % config.checkpoint_every_steps == 0
            while len(in_flight) > (0 if logging or saving else STEPS_IN_FLIGHT):
                check_finite(*in_flight.popleft(), stage=stage.name, saved=saved.latest_step())

            record: dict[str, Any] = {}
            if logging:
                record = {name: float(value) for name, value in metrics.items() if name != "finite"}
                record["images_per_second"] = rate.value()
            advance(f"loss {record['loss/total']:.5g}" if logging else "")
            quality = evaluate(this, state, step) if evaluating else {}
            record |= {f"validation/{name}": value for name, value in quality.items()}
            if record:
                journal.write({"step": step, "stage": stage.name} | record)
            if saving:
                saved.save(step, state, quality or None)
            if logging or saving:
                rate.restart()
            if stopping and not last:
                raise Stopped(f"stopped at step {step}, state saved; the same command goes on from there")
    return state.params


def begin(this: Run, stage: Stage, saved: checkpoint.StageCheckpoints, params: Any) -> tuple[TrainState, int]:
    """Returns the state from which the stage goes on, and its step."""
    step = saved.latest_step()
    if step is None:
        return start_stage(params, stage.first_step, this.optimizer, this.mesh), stage.first_step
    console.say(f"{stage.name}: going on from the checkpoint of step {step}")
    abstract = abstract_state(this.model, this.optimizer)
    return saved.restore(step, abstract, parallel.replicated(this.mesh)), step


def evaluate(this: Run, state: TrainState, step: int) -> dict[str, float]:
    """Measures the generator on the validation images, where there are any; each process does it alike."""
    if len(this.validation) == 0:
        return {}
    return validate(
        this.model,
        parallel.local_copy(state.params),
        this.validation,
        scale=this.config.model.scale,
        samples=this.config.sample_images if jax.process_index() == 0 else 0,
        sample_prefix=this.workdir / "samples" / f"{step:08d}",
    )


def check_finite(step: int, metrics: dict[str, Array], *, stage: str, saved: int | None) -> None:
    """Raises `NonFiniteLoss` that names the first term that is not finite."""
    if metrics["finite"]:
        return
    losses = [name for name in metrics if name.startswith("loss/") and name != "loss/total"]
    broken = next((name for name in losses if not jnp.isfinite(metrics[name])), "gradient_norm")
    kept = "no checkpoint was saved yet" if saved is None else f"the checkpoint of step {saved} is kept"
    raise NonFiniteLoss(
        f"{broken} at step {step} ({stage}): expected a finite number, got {float(metrics[broken])}; {kept}: "
        f"lower --config.{stage}.learning_rate or the weight of the term, in a new workdir."
    )


def describe_devices() -> str:
    """Describes the devices of the run, as in "8 x cpu"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


class Rate:
    """Images per second since the last restart; saving and measuring do not count."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        self._start, self._steps = time.monotonic(), 0

    def count(self) -> None:
        self._steps += 1

    def value(self) -> float:
        return self._steps * self._batch_size / (time.monotonic() - self._start)
