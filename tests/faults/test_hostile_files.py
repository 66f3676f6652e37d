"""Workdirs, weights, evaluations, journals and prepared data sets of strangers: one sentence, nothing run."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from command_line import assert_one_sentence, run
from hostile_files import (
    CONFIG,
    DAMAGED_CHECKPOINTS,
    DEEP,
    FOREIGN_CHECKPOINTS,
    STEP,
    change_copy,
    hostile_weights,
    journal_text,
    link,
    make_evaluation,
    make_weights,
    make_workdir,
    pipe,
    text,
)
from hostile_images import encoded
from PIL import Image

from decloss_jax import checks
from decloss_jax.checks import UserError
from decloss_jax.data.prepared import find_records
from decloss_jax.evaluation.comparison import write_comparison
from decloss_jax.host.console import printable
from decloss_jax.weights import load_generator
from decloss_jax.workdir import checkpoint, journal
from decloss_jax.workdir.claim import check_same_config
from decloss_jax.workdir.plots import draw_runs


@pytest.fixture(autouse=True)
def within_a_minute():
    """Whatever hangs fails."""

    def fail(*_):
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_workdir(tmp_path_factory.mktemp("workdir") / "run")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return make_evaluation(tmp_path_factory.mktemp("evaluated") / "evaluation")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set of three small images, as TFDS prepares it."""

    class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"hr": tfds.features.Image()})
            )

        def _split_generators(self, manager):
            image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
            return {"train": ((i, {"hr": image}) for i in range(3))}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Pictures(data_dir=tmp_path_factory.mktemp("prepared"), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)


@pytest.mark.parametrize("name", FOREIGN_CHECKPOINTS)
def test_a_checkpoint_that_is_whole_and_not_ours_is_refused(workdir, tmp_path, name):
    change, words = FOREIGN_CHECKPOINTS[name]
    copy = change_copy(workdir, tmp_path / "copy", change, rehash=True)
    with pytest.raises(UserError) as error:
        checkpoint.load_checkpoint(copy)
    message = str(error.value)
    assert message.startswith(str(copy / STEP))
    assert words in message
    assert len(message) < 1000 + checks.LONGEST_GOT


@pytest.mark.parametrize("name", DAMAGED_CHECKPOINTS)
def test_a_checkpoint_whose_files_are_none_is_passed_over(workdir, tmp_path, name, capsys):
    change, words = DAMAGED_CHECKPOINTS[name]
    copy = change_copy(workdir, tmp_path / "copy", change)
    with pytest.raises(UserError, match="expected at least one whole step, got only damaged ones"):
        checkpoint.load_checkpoint(copy)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert line.isprintable()


def test_odd_names_among_steps_are_no_steps(workdir, tmp_path):
    copy = change_copy(workdir, tmp_path / "copy", lambda folder: (folder / STEP.parent / "\u00b2").mkdir())
    assert checkpoint.load_checkpoint(copy)[2]["step"] == 2


def test_commands_refuse_a_foreign_workdir(workdir, tmp_path):
    copy = change_copy(workdir, tmp_path / "copy", FOREIGN_CHECKPOINTS["array of 4 GB"][0], rehash=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded("PNG"))
    for arguments in (
        ("evaluate.py", "--workdir", copy, "--data", tmp_path / "images", "--out", tmp_path / "out"),
        ("decloss_jax", "convert", copy, tmp_path / "w.pth"),
    ):
        assert_one_sentence(run(*arguments), str(copy / STEP), "bytes of parameters in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "images"]


@pytest.mark.parametrize("content", ["{", "[]", DEEP, '{"a": NaN}', "\ud800", '{"seed": "\x1b[31m"}'])
def test_a_damaged_config_of_a_workdir_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(
        UserError, match=r"config\.json: expected the config of a run|got another config's run"
    ):
        check_same_config(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("header", "records", "words"),
    [
        ({"config": {"batch_size": 10**400}}, [{"loss/a": 1.0}], "OverflowError"),
        ({"config": {"batch_size": [4]}}, [{"loss/a": 1.0}], "TypeError"),
        ([], [{"loss/a": 1.0}], "KeyError"),
        (None, [{"loss/a": 1.0}, {"loss/a": "x"}], "could not convert"),
        (None, [{f"loss/{i}": 1.0 for i in range(1000)}], "1,001 fields"),
        (None, [{"stage": str(i), "loss/a": 1.0} for i in range(1000)], "1,000 stages"),
    ],
)
def test_plot_refuses_journals_that_are_none(tmp_path, header, records, words):
    (tmp_path / "journal.jsonl").write_text(journal_text(*records, header=header))
    with pytest.raises(UserError, match=r"journal of .*expected the journal\.jsonl") as error:
        draw_runs([tmp_path], tmp_path / "plots")
    assert words in str(error.value)
    assert not (tmp_path / "plots").exists()


def test_plot_refuses_a_journal_without_end(workdir, tmp_path):
    for name, change in {"pipe": pipe("journal.jsonl"), "zero": link("journal.jsonl", "/dev/zero")}.items():
        copy = change_copy(workdir, tmp_path / name, change)
        with pytest.raises(UserError, match="a pipe or a device"):
            draw_runs([copy], tmp_path / "plots")


def test_plot_draws_fields_of_any_name(tmp_path):
    names = ("<script>", "x" * 10**5, "\n" * 1000, "\ud800", "\x1b[31m\u202e", "$\\undefined{$")
    (tmp_path / "journal.jsonl").write_text(journal_text({f"loss/{name}": 1.0 for name in names}))
    assert draw_runs([tmp_path], tmp_path / "plots") == [tmp_path / "plots" / "losses.png"]


@pytest.mark.parametrize("header", ["", "[]", DEEP, "\0\1"])
def test_summary_of_a_run_takes_a_damaged_journal(tmp_path, header):
    lines = [header, '{"step": 1}', '{"step": 2, "stage": "pretrain", "validation/psnr_y": "x"}', "[]", DEEP]
    (tmp_path / "journal.jsonl").write_text("\n".join(lines))
    assert journal.summary(tmp_path).startswith("done: pretrain to step 2; in")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pipe("rows.csv"), "a pipe or a device"),
        (link("rows.csv", "/dev/zero"), "a pipe or a device"),
        (text("rows.csv", "x" * (2**23 + 1)), "more than 8,388,608 bytes"),
        (text("summary.json", " " * (2**23 + 1)), "more than 8,388,608 bytes"),
        (
            text("rows.csv", "dataset,image,psnr_y\nevaluation_images,a\0b,1\n"),
            "names of data sets and images",
        ),
        (text("rows.csv", f"dataset,image,psnr_y\nevaluation_images,{'x' * 252},1\n"), "names of data sets"),
        (text("sr/evaluation_images/a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "expected a readable image"),
    ],
)
def test_report_refuses_evaluations_without_end_or_measure(evaluated, tmp_path, change, words):
    copy = change_copy(evaluated, tmp_path / "copy", change)
    with pytest.raises(UserError) as error:
        write_comparison([copy], tmp_path / "page.html")
    assert words in str(error.value)
    assert not (tmp_path / "page.html").exists()


