"""The idea of Figure 2 as a picture: a t-SNE map of the mini-patches of HR and of each row's SR."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from decloss_jax.evaluation.output import PICTURES
from decloss_jax.evaluation.run import ImageSet, open_sets
from decloss_jax.evaluation.table import write_csv
from decloss_jax.host import files
from decloss_jax.ops.detail import find_detail
from decloss_jax.ops.patches import extract_patches
from decloss_jax.reproduction.figures import load_picture, with_pictures
from decloss_jax.reproduction.measuring import Measured
from decloss_jax.reproduction.paper import SCALE
from decloss_jax.reproduction.runs import Settings

SIDE = 128  # HR pixels of the detail: 256 mini-patches
PATCH_SIZE = 8  # Sec. 5.1
PERPLEXITY = 30.0  # scikit-learn's default, in the middle of the t-SNE paper's range
SEED = 0
HR = "HR"


def draw_embeddings(measured: Sequence[Measured], settings: Settings, out: Path, name: str) -> None:
    """Draws, for each test set, one detail and the t-SNE of its mini-patches: NAME-SET.png and .csv.

    The detail is the part of the set with the largest HR variance. Distances in a t-SNE map mean little
    beyond neighbourhood. So the legend gives distances between the mini-patches themselves: from SR to HR at
    the same place, and from SR to the nearest HR mini-patch of the detail.
    """
    for image_set in open_sets(settings.tests, SCALE, field="--test"):
        image, hr, place = most_varied(image_set)
        details = {HR: hr[place]}
        for m in with_pictures(measured):
            picture = m.folder / PICTURES / image_set.name / f"{image}.png"
            details[m.row.name] = load_picture(picture)[place]
        nodes = {source: cut_mini_patches(detail) for source, detail in details.items()}
        positions = embed(nodes)
        distances = {source: distances_to_hr(nodes[source], nodes[HR]) for source in nodes if source != HR}
        path = out / f"{name}-{image_set.name}"
        files.write_atomically(path.with_suffix(".csv"), as_csv(positions, distances))
        draw(f"{image_set.name}: {image}", details, positions, distances, path.with_suffix(".png"))


def most_varied(image_set: ImageSet) -> tuple[str, np.ndarray, tuple[slice, slice]]:
    """Finds the detail of a set with the largest variance: the image's name, HR [H,W,3] uint8, the place."""

    def candidates() -> Any:
        for pair in image_set.pairs:
            _, hr = pair.load(SCALE)
            place = find_detail(hr, SIDE)
            yield float(np.var(hr[place])), pair.name, hr, place

    _, image, hr, place = max(candidates(), key=lambda candidate: candidate[0])
    return image, hr, place


def cut_mini_patches(detail: np.ndarray) -> np.ndarray:
    """Returns the mini-patches [P,D] of a detail [H,W,3] uint8, in [0,1]; cropped to multiples of p."""
    height, width = (side - side % PATCH_SIZE for side in detail.shape[:2])
    images = jnp.asarray(detail[None, :height, :width]) / jnp.float32(255)
    return np.asarray(extract_patches(images, PATCH_SIZE))


def embed(nodes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps the mini-patches of all sources to the plane together, by t-SNE: source -> [P,2]."""
    from sklearn.manifold import TSNE

    together = np.concatenate(list(nodes.values()))
    perplexity = min(PERPLEXITY, (len(together) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(together)
    ends = np.cumsum([len(patches) for patches in nodes.values()])[:-1]
    return dict(zip(nodes, np.split(plane, ends), strict=True))


def distances_to_hr(patches: np.ndarray, hr_patches: np.ndarray) -> np.ndarray:
    """Returns [P,2]: rms difference of each mini-patch from HR at its place, and from the nearest HR one."""
    every = np.sqrt(np.mean((patches[:, None] - hr_patches[None]) ** 2, axis=-1))
    return np.stack([np.diagonal(every), every.min(axis=1)], axis=-1)


def as_csv(positions: Mapping[str, np.ndarray], distances: Mapping[str, np.ndarray]) -> str:
    """Writes a line for each mini-patch: source, number, position in the plane, and the distances of SR."""
    rows: list[Sequence[object]] = [("source", "mini_patch", "x", "y", "rms_to_own_hr", "rms_to_nearest_hr")]
    for source, places in positions.items():
        own = distances.get(source, np.full(places.shape, np.nan))
        values = np.concatenate([places, own], axis=1).astype(float)
        rows += [(source, number, *line) for number, line in enumerate(values.tolist())]
    return write_csv(rows)


def draw(
    title: str,
    details: Mapping[str, np.ndarray],
    positions: Mapping[str, np.ndarray],
    distances: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """Draws the details in a column and the map on the right; lines connect SR with HR at the same place."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(10, 2.6 * len(details)), layout="constrained")
    grid = figure.add_gridspec(len(details), 2, width_ratios=(1, 3))
    for row, (source, detail) in enumerate(details.items()):
        axis = figure.add_subplot(grid[row, 0])
        axis.imshow(detail, interpolation="nearest")
        axis.set_title(source, fontsize=8)
        axis.axis("off")
    axis = figure.add_subplot(grid[:, 1])
    for number, (source, places) in enumerate(positions.items()):
        color = "black" if source == HR else f"C{number - 1}"
        label = source
        if source in distances:
            own, nearest = distances[source].mean(axis=0)
            label = f"{source}: rms {own:.4f} to its HR, {nearest:.4f} to the nearest"
            ends = np.stack([places, positions[HR]], axis=1)
            axis.plot(*ends.transpose(2, 1, 0), color=color, linewidth=0.4, alpha=0.5)
        axis.scatter(places[:, 0], places[:, 1], s=10, color=color, label=label, zorder=2)
    axis.set(title=f"{title}: mini-patches by t-SNE", xticks=[], yticks=[])
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0))
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
