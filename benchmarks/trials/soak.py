"""Kills a small run of both stages at random moments and compares its end with an undisturbed run's.

    python benchmarks/trials/soak.py [--kills 25] [--seed 0] [--processes 1] [--steps 700] [--out FILE.json]

Stage 2 has a discriminator. Some kills come seconds after the start, some steps after it, some as soon as
the workdir shows what is under way: the cache being built, a save, the hashes of a checkpoint, the removal
of an old one, an evaluation, the change of stages. Of several processes one is drawn, and killed once they
have found each other; the others have to end with a status other than 0 within 30 s. Between the kills the
times of all files are scattered, as by a clock that jumps. Each start has to go on by itself; at the end the
arrays of both stages (networks, moments, batch statistics), the journal and the pictures have to be those of
an undisturbed run of as many processes, bit for bit. Exit status 1 if they are not. One process takes about
five minutes on two cores.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "faults")]

from small_run import (
    MARKS,
    RESULTS,
    SmallRun,
    communicate,
    differences,
    kill,
    last_step,
    provenance,
    scatter_times,
    under_way,
    wait_until,
    write_json,
)

from decloss_jax.commands import program
from decloss_jax.host import console

INTERVALS = {"log": 5, "checkpoint": 20, "evaluate": 100}
SECONDS_TO_END = 30  # that the others have when one of several processes is killed


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


def disturb(run: SmallRun, moment: Moment, processes: int, rng: random.Random) -> dict[str, object]:
    """Starts the run and kills one of its processes at the moment; returns what happened."""
    scatter_times(run.workdir.parent, rng)
    if moment.mark == "building the cache":
        shutil.rmtree(run.cache, ignore_errors=True)
    before, owner, start = last_step(run), read_owner(run), time.monotonic()

    def has_come() -> bool:
        if moment.mark == "building the cache":  # before the workdir is claimed
            return MARKS[moment.mark](run)
        if processes > 1 and read_owner(run) == owner:  # they may not have found each other yet
            return False
        return MARKS[moment.mark](run) if moment.mark else last_step(run) >= before + moment.steps

    started = run.start_several(processes)
    victim = started.pop(rng.randrange(processes))
    # A mark that the kill before has left is cleared by the start; until then it does not count.
    if moment.mark not in (None, "building the cache", "changing stages"):
        wait_until(victim, lambda: not has_come())
    met = wait_until(victim, has_come)
    time.sleep(moment.seconds)
    found, killed = under_way(run), time.monotonic()
    status, said = kill(victim)
    others = [communicate(process, timeout=10 * SECONDS_TO_END) for process in started]
    place = f"{run.workdir.parent}/"
    lines = "\n".join((said, *(said for _, said in others))).replace(place, "").splitlines()
    return {
        "wanted": moment._asdict(),
        "met": met,
        "under_way": found,
        "seconds": round(killed - start, 2),
        "step": last_step(run),
        "status": status,
        "others": [status for status, _ in others],
        "others_seconds": round(time.monotonic() - killed, 2),
        "said": [line for line in lines if "going on" in line or "set aside" in line],
        "traceback": any(line.startswith("Traceback") for line in lines),
    }


def read_owner(run: SmallRun) -> str | None:
    """Returns what the process that holds the workdir, or held it last, has put into its lock."""
    lock = run.workdir / ".lock"
    return lock.read_text() if lock.exists() else None


def is_sound(kill: dict[str, object]) -> bool:
    """Tells whether the killed process had lived until then, and the others ended as they should."""
    return (
        kill["status"] == -9
        and not kill["traceback"]
        and 0 not in kill["others"]
        and kill["others_seconds"] < SECONDS_TO_END
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=700, help="of each stage")
    parser.add_argument("--out", type=Path, help="by default results/kills_PROCESSES.json, here")
    options = parser.parse_args()
    out = options.out or RESULTS / f"kills_{options.processes}.json"
    length = INTERVALS | {"pretrain": options.steps, "finetune": options.steps}
    program.prepare_libraries()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        expected = SmallRun(Path(folder) / "undisturbed" / "run", **length)
        expected.finish(processes=options.processes)
        run = SmallRun(Path(folder) / "killed" / "run", Path(folder) / "killed" / "cache", **length)
        run.workdir.parent.mkdir()
        kills = []
        for number, moment in enumerate(draw_moments(options.kills, rng), 1):
            kills.append(disturb(run, moment, options.processes, rng))
            console.say(f"{number}/{options.kills}: {kills[-1]}")
        run.finish(processes=options.processes)
        found = differences(run, expected)
    result = {
        "seed": options.seed,
        "processes": options.processes,
        "length": length,
        "kills": kills,
        "sound": sum(map(is_sound, kills)),
        "differences": found,
        "versions": provenance(),
    }
    write_json(out, result)
    sound = f"{result['sound']} of {options.kills} kills as they should be"
    console.say(f"{sound}; differences: {', '.join(found) or 'none'}; {out}")
    return int(bool(found) or result["sound"] < options.kills)


if __name__ == "__main__":
    sys.exit(main())
