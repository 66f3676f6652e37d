"""train.py as a user types it: two stages on real photographs, kill -9, resume, mistakes."""

import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from command_line import CACHE, REPOSITORY, assert_one_sentence, command, environment, run

from decloss_jax.host import parallel
from decloss_jax.models import EDSR, VGGDiscriminator
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.state import abstract_state
from decloss_jax.weights import save_generator
from decloss_jax.workdir import checkpoint, journal

PRETRAIN, FINETUNE = 240, 120
TINY = (
    "--config=configs/quickstart.py",
    "--config.model.features=4",
    "--config.model.blocks=1",
    "--config.batch_size=4",
    "--config.data.crop_size=32",
    f"--config.data.cache_dir={CACHE / 'photographs'}",
    f"--config.pretrain.steps={PRETRAIN}",
    f"--config.finetune.steps={FINETUNE}",
    "--config.log_every_steps=10",
    "--config.checkpoint_every_steps=40",
    "--config.eval_every_steps=120",
    "--config.validation_images=1",
    "--config.sample_images=1",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """An uninterrupted run of both stages."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    result = run("train.py", *TINY, f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir


def final_state(workdir: Path):
    """Parameters and moments of both networks, and the step, from the last checkpoint by Orbax."""
    optimizer = build_optimizer({"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8})
    config = journal.read(workdir)[0]["config"]
    is_adversarial = config["finetune"]["weights"]["ragan"] > 0
    discriminator = VGGDiscriminator(features=4, input_size=32) if is_adversarial else None
    abstract = abstract_state(EDSR(features=4, blocks=1), optimizer, discriminator)
    mesh = parallel.data_mesh(jax.devices()[:1])
    with checkpoint.StageCheckpoints(workdir, "finetune", config={}) as saved:
        return saved.restore(saved.latest_step(), abstract, parallel.replicated(mesh))


def records_without_speed(workdir: Path) -> list[dict]:
    return [
        {key: value for key, value in record.items() if key not in journal.MACHINE_FIELDS}
        for record in journal.read(workdir)[1]
    ]


def assert_same_run(workdir: Path, expected: Path) -> None:
    assert records_without_speed(workdir) == records_without_speed(expected)
    for ours, theirs in zip(
        jax.tree.leaves(final_state(workdir)), jax.tree.leaves(final_state(expected)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def kill_when(
    workdir: Path, step: int, number: int = signal.SIGKILL, arguments: tuple[str, ...] = TINY
) -> subprocess.CompletedProcess[bytes]:
    """Starts the run and sends the signal when the journal has reached `step`."""
    arguments = command("train.py", *arguments, f"--workdir={workdir}")
    process = subprocess.Popen(
        arguments, cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    path = workdir / "journal.jsonl"
    while process.poll() is None:
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        if any(journal.step_of(line) >= step for line in lines if journal.step_of(line) < float("inf")):
            os.kill(process.pid, number)
            break
        time.sleep(0.005)
    _, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, stderr=errors)


def test_train_leaves_a_whole_run(finished):
    header, records = journal.read(finished)
    assert header["config"]["batch_size"] == 4
    assert header["versions"]["jax"] == jax.__version__
    assert [record["step"] for record in records] == list(range(10, PRETRAIN + FINETUNE + 1, 10))
    assert [record["stage"] for record in records] == ["pretrain"] * 24 + ["finetune"] * 12
    assert {"loss/total", "loss/l1", "learning_rate", *journal.MACHINE_FIELDS} <= records[0].keys()
    assert all(0 <= record["data_wait"] < 1 for record in records)
    assert {"loss/decloss", "weighted/decloss", "decloss/positives"} <= records[-1].keys()
    assert records[-1]["validation/psnr_y"] > records[11]["validation/psnr_y"] - 0.5
    assert records[23]["loss/l1"] < 0.5 * records[0]["loss/l1"]
    assert len(list((finished / "samples").glob("*.png"))) == 3  # steps 120, 240, 360 of one image
    assert list((finished / "tensorboard").iterdir())
    assert json.loads((finished / "config.json").read_text())["model"]["features"] == 4


def test_train_again_changes_nothing(finished):
    before = (finished / "journal.jsonl").read_bytes()
    result = run("train.py", *TINY, f"--workdir={finished}")
    assert result.returncode == 0, result.stderr
    devices, complete, done = result.stderr.splitlines()  # and no log of Orbax
    assert devices == "training on 1 x cpu"
    assert complete == f"finetune: complete at step {PRETRAIN + FINETUNE}"
    assert done.startswith(f"done: pretrain to step {PRETRAIN}, finetune to step {PRETRAIN + FINETUNE}; best")
    assert (finished / "journal.jsonl").read_bytes() == before


def test_train_resumes_bit_for_bit_after_kill_9_in_both_stages(finished, tmp_path):
    workdir = tmp_path / "killed"
    assert kill_when(workdir, 90).returncode == -signal.SIGKILL
    # The save of step 40 of stage 2 is finished when that of step 80 begins.
    assert kill_when(workdir, PRETRAIN + 90).returncode == -signal.SIGKILL
    result = run("train.py", *TINY, f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert "finetune: resuming from the checkpoint of step" in result.stderr
    assert_same_run(workdir, finished)


def test_train_saves_its_state_on_ctrl_c_and_sigterm(finished, tmp_path):
    workdir = tmp_path / "stopped"
    for step, number, status in ((30, signal.SIGINT, 130), (70, signal.SIGTERM, 0)):
        stopped = kill_when(workdir, step, number)
        assert stopped.returncode == status
        assert b"state saved; the same command goes on from there" in stopped.stderr
    assert run("train.py", *TINY, f"--workdir={workdir}").returncode == 0
    assert_same_run(workdir, finished)


def test_train_starts_stage_2_from_another_run(finished, tmp_path):
    arguments = (*TINY, f"--config.init_from={finished}", f"--workdir={tmp_path / 'second'}")
    result = run("train.py", *arguments, "--config.finetune.steps=10")
    assert result.returncode == 0, result.stderr
    _, records = journal.read(tmp_path / "second")
    assert [(record["step"], record["stage"]) for record in records] == [(10, "finetune")]
    first = records[0]["loss/l1"]
    assert first < 2 * journal.read(finished)[1][23]["loss/l1"]  # where stage 1 ended, not at the beginning


def save_stage_1(workdir: Path, path: Path, *, res_scale: float) -> Path:
    """Saves the generator at the end of stage 1, with the residual scale in the file's notes."""
    _, params, _ = checkpoint.load_checkpoint(workdir, stage="pretrain")
    save_generator(path, EDSR(features=4, blocks=1, res_scale=res_scale), params)
    return path


def test_train_starts_stage_2_from_a_file_of_weights(finished, tmp_path):
    path = save_stage_1(finished, tmp_path / "stage_1.pth", res_scale=1.0)
    losses = []
    for name, source in (("run", finished), ("file", path)):
        arguments = (*TINY, f"--config.init_from={source}", f"--workdir={tmp_path / name}")
        result = run("train.py", *arguments, "--config.finetune.steps=10")
        assert result.returncode == 0, result.stderr
        losses += [record["loss/l1"] for record in journal.read(tmp_path / name)[1]]
    assert "res_scale 1 (from the file's notes)" in result.stderr
    assert losses[0] == losses[1]


def test_train_takes_the_res_scale_that_a_file_does_not_say(finished, tmp_path):
    noted = save_stage_1(finished, tmp_path / "noted.safetensors", res_scale=1.0)
    silent = tmp_path / "silent.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(noted), silent)
    arguments = (f"--config.init_from={silent}", "--config.model.res_scale=0.5", "--config.finetune.steps=1")
    result = run("train.py", *TINY, *arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert "res_scale 0.5 (as given)" in result.stderr


def test_train_refuses_the_res_scale_that_a_file_contradicts(finished, tmp_path):
    path = save_stage_1(finished, tmp_path / "w.safetensors", res_scale=0.1)
    workdir = tmp_path / "run"
    result = run("train.py", *TINY, f"--config.init_from={path}", f"--workdir={workdir}")
    assert_one_sentence(result, "res_scale 1.0, got 0.1", "set --config.model.res_scale=0.1")
    assert not workdir.exists()


def test_train_stops_at_a_loss_that_is_not_finite(tmp_path):
    workdir = tmp_path / "diverged"
    result = run("train.py", *TINY, f"--workdir={workdir}", "--config.pretrain.learning_rate=1e30")
    assert_lines = [line for line in result.stderr.splitlines() if "expected finite numbers" in line]
    assert result.returncode == 2
    assert len(assert_lines) == 1
    assert "loss/l1 at step" in assert_lines[0]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.batch_size=0"], ["batch_size", "positive multiple"]),
        (["--config.decloss.patch_size=5"], ["data.crop_size", "decloss.patch_size (5)", "got 32"]),
        (["--config.decloss.patchsize=4"], ["decloss.patchsize", "nearest: decloss.patch_size"]),
        (["--config.model.name=edrs"], ["model.name", "nearest: edsr"]),
        (["--config.data.crop_size=400"], ["coins", "at least 400 pixels"]),
        (["--config.data.source=folder", "--config.data.root=nowhere"], ["nowhere"]),
        (
            ["--config.finetune.weights.gan=1.0", "--config.pretrain.steps=0"],
            ["finetune with an adversarial term", "no stage 1", "--config.init_from"],
        ),
        (
            ["--config.finetune.weights.gan=1.0", "--config.finetune.weights.ragan=1.0"],
            ["finetune.weights", "one adversarial term", "gan and ragan"],
        ),
        (
            ["--config.finetune.weights.gan=1.0", "--config.data.crop_size=72"],
            ["input_size of the discriminator", "got 72", "take 64"],
        ),
        (
            ["--config.finetune.weights.gan=1.0", "--config.discriminator.statistics=all"],
            ["discriminator.statistics", "global, device"],
        ),
        (["--config.pretrain.steps=0", "--config.finetune.steps=0"], ["at least one step"]),
        (["--config.init_from=nowhere.pth"], ["nowhere.pth"]),
        (["--config.decloss.mode=multply"], ["enhancement mode", "nearest: multiply"]),
        (["--config.decloss.tile_size=0"], ["tile_size"]),
        (["--config.pretrain.schedule=cosin"], ["pretrain.schedule", "nearest: cosine"]),
        (["--config.model.dtype=float33"], ["model.dtype"]),
        (["--config.model.features=0"], ["model.features", "1 to 4096"]),
        (["--config.adam_b1=1.5"], ["adam_b1"]),
        (["--config.seed=-1"], ["seed", "0 to 4294967295"]),
        (["--config.validation_images=-1"], ["validation_images"]),
        (["--config=README.md"], ["README.md", "a Python file"]),
        (["extra"], ["--config.FIELD=VALUE", "got extra"]),
        (["--config=configs/edsr_decloss"], ["configs/edsr_decloss.py"]),
    ],
)
def test_train_answers_a_mistake_with_one_sentence(tmp_path, arguments, words):
    workdir = tmp_path / "run"
    assert_one_sentence(run("train.py", *TINY, f"--workdir={workdir}", *arguments), *words)
    assert not workdir.exists()


