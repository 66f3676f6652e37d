"""Chooses DECLoss's setting for the miniature on its held-out photographs.

    python reproduction/mini/choose.py --train ../data/BSDS400 [--only 0 1 2 ...]

Trains row 2 of Table 1 in miniature (L1 + DECLoss, seed 0) with each setting of a grid, from one stage 1, and
measures PSNR and LPIPS-alex on the 40 images that configs/mini.py holds out. No benchmark image is looked at.
What is trained already is not trained again. Writes grid.json and grid.md beside this file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from decloss_jax import scripts
from decloss_jax.data.sources import build_source
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.journal import versions
from decloss_jax.reproduction.paper import TABLE1
from decloss_jax.reproduction.runs import Settings, config_hash, evaluate, row_config, train_row

HERE = Path(__file__).resolve().parent
RUNS = Path("runs") / "reproduction" / "mini"
WEIGHT = "finetune.weights.decloss"

# What differs from row 2 in miniature. eta moves with mu and p, so that the share of positives stays alike.
GRID: tuple[dict[str, Any], ...] = (
    {WEIGHT: 0.0},  # L1 alone, for as long
    {},  # as printed: 3e-5
    {WEIGHT: 1e-3},
    {WEIGHT: 3e-3},
    {WEIGHT: 6e-3},
    {WEIGHT: 3e-3, "decloss.mu": 0.35, "decloss.threshold_db": 20.0},
    {WEIGHT: 3e-3, "decloss.patch_size": 4, "decloss.threshold_db": 31.0},
    {WEIGHT: 3e-3, "decloss.patch_size": 2, "decloss.threshold_db": 37.0},
    {WEIGHT: 1e-3, "decloss.t_pos": 0.1, "decloss.t_neg": 0.1},
    {WEIGHT: 3e-3, "decloss.mode": "residual", "decloss.alpha": 3.0, "decloss.threshold_db": 0.0},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--train", required=True, metavar="ROOT", help="folder of BSDS400")
    parser.add_argument("--only", nargs="+", type=int, help="numbers of settings, from 0")
    options = parser.parse_args()
    scripts.use_compilation_cache()

    row, rows = TABLE1[1], []
    plain = Settings("mini", {"data.root": options.train}, RUNS, [])
    root = link_held_out(row_config(row, 0, plain))
    protocol = choose_protocol("basicsr", scale=4, metrics=("psnr", "lpips_alex"))

    def measure(workdir: Path, stage: str, settings: Settings) -> dict[str, float]:
        methods = load_methods(workdirs=[str(workdir)], stage=stage)
        folder = RUNS / "evaluations" / workdir.name / f"held_out-{stage}"
        (values,) = evaluate(methods, settings, protocol, folder).values()
        return {name: values[name] for name in ("psnr_rgb", "psnr_y", "lpips_alex")}

    for number, setting in enumerate(GRID):
        if options.only is not None and number not in options.only:
            continue
        settings = Settings("mini", {**plain.overrides, **setting}, RUNS, [str(root)])
        workdir, config, _ = train_row(row, 0, settings)
        if not rows:
            rows.append({"setting": "stage 1"} | measure(workdir, "pretrain", settings))
        rows.append(
            {"setting": setting, "config_hash": config_hash(config)} | measure(workdir, "finetune", settings)
        )
        write(rows)


def link_held_out(config: Any) -> Path:
    """Makes a test set of the held-out images, by links."""
    root = RUNS / "held_out"
    (root / "HR").mkdir(parents=True, exist_ok=True)
    for pair in build_source(config.data, scale=config.model.scale, split="validation"):
        link = root / "HR" / pair.hr.path.name
        if not link.exists():
            link.symlink_to(pair.hr.path.resolve())
    return root


def write(rows: list[dict[str, Any]]) -> None:
    """Writes what has been measured so far."""
    (HERE / "grid.json").write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n")
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
    (HERE / "grid.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def describe(setting: dict[str, Any]) -> str:
    """Writes a setting in words."""
    changes = (f"{name.rpartition('.')[2]} {value:g}" if not isinstance(value, str) else value
               for name, value in setting.items())  # fmt: skip
    return ", ".join(changes) or "as printed"


if __name__ == "__main__":
    main()
