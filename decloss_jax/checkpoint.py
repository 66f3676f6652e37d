"""Checkpoints of a run, by Orbax: atomic, latest and best kept, checked by SHA-256 before they are used.

    WORKDIR/checkpoints/STAGE/STEP/       the state, the config, the validation metrics, SHA256SUMS
    WORKDIR/checkpoints/set_aside/        damaged or unfinished steps, moved out of the way when found

Orbax does not notice a flipped bit in its data files, hence the list of hashes. It is written last, so a step
without one was never finished.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint import checkpoint_managers

from decloss_jax import checks, console, files, parallel

STAGES = ("pretrain", "finetune")
KEPT_LATEST = 2
SUMS = "SHA256SUMS"


def list_files(step_directory: Path) -> list[str]:
    """Lists the files of a step but the list of hashes, by their relative names."""
    found = (path for path in step_directory.rglob("*") if path.is_file() and path.name != SUMS)
    return sorted(path.relative_to(step_directory).as_posix() for path in found)


def write_sums(step_directory: Path) -> None:
    """Writes the hashes of all files of a finished step, in the format of `sha256sum`."""
    lines = [f"{files.sha256(step_directory / name)}  {name}\n" for name in list_files(step_directory)]
    files.write_atomically(step_directory / SUMS, "".join(lines))


def find_damage(step_directory: Path) -> str | None:
    """Returns what is wrong with a step (one clause), or None when every file is as it was written."""
    sums = step_directory / SUMS
    if not sums.is_file():
        return "its removal or saving was cut off"
    lines = sums.read_text(errors="replace").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = list_files(step_directory)
    if unlisted := [name for name in present if name not in digests]:
        return f"{unlisted[0]} is not in {SUMS}"
    if missing := [name for name in digests if name not in present]:
        return f"{missing[0]} is missing"
    for name, digest in digests.items():
        if files.sha256(step_directory / name) != digest:
            return f"{name} is not what was written"
    return None


class StageCheckpoints:
    """The checkpoints of one stage of a run.

    Args:
        workdir: the run's folder.
        stage: "pretrain" or "finetune".
        config: written into each step, so that a checkpoint explains itself.
        best: the validation metric whose highest value marks the best step.
    """

    def __init__(self, workdir: Path, stage: str, *, config: Mapping[str, Any], best: str = "psnr_y"):
        self._config = dict(config)
        self._best = best
        # Orbax wants absolute paths; and it would take a folder of ours for a step's.
        self.directory = Path(workdir).resolve() / "checkpoints" / stage
        self._aside = self.directory.parent / "set_aside"
        if parallel.is_first_process():
            self._set_aside_damaged()
        parallel.wait_for_all(f"{stage} checkpoints checked")
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
        """Moves steps that cannot be trusted out of Orbax's sight, and says so; removes torn saves."""
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

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None) -> None:
        """Saves the state of `step` and returns when it is safely on disk; an existing step is kept.

        Raises:
            OSError: the system refused to write, as on a full disk; the steps before are untouched.
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), config=ocp.args.JsonSave(self._config))
        with system_errors(self.directory / str(step)):
            if parallel.is_first_process():
                files.check_room(self.directory, room_for(state))
            self._manager.save(step, args=args, metrics=dict(metrics) if metrics is not None else None)
            self._manager.wait_until_finished()
        if parallel.is_first_process():
            write_sums(self.directory / str(step))

    def restore(self, step: int, abstract: Any, sharding: Sharding) -> Any:
        """Restores the state of `step`: shapes and dtypes of `abstract`, placed as `sharding` says."""
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
        )
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]

    def __enter__(self) -> "StageCheckpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()


def room_for(state: Any) -> int:
    """Returns the bytes that a saved state may take at most, with its descriptions and half-filled blocks."""
    leaves = jax.tree.leaves(state)
    return int(1.1 * sum(leaf.nbytes for leaf in leaves)) + 1024 * len(leaves) + 2**17


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turns what TensorStore makes of an error of the system back into `OSError`, with the name of `path`."""
    before = sys.unraisablehook

    def without_late_writes(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    # When one of its writes has failed, Orbax no longer waits for the others, and TensorStore prints a
    # traceback for each. They may come late: so after a failure the hook stays.
    sys.unraisablehook = without_late_writes
    try:
        with files.named(path):
            yield
    except ValueError as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    sys.unraisablehook = before


def step_directories(directory: Path) -> list[Path]:
    """Lists the folders of the finished steps of a stage, oldest first."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if path.name.isdigit()), key=lambda p: int(p.name))


def trained_stages(workdir: Path) -> list[str]:
    """Lists the stages of which a run has checkpoints, in order."""
    return [stage for stage in STAGES if step_directories(Path(workdir) / "checkpoints" / stage)]


def load_generator(
    workdir: str | Path, *, stage: str | None = None
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Loads the generator from the newest sound checkpoint of a run.

    Args:
        workdir: the run's folder.
        stage: "pretrain" or "finetune"; by default the last one that has a checkpoint.

    Returns:
        The run's config as nested dictionaries, the parameters (NumPy arrays), and a description with
        `stage`, `step` and `checkpoint_sha256` (the hash of the list of hashes).

    Raises:
        UserError: no checkpoint, or none that can be trusted.
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
            console.say(f"checkpoint {step.name} of {directory.name} is passed over: {damage}")
            continue
        config = json.loads((step / "config" / "metadata").read_text())
        description = {
            "stage": directory.name,
            "step": int(step.name),
            "checkpoint_sha256": files.sha256(step / SUMS),
        }
        return config, restore_params(step / "state"), description
    checks.fail(
        f"checkpoints in {directory}",
        expected="at least one whole step",
        got="only damaged ones",
        remedy="restore the folder from a copy or train again",
    )


def restore_params(state_directory: Path) -> Any:
    """Restores the parameters alone, as NumPy arrays, whatever devices they were saved from."""
    checkpointer = ocp.PyTreeCheckpointer()
    saved = checkpointer.metadata(state_directory).item_metadata.tree["params"]
    target = {"params": saved}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    restored = checkpointer.restore(
        state_directory,
        args=ocp.args.PyTreeRestore(target, restore_args=as_numpy, partial_restore=True),
    )
    return restored["params"]
