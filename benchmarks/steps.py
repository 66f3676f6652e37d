"""The cost of a training step of each row of Table 1, side by side: what a GAN costs beside DECLoss.

    python benchmarks/steps.py [--rounds 15] [--out results/benchmarks/steps.json]

The rows are the miniature's (configs/mini.py), with VGG-16 for the perceptual loss, on one batch of crops of
scikit-image's photographs. They take turns; the first step of each, which compiles, is not counted. Prints
the table and writes the JSON.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax.commands import scripts

ROUNDS = flags.DEFINE_integer("rounds", 15, "Steps of each row that are counted.", 1)
OUT = flags.DEFINE_string("out", "results/benchmarks/steps.json", "Where the results are written.")
ROWS = tuple(range(1, 8))  # EDSR's; the first is stage 1's step

# Pairs of rows of which the paper's ratio of GPU hours is worth a comparison: dearer, cheaper.
RATIOS = {
    "GAN beside DECLoss": (4, 6),
    "RaGAN beside DECLoss": (5, 6),
    "DECLoss beside L1": (2, 1),
    "perceptual beside L1": (3, 1),
    "DECLoss added to perceptual": (6, 3),
    "DECLoss added to RaGAN": (7, 5),
}


def main(arguments: list[str]) -> None:
    from decloss_jax.reproduction.paper import TABLE1
    from decloss_jax.workdir.journal import versions

    steppers = {number: Stepper(TABLE1[number - 1].config) for number in ROWS}
    seconds: dict[int, list[float]] = {number: [] for number in ROWS}
    for _ in range(ROUNDS.value):
        for number, stepper in steppers.items():
            seconds[number].append(stepper.step())
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
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print("| row | seconds per step (fastest to slowest) | times row 1 |\n|---|---|---|")
    for number, row in zip(ROWS, record["rows"], strict=True):
        spread = f"{row['median']:.3f} ({row['fastest']:.3f} to {row['slowest']:.3f})"
        print(f"| {row['row']} | {spread} | {medians[number] / medians[1]:.2f} |")
    print("\n| ratio | here | printed GPU hours |\n|---|---|---|")
    for name, ratio in record["ratios"].items():
        print(f"| {name} | {ratio['here']:.2f} | {ratio['printed_hours']:.2f} |")
    for name, share in record["share_of_decloss"].items():
        print(f"DECLoss's share {name}: {share:.1%}")


def crops(count: int, size: int, scale: int) -> dict[str, np.ndarray]:
    """Cuts the middle out of photographs: "hr" [count,size,size,3] and "low", uint8."""
    from decloss_jax.data.photographs import find_photographs

    pairs = find_photographs("train")
    batch: dict[str, list[np.ndarray]] = {"low": [], "hr": []}
    for index in range(count):
        low, hr = pairs[index % len(pairs)].load(scale)
        side = size // scale
        top, left = ((length - side) // 2 for length in low.shape[:2])
        batch["low"].append(low[top : top + side, left : left + side])
        batch["hr"].append(hr[scale * top :, scale * left :][:size, :size])
    return {key: np.stack(images) for key, images in batch.items()}


class Stepper:
    """The last stage of a row in miniature, ready to do a step."""

    def __init__(self, config_name: str):
        import importlib

        import jax

        from configs import mini
        from decloss_jax.host import parallel
        from decloss_jax.models import build_model
        from decloss_jax.training.optim import build_optimizer
        from decloss_jax.training.plan import plan_stages
        from decloss_jax.training.state import draw_params, start_stage

        config = importlib.import_module("configs." + config_name.replace("/", ".")).get_config()
        config = mini.shrink(config)
        mesh, model, optimizer = parallel.data_mesh(), build_model(config.model), build_optimizer(config)
        stage = plan_stages(config, model, optimizer, mesh)[-1]
        params = jax.device_put(draw_params(model, 0), parallel.replicated(mesh))
        self._train_step: Any = stage.train_step
        self._state = start_stage(
            params,
            step=stage.first_step,
            optimizer=optimizer,
            discriminator=stage.discriminator,
            seed=0,
            averaged=config.ema_decay > 0,
            mesh=mesh,
        )
        batch = crops(config.batch_size, config.data.crop_size, config.model.scale)
        self._batch = parallel.shard_batch(batch, mesh)
        self.step()

    def step(self) -> float:
        """Does one step; returns its seconds."""
        import jax

        start = time.perf_counter()
        self._state, metrics = self._train_step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - start


if __name__ == "__main__":
    scripts.run(main)
