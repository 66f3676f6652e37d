"""Checkpoints of a run, saved atomically with Orbax; a SHA-256 verifies every file before use.

    WORKDIR/checkpoints/STAGE/STEP/       the state, the config, the validation metrics, SHA256SUMS
    WORKDIR/checkpoints/set_aside/        damaged or unfinished steps

Orbax does not detect a flipped bit in its data files, hence the list of hashes. It is written last, so a step
without a list is unfinished. A workdir may come from a stranger: the names in the list are only compared with
the files present, never opened, and sizes are checked before anything is read.
"""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import Sharding
from orbax.checkpoint import checkpoint_managers

from decloss_jax import checks
from decloss_jax.host import console, files, parallel
from decloss_jax.models import build_model, check_params
from decloss_jax.workdir.storage import NOT_OURS, refuse_foreign, system_errors
from decloss_jax.workdir.sums import SUMS, find_damage, write_sums

STAGES = ("pretrain", "finetune")
KEPT_LATEST = 2
UNEVALUATED = "unevaluated"

# Trained parameters hardly compress, so those much larger than their files are refused.
SIZE_IN_ANY_FILES = 2**26  # bytes that are always allowed
EXPANSION_LIMIT = 16  # times the size of the files


class StageCheckpoints:
    """The checkpoints of one stage of a run; training continues while one is written.

    If the disk fails during a save, the next `save` or `finish`, or the end of the block, raises the error.

    Args:
        workdir: the run's folder.
        stage: "pretrain" or "finetune".
        config: written into each step, so that a checkpoint is self-contained.
        best: the validation metric whose highest value marks the best step.
    """

    def __init__(self, workdir: Path, stage: str, *, config: Mapping[str, Any], best: str = "psnr_y"):
        self._config = dict(config)
        self._best = best
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        # Orbax requires an absolute path, and would mistake any other folder in it for a step.
        self.directory = Path(workdir).resolve() / "checkpoints" / stage
        self._aside = self.directory.parent / "set_aside"
        if parallel.is_first_process():
            self._set_aside_damaged()
        parallel.wait_for_all(f"{stage} checkpoints checked")
        self.directory.mkdir(parents=True, exist_ok=True)  # here, so that a full disk raises `OSError`
        with refuse_foreign(self.directory):
            self._manager = ocp.CheckpointManager(self.directory, options=self._options())

    def _options(self) -> ocp.CheckpointManagerOptions:
        def metric(metrics) -> float:
            return metrics[self._best]

        # `max_to_keep` with `best_fn` would delete the newest step; this keeps the newest and the best.
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(KEPT_LATEST),
                checkpoint_managers.BestN(get_metric_fn=metric, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        return ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=metric, best_mode="max")

    def _set_aside_damaged(self) -> None:
        """Moves damaged steps out of Orbax's sight with a message; removes interrupted saves."""
        for torn in self.directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(torn)
        for step in step_directories(self.directory):
            damage = find_damage(step)
            if damage is not None:
                target = self._aside / f"{self.directory.name}-{step.name}"
                console.say(f"checkpoint {step.name} is set aside in {self._aside}: {damage}")
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(step, target)

    def latest_step(self) -> int | None:
        """Returns the step of the newest sound checkpoint."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: Any,
        metrics: Mapping[str, float] | None,
        *,
        unevaluated: Mapping[str, Any] | None = None,
        replacing: bool = False,
    ) -> None:
        """Starts to save the state of `step` after the previous save has finished; keeps an existing step.

        The state has been copied when this returns, so its arrays may be donated.

        Args:
            step: the number of updates done.
            state: the state after them.
            metrics: the validation metrics of this step, if it was evaluated.
            unevaluated: the journal record of a step whose evaluation was interrupted.
            replacing: overwrites the step, whose evaluation has now finished; the same on all processes.

        Raises:
            OSError: this step or the previous one could not be written; a replaced step may be lost.
        """
        self.finish()
        if step in self._manager.all_steps() and not replacing:
            return
        items = {"state": ocp.args.PyTreeSave(state), "config": ocp.args.JsonSave(self._config)}
        if unevaluated is not None:
            items[UNEVALUATED] = ocp.args.JsonSave(dict(unevaluated))
        args = ocp.args.Composite(**items)
        with system_errors(self.directory / str(step)):
            if parallel.is_first_process():
                files.check_room(self.directory, room_for(state))
            if replacing:
                self._manager.delete(step)
            self._manager.save(step, args=args, metrics=dict(metrics) if metrics is not None else None)
        self._saving = self._thread.submit(self._complete, step)

    def _complete(self, step: int) -> None:
        """Waits until Orbax has written a step, and then writes its list of hashes; runs in the thread."""
        with system_errors(self.directory / str(step)):
            self._manager.wait_until_finished()
            if parallel.is_first_process():
                write_sums(self.directory / str(step))

    def finish(self) -> None:
        """Waits until the last save is on disk; raises `OSError` if it could not be written."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def restore(self, step: int, abstract: Any, sharding: Sharding) -> Any:
        """Restores the state of `step` with the shapes and dtypes of `abstract`, placed by `sharding`."""
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
        )
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
        )
        with refuse_foreign(self.directory / str(step)):
            return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]

    def unevaluated(self, step: int) -> dict[str, Any] | None:
        """Returns the `unevaluated` of the step's `save`; None if its evaluation has finished."""
        path = self.directory / str(step) / UNEVALUATED / "metadata"
        return files.read_json(path) if path.exists() else None

    def __enter__(self) -> "StageCheckpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.finish()
        finally:
            self._thread.shutdown()
            with system_errors(self.directory):  # Orbax raises an error of a background save once more
                self._manager.close()


