"""How much the overlap of tiles matters to a network that sees further than it.

    python benchmarks/overlap.py --workdir DIR | --weights FILE [--out results/benchmarks/overlap.json]

Cuts photographs of scikit-image into tiles that overlap by some pixels of the network's receptive radius, and
tells the largest and the rms difference to the result of the whole image, in units of the range.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax import checks
from decloss_jax.commands import program

OPTIONS = argparse.Namespace()  # of the command line
IMAGES = ("astronaut", "motorcycle_left")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line into `OPTIONS`."""
    parser = program.Parser(
        prog="overlap.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", default="", help="folder of a run of train.py")
    parser.add_argument("--weights", default="", help="file of weights")
    parser.add_argument("--overlaps", type=program.comma_list, default=["16", "32", "48"], help="LR pixels")
    parser.add_argument("--tile", type=int, default=152, help="side of a tile, LR pixels")
    parser.add_argument("--side", type=int, default=232, help="side of the images, LR pixels")
    parser.add_argument(
        "--out", default="results/benchmarks/overlap.json", help="where the results are written"
    )
    parser.set_defaults(main=main, resumes=False)
    return parser.parse_args(arguments, OPTIONS)


def main(options: argparse.Namespace) -> None:
    from decloss_jax.data.photographs import find_photographs
    from decloss_jax.inference.tiles import on_local_devices, receptive_radius, upscale
    from decloss_jax.weights import describe
    from decloss_jax.workdir.journal import versions
    from decloss_jax.workdir.network import load_network

    checks.check(
        bool(OPTIONS.workdir) != bool(OPTIONS.weights),
        "network",
        expected="--workdir or --weights",
        got="both or neither",
        remedy="give one of them",
    )
    model, params, description = load_network(OPTIONS.workdir or OPTIONS.weights)
    params = on_local_devices(params)
    side = OPTIONS.side
    lows = [
        np.ascontiguousarray(pair.hr.load()[:side, :side])
        for pair in find_photographs("train")
        if pair.name in IMAGES
    ]
    wholes = [upscale(model, params, low, tile=side + side % 4) for low in lows]
    rows: list[dict[str, Any]] = []
    for overlap in map(int, OPTIONS.overlaps):
        errors = [
            np.abs(upscale(model, params, low, tile=OPTIONS.tile, overlap=overlap) - whole)
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
        "network": describe(description).partition(": ")[2],
        "receptive_radius": receptive_radius(model),
        "images": IMAGES,
        "side": side,
        "tile": OPTIONS.tile,
        "versions": versions(),
        "rows": rows,
    }
    Path(OPTIONS.out).write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {OPTIONS.out}")


if __name__ == "__main__":
    program.start("overlap.py", parse)
