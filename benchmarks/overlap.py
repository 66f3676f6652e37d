"""How much the overlap of tiles matters to a network that sees further than it.

    python benchmarks/overlap.py --workdir DIR | --weights FILE [--out results/benchmarks/overlap.json]

Cuts photographs of scikit-image into tiles that overlap by some pixels of the network's receptive radius, and
tells the largest and the rms difference to the result of the whole image, in units of the range.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax import checks
from decloss_jax.commands import scripts

WORKDIR = flags.DEFINE_string("workdir", "", "Folder of a run of train.py.")
WEIGHTS = flags.DEFINE_string("weights", "", "File of weights.")
OVERLAPS = flags.DEFINE_list("overlaps", ["16", "32", "48"], "LR pixels.")
TILE = flags.DEFINE_integer("tile", 152, "Side of a tile, LR pixels.")
SIDE = flags.DEFINE_integer("side", 232, "Side of the images, LR pixels.")
OUT = flags.DEFINE_string("out", "results/benchmarks/overlap.json", "Where the results are written.")
IMAGES = ("astronaut", "motorcycle_left")


def main(arguments: list[str]) -> None:
    from decloss_jax.commands.cli import load_network
    from decloss_jax.data.photographs import find_photographs
    from decloss_jax.inference import on_local_devices, upscale
    from decloss_jax.inference.tiles import receptive_radius
    from decloss_jax.workdir.journal import versions

    checks.check(
        bool(WORKDIR.value) != bool(WEIGHTS.value),
        "network",
        expected="--workdir or --weights",
        got="both or neither",
        remedy="give one of them",
    )
    model, params, line = load_network(Path(WORKDIR.value or WEIGHTS.value), None)
    params = on_local_devices(params)
    side = SIDE.value
    lows = [
        np.ascontiguousarray(pair.hr.load()[:side, :side])
        for pair in find_photographs("train")
        if pair.name in IMAGES
    ]
    wholes = [upscale(model, params, low, tile=side + side % 4) for low in lows]
    rows: list[dict[str, Any]] = []
    for overlap in map(int, OVERLAPS.value):
        errors = [
            np.abs(upscale(model, params, low, tile=TILE.value, overlap=overlap) - whole)
            for low, whole in zip(lows, wholes, strict=True)
        ]
        rows.append(
            {
                "overlap": overlap,
                "largest_difference": float(max(error.max() for error in errors)),
                "rms_difference": float(np.sqrt(np.mean([np.mean(error**2) for error in errors]))),
            }
        )
        print(rows[-1], flush=True)
    record = {
        "network": line.partition(": ")[2],
        "receptive_radius": receptive_radius(model),
        "images": IMAGES,
        "side": side,
        "tile": TILE.value,
        "versions": versions(),
        "rows": rows,
    }
    Path(OUT.value).write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {OUT.value}")


if __name__ == "__main__":
    scripts.run(main)