def room_for(state: Any) -> int:
    """Returns an upper bound for the bytes of a saved state, with its metadata and half-filled blocks."""
    leaves = jax.tree.leaves(state)
    return int(1.1 * sum(leaf.nbytes for leaf in leaves)) + 1024 * len(leaves) + 2**17


def step_directories(directory: Path) -> list[Path]:
    """Lists the folders of a stage's steps, oldest first."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if path.name.isdecimal()), key=lambda p: int(p.name))


def is_complete(workdir: str | Path, stage: str, step: int) -> bool:
    """Tells whether a stage has a sound checkpoint of `step`, its last one, whose evaluation has finished."""
    path = files.expand(workdir) / "checkpoints" / stage / str(step)
    return path.is_dir() and find_damage(path) is None and not (path / UNEVALUATED).exists()


def trained_stages(workdir: str | Path) -> list[str]:
    """Lists the stages that have checkpoints, in order; empty if there is no run."""
    checkpoints = files.expand(workdir) / "checkpoints"
    return [stage for stage in STAGES if step_directories(checkpoints / stage)]


def build_generator(options: Mapping[str, Any], params: Any) -> nn.Module:
    """Builds the generator of `config.model`; raises `UserError` if the parameters are not its own."""
    model = build_model(dict(options))
    check_params("its parameters", model, params, remedy=NOT_OURS)
    return model


def load_checkpoint(
    workdir: str | Path,
    *,
    stage: str | None = None,
    build: Callable[[Mapping[str, Any], Any], nn.Module] = build_generator,
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Loads the network from the newest sound checkpoint of a run.

    Args:
        workdir: the run's folder.
        stage: "pretrain" or "finetune"; by default the last one that has a checkpoint.
        build: (`config.model`, parameters) -> the network; refuses what does not fit. By default a generator.

    Returns:
        The Flax model of the run's config, its parameters (NumPy arrays), and a description with `workdir`
        (its name), `stage`, `step`, `params` (see `restore_params`) and `sha256` (of the list of hashes).

    Raises:
        UserError: no checkpoint, only damaged ones, or one that train.py did not write.
    """
    root = Path(workdir).resolve()
    stages = trained_stages(root)
    checks.check(
        bool(stages) and (stage is None or stage in stages),
        f"workdir {workdir}",
        expected=f"a folder with checkpoints{f' of {stage}' if stage else ''}",
        got=f"checkpoints of {' and '.join(stages)}" if stages else "none",
        remedy="give the --workdir of a run of train.py",
    )
    directory = root / "checkpoints" / (stage or stages[-1])
    for step in reversed(step_directories(directory)):
        damage = find_damage(step)
        if damage is not None:
            console.say(f"checkpoint {step.name} of {directory.name} is skipped: {damage}")
            continue
        with refuse_foreign(step):
            params, name = restore_params(step / "state")
            model = build(files.read_json(step / "config" / "metadata")["model"], params)
        description = {
            "workdir": root.name,
            "stage": directory.name,
            "step": int(step.name),
            "params": name,
            "sha256": files.sha256(step / SUMS),
        }
        return model, params, description
    checks.fail(
        f"checkpoints in {directory}",
        expected="at least one whole step",
        got="only damaged ones",
        remedy="restore the folder from a copy or train again",
    )


def restore_params(state_directory: Path) -> tuple[Any, str]:
    """Restores only the network's parameters, as NumPy arrays, whatever devices they were saved from.

    Returns:
        The parameters and their name: "ema" (the moving average) if the state has one, else "params".

    Raises:
        ValueError: arrays that are much larger than their files, or not float32.
        Exception: of many kinds, for damaged files.
    """
    checkpointer = ocp.PyTreeCheckpointer()
    metadata = checkpointer.metadata(state_directory).item_metadata
    if metadata is None:
        raise ValueError("a list of arrays that is damaged or does not match its files")
    name = "ema" if metadata.tree.get("ema") else "params"
    saved = metadata.tree[name]
    leaves = jax.tree.leaves(saved)
    if any(leaf.dtype != np.float32 for leaf in leaves):
        raise ValueError("parameters that are not float32")
    size = 4 * sum(math.prod(leaf.shape) for leaf in leaves)
    on_disk = sum(path.stat().st_size for path in state_directory.rglob("*"))
    if size > max(SIZE_IN_ANY_FILES, EXPANSION_LIMIT * on_disk):
        raise ValueError(f"{size:,} bytes of parameters in {on_disk:,} bytes of files")
    target = {name: saved}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    restored = checkpointer.restore(
        state_directory,
        args=ocp.args.PyTreeRestore(target, restore_args=as_numpy, partial_restore=True),
    )
    return restored[name], name
