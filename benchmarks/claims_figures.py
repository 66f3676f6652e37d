"""Figures of docs/claims.md, from results that are committed: python benchmarks/claims_figures.py

grain.png: what each form of DECLoss does to LPIPS, against the PSNR that it costs, beside grain of the same
cost. icoo.png and icoo.json: ICOO against LPIPS over all networks of the miniature, with Spearman's
coefficient and its bootstrap interval, and the coefficient over the rows' means.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from claims_settings import FIRST, HYPOTHESES, chain
from claims_table import RESULTS, difference, find, read, relative

MINI = RESULTS.parent / "mini"
LARGEST_COST = 0.7  # dB
TABLES = {"Table 1": ("table1", "rrdb/table1"), "Table 2": ("table2",), "Figure 6": ("figure6",)}
STYLES = {
    "grain": {"marker": ".", "markersize": 3, "color": "grey"},
    "blind grain": {"marker": "x", "markersize": 6, "color": "black"},
}
RESAMPLES = 10_000


def main() -> None:
    draw_grain(read())
    draw_icoo()


def draw_grain(runs: Sequence[dict[str, Any]]) -> None:
    """Draws the change of both LPIPS against the cost, for the small networks without the perceptual loss."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric in zip(axes, ("lpips_alex", "lpips_vgg"), strict=True):
        points: dict[str, list[tuple[float, float]]] = {hypothesis: [] for hypothesis in HYPOTHESES}
        for run, base, hypothesis in small_runs(runs):
            points[hypothesis].append(place(run["values"], base["values"], metric))
            if "control" in run:
                points["grain"].append(place(run["control"]["values"], base["values"], metric))
        for number, (hypothesis, found) in enumerate(points.items()):
            shown = [point for point in found if point[0] <= LARGEST_COST]
            style = STYLES.get(hypothesis, {"marker": "o", "markersize": 4, "color": f"C{number}"})
            axis.plot(*zip(*shown, strict=True), label=hypothesis, **({"linestyle": ""} | style))
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set(xlabel="cost in PSNR, dB", ylabel=f"change of {metric.replace('lpips_', 'LPIPS-')}, %")
    axes[0].legend(fontsize=8)
    figure.savefig(RESULTS / "grain.png", dpi=120)


def small_runs(
    runs: Sequence[dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Yields a run, the run that it is compared with, and its hypothesis."""
    for hypothesis, settings in HYPOTHESES.items():
        for run in runs:
            setting = settings.get(run["setting"])
            if setting and chain(run["setting"])[0] == FIRST and setting.row == 1:
                base = find(runs, setting.base, run["seed"])
                if base:
                    yield run, base, hypothesis


def place(values: dict[str, Any], base: dict[str, Any], metric: str) -> tuple[float, float]:
    """Returns the cost in PSNR, dB, and the change of a metric, %."""
    return -difference(values, base, "psnr_rgb"), 100 * relative(values, base, metric)


def draw_icoo() -> None:
    """Draws ICOO against LPIPS-alex on BSD100, a point for each network, and writes the coefficients."""
    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    record, everything = {}, {}
    for title, names in TABLES.items():
        rows: dict[str, list[tuple[float, float]]] = {}
        found = [row for name in names for row in read_rows(MINI / f"{name}.json")]
        # Two rows of Figure 6 are the same config.
        for row in {each["config_hash"]: each for each in found}.values():
            values = row["datasets"]["BSD100"]
            rows.setdefault(row["row"], []).append((values["icoo"], values["lpips_alex"]))
        axis.plot(*np.concatenate(list(rows.values())).T, "o", label=title, markersize=4)
        everything |= rows
        record[title] = spearman(rows)
    record["all"] = spearman(everything)
    axis.set(xlabel="ICOO, dB", ylabel="LPIPS-alex", title=f"Spearman {record['all']['coefficient']:.2f}")
    axis.legend()
    figure.savefig(RESULTS / "icoo.png", dpi=120)
    (RESULTS / "icoo.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a table of `reproduce`, one for each seed."""
    return json.loads(path.read_text())["rows"]


def spearman(rows: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Returns Spearman's coefficient over networks, its 95 % interval, and the coefficient over rows' means.

    The seeds of a row are not independent, so the bootstrap of the interval draws rows with all their seeds.
    """
    groups, rng = [np.array(points) for points in rows.values()], np.random.default_rng(0)
    drawn = [
        np.concatenate([groups[k] for k in rng.integers(0, len(groups), len(groups))])
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile([stats.spearmanr(*sample.T).statistic for sample in drawn], (0.025, 0.975))
    networks, means = np.concatenate(groups), np.array([points.mean(axis=0) for points in groups])
    return {
        "networks": len(networks),
        "coefficient": float(stats.spearmanr(*networks.T).statistic),
        "low": float(low),
        "high": float(high),
        "rows": len(groups),
        "over_rows": float(stats.spearmanr(*means.T).statistic),
    }


if __name__ == "__main__":
    main()
