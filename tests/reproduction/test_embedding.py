"""The picture of mini-patches: their order, their distances, and which detail is taken."""

import csv

import numpy as np
import pytest
from PIL import Image

from decloss_jax.evaluation.run import open_sets
from decloss_jax.reproduction.embedding import (
    as_csv,
    cut_mini_patches,
    distances_to_hr,
    draw,
    embed,
    most_varied,
)


def test_mini_patches_are_the_squares_of_the_detail():
    detail = np.random.default_rng(0).integers(0, 256, (17, 26, 3), np.uint8)
    patches = cut_mini_patches(detail)
    assert patches.shape == (2 * 3, 8 * 8 * 3)
    np.testing.assert_allclose(patches[4] * 255, detail[8:16, 8:16].ravel(), atol=1e-4)


def test_distances_to_hr_are_those_to_the_own_and_to_the_nearest():
    random = np.random.default_rng(0)
    patches, hr_patches = random.uniform(size=(2, 7, 12))
    expected = []
    for number, patch in enumerate(patches):
        every = [float(np.sqrt(((patch - other) ** 2).mean())) for other in hr_patches]
        expected.append((every[number], min(every)))
    np.testing.assert_allclose(distances_to_hr(patches, hr_patches), expected, rtol=1e-12)


def test_embed_keeps_neighbours_together_and_is_the_same_each_time():
    random = np.random.default_rng(0)
    nodes = {"HR": random.normal(size=(20, 12)), "far": random.normal(size=(15, 12)) + 100}
    plane = embed(nodes)
    assert {source: places.shape for source, places in plane.items()} == {"HR": (20, 2), "far": (15, 2)}
    for places in plane.values():
        other = next(p for p in plane.values() if p is not places)
        for place in places:
            own, foreign = (np.sort(np.hypot(*(place - group).T)) for group in (places, other))
            assert own[1] < foreign[0]
    np.testing.assert_array_equal(embed(nodes)["far"], plane["far"])


def test_most_varied_finds_the_detail_among_all_images(tmp_path):
    (tmp_path / "HR").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in "abc":
        image = np.full((256, 320, 3), 128, np.uint8)
        if name == "b":
            image[160:224, 192:256] = noise
        Image.fromarray(image).save(tmp_path / "HR" / f"{name}.png")
    (image_set,) = open_sets([str(tmp_path)], 4)
    image, hr, (rows, columns) = most_varied(image_set)
    assert image == "b"
    assert hr.shape == (256, 320, 3)
    assert rows.start <= 160 <= 224 <= rows.stop
    assert columns.start <= 192 <= 256 <= columns.stop


def test_draw_and_as_csv_tell_every_mini_patch(tmp_path):
    random = np.random.default_rng(0)
    details = {name: random.integers(0, 256, (16, 16, 3), np.uint8) for name in ("HR", "row")}
    positions = {name: random.normal(size=(4, 2)) for name in details}
    distances = {"row": random.uniform(size=(4, 2))}
    draw("set: a", details, positions, distances, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1200, 624)
    lines = list(csv.DictReader(as_csv(positions, distances).splitlines()))
    assert [line["source"] for line in lines] == ["HR"] * 4 + ["row"] * 4
    assert lines[0]["rms_to_own_hr"] == ""
    assert float(lines[6]["rms_to_nearest_hr"]) == pytest.approx(distances["row"][2, 1], rel=1e-12)
