"""Kills a small run of both stages at random moments and compares its end with an undisturbed run's.

    python tests/faults/soak.py [--kills 25] [--seed 0] [--out tests/faults/soak.json]

Stage 2 has a discriminator. Some kills come seconds after the start, some steps after it, some as soon as
the workdir shows what is under way: the cache being built, a save, the hashes of a checkpoint, the removal
of an old one, an evaluation, the change of stages. Between them the times of all files are scattered, as by
a clock that jumps. Each start has to go on by itself; at the end the arrays of both stages (networks,
moments, batch statistics), the journal and the pictures have to be those of the undisturbed run, bit for
bit. Exit status 1 when they are not. It stands here and not in benchmarks/, as it measures no speed and
shares its tools with the tests beside it. Takes about five minutes on two cores.
"""

import argparse
import platform
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from absl import logging
from small_run import (
    MARKS,
    SmallRun,
    differences,
    kill,
    last_step,
    scatter_times,
    under_way,
    wait_until,
    write_json,
)

from decloss_jax import console, journal

LENGTH = {"pretrain": 700, "finetune": 700, "log": 5, "checkpoint": 20, "evaluate": 100}


class Moment(NamedTuple):
    """When to kill: when a mark shows, or so many steps after those of before, and then so much later."""

    mark: str | None
    steps: int
    seconds: float


def draw_moments(kills: int, rng: random.Random) -> list[Moment]:
    """Draws moments: one in five after seconds, two after steps, two at marks; two in the middle at the
    change of stages.
    """
    marks = [name for name in MARKS if name != "changing stages"]
    moments = []
    for number in range(kills - 2):
        match number % 5:
            case 0:
                moments.append(Moment(None, 0, rng.uniform(0, 6)))
            case 1 | 2:
                moments.append(Moment(None, rng.randint(1, 30), rng.uniform(0, 0.3)))
            case _:
                moments.append(
                    Moment(marks[(number // 5 * 2 + number % 5) % len(marks)], 0, rng.uniform(0, 0.02))
                )
    rng.shuffle(moments)
    middle = [Moment("changing stages", 0, rng.uniform(0, 0.3)) for _ in range(2)]
    return moments[: kills // 2 - 1] + middle + moments[kills // 2 - 1 :]


def disturb(run: SmallRun, moment: Moment, rng: random.Random) -> dict[str, object]:
    """Starts the run and kills it at the moment; returns what happened."""
    scatter_times(run.workdir.parent, rng)
    if moment.mark == "building the cache":
        shutil.rmtree(run.cache, ignore_errors=True)
    before, start = last_step(run), time.monotonic()

    def has_come() -> bool:
        return MARKS[moment.mark](run) if moment.mark else last_step(run) >= before + moment.steps

    # A mark that the kill before has left is cleared by the start; until then it does not count.
    if moment.mark not in (None, "building the cache", "changing stages"):
        process = run.start()
        wait_until(process, lambda: not has_come())
    else:
        process = run.start()
    met = wait_until(process, has_come)
    time.sleep(moment.seconds)
    status, said = kill(process)
    return {
        "wanted": moment._asdict(),
        "met": met,
        "under_way": under_way(run),
        "seconds": round(time.monotonic() - start, 2),
        "step": last_step(run),
        "status": status,
        "said": [line for line in said.splitlines() if "going on" in line or "set aside" in line],
        "traceback": "Traceback" in said,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    logging.set_verbosity(logging.FATAL)  # Orbax reports every file
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = SmallRun(Path(folder) / "undisturbed" / "run", **LENGTH)
        expected.finish()
        run = SmallRun(Path(folder) / "killed" / "run", Path(folder) / "killed" / "cache", **LENGTH)
        run.workdir.parent.mkdir()
        kills = []
        for number, moment in enumerate(draw_moments(options.kills, rng), 1):
            kills.append(disturb(run, moment, rng))
            console.say(f"{number}/{options.kills}: {kills[-1]}")
        run.finish()
        found = differences(run, expected)
    result = {
        "seed": options.seed,
        "length": LENGTH,
        "kills": kills,
        "killed": sum(each["status"] == -9 for each in kills),
        "differences": found,
        "versions": journal.versions() | {"machine": f"{platform.system()} {platform.machine()}"},
    }
    write_json(options.out, result)
    console.say(f"{result['killed']} kills; differences: {', '.join(found) or 'none'}; {options.out}")
    return int(bool(found) or result["killed"] < options.kills or any(each["traceback"] for each in kills))


if __name__ == "__main__":
    sys.exit(main())
