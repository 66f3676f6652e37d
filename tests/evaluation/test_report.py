"""Tables and pages from plain values."""

import base64
import csv
import hashlib
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from decloss_jax.evaluation.pictures import BYTES_PER_PIXEL, PAGE_BYTES, choose_side, picture_uri
from decloss_jax.evaluation.render import Scene, Section, Version, render_page
from decloss_jax.evaluation.table import Column, Line, Table, print_table, table_csv
from decloss_jax.ops.detail import find_detail

TABLE = Table(
    columns=[Column("psnr_y", "dB", "higher"), Column("lpips_alex", "", "lower")],
    lines=[
        Line("Set5", 5, "bicubic", {"psnr_y": 28.43219, "lpips_alex": 0.34}),
        Line("Set5", 5, "[red]net", {"psnr_y": math.inf, "lpips_alex": 0.35}),
        Line("Set14", 14, "bicubic", {"psnr_y": 26.0, "lpips_alex": 0.4}),
    ],
    notes=["border <4>"],
)


def test_table_ranks_the_values_of_each_set():
    higher, lower = TABLE.columns
    assert [TABLE.rank(line, higher) for line in TABLE.lines] == [0, 1, 0]
    assert [TABLE.rank(line, lower) for line in TABLE.lines] == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ([1.0], [0]),
        ([1.0, 2.0], [0, 1]),
        ([1.0, 3.0, 2.0, 0.0], [0, 1, 2, 0]),
        ([3.0, 3.0, 2.0], [1, 1, 2]),
        ([3.00001, 3.0, 2.0, 2.00001], [1, 1, 2, 2]),  # written alike
        ([2.0, 2.0], [1, 1]),
        ([math.nan, 2.0, 1.0], [0, 1, 0]),
        ([math.nan, 2.0], [0, 0]),
        ([math.inf, 100.0, math.inf], [1, 2, 1]),
    ],
)
def test_table_ranks_equal_values_alike(values, ranks):
    lines = [Line("Set5", 5, str(i), {"psnr_y": value}) for i, value in enumerate(values)]
    table = Table(TABLE.columns[:1], lines)
    assert [table.rank(line, table.columns[0]) for line in lines] == ranks
    lines = [Line("Set5", 5, str(i), {"lpips_alex": -value}) for i, value in enumerate(values)]
    table = Table(TABLE.columns[1:], lines)
    assert [table.rank(line, table.columns[0]) for line in lines] == ranks


def test_table_ranks_each_image_by_itself():
    values = {("a", "x"): 1.0, ("a", "y"): 2.0, ("b", "x"): 3.0, ("b", "y"): 2.5}
    lines = [Line("Set5", 1, method, {"psnr_y": v}, image) for (image, method), v in values.items()]
    table = Table(TABLE.columns[:1], lines)
    assert [table.rank(line, table.columns[0]) for line in lines] == [0, 1, 1, 0]


def test_print_table_shows_arrows_digits_and_notes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")  # a narrow screen must not cost a digit
    print_table(TABLE)
    text = capsys.readouterr().out
    for words in (
        "psnr_y",
        "\u2191 dB",
        "lpips_alex",
        "\u2193",
        "28.432",
        "inf",
        "0.3400",
        "[red]net",
        "border <4>",
    ):
        assert words in text


def test_table_csv_keeps_all_digits():
    rows = list(csv.DictReader(io.StringIO(table_csv(TABLE))))
    assert len(rows) == 3
    assert float(rows[0]["psnr_y"]) == 28.43219
    assert float(rows[1]["psnr_y"]) == math.inf
    assert rows[1]["method"] == "[red]net"


def test_find_detail_finds_the_texture():
    image = np.full((300, 400, 3), 100, np.uint8)
    image[170:280, 260:380] = np.random.default_rng(0).integers(0, 256, (110, 120, 3), dtype=np.uint8)
    rows, columns = find_detail(image, 128)
    assert rows.start <= 170
    assert rows.stop >= 280
    assert columns.start <= 260
    assert columns.stop >= 380
    assert find_detail(image[:50, :90], 128) == (slice(0, 50), slice(0, 90))
    rows, columns = find_detail(image[:250, :100], 128)
    assert (rows.stop - rows.start, columns) == (128, slice(0, 100))


def test_find_detail_takes_the_largest_variance():
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    places = [(slice(y, y + 64), slice(x, x + 64)) for y in range(0, 97, 32) for x in range(0, 129, 32)]
    assert find_detail(image, 64) == max(places, key=lambda place: np.var(image[place]))


def test_choose_side_keeps_the_page_small():
    for pictures in (0, 1, 20, 60, 80, 200, 600):
        side = choose_side(pictures)
        assert side % 32 == 0
        assert 128 <= side <= 512
        assert side == 128 or pictures * side**2 * BYTES_PER_PIXEL <= PAGE_BYTES
    assert choose_side(20) == 512
    assert choose_side(80) > choose_side(200) > 128 == choose_side(10_000)


def test_picture_uri_loses_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    kind, _, data = picture_uri(picture).partition(";base64,")
    assert kind == "data:image/webp"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)


def make_section(**changes):
    uri = picture_uri(np.zeros((4, 4, 3), np.uint8))
    versions = [Version("method", "net", uri, link="sr/a%20b.png"), Version("hr", "HR", uri)]
    scene = Scene("<script>", "4 x 4", 4, 4, (2, 2), versions)
    empty = Table(TABLE.columns, [])
    return Section(
        **{"dataset": "Set5", "images": 5, "table": TABLE, "rows": empty, "scenes": [scene]} | changes
    )


def test_render_page_escapes_what_users_name():
    page = render_page("a & b", [make_section(remarks=["<i>"])], TABLE.notes)
    assert page.count("<script>") == page.count("</script>") == 1
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;" in page
    assert "a &amp; b" in page
    assert "border &lt;4&gt;" in page
    assert 'href="sr/a%20b.png"' in page
    assert page.count("data:image/webp") == 2
    assert page.count('class="best">') == 1 + 2  # in the legend, and of Set5


def test_render_page_leaves_out_what_there_is_not():
    page = render_page("t", [make_section(scenes=[])], [])
    assert "<article" not in page
    assert "Controls" not in page
    alone = Scene("a", "", 4, 4, (2, 2), make_section().scenes[0].versions[:1])
    page = render_page("t", [make_section(scenes=[alone])], [])
    assert "<article" in page
    for part in ('type="range"', "<select", "Error maps", "Each image"):
        assert part not in page


def test_policy_names_the_script_and_the_style_of_the_page():
    page = render_page("t", [make_section()], [])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
