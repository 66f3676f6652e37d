"""Draws a detail of a photograph as forms of DECLoss show it, beside grain of the same cost.

    python benchmarks/claims_picture.py --train ../data/BSDS400 [--seed 2]

Takes the networks of claims.py, trained if they are missing. The photograph is scikit-image's chelsea (CC0,
by Stefan van der Walt), which no network was trained on.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import claims_judge as judge
import numpy as np
from claims import Bench
from claims_settings import L1
from claims_table import RESULTS, find, read

from decloss_jax.commands import program
from decloss_jax.data.photographs import find_photographs
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.ops.detail import find_detail
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.ops.resize import bicubic_upscale
from decloss_jax.reproduction.figures import draw_grid
from decloss_jax.reproduction.paper import SCALE

PHOTOGRAPH, SIDE = "chelsea", 96
GRAINY = "notched, luma, sharp, 5e-5"  # the setting whose grain control is drawn
SHOWN = (L1, "printed, 4e-3", "radial, RGB, sharp, 5e-5", GRAINY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--train", required=True, metavar="ROOT", help="folder of BSDS400")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "claims", help="folder of the workdirs")
    options = parser.parse_args()
    program.prepare_jax("drawing")
    bench = Bench(options.train, options.runs)
    low, hr = next(pair for pair in find_photographs("validation") if pair.name == PHOTOGRAPH).load(SCALE)
    place = find_detail(hr, SIDE)
    pictures = {"bicubic": bicubic_upscale(low, SCALE)}
    for name in SHOWN:
        (method,) = load_methods(workdirs=[str(bench.train(name, options.seed)[0])])
        ((_, pictures[name]),) = method.upscale_each([low])
    run = find(read(), GRAINY, options.seed)
    if run is None:
        parser.error(f"{GRAINY} with seed {options.seed} is not measured; run claims.py first")
    strength = run["control"]["strength"]
    grain = judge.grain_of(hr[None] / 255, seed=0)[0]
    pictures[f"L1 alone with grain {strength:.2f}"] = to_uint8(pictures[L1] / 255 + strength * grain)
    pictures["HR"] = hr
    named = [(name, np.asarray(picture)[place]) for name, picture in pictures.items()]
    draw_grid(f"{PHOTOGRAPH}, {SIDE} x {SIDE} pixels", named, RESULTS / "pictures.png")


if __name__ == "__main__":
    main()
