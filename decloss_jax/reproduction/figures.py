"""The pictures of a reproduction: details of all rows side by side, ICOO against LPIPS, the temperatures."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decloss_jax.evaluation.output import PICTURES
from decloss_jax.evaluation.run import open_sets
from decloss_jax.ops.detail import find_detail
from decloss_jax.ops.resize import bicubic_upscale
from decloss_jax.reproduction.measuring import Measured
from decloss_jax.reproduction.paper import SCALE, Experiment
from decloss_jax.reproduction.runs import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES_IN_A_ROW = 4
DETAIL_SIDE = 128  # of a picture, in HR pixels


def draw_details(
    experiment: Experiment, measured: Sequence[Measured], settings: Settings, out: Path, prefix: str
) -> None:
    """Draws, for each test set, one detail of one image for all rows (Figures 4 and 7): PREFIX-SET.png.

    The image is the one with the largest range of LPIPS over the rows; the detail has the largest HR
    variance. Rows without pictures in the folder of runs are left out.
    """
    seen = with_pictures(measured)
    for each in open_sets(settings.tests, SCALE, field="--test"):
        scores = [read_scores(m, each.name) for m in seen]
        name = max(scores[0], key=lambda image: np.ptp([s[image][experiment.lpips] for s in scores]))
        low, hr = next(pair for pair in each.pairs if pair.name == name).load(SCALE)
        place = find_detail(hr, DETAIL_SIDE)
        pictures = [("bicubic", bicubic_upscale(low, SCALE)[place])]
        for m, score in zip(seen, scores, strict=True):
            caption = (
                f"{m.row.name}\n{score[name][experiment.psnr]:.2f} dB / {score[name][experiment.lpips]:.3f}"
            )
            pictures.append((caption, load_picture(m.folder / PICTURES / each.name / f"{name}.png")[place]))
        pictures.append(("HR\nPSNR / LPIPS", hr[place]))
        draw_grid(f"{each.name}: {name}", pictures, out / f"{prefix}-{each.name}.png")


def with_pictures(measured: Sequence[Measured]) -> list[Measured]:
    """Returns the last seed of each row that has pictures in the folder of runs."""
    here = [m for m in measured if (m.folder / PICTURES).is_dir()]
    return list({m.row.name: m for m in here}.values())


def draw_icoo_against_lpips(
    experiment: Experiment, measured: Sequence[Measured], out: Path, name: str
) -> dict[str, float | None]:
    """Draws a point for each trained network (Figure 5); returns Spearman's coefficient of each test set."""
    from scipy import stats

    datasets = list(dict.fromkeys(dataset for m in measured for dataset in m.datasets))
    figure, axes = new_figure(len(datasets))
    coefficients: dict[str, float | None] = {}
    for axis, dataset in zip(axes, datasets, strict=True):
        points = [(m.datasets[dataset]["icoo"], m.datasets[dataset][experiment.lpips]) for m in measured]
        coefficient = None if len(points) < 3 else stats.spearmanr(*zip(*points, strict=True)).statistic
        coefficients[dataset] = coefficient
        for m, point in zip(measured, points, strict=True):
            axis.plot(*point, "o", color="C0")
            axis.annotate(m.row.name.partition("_")[0], point, fontsize=7)
        shown = "" if coefficient is None else f", Spearman {coefficient:.3f}"
        axis.set(
            title=f"{dataset}: {len(points)} networks{shown}", xlabel="ICOO, dB", ylabel=experiment.lpips
        )
    figure.savefig(out / f"{name}.png", dpi=120)
    return coefficients


def draw_temperatures(experiment: Experiment, measured: Sequence[Measured], out: Path, name: str) -> None:
    """Draws LPIPS against each temperature, with the other one as in Sec. 5.1 (Figure 6)."""
    datasets = list(dict.fromkeys(dataset for m in measured for dataset in m.datasets))
    figure, axes = new_figure(len(datasets))
    for axis, dataset in zip(axes, datasets, strict=True):
        for which, color in (("t_pos", "C0"), ("t_neg", "C3")):
            draw_temperature_curve(axis, which, color, dataset, experiment.lpips, measured)
        axis.set(title=dataset, xlabel="temperature", ylabel=experiment.lpips)
        axis.legend()
    figure.savefig(out / f"{name}.png", dpi=120)


def draw_temperature_curve(
    axis: "Axes", which: str, color: str, dataset: str, metric: str, measured: Sequence[Measured]
) -> None:
    """Draws the mean over the seeds against one temperature, and each seed as a point."""
    values: dict[float, list[float]] = {}
    for m in measured:
        name, _, value = m.row.name.partition(" = ")
        if name == which:
            values.setdefault(float(value), []).append(m.datasets[dataset][metric])
    for temperature, of_seeds in values.items():
        axis.plot([temperature] * len(of_seeds), of_seeds, ".", color=color)
    axis.plot(list(values), [statistics.mean(v) for v in values.values()], "-", color=color, label=which)


def new_figure(panels: int) -> tuple[Any, Sequence["Axes"]]:
    """Makes a figure with panels side by side; needs no display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, panels, figsize=(5 * panels, 4), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def draw_grid(title: str, pictures: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """Draws captioned pictures in rows of `PICTURES_IN_A_ROW`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = -(-len(pictures) // PICTURES_IN_A_ROW)
    figure, axes = plt.subplots(
        rows,
        PICTURES_IN_A_ROW,
        figsize=(3 * PICTURES_IN_A_ROW, 3.4 * rows),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (caption, picture) in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(caption, fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def read_scores(measured: Measured, dataset: str) -> dict[str, dict[str, float]]:
    """Reads the values of each image of a set from rows.csv of the evaluation."""
    with (measured.folder / "rows.csv").open() as file:
        return {
            line["image"]: {
                name: float(value) for name, value in line.items() if name not in ("dataset", "image")
            }
            for line in csv.DictReader(file)
            if line["dataset"] == dataset
        }


def load_picture(path: Path) -> np.ndarray:
    """Loads a PNG as uint8 [H,W,3]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)
