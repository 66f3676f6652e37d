"""Checkpoints: which steps are kept, which damage is found, and which state is restored."""

import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.models import EDSR
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.state import abstract_state, draw_params, start_stage
from decloss_jax.workdir import checkpoint
from decloss_jax.workdir.checkpoint import StageCheckpoints, load_checkpoint

MODEL = EDSR(features=4, blocks=1)
OPTIMIZER = build_optimizer({"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8})
CONFIG = {"model": {"name": "edsr", "features": 4, "blocks": 1, "growth": None}}


def a_state(mesh, step=0):
    """A state whose parameters depend on the step, so that the steps differ."""
    params = jax.tree.map(lambda leaf: leaf + step, draw_params(MODEL, 0))
    params = jax.device_put(params, parallel.replicated(mesh))
    return start_stage(
        params, step=step, optimizer=OPTIMIZER, discriminator=None, seed=0, averaged=False, mesh=mesh
    )


def save_steps(workdir, scores, stage="pretrain"):
    mesh = parallel.data_mesh()
    with StageCheckpoints(workdir, stage, config=CONFIG) as saved:
        for step, score in scores.items():
            saved.save(step, a_state(mesh, step), None if score is None else {"psnr_y": score})


def steps_of(workdir, stage="pretrain"):
    return [int(path.name) for path in checkpoint.step_directories(workdir / "checkpoints" / stage)]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ({1: 30.0, 2: 29.0, 3: 28.0, 4: 27.0}, [1, 3, 4]),  # the best is old, the newest two stay
        ({1: 27.0, 2: 28.0, 3: 29.0, 4: 30.0}, [3, 4]),
        ({1: 27.0, 2: 30.0, 3: None, 4: None, 5: None}, [2, 4, 5]),  # steps between evaluations
    ],
)
def test_stage_checkpoints_keep_the_latest_and_the_best(tmp_path, scores, kept):
    save_steps(tmp_path, scores)
    assert steps_of(tmp_path) == kept


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_restore_is_exact_on_any_number_of_devices(tmp_path, devices):
    save_steps(tmp_path, {7: None})
    mesh = parallel.data_mesh(jax.devices()[:devices])
    with StageCheckpoints(tmp_path, "pretrain", config=CONFIG) as saved:
        restored = saved.restore(7, abstract_state(MODEL, OPTIMIZER), parallel.replicated(mesh))
    for ours, expected in zip(
        jax.tree.leaves(restored), jax.tree.leaves(a_state(parallel.data_mesh(), 7)), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
        assert ours.sharding.is_equivalent_to(parallel.replicated(mesh), ours.ndim)


def largest_file(directory):
    return max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def flip_a_bit(directory):
    path = largest_file(directory)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "report"),
    [
        (flip_a_bit, "has changed since it was written"),
        (lambda directory: largest_file(directory).unlink(), "is missing"),
        (lambda directory: (directory / "SHA256SUMS").unlink(), "saving was interrupted"),
        (lambda directory: (directory / "SHA256SUMS").write_text(""), "is not in SHA256SUMS"),
    ],
)
def test_damaged_steps_are_noticed_and_the_one_before_is_used(tmp_path, damage, report, capsys):
    save_steps(tmp_path, {1: None, 2: None})
    assert checkpoint.is_complete(tmp_path, "pretrain", 2)
    damage(tmp_path / "checkpoints" / "pretrain" / "2")
    assert not checkpoint.is_complete(tmp_path, "pretrain", 2)
    _, params, description = load_checkpoint(tmp_path)
    assert description["step"] == 1
    assert report in capsys.readouterr().err
    np.testing.assert_array_equal(
        params["conv_last"]["bias"], a_state(parallel.data_mesh(), 1).params["conv_last"]["bias"]
    )

    with StageCheckpoints(tmp_path, "pretrain", config=CONFIG) as saved:
        assert saved.latest_step() == 1
        assert report in capsys.readouterr().err
        assert (tmp_path / "checkpoints" / "set_aside" / "pretrain-2").is_dir()
        saved.save(2, a_state(parallel.data_mesh(), 2), None)  # the disk is writable again
        assert saved.latest_step() == 2


def test_a_stage_is_not_complete_before_its_last_evaluation_has_finished(tmp_path):
    assert not checkpoint.is_complete(tmp_path, "pretrain", 2)
    with StageCheckpoints(tmp_path, "pretrain", config=CONFIG) as saved:
        state = a_state(parallel.data_mesh(), 2)
        saved.save(2, state, None, unevaluated={"loss/total": 1.0})
        saved.finish()
        assert not checkpoint.is_complete(tmp_path, "pretrain", 2)
        saved.save(2, state, {"psnr_y": 30.0}, replacing=True)
    assert checkpoint.is_complete(tmp_path, "pretrain", 2)


def test_load_generator_reads_the_last_stage_or_the_one_asked_for(tmp_path):
    save_steps(tmp_path, {3: 1.0})
    save_steps(tmp_path, {5: 1.0}, stage="finetune")
    model, params, description = load_checkpoint(tmp_path)
    assert model == MODEL
    assert (description["stage"], description["step"]) == ("finetune", 5)
    assert jax.tree.structure(params) == jax.tree.structure(draw_params(MODEL, 0))
    assert {type(leaf) for leaf in jax.tree.leaves(params)} == {np.ndarray}
    assert load_checkpoint(tmp_path, stage="pretrain")[2]["step"] == 3


def test_load_generator_says_what_is_missing(tmp_path):
    with pytest.raises(checks.UserError, match="expected a folder with checkpoints, got none"):
        load_checkpoint(tmp_path / "nothing")
    save_steps(tmp_path, {1: None})
    with pytest.raises(checks.UserError, match="checkpoints of finetune, got checkpoints of pretrain"):
        load_checkpoint(tmp_path, stage="finetune")
    flip_a_bit(tmp_path / "checkpoints" / "pretrain" / "1")
    with pytest.raises(checks.UserError, match="only damaged ones"):
        load_checkpoint(tmp_path)


def test_a_bit_flip_in_any_file_is_noticed(tmp_path):
    save_steps(tmp_path, {1: None})
    directory = tmp_path / "checkpoints" / "pretrain" / "1"
    files = [path for path in directory.rglob("*") if path.is_file() and path.stat().st_size]
    for path in files:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert checkpoint.find_damage(directory) is not None, path
        path.write_bytes(content)
    assert checkpoint.find_damage(directory) is None
    assert jnp.isfinite(load_checkpoint(tmp_path)[1]["conv_first"]["kernel"]).all()


@pytest.mark.parametrize("noticed_by", ["save", "finish", "end"])
def test_an_error_of_the_disk_in_the_background_is_an_os_error(tmp_path, monkeypatch, noticed_by):
    """The disk is full only after the save has begun; here no file may become larger."""
    monkeypatch.setattr(checkpoint.files, "check_room", lambda *_: None)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"weights": jax.random.normal(jax.random.key(0), (256, 256))}

    def save_all():
        with StageCheckpoints(tmp_path, "pretrain", config=CONFIG) as saved:
            saved.save(1, state, None)
            saved.finish()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            saved.save(2, state, None)
            if noticed_by == "save":
                saved.save(3, state, None)
            if noticed_by == "finish":
                saved.finish()

    try:
        with pytest.raises(OSError, match="File too large"):
            save_all()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert steps_of(tmp_path) == [1]
    assert checkpoint.find_damage(tmp_path / "checkpoints" / "pretrain" / "1") is None
