"""Starts, kills and compares small runs of both stages, the second with a discriminator."""

import functools
import json
import os
import platform
import random
import resource
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from command_line import CACHE, REPOSITORY, command, environment

from decloss_jax.workdir import checkpoint, journal

RESULTS = REPOSITORY / "results" / "trials"
# 30 December 1989 to 2 May 2099: the times that a clock that jumps may give a file.
EARLIEST, LATEST = 631_000_000, 4_081_000_000


@dataclass(frozen=True)
class SmallRun:
    """A call of train.py: its workdir, its cache of decoded images, its length, and its intervals."""

    workdir: Path
    cache: Path = CACHE / "photographs"
    pretrain: int = 40
    finetune: int = 80
    log: int = 10
    checkpoint: int = 20
    evaluate: int = 40

    def arguments(self, *further: str) -> list[str]:
        """Returns the arguments; the network and the crops are as small as the discriminator allows."""
        return [
            "--config=configs/quickstart.py",
            "--config.model.features=4",
            "--config.model.blocks=1",
            "--config.batch_size=4",
            "--config.data.crop_size=32",
            f"--config.data.cache_dir={self.cache}",
            f"--config.pretrain.steps={self.pretrain}",
            "--config.pretrain.warmup_steps=10",
            f"--config.finetune.steps={self.finetune}",
            "--config.finetune.weights.ragan=5e-3",
            "--config.ema_decay=0.9",
            "--config.discriminator.features=4",
            f"--config.log_every_steps={self.log}",
            f"--config.checkpoint_every_steps={self.checkpoint}",
            f"--config.eval_every_steps={self.evaluate}",
            "--config.validation_images=2",
            "--config.sample_images=2",
            f"--workdir={self.workdir}",
            *further,
        ]

    def start(
        self, *further: str, largest_file: int | None = None, devices: int = 1
    ) -> subprocess.Popen[str]:
        """Starts train.py; `largest_file` is the most bytes that the system lets it write to one file."""
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        return subprocess.Popen(
            command("train.py", *self.arguments(*further)),
            cwd=REPOSITORY,
            env=environment() | flags,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=None if largest_file is None else functools.partial(limit_files, largest_file),
        )

    def start_several(self, count: int, *further: str, devices: int = 1) -> list[subprocess.Popen[str]]:
        """Starts train.py as `count` processes of one run, each with so many devices."""
        if count == 1:
            return [self.start(*further, devices=devices)]
        together = (f"--coordinator=localhost:{free_port()}", f"--processes={count}")
        return [
            self.start(*together, f"--process={index}", *further, devices=devices) for index in range(count)
        ]

    def finish(self, *, processes: int = 1, devices: int = 1) -> str:
        """Runs train.py to its end; returns what it said, as process 0."""
        ends = [communicate(process) for process in self.start_several(processes, devices=devices)]
        assert [status for status, _ in ends] == [0] * processes, ends
        return ends[0][1]