def test_report_says_where_it_takes_images_from(evaluated, tmp_path, capsys):
    write_comparison([evaluated], tmp_path / "page.html")
    images = evaluated.with_name("evaluation_images")
    assert f"HR images of evaluation_images: {images}" in capsys.readouterr().err


def test_hostile_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in hostile_weights().items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: expected") as error:
            load_generator(path)
        assert len(str(error.value)) < 500
        assert os.listdir(tmp_path) == [name]
        path.unlink()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_that_are_a_pipe_or_without_end_are_refused(tmp_path, ending):
    make_weights(tmp_path / f"w{ending}")
    for name, change in {"a": pipe(f"w{ending}"), "b": link(f"w{ending}", "/dev/zero")}.items():
        make_weights(tmp_path / name / f"w{ending}")
        change(tmp_path / name)
        with pytest.raises(UserError, match="got a pipe or a device"):
            load_generator(tmp_path / name / f"w{ending}")


def description(**changes):
    """Returns a change of a prepared data set: other entries of its splits."""

    def change(folder):
        record = json.loads((folder / "dataset_info.json").read_text())
        record["splits"] = [split | changes for split in record["splits"]]
        (folder / "dataset_info.json").write_text(json.dumps(record))

    return change


RECORDS = "pictures-train.array_record-00000-of-00001"
OUTSIDE = "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (text("features.json", "{"), "JSONDecodeError"),
        (text("features.json", "[]"), "which is not an object"),
        (text("features.json", DEEP), "nested too deeply"),
        (text("dataset_info.json", "{}"), "Invalid version"),
        (text("dataset_info.json", '{"version": NaN}'), "NaN, which is not JSON"),
        (pipe("features.json"), "a pipe or a device"),
        (description(shardLengths=["1000000000000"]), "1,000,000,000,000 records in"),
        (description(shardLengths=["-5"]), "expected one that TFDS has prepared"),
        (description(shardLengths=["many"]), "ParseError"),
        (description(filepathTemplate="/etc/passwd"), "outside its folder"),
        (description(filepathTemplate=OUTSIDE), "outside its folder"),
        (pipe(RECORDS), "a pipe or a device"),
        (link(RECORDS, "/dev/zero"), "files that are links"),
    ],
)
def test_a_prepared_data_set_that_is_none_is_refused(prepared, tmp_path, change, words):
    copy = change_copy(prepared, tmp_path / "copy", change)
    with pytest.raises(UserError, match=r"data set in .*: expected one that TFDS has prepared") as error:
        find_records(copy, scale=4, split="train")
    assert words in str(error.value)


@pytest.mark.parametrize("key", ["type", "pythonClassName", "python_class_name"])
def test_a_prepared_data_set_imports_nothing(prepared, tmp_path, monkeypatch, key):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "of_a_stranger.py").write_text("raise SystemExit('was run')")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    features = json.dumps({"featuresDict": {"features": {"hr": {key: "of_a_stranger.Image", "content": {}}}}})
    copy = change_copy(prepared, tmp_path / "copy", text("features.json", features))
    with pytest.raises(
        UserError, match=r"a feature of the class 'of_a_stranger\.Image' \(which was not impor"
    ):
        find_records(copy, scale=4, split="train")
    assert "of_a_stranger" not in sys.modules


@pytest.mark.parametrize("content", [b"\0" * 2**17, None])
def test_damaged_records_are_named(prepared, tmp_path, content):
    sound = (prepared / RECORDS).read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    flipped = bytes(byte ^ 16 if i % 97 == 0 else byte for i, byte in enumerate(sound))
    (copy / RECORDS).write_bytes(content or flipped)
    pair = find_records(copy, scale=4, split="train")[0]
    with pytest.raises(UserError, match=r"hr of record 0 in .*: expected a readable image"):
        pair.load(4)


def test_printable_leaves_nothing_that_acts_on_a_terminal():
    assert printable("plain \u00e4\u6f22 text") == "plain \u00e4\u6f22 text"
    assert printable("a\nb\x1b[0m\u202ec\udcff\u2028") == r"a\nb\x1b[0m\u202ec\udcff\u2028"
    assert printable(Path("a\x07")) == r"a\x07"
