"""`python -m decloss_jax reproduce` as a user types it, on networks too small to show anything."""

import csv
import hashlib
import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import REPOSITORY, run
from PIL import Image
from small_reproduction import TINY, reproduce

import decloss_jax
from decloss_jax import checks
from decloss_jax.reproduction.paper import EXPERIMENTS
from decloss_jax.reproduction.runs import Settings, computing_fields, config_hash, import_config, row_config
from decloss_jax.weights import save_generator
from decloss_jax.workdir import checkpoint, journal


def workdir_of(folder: Path, row: dict) -> Path:
    """The workdir of a trained row of Table 1's JSON with a stage 2."""
    losses = "-".join(row["losses"])
    return folder / "runs" / f"edsr-{losses}-seed{row['seed']}-{row['config_hash']}"


LOSSES = {"01_edsr_l1": "l1 1", "02_edsr_decloss": "decloss 3e-05, l1 0.01"}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> Path:
    """Rows 1 and 2 of Table 1 with two seeds."""
    folder = tmp_path_factory.mktemp("reproduce")
    result = reproduce(folder, "table1", "--only", "1", "02_edsr_decloss", "--seeds", "0", "1")
    assert result.returncode == 0, result.stderr
    return folder


def test_reproduce_writes_ours_beside_the_printed_numbers(reproduced):
    record = json.loads((reproduced / "out" / "table1.json").read_text())
    assert [(row["row"], row["seed"]) for row in record["rows"]] == [
        (name, seed) for name in LOSSES for seed in (0, 1)
    ]
    with (reproduced / "out" / "table1.csv").open() as file:
        header, *rows = csv.reader(file)
    assert [row[1] for row in rows] == list(LOSSES)
    for row, printed in zip(
        rows, (("28.56*", "0.273*", "28.54*"), ("27.22*", "0.179*", "28.23*")), strict=True
    ):
        assert row[0] == "photographs"
        assert row[header.index("losses")] == LOSSES[row[1]]
        of_row = [r["datasets"]["photographs"] for r in record["rows"] if r["row"] == row[1]]
        values = [one["lpips_alex"] for one in of_row]
        expected = f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        assert row[header.index("LPIPS ↓")] == expected
        assert tuple(row[5:10:2]) == printed
    assert len(set(header)) == len(header)
    assert float(rows[0][header.index("step ratio")]) == 1.0
    assert rows[1][header.index("printed hours ratio")] == "1.04"
    text = (reproduced / "out" / "table1.md").read_text()
    assert "photographs (3 images)" in text
    assert (reproduced / "out" / "figure4-photographs.png").stat().st_size > 10_000
    page = (reproduced / "out" / "table1.html").read_text()
    for row in record["rows"]:
        line = page[page.index(f'scope="row">{row["row"]}, seed {row["seed"]}</th>') :]
        assert f">{row['datasets']['photographs']['lpips_alex']:.4f}</td>" in line[: line.index("</tr>")]
    assert page.count("data:image/webp") == 3 * (1 + 4 + 1)  # photographs of bicubic, the rows, and HR


def test_reproduce_takes_the_cost_from_the_journal(reproduced):
    record = json.loads((reproduced / "out" / "table1.json").read_text())
    row = record["rows"][2]
    workdir = reproduced / "runs" / f"edsr-decloss-l1-seed0-{row['config_hash']}"
    speeds = [line["images_per_second"] for line in journal.read(workdir)[1]]
    assert row["images_per_second"] == pytest.approx(np.median(speeds))
    assert row["seconds_per_step"] == pytest.approx(8 / np.median(speeds))


def test_reproduce_trains_stage_1_once_for_all_rows(reproduced):
    names = {path.name.rpartition("-")[0] for path in (reproduced / "runs").iterdir()}
    rows = {f"edsr-decloss-l1-seed{seed}" for seed in (0, 1)}
    assert names - {""} == {"edsr-stage1-seed0", "edsr-stage1-seed1"} | rows  # "": the evaluations
    record = json.loads((reproduced / "out" / "table1.json").read_text())
    assert len({row["stage_one_hash"] for row in record["rows"]}) == 2  # one for each seed


