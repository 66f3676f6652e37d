"""train.py killed, stopped, out of space and with damaged checkpoints: it ends as if nothing had happened."""

import random
import shutil
import signal

import pytest
from small_run import (
    MARKS,
    SmallRun,
    communicate,
    differences,
    kill,
    last_step,
    newest_step,
    scatter_times,
    wait_until,
)

from decloss_jax.workdir import checkpoint, journal


def steps_of(run: SmallRun) -> list[int]:
    """Lists the checkpoints of stage 1, all of which have to be whole."""
    steps = checkpoint.step_directories(run.workdir / "checkpoints" / "pretrain")
    assert [checkpoint.find_damage(step) for step in steps] == [None] * len(steps)
    return [int(step.name) for step in steps]


def test_train_goes_on_bit_for_bit_after_kill_9_at_any_time(undisturbed, tmp_path):
    """In the cache's building, a save, an evaluation, the change of stages, and at a random step of stage 2;
    the times of all files jump in between, and in the end a second run is refused while the first lives.
    """
    rng = random.Random(1)
    run = SmallRun(tmp_path / "run", tmp_path / "cache")
    for mark in ("building the cache", "saving", "evaluating", "changing stages"):
        process = run.start()
        assert wait_until(process, lambda mark=mark: MARKS[mark](run)), (mark, communicate(process))
        assert kill(process)[0] == -signal.SIGKILL
        scatter_times(tmp_path, rng)

    # Step 60 is saved in the background, and finished when the save of step 80 begins.
    step, process = rng.randint(81, 110), run.start()
    assert wait_until(process, lambda: last_step(run) >= step), communicate(process)
    process.send_signal(signal.SIGSTOP)
    status, said = communicate(run.start())
    assert (status, said.count("\n")) == (2, 2)  # the devices, the sentence
    assert "no other process trains in, got one that is in use" in said
    assert kill(process)[0] == -signal.SIGKILL

    assert "finetune: resuming from the checkpoint of step" in run.finish()
    assert differences(run, undisturbed) == []
    records = journal.read(run.workdir)[1]
    assert {"loss/ragan", "weighted/ragan", "loss/discriminator"} <= records[-1].keys()
    assert {"discriminator/real", "discriminator/fake"} <= records[-1].keys()
    assert records[-1]["loss/discriminator"] < records[4]["loss/discriminator"]


def test_train_names_what_a_full_disk_refuses_and_goes_on_when_there_is_room(undisturbed, tmp_path):
    """A picture, a save and a log line, one after another; the limits lie between the sizes of the files."""
    run = SmallRun(tmp_path / "run")
    for largest_file, further, name in (
        (250_000, (), "samples/00000040_chelsea.png"),
        (15_000, ("--config.checkpoint_every_steps=10",), "checkpoints/pretrain/30"),
        (2_500, (), "journal.jsonl"),
    ):
        status, said = communicate(run.start(*further, largest_file=largest_file))
        lines = [line for line in said.splitlines() if line.startswith("train.py: ")]
        assert status == 2, said
        assert len(lines) == 1, said
        assert "Traceback" not in said
        assert f"{run.workdir / name}: expected a writable disk" in lines[0]
        assert "got File too large; correct that, and run the same command again" in lines[0]
        assert steps_of(run) == [20]
    run.finish()
    assert differences(run, undisturbed) == []


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "report"),
    [
        (flip_a_bit, "has changed since it was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has changed since it was written"),
        (lambda path: path.unlink(), "is missing"),
    ],
    ids=["flipped bit", "truncated", "missing"],
)
def test_train_names_a_damaged_checkpoint_and_uses_the_one_before(undisturbed, tmp_path, damage, report):
    run = SmallRun(tmp_path / "run")
    shutil.copytree(undisturbed.workdir, run.workdir)
    newest = newest_step(run, "finetune")
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damage(victim)
    said = run.finish()
    name = victim.relative_to(newest).as_posix()
    aside = run.workdir / "checkpoints" / "set_aside"
    assert f"checkpoint 120 is set aside in {aside}: {name} {report}" in said
    assert "finetune: resuming from the checkpoint of step 100" in said
    assert differences(run, undisturbed) == []


def test_train_ends_with_status_0_on_sigterm_before_there_is_anything_to_save(tmp_path):
    run = SmallRun(tmp_path / "run", tmp_path / "cache")
    process = run.start()
    assert wait_until(process, lambda: MARKS["building the cache"](run))
    process.terminate()
    status, said = communicate(process)
    assert (status, said.splitlines()[1:]) == (0, ["stopped; the same command goes on from there"])
    assert not run.workdir.exists()
