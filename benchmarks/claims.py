"""Does a form of DECLoss lower both LPIPS, without a lattice, by more than grain of the same PSNR cost?

    python benchmarks/claims.py --train ../data/BSDS400 [--only NAME ...] [--seeds 0 1 2]

Trains stage 1 of configs/mini.py for 2,000 steps, then each setting for 200 steps from there. It judges on
the centres (240x240) of 24 photographs that configs/mini.py holds out, and uses no benchmark image. For each
run it measures PSNR, LPIPS with both networks, NIQE, ICOO, the share of lattices in the change from stage 1,
and a control (claims_judge.py): the pictures of L1 alone for as many steps, with grain of the same PSNR cost.

Writes claims.json and claims.md in results/claims after each run. A second call trains and measures only what
is missing; training itself resumes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import claims_judge as judge
import numpy as np
from mini_analyse import centres
from mini_choose import REPOSITORY

from decloss_jax.commands import program
from decloss_jax.host import files
from decloss_jax.reproduction.paper import TABLE1
from decloss_jax.reproduction.runs import Settings, config_hash, train_row
from decloss_jax.workdir.journal import versions

RESULTS = REPOSITORY / "results" / "claims"
PHOTOGRAPHS, SIDE = 24, 240
STAGE_ONE, PLAIN = "stage 1", "L1 alone"
# Validation during training and its pictures take time and change nothing.
COMMON = {
    "pretrain.steps": 2_000,
    "finetune.steps": 200,
    "eval_every_steps": 100_000,
    "validation_images": 1,
    "sample_images": 1,
}


def setting(weight: float, **decloss: Any) -> dict[str, Any]:
    """Returns the fields that differ from row 2 of the miniature: the best setting there, and changes."""
    best = {"kernel": "radial", "mu": 0.2, "threshold_db": 15.0, "t_pos": 0.2, "t_neg": 0.2}
    fields = {f"decloss.{name}": value for name, value in (best | decloss).items()}
    return {"finetune.weights.decloss": weight} | fields


NOTCHED, LUMA = {"kernel": "radial_notched"}, {"color": "luma"}
SETTINGS: dict[str, dict[str, Any]] = {
    STAGE_ONE: {"finetune.steps": 0},
    PLAIN: setting(0.0),
    "radial, RGB, 1e-4": setting(1e-4),
    "radial, luma, 1e-4": setting(1e-4, **LUMA),
    "notched, RGB, 1e-4": setting(1e-4, **NOTCHED),
    "notched, luma, 1e-4": setting(1e-4, **NOTCHED, **LUMA),
    "radial, RGB, 5e-5": setting(5e-5),
    "radial, luma, 5e-5": setting(5e-5, **LUMA),
    "notched, RGB, 5e-5": setting(5e-5, **NOTCHED),
    "notched, luma, 5e-5": setting(5e-5, **NOTCHED, **LUMA),
    "notched, luma, 3e-5": setting(3e-5, **NOTCHED, **LUMA),
    "notched, luma, 2e-4": setting(2e-4, **NOTCHED, **LUMA),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--train", required=True, metavar="ROOT", help="folder of BSDS400")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs") / "claims", help="folder of the workdirs")
    options = parser.parse_args()
    program.prepare_jax("measuring")
    for seed in options.seeds:
        first, hr, _ = train(STAGE_ONE, seed, options)
        plain, _, _ = train(PLAIN, seed, options)
        for name in dict.fromkeys([STAGE_ONE, PLAIN, *options.only]):
            run = find(read(), name, seed)
            if run is None:
                sr, _, digits = train(name, seed, options)
                run = {"setting": name, "seed": seed, "fields": SETTINGS[name], "config_hash": digits}
                run["values"] = judge.measure(sr, hr)
                if name != STAGE_ONE:
                    run["shares"] = judge.lattice_shares(sr - first)
                save(run)
            if name not in (STAGE_ONE, PLAIN) and "control" not in run:
                of_plain = find(read(), PLAIN, seed)
                cost = -judge.difference(run["values"], of_plain["values"], "psnr_rgb")[0]
                strength, pictures = judge.grain_control(plain, hr, cost=cost, seed=0)
                values = judge.measure(pictures, hr)
                save(run | {"control": {"base": PLAIN, "strength": strength, "values": values}})


def train(name: str, seed: int, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, str]:
    """Trains what is missing; returns SR and HR [N,S,S,3] of the photographs and the config's hash."""
    overrides = COMMON | SETTINGS[name] | {"data.root": options.train}
    workdir, config, _ = train_row(TABLE1[1], seed, Settings("mini", overrides, options.runs, []))
    digits = config_hash(config)
    config.data.crop_size = SIDE
    sr, hr = centres(workdir, config)
    return sr[:PHOTOGRAPHS], hr[:PHOTOGRAPHS], digits