def test_reproduce_ends_where_train_does(reproduced, tmp_path):
    """A row with a shared stage 1 has the same bits as both stages of its config in one go."""
    file = tmp_path / "row.py"
    file.write_text(
        "from importlib import import_module\n"
        "from configs import mini\n"
        "def get_config():\n"
        "    row = import_module('configs.table1.02_edsr_decloss')\n"
        "    return mini.shrink(row.get_config())\n"
    )
    arguments = [f"--config.{name}={value}" for name, value in TINY.items()]
    result = run("train.py", f"--config={file}", *arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    record = json.loads((reproduced / "out" / "table1.json").read_text())
    workdir = reproduced / "runs" / f"edsr-decloss-l1-seed0-{record['rows'][2]['config_hash']}"
    ours, expected = (checkpoint.load_checkpoint(folder)[1] for folder in (workdir, tmp_path / "run"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_reproduce_again_trains_and_measures_nothing(reproduced, reproduce_here):
    journals = {path: path.read_bytes() for path in (reproduced / "runs").glob("*/journal.jsonl")}
    before = (reproduced / "out" / "table1.json").read_bytes()
    status, said = reproduce_here(reproduced, "table1", "--only", "1", "2", "--seeds", "0", "1")
    assert (status, "evaluating" in said) == (0, False), said
    assert journals == {path: path.read_bytes() for path in journals}
    assert (reproduced / "out" / "table1.json").read_bytes() == before


def test_reproduce_goes_on_where_it_was_cut_off_and_keeps_the_other_rows(reproduced):
    table = reproduced / "out" / "table1.json"
    before = json.loads(table.read_text())["rows"]
    workdir = reproduced / "runs" / f"edsr-decloss-l1-seed1-{before[3]['config_hash']}"
    shutil.rmtree(workdir / "checkpoints" / "finetune")
    shutil.rmtree(reproduced / "runs" / "evaluations" / workdir.name)
    result = reproduce(reproduced, "table1", "--only", "2", "--seeds", "1")
    assert result.returncode == 0, result.stderr
    after = json.loads(table.read_text())["rows"]
    assert [row["datasets"] for row in after] == [row["datasets"] for row in before]
    text = (reproduced / "out" / "table1.md").read_text()
    assert all(f"| {name} |" in text for name in LOSSES)


def test_reproduce_measures_published_weights_beside_trained_rows(reproduced, reproduce_here, tmp_path):
    """The weights of row 2 stand in for row 3, and then for row 1, whose training is not lost."""
    folder, file = tmp_path / "copy", tmp_path / "published.pth"
    shutil.copytree(reproduced, folder)
    trained = json.loads((folder / "out" / "table1.json").read_text())["rows"]
    save_generator(file, *checkpoint.load_checkpoint(workdir_of(folder, trained[2]))[:2])

    def rows_after(*arguments: str) -> list[dict]:
        status, said = reproduce_here(folder, "table1", *arguments)
        assert status == 0, said
        return json.loads((folder / "out" / "table1.json").read_text())["rows"]

    *others, row = rows_after("--only", "3", "--weights", f"03_edsr_perceptual={file}")
    assert others == trained
    assert (row["row"], row["seed"], row["seconds_per_step"]) == ("03_edsr_perceptual", None, None)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert row["weights"] == {"file": "published.pth", "sha256": digest}
    assert row["datasets"] == trained[2]["datasets"]
    text = (folder / "out" / "table1.md").read_text()
    assert f"file published.pth, sha256 {digest}" in text
    header, *lines = csv.reader((folder / "out" / "table1.csv").open())
    cells = dict(zip(header, lines[2], strict=True))
    assert (cells["losses"], cells["seeds"]) == ("not trained: published.pth", "")
    assert {cells[name] for name in ("s/step ↓", "images/s ↑", "step ratio")} == {""}
    replaced = rows_after("--only", "1", "--weights", f"1={file}")
    assert [each["seed"] for each in replaced] == [None, 0, 1, None]
    assert rows_after("--only", "1", "--seeds", "0", "1") == [*trained, row]


def test_reproduce_does_not_mix_settings_in_one_table(reproduced, reproduce_here):
    before = (reproduced / "out" / "table1.json").read_bytes()
    status, said = reproduce_here(reproduced, "table1", "--only", "1", "--set", "pretrain.steps=5")
    devices, sentence = said.splitlines()
    assert (status, devices) == (2, "reproducing on 8 x cpu")
    assert "--out" in sentence
    assert "overrides" in sentence
    assert (reproduced / "out" / "table1.json").read_bytes() == before


def test_reproduce_measures_again_what_changed(reproduced, reproduce_here, tmp_path):
    """Other images under the same name are other images."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), np.uint8)
    values = []
    for picture, place in zip(pictures, ("here", "there"), strict=True):
        folder = tmp_path / place / "Set" / "HR"
        folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / "one.png")
        status, said = reproduce_here(reproduced, "table3", "--only", "Bicubic", "--test", str(folder.parent))
        assert status == 0, said
        (row,) = json.loads((reproduced / "out" / "table3.json").read_text())["rows"]
        values.append(row["datasets"]["Set"]["psnr_rgb"])
    assert values[0] != values[1]


def test_reproduce_figure5_draws_the_networks_of_table_1(reproduced, reproduce_here):
    status, said = reproduce_here(reproduced, "figure5", "--only", "1", "2", "--seeds", "0", "1")
    assert status == 0, said
    record = json.loads((reproduced / "out" / "figure5.json").read_text())
    values = [row["datasets"]["photographs"] for row in record["rows"]]
    of_each = [[v[name] for v in values] for name in ("icoo", "lpips_alex")]
    expected = np.corrcoef(*(np.argsort(np.argsort(v)) for v in of_each))[0, 1]  # no ties
    assert len(values) == 4
    assert record["spearman"]["photographs"] == pytest.approx(expected)
    assert f"photographs: {expected:.3f} (printed" in (reproduced / "out" / "figure5.md").read_text()
    assert (reproduced / "out" / "figure5.png").stat().st_size > 10_000


def test_reproduce_figure2_shows_where_the_mini_patches_of_the_first_two_rows_lie(reproduced, reproduce_here):
    status, said = reproduce_here(reproduced, "figure2")
    assert status == 0, said
    lines = list(csv.DictReader((reproduced / "out" / "figure2-photographs.csv").open()))
    rows = [row.name for row in EXPERIMENTS["table1"].rows[:2]]
    assert {line["source"]: 256 for line in lines} == dict.fromkeys(["HR", *rows], 256)
    assert len(lines) == 3 * 256
    of_rows = [line for line in lines if line["source"] != "HR"]
    assert all(float(line["rms_to_nearest_hr"]) <= float(line["rms_to_own_hr"]) for line in of_rows)
    with Image.open(reproduced / "out" / "figure2-photographs.png") as image:
        assert image.size == (1200, 936)


@pytest.mark.parametrize(
    ("target", "differing"),
    [
        ("table2", {"decloss.patch_size", "decloss.threshold_db"}),
        ("figure6", {"decloss.t_pos", "decloss.t_neg"}),
    ],
)
def test_rows_of_the_other_experiments_differ_in_what_they_are_about(tmp_path, target, differing):
    settings = Settings("mini", {}, tmp_path, ["photographs"])
    fields = [computing_fields(row_config(row, 0, settings)) for row in EXPERIMENTS[target].rows]
    assert {name for name in fields[0] if len({str(each[name]) for each in fields}) > 1} == differing


def test_reproduce_figure6_trains_and_draws_a_temperature(reproduced):
    no_vgg = ("--set", "finetune.weights.perceptual=0")
    result = reproduce(reproduced, "figure6", "--only", "t_neg = 0.5", *no_vgg)
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((reproduced / "out" / "figure6.json").read_text())["rows"]
    assert (row["row"], row["fields"]["decloss.t_neg"]) == ("t_neg = 0.5", 0.5)
    assert (reproduced / "out" / "figure6.png").stat().st_size > 10_000


def test_a_weight_from_the_command_line_is_for_rows_that_have_the_term(tmp_path):
    settings = Settings("mini", {"finetune.weights.decloss": 1e-3}, tmp_path, ["photographs"])
    plain = replace(settings, overrides={})
    for row in EXPERIMENTS["table1"].rows[1:]:  # the first has no stage 2
        before, after = (row_config(row, 0, each).finetune.weights.decloss for each in (plain, settings))
        assert after == (1e-3 if before else 0.0), row.name


def test_the_hash_of_a_row_ignores_what_it_does_not_read(tmp_path):
    hashes, configs = [], []
    for overrides in (
        {},
        {"decloss.mu": 0.3},
        {"perceptual.network": "alexnet"},
        {"data.root": "elsewhere/BSDS400"},
        {"data.root": "data/DIV2K,data/BSDS400"},  # other data
        {"data.archives": "downloads"},
    ):
        settings = Settings("mini", {"data.root": "data/BSDS400"} | overrides, tmp_path, [])
        rows = EXPERIMENTS["table1"].rows[:3]  # L1, L1 + DECLoss, L1 + perceptual
        configs.append([row_config(row, 0, settings) for row in rows])
        hashes.append([config_hash(config) for config in configs[-1]])
    l1, decloss, perceptual = zip(*hashes, strict=True)
    assert l1[4] != l1[0]
    assert len({*l1[:4], l1[5]}) == 1
    assert decloss[0] == decloss[2] == decloss[3] != decloss[1]
    assert perceptual[0] == perceptual[1] == perceptual[3] != perceptual[2]
    assert configs[0][2].to_dict() == configs[1][2].to_dict()  # or the workdir of one would refuse the other


def test_the_hash_of_a_row_ignores_fields_that_are_not_set(tmp_path):
    """A field that is added to the base config later keeps the workdirs of the rows without it."""
    config = row_config(EXPERIMENTS["table1"].rows[1], 0, Settings("mini", {}, tmp_path, []))
    before = config_hash(config)
    with config.unlocked():
        config.model.invented, config.finetune.weights.invented = None, 0.0
    assert config_hash(config) == before
    config.finetune.weights.invented = 0.5
    assert config_hash(config) != before


def test_import_config_looks_beside_the_package_and_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert import_config("base").get_config().batch_size == 32  # of the checkout
    installed = tmp_path / "site-packages" / "decloss_jax" / "__init__.py"
    monkeypatch.setattr(decloss_jax, "__file__", str(installed))
    with pytest.raises(checks.UserError, match=r"configs/base.py: expected the configs of the repository"):
        import_config("base")
    monkeypatch.chdir(REPOSITORY)
    assert import_config("table1/01_edsr_l1").get_config().finetune.steps == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table1", "--only", "11"], ["row", "01_edsr_l1", "'11'"]),
        (
            ["table2", "--only", "1", "--set", "finetune.step=1"],
            ["--set finetune.step", "nearest: finetune.steps"],
        ),
        (["table2", "--only", "1", "--set", "batch_size"], ["--set", "FIELD=VALUE"]),
        (["table2", "--only", "1", "--set", "batch_size=many"], ["--set batch_size", "type"]),
        (
            ["table1", "--only", "1", "--train", "nowhere", "--set", "data.source=folder"],
            ["data.root", "nowhere"],
        ),
        (["table1", "--only", "1", "--test", "nowhere"], ["--test", "nowhere"]),
        (
            ["table1", "--only", "2", "--set", "decloss.patch_size=7"],
            ["patch_size", "7"],
        ),
        (["table1", "--only", "2", "--set", "seed=5"], ["--set seed", "--seeds"]),
        (["figure6", "--set", "decloss.t_pos=0.2"], ["--set decloss.t_pos", "differ"]),
    ],
)
def test_reproduce_answers_a_mistake_with_one_sentence(tmp_path, reproduce_here, arguments, words):
    status, said = reproduce_here(tmp_path, *arguments)
    *devices, sentence = said.splitlines()  # a mistake of the command line is answered before JAX starts
    assert (status, devices) in [(2, []), (2, ["reproducing on 8 x cpu"])]
    assert sentence.startswith("decloss_jax reproduce: ")
    for word in words:
        assert word in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "row", EXPERIMENTS["table1"].rows + EXPERIMENTS["table2"].rows, ids=lambda row: row.name
)
def test_docstring_of_a_config_prints_the_numbers_of_the_table(row):
    document = runpy.run_path(str(REPOSITORY / "configs" / f"{row.config}.py"))["__doc__"]
    printed = row.printed["DIV2K"]
    digits = 3 if row.config.startswith("table1") else 4
    assert f"PSNR {printed.psnr:.2f}, LPIPS {printed.lpips:.{digits}f}, ICOO {printed.icoo:.2f}" in document
    assert row.hours is None or f"{row.hours:.2f} GPU hours" in document
