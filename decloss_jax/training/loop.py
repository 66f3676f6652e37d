"""The training run: one stage after the other, resumed from the last checkpoint in the workdir.

The loop knows no network: a `plan.Plan` opens the data, and each `plan.Stage` starts, updates and evaluates
its own kind of state.
"""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax import Array
from ml_collections import ConfigDict

from decloss_jax.data.pipeline import read_ahead
from decloss_jax.host import console, devices, parallel
from decloss_jax.training.finite import NonFiniteLoss, check_finite, check_finite_state
from decloss_jax.training.images import Data
from decloss_jax.training.plan import Plan, make_plan
from decloss_jax.training.stages import Stage, State
from decloss_jax.workdir import checkpoint
from decloss_jax.workdir.claim import StopRequest, check_same_config, claim, record_config
from decloss_jax.workdir.journal import Journal, summary, versions

__all__ = ["NonFiniteLoss", "Stopped", "run"]

# Steps that may be in progress on the devices before the loss of the oldest is checked.
STEPS_IN_FLIGHT = 2
# Batches that are copied to the devices before their step.
BATCHES_AHEAD = 2


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the same call resumes it.

    Attributes:
        by_keyboard: whether Ctrl-C stopped it, and not SIGTERM.
    """

    def __init__(self, where: str, stop: StopRequest):
        super().__init__(f"stopped {where}; the same command goes on from there")
        self.by_keyboard = stop.by_keyboard


@dataclass(frozen=True)
class Run:
    """The parts that all stages share: the config, its plan, and the open data."""

    config: ConfigDict
    workdir: Path
    plan: Plan
    data: Data
    stop: StopRequest


@dataclass(frozen=True)
class StageRun:
    """A stage in progress: its outputs, and whether any process has been asked to stop."""

    run: Run
    stage: Stage
    saved: checkpoint.StageCheckpoints
    journal: Journal
    asked_to_stop: Callable[[], bool]


def run(config: ConfigDict, workdir: str | Path) -> None:
    """Trains the network of `config` in `workdir`, from its last checkpoint if it has one.

    All checks precede the first write, cheap ones first.

    Raises:
        UserError: a config that cannot be run, data that cannot be read, or a workdir of another run.
        NonFiniteLoss: training diverged; the last good checkpoint is kept.
        Stopped: SIGTERM or Ctrl-C; the state has been saved.
    """
    workdir = Path(workdir).resolve()
    parallel.check_agreement("config", config.to_dict(), "start all processes with the same options")
    parallel.check_agreement("versions", versions(), "install the same packages for all processes")
    check_same_config(workdir, config.to_dict())
    plan = make_plan(config)
    params = None if checkpoint.trained_stages(workdir) else plan.initial_params()
    data = plan.open_data()
    with claim(workdir) as stop:
        record_config(workdir, config.to_dict())
        train_stages(Run(config, workdir, plan, data, stop), params)
    if parallel.is_first_process():
        console.say(
            summary(workdir) if (workdir / "journal.jsonl").exists() else f"done; {workdir} has no journal"
        )


def train_stages(this: Run, params: Any) -> None:
    """Trains the stages to the end, from the last one that has a checkpoint, or from `params`."""
    config, plan = this.config, this.plan
    with contextlib.ExitStack() as resources:
        saved = {
            stage.name: resources.enter_context(
                checkpoint.StageCheckpoints(
                    this.workdir, stage.name, config=config.to_dict(), best=stage.best
                )
            )
            for stage in plan.stages
        }
        begun = [stage for stage in plan.stages if saved[stage.name].latest_step() is not None]
        if params is None and not begun:  # all checkpoints were damaged
            params = plan.initial_params()
        for stage in plan.stages[plan.stages.index(begun[-1]) if begun else 0 :]:
            params = train_stage(this, stage, saved[stage.name], params)


def train_stage(this: Run, stage: Stage, saved: checkpoint.StageCheckpoints, params: Any) -> Any:
    """Trains one stage to its end, from its newest checkpoint or from `params`; returns the final params."""
    state, done = begin(this, stage, saved, params)
    unevaluated = saved.unevaluated(done)
    if done == stage.last_step and unevaluated is None:
        parallel.say(f"{stage.name}: complete at step {done}")
        return state.trained
    mesh, stop = this.plan.mesh, this.stop
    if parallel.any_process(mesh, delay=0)(stop.requested()):
        raise Stopped(f"before {stage.name}", stop)
    ask = parallel.any_process(mesh, delay=STEPS_IN_FLIGHT)
    header = {"config": this.config.to_dict(), "versions": versions(), "devices": devices.describe_devices()}
    silent = not parallel.is_first_process()
    with Journal(this.workdir, header=header, step=done, silent=silent) as journal:
        under_way = StageRun(this, stage, saved, journal, lambda: ask(stop.requested()))
        if unevaluated is not None:
            conclude(under_way, state, done, unevaluated, evaluating=True, saving=True, resumed=True)
        state = train_steps(under_way, state, done)
        saved.finish()
    return state.trained


def train_steps(under_way: StageRun, state: State, done: int) -> State:
    """Does the updates from `done` + 1 to the last of the stage; returns the state after them."""
    this, stage, saved = under_way.run, under_way.stage, under_way.saved
    config, silent = this.config, not parallel.is_first_process()
    steps = stage.last_step - stage.first_step
    source = read_ahead(this.data.batches, done, threads=config.data.threads)
    ahead = parallel.shard_ahead(source, this.plan.mesh, ahead=BATCHES_AHEAD)
    in_flight: deque[tuple[int, dict[str, Array]]] = deque()
    rate = Rate(config.batch_size)
    with console.progress(stage.name, steps, done=done - stage.first_step, silent=silent) as advance:
        for step in range(done + 1, stage.last_step + 1):
            with rate.waiting():
                batch = next(ahead)
            state, metrics = stage.train_step(state, batch)
            rate.count()
            in_flight.append((step, metrics))
            last = step == stage.last_step
            logging = last or step % config.log_every_steps == 0
            evaluating = last or step % config.eval_every_steps == 0
            stopping = under_way.asked_to_stop()
            saving = evaluating or stopping or step % config.checkpoint_every_steps == 0
            while len(in_flight) > (0 if logging or saving else STEPS_IN_FLIGHT):
                check_finite(*in_flight.popleft(), stage=stage.name, saved=saved.latest_step())

            record: dict[str, Any] = {}
            if logging:
                record = {name: float(value) for name, value in metrics.items() if name != "finite"}
                record |= rate.values()
            advance(f"loss {record['loss/total']:.5g}" if logging else "")
            conclude(under_way, state, step, record, evaluating=evaluating, saving=saving)
            if logging or saving or step == done + 1:  # the first step includes compilation
                rate.restart()
            if stopping and not last:
                raise Stopped(f"at step {step}, state saved", this.stop)
    return state


def conclude(
    under_way: StageRun,
    state: State,
    step: int,
    record: dict[str, Any],
    *,
    evaluating: bool,
    saving: bool,
    resumed: bool = False,
) -> None:
    """Evaluates, writes the journal line and saves, each if it is due.

    Args:
        under_way: the stage.
        state: the state after the update.
        step: the number of the update.
        record: the journal record of the step; empty if it is not logged.
        evaluating: whether an evaluation is due.
        saving: whether a checkpoint is due.
        resumed: whether the step has a checkpoint, and only its evaluation was interrupted.

    Raises:
        NonFiniteLoss: a state that must not be saved.
        Stopped: during the evaluation; the next start finishes it.
    """
    stage, saved = under_way.stage, under_way.saved
    quality = evaluate(under_way, state, step) if evaluating else {}
    if saving:
        check_finite_state(step, state, stage=stage.name, saved=saved.latest_step())
    if quality is None:
        if not resumed:
            saved.save(step, state, None, unevaluated=record)
        raise Stopped(f"in the evaluation of step {step}, state saved", under_way.run.stop)
    record = record | {f"validation/{name}": value for name, value in quality.items()}
    if record:
        under_way.journal.write({"step": step, "stage": stage.name} | record)
    if saving:
        saved.save(step, state, quality or None, replacing=resumed)


def begin(this: Run, stage: Stage, saved: checkpoint.StageCheckpoints, params: Any) -> tuple[State, int]:
    """Returns the state from which the stage starts or resumes, and its step."""
    mesh, step = this.plan.mesh, saved.latest_step()
    if step is None:
        first_batch = parallel.shard_batch(this.data.batches[stage.first_step], mesh)
        return stage.start(params, first_batch), stage.first_step
    if step < stage.last_step:
        parallel.say(f"{stage.name}: resuming from the checkpoint of step {step}")
    return saved.restore(step, stage.abstract(), parallel.replicated(mesh)), step


def evaluate(under_way: StageRun, state: State, step: int) -> dict[str, float] | None:
    """Measures on the validation data; every process does the same.

    Returns None if the run was asked to stop. It checks this between images, because a scheduler may not wait
    for all of them.
    """
    return under_way.stage.evaluate(
        parallel.local_copy(state.trained),
        under_way.run.data.validation,
        show=functools.partial(under_way.journal.show, step),
        stopped=under_way.asked_to_stop,
    )


class Rate:
    """The speed of training since the last restart, without saves and evaluations."""

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
