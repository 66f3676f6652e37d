"""Chooses DECLoss's setting for the miniature on its held-out photographs.

    python benchmarks/mini_choose.py --train ../data/BSDS400 [--only 0 1 2 ...]

Trains row 2 of Table 1 in miniature (L1 + DECLoss, seed 0) with each setting of a grid, from one stage 1, and
measures PSNR and LPIPS-alex on the 40 images that configs/mini.py holds out. It uses no benchmark image, and
trains nothing twice. Writes grid.json and grid.md in results/mini; rows of other settings there stay.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from decloss_jax.commands import program
from decloss_jax.data.sources import build_source
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.reproduction.measuring import evaluate_once
from decloss_jax.reproduction.paper import SCALE, TABLE1
from decloss_jax.reproduction.runs import Settings, config_hash, row_config, train_row
from decloss_jax.workdir.journal import versions

RESULTS = REPOSITORY / "results" / "mini"
RUNS = Path("runs") / "reproduction" / "mini"
WEIGHT = "finetune.weights.decloss"


def setting(weight: float, **decloss: Any) -> dict[str, Any]:
    """Returns the fields that differ from row 2 in miniature."""
    return {WEIGHT: weight} | {f"decloss.{name}": value for name, value in decloss.items()}


# eta is adapted to the kernel and p, so that one or two per cent of the pairs are positive.
WIDE = {"mu": 0.35, "threshold_db": 20.0}
SHARP = {"t_pos": 0.2, "t_neg": 0.2}
RADIAL = {"kernel": "radial", "mu": 0.2, "threshold_db": 15.0}
# In the order of the search; the first ones had a longer stage 2.
LONGER = (
    setting(0.0),  # L1 alone, for the same number of steps
    setting(3e-5),  # as printed
    setting(3e-3),
    setting(3e-3, **WIDE),
    setting(3e-4, **SHARP),
    setting(1e-3, **SHARP),
    setting(3e-4, **WIDE, **SHARP),
    setting(1e-3, **WIDE, **SHARP),
    setting(3e-3, **WIDE, **SHARP),
    setting(1e-3, **WIDE, t_pos=0.1, t_neg=0.1),
    setting(1e-2, mu=0.5, threshold_db=10.0, **SHARP),
    setting(1e-3, mu=0.35, threshold_db=26.0, patch_size=4, **SHARP),
    setting(1e-3, mode="residual", alpha=3.0, threshold_db=0.0, **SHARP),
    setting(3e-4, mu=0.3, threshold_db=22.0, **SHARP),
    setting(3e-4, **RADIAL, **SHARP),
)
GRID = (
    *({"finetune.steps": 500} | each for each in LONGER),
    setting(0.0),
    setting(3e-5),
    setting(1e-4, **RADIAL, **SHARP),
    setting(2e-4, **RADIAL, **SHARP),
    setting(3e-4, **RADIAL, **SHARP),
    setting(3e-4, **RADIAL),
    setting(2e-4, **SHARP),
    setting(3e-5, **RADIAL, **SHARP),
    setting(5e-5, **RADIAL, **SHARP),
    setting(7e-5, **RADIAL, **SHARP),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--train", required=True, metavar="ROOT", help="folder of BSDS400")
    parser.add_argument("--only", nargs="+", type=int, help="numbers of settings, from 0")
    options = parser.parse_args()
    program.prepare_jax("measuring")

    row, rows = TABLE1[1], read()
    plain = Settings("mini", {"data.root": options.train}, RUNS, [])
    root = link_held_out(row_config(row, 0, plain))
    protocol = choose_protocol("basicsr", scale=SCALE, metrics=("psnr", "lpips_alex"))

    def measure(workdir: Path, stage: str, settings: Settings) -> dict[str, float]:
        methods = load_methods(workdirs=[str(workdir)], stage=stage)
        folder = RUNS / "evaluations" / workdir.name / f"held_out-{stage}"
        (values,) = evaluate_once(methods, settings, protocol, folder).values()
        return {name: values[name] for name in ("psnr_rgb", "psnr_y", "lpips_alex")}

    for number in range(len(GRID)) if options.only is None else options.only:
        settings = Settings("mini", {**plain.overrides, **GRID[number]}, RUNS, [str(root)])
        workdir, config, _ = train_row(row, 0, settings)
        if not rows:
            rows[-1] = {"setting": "stage 1"} | measure(workdir, "pretrain", settings)
        identity = {"setting": GRID[number], "config_hash": config_hash(config)}
        rows[number] = identity | measure(workdir, "finetune", settings)
        write([rows[key] for key in sorted(rows)])


def link_held_out(config: Any) -> Path:
    """Makes a test set of links to the held-out images."""
    root = RUNS / "held_out"
    (root / "HR").mkdir(parents=True, exist_ok=True)
    for pair in build_source(config.data, scale=config.model.scale, split="validation"):
        link = root / "HR" / pair.hr.path.name
        if not link.exists():
            link.symlink_to(pair.hr.path.resolve())
    return root


def read() -> dict[int, dict[str, Any]]:
    """Returns the rows of an earlier call whose settings are still in the grid, by number."""
    if not (RESULTS / "grid.json").exists():
        return {}
    first, *others = json.loads((RESULTS / "grid.json").read_text())["rows"]
    return {-1: first} | {GRID.index(row["setting"]): row for row in others if row["setting"] in GRID}


def write(rows: list[dict[str, Any]]) -> None:
    """Writes the measurements so far."""
    (RESULTS / "grid.json").write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n")
    first = rows[0]["lpips_alex"]
    lines = ["| setting | PSNR RGB | PSNR Y | LPIPS-alex | against stage 1 |", "|---|---|---|---|---|"]
    for row in rows:
        setting = row["setting"]
        name = setting if isinstance(setting, str) else describe(setting)
        change = row["lpips_alex"] / first - 1
        lines.append(
            f"| {name} | {row['psnr_rgb']:.3f} | {row['psnr_y']:.3f} "
            f"| {row['lpips_alex']:.4f} | {change:+.1%} |"
        )
    (RESULTS / "grid.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def describe(fields: dict[str, Any]) -> str:
    """Writes a setting as text; "weight" is DECLoss's."""
    named = {name.rpartition(".")[2].replace("decloss", "weight"): value for name, value in fields.items()}
    return ", ".join(f"{name} {value}" for name, value in named.items()) or "as printed"


if __name__ == "__main__":
    main()
