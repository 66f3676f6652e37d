"""Tries faults of a small run's disk many times, and compares its end with an undisturbed run's, bit for bit.

    python benchmarks/trials/disk.py damage [--times 60] [--seed 0] [--out FILE.json]
    python benchmarks/trials/disk.py full-disk [--times 60] [--out FILE.json]

`damage` takes a finished run, does harm to a random file of its newest checkpoint, and starts it again: it
has to set that checkpoint aside, go on from the one before, and end alike. `full-disk` runs in a tmpfs of
random size (root may mount one), where it has to end with one sentence, status 2 and sound checkpoints, and
with more room to go on and end alike. Exit status 1 where one of them does not.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "faults")]

from small_run import RESULTS, SmallRun, communicate, differences, newest_step, provenance, write_json

from decloss_jax.commands import program
from decloss_jax.host import console
from decloss_jax.workdir import checkpoint


def flip_a_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(1))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def put_a_folder_there(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def put_a_pipe_there(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link_it_to_an_endless_file(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def add_a_file(path: Path, rng: random.Random) -> None:
    (path.parent / "added").write_bytes(b"")


HARM = (
    flip_a_bit,
    truncate,
    append,
    remove,
    put_a_folder_there,
    put_a_pipe_there,
    link_it_to_an_endless_file,
    add_a_file,
)


def try_damage(expected: SmallRun, folder: Path, rng: random.Random) -> dict[str, object]:
    """Harms a file of the newest checkpoint of a copy of the run, and starts the copy."""
    run = SmallRun(folder / "run")
    shutil.copytree(expected.workdir, run.workdir)
    newest = newest_step(run, "finetune")
    victim = rng.choice(sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size))
    harm = rng.choice(HARM)
    harm(victim, rng)
    status, said = communicate(run.start(), timeout=60)
    report = [line.rpartition(": ")[2] for line in said.splitlines() if "is set aside" in line]
    return {
        "harm": harm.__name__,
        "file": str(victim.relative_to(newest)),
        "report": report,
        "status": status,
        "sound": status == 0 and len(report) == 1 and differences(run, expected) == [],
    }


def try_full_disk(expected: SmallRun, folder: Path, rng: random.Random) -> dict[str, object]:
    """Runs on a disk that is too small, then on one that is not."""
    size = rng.randrange(60, 900)  # KiB; the run takes about a MiB
    mount(folder, f"size={size}k")
    try:
        run = SmallRun(folder / "run")
        status, said = communicate(run.start(), timeout=120)
        sentences = [line for line in said.splitlines() if line.startswith("train.py: ")]
        steps = [
            step
            for stage in checkpoint.STAGES
            for step in checkpoint.step_directories(run.workdir / "checkpoints" / stage)
        ]
        refused = status == 2 and len(sentences) == 1 and "Traceback" not in said
        whole = all(checkpoint.find_damage(step) is None for step in steps)
        mount(folder, "remount,size=50m")
        run.finish()
        return {
            "kibibytes": size,
            "status": status,
            "refused": [sentence.split(str(run.workdir) + "/")[-1].split(":")[0] for sentence in sentences],
            "sound": refused and whole and differences(run, expected) == [],
        }
    finally:
        subprocess.run(["umount", folder], check=True)


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


TRIALS: dict[str, Callable[[SmallRun, Path, random.Random], dict[str, object]]] = {
    "damage": try_damage,
    "full-disk": try_full_disk,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fault", choices=TRIALS)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="by default results/FAULT.json, here")
    options = parser.parse_args()
    program.prepare_libraries()
    rng, trials = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        expected = SmallRun(Path(folder) / "undisturbed")
        expected.finish()
        for number in range(options.times):
            place = Path(folder) / str(number)
            place.mkdir()
            trials.append(TRIALS[options.fault](expected, place, rng))
            shutil.rmtree(place)
            console.say(f"{number + 1}/{options.times}: {trials[-1]}")
    sound = sum(trial["sound"] for trial in trials)
    console.say(f"{sound} of {options.times} as they should be")
    result = {"fault": options.fault, "seed": options.seed, "sound": sound, "trials": trials}
    write_json(options.out or RESULTS / f"{options.fault}.json", result | {"versions": provenance()})
    return int(sound < options.times)


if __name__ == "__main__":
    sys.exit(main())
