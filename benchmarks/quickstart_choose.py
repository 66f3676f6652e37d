"""Chooses the quickstart's stage 2 on its training photographs alone.

    python benchmarks/quickstart_choose.py

Starts stage 2 from one stage 1 (trained if runs/quickstart lacks it) with each setting of a small grid, and
measures PSNR-Y and LPIPS-alex on the training photographs in colour. The held-out ones are not used. Writes
results/quickstart/grid.json. The choice is the lowest LPIPS that costs no more PSNR, in proportion, than in
the paper (1.3 dB for 34 %).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from decloss_jax.config import flatten
from decloss_jax.data.photographs import find_photographs
from decloss_jax.workdir.journal import versions

RESULTS = REPOSITORY / "results" / "quickstart"
CONFIG = "configs/quickstart.py"

# Overrides of the quickstart's stage 2.
GRID = (
    {"finetune.weights.decloss": 0.0},  # L1 alone, for the same number of steps
    {"finetune.weights.decloss": 3e-5},  # as printed
    {"finetune.weights.decloss": 1e-3},
    {"finetune.weights.decloss": 3e-3},
    {"finetune.weights.decloss": 1e-3, "decloss.mu": 0.35},
    {"finetune.weights.decloss": 3e-3, "decloss.mu": 0.35},
    {"finetune.weights.decloss": 3e-3, "decloss.mu": 0.35, "decloss.threshold_db": 20.0},
    {"finetune.weights.decloss": 3e-3, "decloss.mu": 0.5, "decloss.threshold_db": 10.0},
)


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, script, *map(str, arguments)], cwd=REPOSITORY, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, runs = Path(folder) / "training_photographs", Path(folder) / "runs"
        (root / "HR").mkdir(parents=True)
        for pair in find_photographs("train"):
            image = pair.hr.load()
            if np.ptp(image, axis=-1).any():  # in colour, as the held-out ones are
                Image.fromarray(image).save(root / "HR" / f"{pair.name}.png")
        stage_1 = REPOSITORY / "runs" / "quickstart"
        run("train.py", f"--config={CONFIG}", f"--workdir={stage_1}")
        for index, setting in enumerate(GRID):
            overrides = [f"--config.{field}={value}" for field, value in setting.items()]
            run(
                "train.py",
                f"--config={CONFIG}",
                f"--config.init_from={stage_1}",
                f"--workdir={runs / str(index)}",
                *overrides,
            )
        workdirs = [f"--workdir={runs / str(index)}" for index in range(len(GRID))]
        out = Path(folder) / "evaluation"
        run("evaluate.py", f"--data={root}", f"--out={out}", "--metrics=psnr,lpips_alex", *workdirs)
        run(
            "evaluate.py",
            f"--data={root}",
            f"--out={out}-1",
            "--metrics=psnr,lpips_alex",
            f"--workdir={stage_1}",
            "--stage=pretrain",
        )

        def measured(path: Path) -> dict:
            (values,) = json.loads(path.read_text())["datasets"].values()
            return {name: values[name] for name in ("images", "psnr_y", "lpips_alex")}

        rows = [{"setting": {}, "stage": "pretrain"} | measured(Path(f"{out}-1") / "summary.json")]
        for index, setting in enumerate(GRID):
            rows.append(
                {"setting": setting, "stage": "finetune"}
                | measured(out / f"{index}-finetune" / "summary.json")
            )
    config = json.loads((stage_1 / "config.json").read_text())
    (RESULTS / "grid.json").write_text(
        json.dumps({"config": flatten(config), "versions": versions(), "rows": rows}, indent=1) + "\n"
    )
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
