"""Tables and pages from plain values."""

import csv
import io
import math

import numpy as np

from decloss_jax.report.page import Detail, find_detail, render_page
from decloss_jax.report.table import Column, Line, Table, print_table, table_csv

TABLE = Table(
    columns=[Column("psnr_y", "dB", "higher"), Column("lpips_alex", "", "lower")],
    lines=[
        Line("Set5", 5, "bicubic", {"psnr_y": 28.43219, "lpips_alex": 0.34}),
        Line("Set5", 5, "[red]net", {"psnr_y": math.inf, "lpips_alex": 0.35}),
        Line("Set14", 14, "bicubic", {"psnr_y": 26.0, "lpips_alex": 0.4}),
    ],
    notes=["border <4>"],
)


def test_table_marks_the_best_of_each_set():
    higher, lower = TABLE.columns
    assert [TABLE.is_best(line, higher) for line in TABLE.lines] == [False, True, False]
    assert [TABLE.is_best(line, lower) for line in TABLE.lines] == [True, False, False]


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
    rows, columns = find_detail(image)
    assert rows.start <= 170
    assert rows.stop >= 280
    assert columns.start <= 260
    assert columns.stop >= 380
    rows, columns = find_detail(image[:50, :90])
    assert (rows.stop - rows.start, columns.stop - columns.start) == (50, 50)


def test_render_page_escapes_what_users_name():
    picture = np.zeros((4, 4, 3), np.uint8)
    details = [Detail("<script>", {"HR": picture, "net": picture}, {"net": "sr/a%20b.png"})]
    page = render_page("a & b", TABLE, details)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert 'href="sr/a%20b.png"' in page
    assert page.count("data:image/png") == 2
    assert page.count('class="best"') == 2
