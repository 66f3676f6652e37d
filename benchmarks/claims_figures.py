"""Figures of docs/claims.md, from results that are committed: python benchmarks/claims_figures.py

grain.png: what each form of DECLoss does to LPIPS, against the PSNR that it costs, beside grain of the same
cost. icoo.png and icoo.json: ICOO against LPIPS over all networks of the miniature, with Spearman's
coefficient and its bootstrap interval.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from claims_settings import FIRST, HYPOTHESES, SETTINGS, chain
from claims_table import difference, find, relative

RESULTS = Path(__file__).resolve().parent.parent / "results"
LARGEST_COST = 0.7  # dB
TABLES = {"Table 1": "table1", "Table 2": "table2", "Figure 6": "figure6"}
COLORS = ("black", "C0", "C1", "C2", "C4", "C5", "C3", "C6", "C8")  # of the hypotheses
RESAMPLES = 10_000


def main() -> None:
    runs = json.loads((RESULTS / "claims" / "claims.json").read_text())["runs"]
    draw_grain(runs)
    draw_icoo()


def draw_grain(runs: Sequence[dict[str, Any]]) -> None:
    """Draws the change of both LPIPS against the cost, for the small networks that start from L1 alone."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric in zip(axes, ("lpips_alex", "lpips_vgg"), strict=True):
        grain = []
        for number, (hypothesis, settings) in enumerate(HYPOTHESES.items()):
            points = []
            for name in settings:
                for run in (run for run in runs if run["setting"] == name):
                    base = find(runs, SETTINGS[name].base, run["seed"])
                    if base and chain(name)[0] == FIRST and SETTINGS[name].row == 1:
                        points.append(place(run["values"], base["values"], metric))
                        if "control" in run:
                            grain.append(place(run["control"]["values"], base["values"], metric))
            shown = [point for point in points if point[0] <= LARGEST_COST]
            if hypothesis == "grain":
                grain += shown
            elif shown:
                axis.plot(
                    *zip(*shown, strict=True), "o", color=COLORS[number], label=hypothesis, markersize=4
                )
        curve = sorted(point for point in grain if point[0] <= LARGEST_COST)
        axis.plot(*zip(*curve, strict=True), ".", color="grey", label="grain", markersize=3, zorder=0)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set(xlabel="cost in PSNR, dB", ylabel=f"change of {metric.replace('lpips_', 'LPIPS-')}, %")
    axes[0].legend()
    figure.savefig(RESULTS / "claims" / "grain.png", dpi=120)


def place(values: dict[str, Any], base: dict[str, Any], metric: str) -> tuple[float, float]:
    """Returns the cost in PSNR, dB, and the change of a metric, %."""
    return -difference(values, base, "psnr_rgb"), 100 * relative(values, base, metric)


def draw_icoo() -> None:
    """Draws ICOO against LPIPS-alex on BSD100, a point for each network, and writes the coefficients."""
    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    record, everything = {}, []
    for title, name in TABLES.items():
        rows = json.loads((RESULTS / "mini" / f"{name}.json").read_text())["rows"]
        points = [
            (row["datasets"]["BSD100"]["icoo"], row["datasets"]["BSD100"]["lpips_alex"]) for row in rows
        ]
        axis.plot(*zip(*points, strict=True), "o", label=title, markersize=4)
        everything += points
        record[title] = spearman(points)
    record["all"] = spearman(everything)
    axis.set(xlabel="ICOO, dB", ylabel="LPIPS-alex", title=f"Spearman {record['all']['coefficient']:.2f}")
    axis.legend()
    figure.savefig(RESULTS / "claims" / "icoo.png", dpi=120)
    (RESULTS / "claims" / "icoo.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def spearman(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Returns Spearman's coefficient of pairs, and the 95 % interval of a bootstrap over the pairs."""
    pairs, rng = np.array(points), np.random.default_rng(0)
    drawn = [pairs[rng.integers(0, len(pairs), len(pairs))] for _ in range(RESAMPLES)]
    low, high = np.quantile([stats.spearmanr(*sample.T).statistic for sample in drawn], (0.025, 0.975))
    coefficient = float(stats.spearmanr(*pairs.T).statistic)
    return {"networks": len(points), "coefficient": coefficient, "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
