"""The cost of a training step of each row of Table 1, and what a GAN costs compared with DECLoss.

    python benchmarks/steps.py [--rounds 15] [--out results/benchmarks/steps.json]

The rows are the miniature's (configs/mini.py), with VGG-16 for the perceptual loss, on one batch of crops of
scikit-image's photographs. They take turns. The first step of each compiles and is not counted. Prints
the table and writes the JSON.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jax_step import Stepper

ROWS = tuple(range(1, 8))  # EDSR's; the first is stage 1's step

# Pairs of rows whose ratio of GPU hours in the paper is worth comparing: numerator, denominator.
RATIOS = {
    "GAN / DECLoss": (4, 6),
    "RaGAN / DECLoss": (5, 6),
    "DECLoss / L1": (2, 1),
    "perceptual / L1": (3, 1),
    "DECLoss added to perceptual": (6, 3),
    "DECLoss added to RaGAN": (7, 5),
}


def row_config(name: str) -> Any:
    """Returns the config of a row in miniature."""
    import importlib

    from configs import mini

    return mini.shrink(importlib.import_module("configs." + name.replace("/", ".")).get_config())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="counted steps of each row")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/steps.json"))
    options = parser.parse_args()
    from decloss_jax.reproduction.paper import TABLE1
    from decloss_jax.workdir.journal import versions

    steppers = {number: Stepper(row_config(TABLE1[number - 1].config)) for number in ROWS}
    seconds: dict[int, list[float]] = {number: [] for number in ROWS}
    for _ in range(options.rounds):
        for number, stepper in steppers.items():
            seconds[number].append(stepper.seconds())
    medians = {number: statistics.median(values) for number, values in seconds.items()}
    hours = {number: TABLE1[number - 1].hours for number in ROWS}
    record = {
        "hardware": {"cores": os.cpu_count()},
        "versions": versions(),
        "rows": [
            {
                "row": TABLE1[number - 1].name,
                "seconds": seconds[number],
                "median": medians[number],
                "fastest": min(seconds[number]),
                "slowest": max(seconds[number]),
            }
            for number in ROWS
        ],
        "ratios": {
            name: {"here": medians[a] / medians[b], "printed_hours": hours[a] / hours[b]}
            for name, (a, b) in RATIOS.items()
        },
        "share_of_decloss": {
            "of L1 + DECLoss": 1 - medians[1] / medians[2],
            "of L1 + perceptual + DECLoss": 1 - medians[3] / medians[6],
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print("| row | seconds per step (fastest to slowest) | times row 1 |\n|---|---|---|")
    for number, row in zip(ROWS, record["rows"], strict=True):
        spread = f"{row['median']:.3f} ({row['fastest']:.3f} to {row['slowest']:.3f})"
        print(f"| {row['row']} | {spread} | {medians[number] / medians[1]:.2f} |")
    print("\n| ratio | here | printed GPU hours |\n|---|---|---|")
    for name, ratio in record["ratios"].items():
        print(f"| {name} | {ratio['here']:.2f} | {ratio['printed_hours']:.2f} |")
    for name, share in record["share_of_decloss"].items():
        print(f"DECLoss's share {name}: {share:.1%}")


if __name__ == "__main__":
    main()