def read() -> list[dict[str, Any]]:
    """Returns the runs of earlier calls."""
    path = RESULTS / "claims.json"
    return json.loads(path.read_text())["runs"] if path.exists() else []


def find(runs: list[dict[str, Any]], name: str, seed: int) -> dict[str, Any] | None:
    """Returns the run of a setting with a seed, if it is there."""
    return next((run for run in runs if (run["setting"], run["seed"]) == (name, seed)), None)


def save(run: dict[str, Any]) -> None:
    """Adds a run to those of earlier calls, or replaces it, and writes all and their table."""
    key = (run["setting"], run["seed"])
    others = [each for each in read() if (each["setting"], each["seed"]) != key]
    runs = sorted([*others, run], key=lambda each: (list(SETTINGS).index(each["setting"]), each["seed"]))
    white = judge.white_noise_shares(SIDE)
    record = {
        "versions": versions(),
        "common": COMMON,
        "photographs": PHOTOGRAPHS,
        "side": SIDE,
        "white_noise": white,
        "runs": runs,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    files.write_atomically(RESULTS / "claims.json", json.dumps(record, indent=1) + "\n")
    files.write_atomically(RESULTS / "claims.md", table(runs, white))
    print(table(runs, white), flush=True)


LEGEND = f"""\
`python benchmarks/claims.py` on the {SIDE}x{SIDE} centres of {PHOTOGRAPHS} held-out photographs of BSDS400.

- Stage 1 in absolute values, the rest as changes from it. Weights are DECLoss's, beside 1e-2 for L1.
- lattice: the share of the change's power at (k/4, l/4) cycles per pixel, and at most 1 bin from (k/8, l/8),
  divided by white noise's ({{0:.3%}} and {{1:.2%}}); and the power per bin there, divided by that 2 to 4 bins
  away (1 for any smooth spectrum).
- grain: the pictures of L1 alone with grey noise between 0.25 and 0.5 cycles per pixel, whose strength
  relative to HR's local strength in that band (this number) makes it cost as much PSNR. "less grain" is the
  run's value less the grain's, with the standard error over photographs. Earlier controls start from stage 1.
- better: both LPIPS are lower than with L1 alone; no lattice (at most {judge.NO_LATTICE} times white noise);
  and against the grain one LPIPS is lower and the other not higher (`claims_judge.verdict`).

"""


def table(runs: list[dict[str, Any]], white: dict[str, float]) -> str:
    """Writes the runs as Markdown: stage 1 in absolute values, the others as changes from it."""
    lines = [
        "| setting | seed | PSNR dB | LPIPS-alex | LPIPS-vgg | NIQE | ICOO dB | lattice | grain "
        "| less grain: alex | less grain: vgg | better |",
        "|" + "---|" * 12,
    ]
    for run in runs:
        means = {name: np.mean(values) for name, values in run["values"].items()}
        start = f"| {run['setting']} | {run['seed']} "
        first = find(runs, STAGE_ONE, run["seed"])
        if first is None or run is first:
            lines.append(
                f"{start}| {means['psnr_rgb']:.3f} | {means['lpips_alex']:.4f} | {means['lpips_vgg']:.4f} "
                f"| {means['niqe']:.2f} | {means['icoo']:.2f} | | | | | |"
            )
            continue
        before = {name: np.mean(values) for name, values in first["values"].items()}
        alex, vgg = (means[name] / before[name] - 1 for name in judge.LPIPS)
        exact, near, _ = (run["shares"][name] / white[name] for name in judge.SHARES)
        lines.append(
            f"{start}| {means['psnr_rgb'] - before['psnr_rgb']:+.3f} | {alex:+.1%} | {vgg:+.1%} "
            f"| {means['niqe'] - before['niqe']:+.2f} | {means['icoo'] - before['icoo']:+.2f} "
            f"| {exact:.1f}, {near:.1f}, {judge.lattice_excess(run['shares'], white):.1f} "
            f"{against_grain(run, find(runs, PLAIN, run['seed']), white)}|"
        )
    return LEGEND.format(*white.values()) + "\n".join(lines) + "\n"


def against_grain(run: dict[str, Any], plain: dict[str, Any] | None, white: dict[str, float]) -> str:
    """Writes the last four cells of a row; empty without a control."""
    if plain is None or "control" not in run:
        return "| | | | "
    gains = [judge.difference(run["values"], run["control"]["values"], name) for name in judge.LPIPS]
    cells = [f"{mean:+.4f} ± {error:.4f}" for mean, error in gains]
    reasons = "; ".join(judge.verdict(run, plain, white)) or "yes"
    grain = f"{run['control']['strength']:.3f} on {run['control']['base']}"
    return f"| {grain} | {cells[0]} | {cells[1]} | {reasons} "


if __name__ == "__main__":
    main()