def communicate(process: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
    """Waits for the end; returns the status and what was said."""
    _, said = process.communicate(timeout=timeout)
    return process.returncode, said


def free_port() -> int:
    """Returns a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def limit_files(largest: int) -> None:
    """Limits the size of this process's files, like a full disk; unlike a mount it needs no privileges."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


def is_building_the_cache(run: SmallRun) -> bool:
    return any(run.cache.glob(".*.npy.*"))


def is_saving(run: SmallRun) -> bool:
    return any((run.workdir / "checkpoints").glob("*/*.orbax-checkpoint-tmp"))


def is_hashing(run: SmallRun) -> bool:
    steps = [newest_step(run, stage) for stage in checkpoint.STAGES]
    return any(step is not None and not (step / checkpoint.SUMS).exists() for step in steps)


def newest_step(run: SmallRun, stage: str) -> Path | None:
    """Returns the folder of a stage's newest step."""
    steps = checkpoint.step_directories(run.workdir / "checkpoints" / stage)
    return steps[-1] if steps else None


def is_removing(run: SmallRun) -> bool:
    """A step that is not the newest has lost its list of hashes."""
    for stage in checkpoint.STAGES:
        steps = checkpoint.step_directories(run.workdir / "checkpoints" / stage)
        if any(not (step / checkpoint.SUMS).exists() for step in steps[:-1]):
            return True
    return False


def is_evaluating(run: SmallRun) -> bool:
    """The first of two pictures of an evaluation is written, or in progress."""
    pictures = list((run.workdir / "samples").glob("*.png"))
    return len(pictures) % 2 == 1 or any((run.workdir / "samples").glob(".*.png.*"))


def is_changing_stages(run: SmallRun) -> bool:
    """Stage 1 is complete, and stage 2 has begun but saved nothing."""
    stages = run.workdir / "checkpoints"
    return (
        (stages / "pretrain" / str(run.pretrain) / checkpoint.SUMS).exists()
        and (stages / "finetune").exists()
        and not any((stages / "finetune").iterdir())
    )


MARKS: dict[str, Callable[[SmallRun], bool]] = {
    "building the cache": is_building_the_cache,
    "saving": is_saving,
    "hashing a checkpoint": is_hashing,
    "removing an old checkpoint": is_removing,
    "evaluating": is_evaluating,
    "changing stages": is_changing_stages,
}


def last_step(run: SmallRun) -> int:
    """Returns the last whole step of the journal; 0 without one."""
    path = run.workdir / "journal.jsonl"
    steps = [journal.step_of(line) for line in path.read_text().splitlines()] if path.exists() else []
    return int(max((step for step in steps if step < float("inf")), default=0))


def under_way(run: SmallRun) -> str:
    """Tells from its files what a killed run was doing."""
    found = [name for name, is_so in MARKS.items() if is_so(run)]
    if found:
        return found[0]
    path = run.workdir / "journal.jsonl"
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        return "writing a journal line"
    return "training" if path.exists() else "starting"


def wait_until(process: subprocess.Popen[str], holds: Callable[[], bool]) -> bool:
    """Waits until a condition holds; returns false if the process ends before."""
    while process.poll() is None:
        try:
            if holds():
                return True
        except OSError:  # a file that was deleted meanwhile
            pass
        time.sleep(0.0005)
    return False


def kill(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Kills a process with SIGKILL; returns the status and its messages."""
    process.kill()
    return communicate(process, timeout=60)


def scatter_times(folder: Path, rng: random.Random) -> None:
    """Sets random times for all files, as a clock that jumps would: in any order, also in the future."""
    for path in folder.rglob("*"):
        os.utime(path, (rng.uniform(EARLIEST, LATEST),) * 2)


def final_arrays(workdir: Path, stage: str) -> dict[str, np.ndarray]:
    """Reads every array of a stage's last checkpoint: networks, EMA, moments, batch statistics, the step."""
    step = checkpoint.step_directories(workdir / "checkpoints" / stage)[-1]
    assert checkpoint.find_damage(step) is None
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(step / "state").item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    state = reader.restore(step / "state", args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}


def records_without_speed(workdir: Path) -> list[dict]:
    """Reads the journal without the fields that depend on the machine."""
    return [
        {key: value for key, value in record.items() if key not in journal.MACHINE_FIELDS}
        for record in journal.read(workdir)[1]
    ]


def differences(run: SmallRun, expected: SmallRun) -> list[str]:
    """Lists what differs between two finished runs: arrays of both stages, journal, pictures."""
    found = []
    for stage in checkpoint.STAGES:
        ours, theirs = (final_arrays(each.workdir, stage) for each in (run, expected))
        if ours.keys() != theirs.keys():
            found.append(f"names of the arrays of {stage}")
        else:
            found += [f"{stage} {name}" for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    if records_without_speed(run.workdir) != records_without_speed(expected.workdir):
        found.append("journal")
    pictures = [
        {path.name: path.read_bytes() for path in (each.workdir / "samples").iterdir()}
        for each in (run, expected)
    ]
    if pictures[0] != pictures[1]:
        found.append("pictures")
    return found


def provenance() -> dict[str, str]:
    """Returns the versions and the machine behind a result."""
    return journal.versions() | {"machine": f"{platform.system()} {platform.machine()}"}


def write_json(path: Path, content: object) -> None:
    """Writes JSON in the format of the other results."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
