"""The journal of a resumed run."""

import io
import json

import numpy as np
from PIL import Image

from decloss_jax.workdir.journal import Journal, read, summary, versions


def write(workdir, steps, start):
    with Journal(workdir, header={"config": {"seed": start}}, step=start) as journal:
        for step in steps:
            journal.write({"step": step, "stage": "pretrain", "loss/total": 1.0 / step})


def test_journal_drops_what_is_newer_than_the_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3, 4], start=0)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('null\n\0\0\n{"step": 5, "sta')  # as after a crash or a power cut
    write(tmp_path, [3, 4], start=2)
    header, records = read(tmp_path)
    assert header == {"config": {"seed": 0}}  # from the first start of the run
    assert [record["step"] for record in records] == [1, 2, 3, 4]


def test_journal_of_a_resumed_run_is_the_journal_of_an_uninterrupted_one(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    write(tmp_path / "whole", [1, 2, 3], start=0)
    write(tmp_path / "cut", [1, 2], start=0)
    write(tmp_path / "cut", [2, 3], start=1)
    assert (tmp_path / "cut" / "journal.jsonl").read_bytes() == (
        tmp_path / "whole" / "journal.jsonl"
    ).read_bytes()


def test_journal_silent_writes_nothing(tmp_path):
    with Journal(tmp_path, header={}, step=0, silent=True) as journal:
        journal.write({"step": 1})
    assert list(tmp_path.iterdir()) == []


def test_journal_feeds_tensorboard(tmp_path):
    write(tmp_path, [1, 2], start=0)
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert events.count(b"loss/total") == 2


def test_versions_are_json():
    assert json.loads(json.dumps(versions()))["jax"]


def test_journal_shows_images_as_files_and_in_tensorboard(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    with Journal(tmp_path, header={}, step=0) as journal:
        journal.show(7, "set/a", image)
    with Image.open(tmp_path / "samples" / "00000007_set_a.png") as written:
        np.testing.assert_array_equal(np.asarray(written), image)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"samples/set_a" in content
    png = content[content.index(b"\x89PNG") :]
    with Image.open(io.BytesIO(png)) as shown:
        np.testing.assert_array_equal(np.asarray(shown), image)


def test_summary_names_the_best_step_and_where_everything_lies(tmp_path):
    with Journal(tmp_path, header={}, step=0) as journal:
        for step, stage, quality in ((2, "pretrain", 30.5), (4, "pretrain", 31.25), (6, "finetune", 31.0)):
            journal.write({"step": step, "stage": stage, "validation/psnr_y": quality})
        journal.write({"step": 7, "stage": "finetune"})
    text = summary(tmp_path)
    assert "pretrain to step 4, finetune to step 7" in text
    assert "best validation PSNR-Y 31.250 dB at step 4 (pretrain)" in text
    assert f"in {tmp_path}: checkpoints/, journal.jsonl" in text
    assert "\n" not in text


def test_summary_without_validation_images(tmp_path):
    with Journal(tmp_path, header={}, step=0) as journal:
        journal.write({"step": 3, "stage": "pretrain"})
    assert summary(tmp_path) == (
        f"done: pretrain to step 3; in {tmp_path}: checkpoints/, journal.jsonl, tensorboard/, samples/"
    )
