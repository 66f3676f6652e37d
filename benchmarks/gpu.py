"""Measurements on GPUs: loss, training step, several cards, repeatability, validation.

    python benchmarks/gpu.py [--only loss "step_jax row6" cards repeat validation]
    python benchmarks/gpu.py --tiny          # small sizes on a CPU, to check that it runs

Takes about ten minutes. Also needs torch; a torch without GPU support is skipped, and the JSON says so. Each
part runs in separate processes, since JAX and PyTorch do not share a GPU's memory. The JSON is written after
each part, so that nothing is lost if one fails. The last lines compare with goals.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# Names of gpu_parts.py's functions with their argument, and further environment variables. The references of
# the loss come first, because the other forms read them.
PARTS: list[tuple[str, str, dict[str, str]]] = [
    ("environment", "", {}),
    *(
        (function, size, {})
        for size in ("small", "paper")
        for function in ("loss_reference", "loss_jax", "loss_torch")
    ),
    *(
        (function, row, {})
        for row in ("row1", "row3", "row6", "row7", "rrdb")
        for function in ("step_jax", "step_torch")
    ),
    *(("cards", count, {}) for count in ("1", "2", "4")),
    *(
        ("repeat", turn, {"DECLOSS_DETERMINISTIC": deterministic})
        for deterministic in ("0", "1")
        for turn in ("first", "second")
    ),
    ("validation", "", {}),
]
SHARE_PRINTED = 9.50 / 8.94 - 1  # printed GPU hours of rows 6 and 3 (Table 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="NAME", help="parts, by their first letters"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "benchmarks" / "gpu.json")
    options = parser.parse_args()
    record: dict[str, Any] = {"tiny": options.tiny, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        for function, argument, variables in PARTS:
            name = " ".join(filter(None, (function, argument, *variables.values())))
            left_out = options.tiny and argument == "small"
            if left_out or not name.startswith(("environment", *options.only)):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            record["parts"][name] = in_own_process(function, argument, variables, options.tiny, folder)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
    for line in report(record["parts"]):
        print(line)
    return 1 if any("failed" in result for result in record["parts"].values()) else 0


def in_own_process(
    function: str, argument: str, variables: Mapping[str, str], tiny: bool, folder: str
) -> dict[str, Any]:
    """Runs a function of gpu_parts.py; returns its result, or {"failed": the last line of its errors}."""
    command = [sys.executable, str(Path(__file__).with_name("gpu_parts.py")), function, argument, folder]
    environment = {
        **os.environ,
        **variables,
        "DECLOSS_TINY": str(int(tiny)),
        "JAX_TRACEBACK_FILTERING": "off",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    return {"failed": errors[-1] if errors else f"status {done.returncode}"}


def report(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields the tables, then the goals."""
    for name, result in parts.items():
        yield f"{name}: {'left out, ' + result['skipped'] if 'skipped' in result else json.dumps(result)}"
    yield ""
    yield "| goal | measured | |"
    yield "|---|---|---|"
    for goal, measure, reached in GOALS:
        try:
            value = measure(parts)
        except (KeyError, ZeroDivisionError, TypeError):
            yield f"| {goal} | not measured | |"
        else:
            yield f"| {goal} | {value:.3g} | {'reached' if reached(value) else 'missed'} |"


def share_of_decloss(parts: Mapping[str, Any]) -> float:
    with_it, without = (parts[f"step_jax {row}"]["milliseconds"] for row in ("row6", "row3"))
    return 100 * (with_it / without - 1)


def over_torch(kind: str, form: str) -> Callable[[Mapping[str, Any]], float]:
    """PyTorch's compiled form over ours, at the paper's size."""
    return lambda parts: (
        parts["loss_torch paper"][f"compiled {kind}"]["milliseconds"]
        / parts["loss_jax paper"][form]["milliseconds"]
    )


def step_over_torch(row: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda parts: parts[f"step_torch {row}"]["milliseconds"] / parts[f"step_jax {row}"]["milliseconds"]


def differing_bits(deterministic: str) -> Callable[[Mapping[str, Any]], float]:
    """0 when two runs of 20 steps end with the same bits."""
    return lambda parts: float(
        parts[f"repeat first {deterministic}"]["sha256"] != parts[f"repeat second {deterministic}"]["sha256"]
    )


GOALS: list[tuple[str, Callable[[Mapping[str, Any]], float], Callable[[float], bool]]] = [
    (
        f"DECLoss adds to row 3, percent (printed hours: {100 * SHARE_PRINTED:.1f})",
        share_of_decloss,
        lambda x: x <= 100 * SHARE_PRINTED,
    ),
    ("loss, torch.compile over ours, TF32", over_torch("tf32", "ours high"), lambda x: x >= 1),
    ("loss, torch.compile over ours, float32", over_torch("float32", "ours highest"), lambda x: x >= 1),
    (
        "loss, gradient error with TF32, of its maximum",
        lambda parts: parts["loss_jax paper"]["ours high"]["gradient_error"],
        lambda x: x <= 1e-3,
    ),
    (
        "loss, MiB of temporaries",
        lambda parts: parts["loss_jax paper"]["ours high"]["temporaries_mib"],
        lambda x: x <= 768,
    ),
    *(
        (f"step of {row}, PyTorch over ours", step_over_torch(row), lambda x: x >= 1)
        for row in ("row6", "rrdb")
    ),
    (
        "four cards over one, images per second",
        lambda parts: parts["cards 1"]["milliseconds"] / parts["cards 4"]["milliseconds"],
        lambda x: x >= 3.2,
    ),
    ("deterministic runs that differ", differing_bits("1"), lambda x: x == 0),
]


if __name__ == "__main__":
    sys.exit(main())
