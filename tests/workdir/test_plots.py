"""Plots of journals: their axes, and refused journals."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from command_line import assert_one_sentence, run
from PIL import Image

from decloss_jax.checks import UserError
from decloss_jax.workdir.plots import draw_curve, draw_runs, read_curves


def write_journal(workdir, steps, *, measured=(), first_of_stage_2=0):
    workdir.mkdir()
    lines = [{"config": {"batch_size": 6}}]
    for step in steps:
        stage = "finetune" if first_of_stage_2 and step >= first_of_stage_2 else "pretrain"
        line = {"step": step, "stage": stage, "loss/total": 1.0 / step, "learning_rate": 1e-4}
        line["images_per_second"] = 3.0 if stage == "finetune" else 6.0
        if step in measured:
            line["validation/psnr_y"] = 20.0 + step
        lines.append(line)
    (workdir / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def test_read_curves_counts_minutes_from_the_speed_of_each_line(tmp_path):
    curves = read_curves(
        write_journal(tmp_path / "a", [60, 120, 180, 240], measured=(120, 240), first_of_stage_2=180)
    )
    np.testing.assert_array_equal(curves.steps, [60, 120, 180, 240])
    np.testing.assert_allclose(curves.minutes, [1, 2, 4, 6])  # 60 steps of 6 images at 6, then 3 images/s
    assert list(curves.stages) == [0, 2]
    np.testing.assert_array_equal(curves.values["validation/psnr_y"], [np.nan, 140, np.nan, 260])


def test_read_curves_of_a_run_that_went_on_from_another(tmp_path):
    curves = read_curves(write_journal(tmp_path / "a", [3060, 3120]))
    np.testing.assert_allclose(curves.minutes, [1, 2])


def test_draw_curve_shows_what_the_run_has_and_where_stages_part(tmp_path):
    curves = read_curves(write_journal(tmp_path / "a", [1, 2, 3, 4], measured=(2, 4), first_of_stage_2=3))
    _, axis = plt.subplots()
    draw_curve(axis, curves, "validation/psnr_y", curves.steps, "C0")
    curve, parting = axis.lines
    np.testing.assert_array_equal(curve.get_xydata(), [[2, 22], [4, 24]])
    assert parting.get_xdata() == [2.5, 2.5]
    assert curve.get_label() == "a"


def test_draw_runs_writes_the_pictures_that_the_journals_have(tmp_path):
    one, other = (write_journal(tmp_path / name, range(1, 9)) for name in "ab")
    written = draw_runs([one, other], tmp_path / "plots")
    assert [path.name for path in written] == ["losses.png", "learning_rate.png"]
    write_journal(tmp_path / "c", range(1, 9), measured=(8,))
    assert draw_runs([tmp_path / "c"], tmp_path / "plots")[-1].name == "validation.png"
    with Image.open(tmp_path / "plots" / "losses.png") as image:
        assert image.size == (1200, 384)  # two panels of 5 x 3.2 inches


def test_plot_as_a_user_types_it(tmp_path):
    write_journal(tmp_path / "a", [1, 2])
    result = run("decloss_jax", "plot", tmp_path / "a")
    assert result.returncode == 0, result.stderr
    assert [line.rpartition("/")[2] for line in result.stdout.split()] == ["losses.png", "learning_rate.png"]
    assert (tmp_path / "a" / "plots" / "losses.png").is_file()
    assert_one_sentence(run("decloss_jax", "plot", tmp_path / "nowhere"), "nowhere", "no such file")


@pytest.mark.parametrize("content", ["", "{", "[]\n", "[" * 100_000])
def test_draw_runs_refuses_what_is_no_journal(tmp_path, content):
    (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"journal of .*: expected the journal"):
        draw_runs([tmp_path], tmp_path)


def test_draw_runs_refuses_empty_journals_and_equal_names(tmp_path):
    write_journal(tmp_path / "a", [])
    with pytest.raises(UserError, match="expected a logged step"):
        draw_runs([tmp_path / "a"], tmp_path)
    (tmp_path / "b").mkdir()
    for place in (tmp_path, tmp_path / "b"):
        write_journal(place / "c", [1])
    with pytest.raises(UserError, match="two called c"):
        draw_runs([tmp_path / "c", tmp_path / "b" / "c"], tmp_path)


def test_draw_runs_shows_names_as_they_are_and_journals_that_a_crash_cut_off(tmp_path):
    workdir = write_journal(tmp_path / "_$\\bad$", [1, 2, 3])
    with (workdir / "journal.jsonl").open("a") as file:
        file.write('{"step": 4, "sta')
    assert list(read_curves(workdir).steps) == [1, 2, 3]
    assert len(draw_runs([workdir], tmp_path / "plots")) == 2


def test_draw_runs_refuses_journals_with_nothing_to_draw(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"config": {"batch_size": 6}}\n{"step": 1, "stage": "x"}\n')
    with pytest.raises(UserError, match="journals: expected losses"):
        draw_runs([tmp_path], tmp_path)
