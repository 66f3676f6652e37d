"""Gives hostile files to the commands and measures their memory.

    python benchmarks/trials/hostile_memory.py [--out results/trials/hostile_memory.json]

Each command runs as a child process without a limit; its peak of resident memory (wait4) is compared with
that of the same command on a small sound file. Exit status 1 when one ends with another status than
expected, does not name the file, prints a traceback, costs more than `BOUND_MIB` beyond the sound file (a
picture that is as large as it says: `BYTES_PER_PIXEL` more), or when anything beside its output folder has
changed. Takes about five minutes on two cores; the files are made in a temporary folder.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "faults")]

from command_line import REPOSITORY, command, environment
from hostile_images import deflate_zeros, encoded, hostile_images, many_directories, png

from decloss_jax.workdir import journal

BOUND_MIB = 512
BYTES_PER_PIXEL = 16

# A process counts the memory of the one that started it as its own, so a small one stands between. It prints
# the peak in KiB, and ends as the command did.
LAUNCHER = """
import os, sys
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(f"\\n{usage.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"""
TRAIN = (
    "--config=configs/quickstart.py", "--config.model.features=4", "--config.model.blocks=1",
    "--config.batch_size=2", "--config.data.crop_size=24", "--config.data.source=folder",
    "--config.pretrain.steps=1", "--config.pretrain.warmup_steps=0", "--config.finetune.steps=0",
    "--config.validation_images=0", "--config.eval_every_steps=1",
)  # fmt: skip
ALONE = (
    "header_20000.png", "header_16_bits.png", "truncated_4096.png", "profile_bomb.png", "text_bomb.png",
    "header.jpg", "header.webp", "header_16_bits.tif", "strips.tif", "colors.bmp", "runs.bmp", "eps.png",
)  # fmt: skip


class Case(NamedTuple):
    """A call: which command, on what, the expected status, words of the answer, and the pixels there are."""

    command: str
    given: Path
    status: int
    words: tuple[str, ...] = ()
    pixels: int = 0


def arguments(name: str, given: Path, sound: Path, out: Path) -> list[str]:
    """Returns the words of a command's call on what is given; it writes into `out`."""
    calls = {
        "check-data": ["decloss_jax", "check-data", given],
        "upscale": ["decloss_jax", "upscale", given, out / "up", "--weights", sound],
        "convert": ["decloss_jax", "convert", given, out / "w.safetensors"],
        "plot": ["decloss_jax", "plot", given, "--out", out / "plots"],
        "report": ["decloss_jax", "report", given, "--out", out / "report.html"],
        "evaluate": [
            "evaluate.py", "--method", "bicubic", "--metrics", "psnr", "--data", given, "--out", out / "ev",
        ],
        "evaluate --workdir": [
            "evaluate.py", "--workdir", given, "--data", "photographs", "--metrics", "psnr",
            "--out", out / "ev",
        ],
        "train": [
            "train.py", *TRAIN, f"--config.data.root={given}", f"--config.data.cache_dir={out / 'cache'}",
            f"--workdir={out / 'run'}",
        ],
        "train init_from": [
            "train.py", *TRAIN, "--config.data.source=photographs", "--config.finetune.steps=1",
            f"--config.data.cache_dir={out / 'cache'}", f"--config.init_from={given}",
            f"--workdir={out / 'run'}",
        ],
    }  # fmt: skip
    return command(*map(str, calls[name]))


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    """Makes a folder of files."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def image_cases(folder: Path) -> Iterator[Case]:
    """Yields the calls on images: all hostile ones together where a command goes on, else some alone."""
    hostile = hostile_images(folder / "proof") | {"truncated_4096.png": png(4096, 4096)}
    together = folder_of(folder / "hostile", hostile)
    yield Case("check-data", together, 1, tuple(hostile))
    yield Case("upscale", together, 2, tuple(hostile))
    frames = folder_of(folder / "frames", {"frames.tif": many_directories(1_000_000)})
    yield Case("upscale", frames, 2, ("frames.tif",))
    for number, name in enumerate(ALONE):
        alone = folder_of(folder / f"alone_{number}", {name: hostile[name]})
        for each in ("evaluate", "train"):
            yield Case(each, alone, 2, (name,))
    for side in (4096, 13_000, 20_000):
        zeros = png(side, side, idat=deflate_zeros(side * (3 * side + 1)))
        large = folder_of(folder / f"large_{side}", {"zeros.png": zeros})
        yield Case("check-data", large, 0, pixels=side * side)
    yield Case("train", folder / "large_4096", 0, pixels=4096**2)


def file_cases(made: Path) -> Iterator[Case]:
    """Yields the calls on weights, workdirs, journals and evaluations that hostile_files.py has made."""
    for path in sorted(made.iterdir()):
        if path.suffix in (".pth", ".pt", ".safetensors") and path.name != "sound.safetensors":
            yield Case("convert", path, 2, (path.name,))
        elif path.name.startswith("workdir "):
            for each in ("evaluate --workdir", "train init_from"):
                yield Case(each, path, 2, (path.name,))
        elif path.name.startswith("journal "):
            yield Case("plot", path, 2, (path.name,))
        elif path.name.startswith("evaluation "):
            yield Case("report", path, 2, (path.name,))


def sound_cases(folder: Path, made: Path) -> dict[str, Case]:
    """Returns the call on something small and sound, by command."""
    images = folder_of(folder / "sound", {"sound.png": encoded("PNG")})
    cases = [Case(name, images, 0) for name in ("check-data", "upscale", "evaluate", "train")]
    cases += [Case(name, made / "workdir", 0) for name in ("evaluate --workdir", "plot", "train init_from")]
    cases += [Case("convert", made / "sound.safetensors", 0), Case("report", made / "evaluation", 0)]
    return {case.command: case for case in cases}


def listing(folder: Path) -> str:
    """Returns a digest of the names, sizes and times of all that lies in a folder."""
    lines = [
        f"{path.relative_to(folder)} {path.lstat().st_size} {path.lstat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
    ]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def call(case: Case, sound: Path, out: Path) -> dict:
    """Runs a call; returns its status, answer, seconds and peak of memory."""
    words = arguments(case.command, case.given, sound, out)
    start = time.monotonic()
    launched = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *words],
        cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    answer, _, peak = launched.stdout.decode(errors="replace").rstrip().rpartition("\n")
    return {
        "status": launched.returncode,
        "answer": answer,
        "seconds": round(time.monotonic() - start, 1),
        "peak_mib": round(int(peak) / 1024),
    }


def judge(case: Case, result: dict, cost: int) -> list[str]:
    """Lists what is wrong with a call."""
    problems = [] if result["status"] == case.status else [f"status {result['status']}"]
    if "Traceback" in result["answer"]:
        problems.append("a traceback")
    problems += [f"{word} is not named" for word in case.words if word not in result["answer"]]
    bound = BOUND_MIB + BYTES_PER_PIXEL * case.pixels / 2**20
    return problems + ([f"{cost} MiB, more than {bound:.0f}"] if cost > bound else [])


def measure(folder: Path) -> list[dict]:
    """Makes everything, runs every call, and returns a record of each."""
    made = folder / "made"
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile_files.py")), str(made)],
        check=True, capture_output=True, env=environment(),
    )  # fmt: skip
    sound = made / "sound.safetensors"
    harmless = {}
    for name, case in sound_cases(folder, made).items():
        result = call(case, sound, folder_of(folder / "out" / f"sound {name}", {}))
        if result["status"] != 0:
            raise RuntimeError(f"{name} on sound files: {result['answer']}")
        harmless[name] = result["peak_mib"]
    cases = [*image_cases(folder), *file_cases(made)]
    records = []
    for number, case in enumerate(cases):
        out = folder_of(folder / "out" / f"{number}", {})
        inputs = [path for path in folder.iterdir() if path.name != "out"]
        before = [listing(path) for path in inputs]
        result = call(case, sound, out)
        cost = result["peak_mib"] - harmless[case.command]
        problems = judge(case, result, cost)
        after = [listing(path) for path in folder.iterdir() if path.name != "out"]
        problems += ["something was written elsewhere"] if before != after else []
        answer = result.pop("answer").replace(str(folder), "")
        given = case.words[0] if len(case.words) == 1 else case.given.name
        record = {"command": case.command, "given": given} | result
        record |= {"harmless_mib": harmless[case.command], "cost_mib": cost, "problems": problems}
        if len(case.words) == 1:
            record["answer"] = " ".join(answer.strip().splitlines()[-1].split())[:300]
        print(json.dumps(record), flush=True)
        records.append(record)
    return records


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = measure(Path(folder).resolve())
    refused = [record for record in records if record["status"]]
    summary = {
        "calls": len(records),
        "problems": sum(map(len, (record["problems"] for record in records))),
        "largest_cost_of_refused_mib": max(record["cost_mib"] for record in refused),
        "bound_mib": BOUND_MIB,
        "bytes_per_pixel": BYTES_PER_PIXEL,
        "versions": journal.versions() | {"machine": f"{platform.system()} {platform.machine()}"},
    }
    if options.out:
        options.out.write_text(json.dumps(summary | {"records": records}, indent=1) + "\n")
    print(json.dumps(summary))
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
