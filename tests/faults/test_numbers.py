"""Numbers that go wrong: the step and what is not finite are named, and no checkpoint holds it."""

import json
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import CACHE
from small_run import final_arrays, records_without_speed

from configs import quickstart
from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.models import EDSR
from decloss_jax.training import loop, stages, terms
from decloss_jax.training.state import draw_params
from decloss_jax.weights import save_generator
from decloss_jax.workdir import checkpoint
from decloss_jax.workdir import claim as workdir

STEPS = 20


def small_config():
    """Stage 1 alone, of the smallest network, saved every 5 steps."""
    config = quickstart.get_config()
    config.batch_size = 8
    config.model.features, config.model.blocks = 4, 1
    config.data.crop_size = 32
    config.data.cache_dir = str(CACHE / "photographs")
    config.pretrain.steps, config.pretrain.warmup_steps, config.finetune.steps = STEPS, 2, 0
    config.log_every_steps, config.checkpoint_every_steps, config.eval_every_steps = 5, 5, STEPS
    config.validation_images = 0
    return config


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """One device, and the compiled functions of the calls of train.py: each run compiles the same ones."""
    mesh, cache = parallel.data_mesh(jax.devices()[:1]), jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(CACHE / "xla"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parallel, "data_mesh", lambda devices=None: mesh)
        yield
    jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run to which nothing happens."""
    folder = tmp_path_factory.mktemp("sound")
    loop.run(small_config(), folder)
    return folder


def assert_same_run(folder, expected):
    assert records_without_speed(folder) == records_without_speed(expected)
    ours, theirs = (final_arrays(each, "pretrain") for each in (folder, expected))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def fill(tree, value):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), tree)


def poison_batch(state, batch):
    return state, batch | {"low": batch["low"].astype(jnp.float32) * jnp.nan}


def poison_weights(state, batch):
    return state.replace(params=fill(state.params, jnp.nan)), batch


def poison_first_moments(state, batch):
    return state.replace(opt_state=state.opt_state._replace(mu=fill(state.params, jnp.inf))), batch


def poison_second_moments(state, batch):
    """The directions are then 0 and the parameters stay finite."""
    return state.replace(opt_state=state.opt_state._replace(nu=fill(state.params, jnp.inf))), batch


@pytest.mark.parametrize(
    ("poison", "at", "named", "kept"),
    [
        (poison_batch, 8, "loss/l1 at step 8 (pretrain): expected finite numbers, got nan", 5),
        (poison_weights, 13, "loss/l1 at step 13 (pretrain): expected finite numbers, got nan", 10),
        (poison_first_moments, 8, "loss/l1 at step 9 (pretrain): expected finite numbers, got nan", 5),
        (poison_first_moments, 10, "params/body_0/conv1/bias at step 10 (pretrain)", 5),
        (poison_second_moments, 10, "opt_state/nu/body_0/conv1/bias at step 10 (pretrain)", 5),
    ],
)
def test_run_names_step_and_culprit_and_keeps_the_last_good_checkpoint(
    sound, tmp_path, monkeypatch, poison, at, named, kept
):
    make = stages.make_train_step

    def make_poisoned(*arguments, **options):
        step = make(*arguments, **options)

        def poisoned(state, batch):
            if not isinstance(state.step, jax.core.Tracer) and int(state.step) == at - 1:
                state, batch = poison(state, batch)
            return step(state, batch)

        return poisoned

    with monkeypatch.context() as patched:
        patched.setattr(stages, "make_train_step", make_poisoned)
        with pytest.raises(loop.NonFiniteLoss) as caught:
            loop.run(small_config(), tmp_path)
    assert named in str(caught.value)
    assert f"the checkpoint of step {kept} is kept" in str(caught.value)
    steps = checkpoint.step_directories(tmp_path / "checkpoints" / "pretrain")
    assert int(steps[-1].name) == kept
    assert all(np.isfinite(array).all() for array in final_arrays(tmp_path, "pretrain").values())
    loop.run(small_config(), tmp_path)  # what was wrong is gone
    assert_same_run(tmp_path, sound)


def test_run_names_a_gradient_that_is_not_finite(tmp_path, monkeypatch):
    def build(config, mesh):
        return terms.Term(lambda frozen, sr, hr: (jnp.sqrt(0 * jnp.sum(sr)), {}))  # 0, with the slope nan

    monkeypatch.setitem(terms.TERMS, "l1", build)
    with pytest.raises(
        loop.NonFiniteLoss, match=r"gradient_norm at step 1 \(pretrain\).*no checkpoint of pretrain yet"
    ):
        loop.run(small_config(), tmp_path)
    assert checkpoint.trained_stages(tmp_path) == []


@pytest.mark.parametrize("field", ["pretrain.weights.l1", "pretrain.learning_rate", "decloss.mu"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_run_refuses_a_field_that_is_not_finite(tmp_path, field, value):
    config = small_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(checks.UserError, match=f"{field}: expected a finite number, got {value}"):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_refuses_weights_that_are_not_finite(tmp_path):
    model = EDSR(features=4, blocks=1)
    params = draw_params(model, 0)
    params["conv_last"]["bias"] = params["conv_last"]["bias"].at[1].set(jnp.nan)
    save_generator(tmp_path / "bad.safetensors", model, params)
    config = small_config()
    config.init_from = str(tmp_path / "bad.safetensors")
    config.finetune.steps, config.finetune.weights.decloss = 10, 0.0
    with pytest.raises(checks.UserError, match=r"'conv_last\.bias' is not finite"):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_does_not_look_at_the_clock(sound, tmp_path, monkeypatch):
    """time.time jumps by years, there and back, at every line of the journal; SIGTERM stops the run once."""
    random, write, now = np.random.default_rng(0), loop.Journal.write, time.time
    offset = 0.0

    def write_and_stop(journal, record):
        nonlocal offset
        write(journal, record)
        offset = random.uniform(-1.6e9, 1.6e9)
        if record["step"] == 10:
            for _ in range(2):  # the second changes nothing
                signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + offset)
        patched.setattr(loop.Journal, "write", write_and_stop)
        with pytest.raises(loop.Stopped, match="stopped at step 11, state saved") as stopped:
            loop.run(small_config(), tmp_path)
        assert not stopped.value.by_keyboard
        loop.run(small_config(), tmp_path)
    assert_same_run(tmp_path, sound)


@pytest.mark.parametrize("interrupted", [10, STEPS])
def test_run_stopped_in_an_evaluation_finishes_it_when_it_goes_on(tmp_path, monkeypatch, interrupted):
    """SIGTERM comes when the first of two images has been measured: the second is not waited for."""
    config = small_config()
    config.eval_every_steps, config.validation_images, config.sample_images = 10, 2, 2
    loop.run(config, tmp_path / "sound")
    show, shown = loop.Journal.show, []

    def show_and_stop(journal, step, *picture):
        show(journal, step, *picture)
        shown.append(step)
        if step == interrupted:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Journal, "show", show_and_stop)
        with pytest.raises(loop.Stopped, match=f"in the evaluation of step {interrupted}, state saved"):
            loop.run(config, tmp_path / "run")
    assert shown.count(interrupted) == 1
    assert records_without_speed(tmp_path / "run")[-1]["step"] == interrupted - 5
    loop.run(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "sound")
    kept, expected = (
        sorted(str(path.relative_to(folder)) for path in folder.glob("checkpoints/*/*/*"))
        for folder in (tmp_path / "run", tmp_path / "sound")
    )
    assert kept == expected


@pytest.mark.parametrize("damage", [lambda path: path.write_text(""), lambda path: path.unlink()])
def test_run_that_is_finished_does_without_its_journal(sound, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(sound, folder)
    damage(folder / "journal.jsonl")
    loop.run(small_config(), folder)
    assert final_arrays(folder, "pretrain").keys() == final_arrays(sound, "pretrain").keys()


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard", "journal.jsonl"])
def test_run_names_what_it_cannot_write(tmp_path, name):
    """A folder in place of the file, a file in place of the folder: also root cannot write there."""
    (tmp_path / name).mkdir() if "." in name else (tmp_path / name).write_text("")
    config = small_config()
    config.validation_images = config.sample_images = 1
    with pytest.raises(checks.UserError, match=f"{tmp_path / name}.*: expected a writable disk"):
        loop.run(config, tmp_path)


def test_check_same_config_names_a_field_that_the_record_lacks(tmp_path):
    config = small_config().to_dict()
    record = {name: value for name, value in config.items() if name != "adam_b1"}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(checks.UserError, match=r"adam_b1 was not there, is 0\.9"):
        workdir.check_same_config(tmp_path, config)
