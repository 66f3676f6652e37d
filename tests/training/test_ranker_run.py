"""A Ranker's run from images to the loss of a generator: resumed bit for bit, loaded, and refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from small_training import small_config

from configs import base
from configs.table3 import ranker
from decloss_jax.checks import UserError
from decloss_jax.host import parallel
from decloss_jax.models import EDSR, Ranker
from decloss_jax.training import loop
from decloss_jax.training.plan import make_plan
from decloss_jax.training.terms import build_terms
from decloss_jax.weights import load_ranker, save_generator, save_ranker
from decloss_jax.workdir import journal
from decloss_jax.workdir.checkpoint import load_checkpoint
from decloss_jax.workdir.network import build_ranker, load_trained_ranker

STEPS = 4


def random_params(model, seed):
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(0, 0.2, p.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Ten textures, three networks, and a Ranker of one channel."""
    folder = tmp_path_factory.mktemp("ranker")
    (folder / "set" / "HR").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(10):
        coarse = rng.integers(0, 256, (17, 17, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((204, 204), Image.Resampling.BICUBIC)
        noise = rng.integers(-30, 30, (204, 204, 3))
        Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)).save(
            folder / "set" / "HR" / f"{number}.png"
        )
    files = [folder / f"{seed}.safetensors" for seed in range(3)]
    for seed, file in enumerate(files):
        model = EDSR(features=2, blocks=1)
        save_generator(file, model, random_params(model, seed))
    config = ranker.get_config()
    config.batch_size = 8
    config.model.features = 1
    config.data.root = str(folder / "set")
    config.data.cache_dir = str(folder / "cache")
    config.data.crop_size = 200
    config.data.threads = 0
    config.pretrain.steps = STEPS
    config.ranker.networks = ",".join(map(str, files))
    config.ranker.sharpness = config.ranker.niqe_difference = 0.0
    config.log_every_steps = 1
    config.checkpoint_every_steps = 2
    config.eval_every_steps = STEPS
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """The finished run."""
    workdir = tmp_path_factory.mktemp("run") / "ranker"
    loop.run(config, workdir)
    return workdir


def test_a_ranker_resumes_bit_for_bit(config, workdir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / "pretrain" / str(STEPS))  # as if killed after step 3
    loop.run(config, copy)
    (_, expected, _), (_, resumed, _) = (load_trained_ranker(each) for each in (workdir, copy))
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)
    whole, again = (
        {(line["step"], line["loss/total"]) for line in journal.read(each)[1]} for each in (workdir, copy)
    )
    assert again == whole
    assert len(whole) == STEPS


def test_its_journal_has_the_share_that_it_ranks_rightly(workdir):
    last = journal.read(workdir)[1][-1]
    assert last["validation/ranked_rightly"] in (0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
    assert {"loss/total", "ranked_rightly", "learning_rate", "gradient_norm"} <= last.keys()


def test_a_run_is_as_good_as_its_file(workdir, tmp_path):
    model, variables, description = load_trained_ranker(workdir)
    assert (model, description["step"]) == (Ranker(features=1), STEPS)
    assert json.loads(json.dumps(description))["workdir"] == "ranker"
    save_ranker(tmp_path / "ranker.pth", model, variables)
    jax.tree.map(np.testing.assert_array_equal, load_ranker(tmp_path / "ranker.pth")[1], variables)
    values = []
    for source in (workdir, tmp_path / "ranker.pth"):
        config = small_config()
        config.finetune.weights = base.loss_weights(rank_content=1.0)
        config.ranker.weights_file = str(source)
        term = build_terms(config, "finetune", parallel.data_mesh(jax.devices()[:1]))["rank_content"]
        images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
        values.append(float(term.value(term.frozen, images, images)[0]))
    assert values[0] == values[1] > 0


def test_a_rankers_run_is_no_generators_run_and_the_other_way_round(workdir):
    with pytest.raises(UserError, match=r"model.name: expected one of edsr, .* got 'ranker'"):
        load_checkpoint(workdir)
    with pytest.raises(UserError, match=r"its network: expected a Ranker, got edsr"):
        build_ranker({"name": "edsr", "features": 4}, {})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ranker.networks", "a.pth,b.pth", "ranker.networks: expected three workdirs or files"),
        ("ranker.networks", "a.pth,b.pth,c.pth", "a.pth: expected a file of weights or the workdir"),
        ("data.crop_size", 196, "data.crop_size: expected 200 or more, .* got 196"),
        ("finetune.steps", 5, "finetune.steps: expected none for a Ranker"),
        ("init_from", "runs/a", "init_from: expected none for a Ranker"),
        ("pretrain.steps", 0, "pretrain.steps: expected a value above 0"),
        ("ranker.sharpness", 1e9, "ranked windows to train on: expected at least one"),
        ("ranker.weight_decay", -1.0, "ranker.weight_decay: expected 0.0 or more"),
        ("ranker.niqe_difference", None, "ranker.niqe_difference: expected a number, to train a Ranker"),
    ],
)
def test_a_ranker_that_cannot_be_trained_is_refused(config, tmp_path, field, value, words):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=words):
        make_plan(changed).open_data()