def test_train_refuses_a_batch_that_the_devices_cannot_share(tmp_path):
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    result = run("train.py", *TINY, f"--workdir={tmp_path}", "--config.batch_size=12", env=devices)
    assert_one_sentence(result, "number of devices (8), got 12", "--config.batch_size to 16")


def test_train_refuses_the_workdir_of_another_config(finished):
    result = run("train.py", *TINY, f"--workdir={finished}", "--config.seed=1", "--config.decloss.mu=0.5")
    assert_one_sentence(
        result, "seed was 0, is 1", "decloss.mu was 0.25, is 0.5", f"--config.init_from={finished}"
    )


def test_train_help_is_quick_and_complete():
    result = run("train.py", "--help")
    assert "--workdir" in result.stdout + result.stderr


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_train_refuses_a_workdir_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("not a folder")
    assert_one_sentence(
        run("train.py", *TINY, f"--workdir={tmp_path / place}"), "workdir", "another --workdir"
    )


def test_train_refuses_a_workdir_that_another_process_holds(tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert_one_sentence(run("train.py", *TINY, f"--workdir={tmp_path}"), "one that is in use")


def test_train_refuses_weights_of_another_network(finished, tmp_path):
    workdir = tmp_path / "run"
    arguments = (f"--config.init_from={finished}", "--config.model.features=8", f"--workdir={workdir}")
    assert_one_sentence(run("train.py", *TINY, *arguments), "body_0/conv1/bias", "expected", "(8,)", "(4,)")
    assert not workdir.exists()
