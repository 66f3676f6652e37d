"""Every config builds, every value matters, and a typo is answered with the nearest name."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from decloss_jax import checks
from decloss_jax.config import flatten, load_config, override
from decloss_jax.host import parallel
from decloss_jax.models import MODELS, Ranker, build_model
from decloss_jax.training import stages
from decloss_jax.training.adversary import GAMES
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.ranker_stage import build_ranker_stage
from decloss_jax.training.terms import TERMS
from decloss_jax.weights import save_ranker

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    path.relative_to(REPOSITORY) for path in (REPOSITORY / "configs").rglob("*.py") if path.stem != "__init__"
)


@pytest.fixture(scope="module")
def ranker_file(tmp_path_factory):
    model = Ranker(features=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    path = tmp_path_factory.mktemp("ranker") / "ranker.pth"
    save_ranker(path, model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))
    return str(path)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_config_builds(path, ranker_file):
    config = runpy.run_path(str(REPOSITORY / path))["get_config"]()
    assert isinstance(config, ConfigDict)
    assert flatten(config.to_dict()).keys() == flatten(base.get_config().to_dict()).keys()
    config.perceptual.network = "vgg16"  # the file of VGG-19 is the user's
    config.ranker.weights_file = ranker_file  # and that of the Ranker
    config.model.blocks = 1  # all are alike; tracing RRDBNet's 23 takes ten seconds
    if config.model.name == "srflow":
        config.model.stacked_blocks, config.model.flow_steps = (0,), 1
    if config.model.name == "ranker":
        assert build_ranker_stage(config, parallel.data_mesh())
        return
    model, optimizer = build_model(config.model), build_optimizer(config)
    mesh = parallel.data_mesh(jax.devices()[:4])  # every batch can be split over four
    assert stages.plan_stages(config, model, optimizer, mesh)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_config_says_how_to_run_it(path):
    document = runpy.run_path(str(REPOSITORY / path))["__doc__"]
    assert path.stem == "base" or f"python train.py --config {path}" in document


def test_every_field_is_consumed():
    """Each field of base.py is read, by its own name, somewhere in the package."""
    code = "".join(path.read_text() for path in (REPOSITORY / "decloss_jax").rglob("*.py"))
    attributes = {name for model in MODELS.values() for name in model.__dataclass_fields__}
    terms = TERMS | GAMES
    for field in flatten(base.get_config().to_dict()):
        section, _, name = field.rpartition(".")
        if section == "model":
            assert name == "name" or name in attributes, field
        elif section.endswith(".weights"):
            assert name in terms, field
        else:
            assert f".{name}" in code or f'"{name}"' in code, field


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("batchsize", "batch_size"),
        ("decloss.patchsize", "decloss.patch_size"),
        ("pretrain.step", "pretrain.steps"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(field, nearest):
    config = load_config(REPOSITORY / "configs" / "quickstart.py")
    with pytest.raises(checks.UserError, match=f"--config.{field}: .*nearest: {nearest}"):
        override(config, [f"{field}=1"], option="--config.")


def test_override_reads_each_value_by_the_type_of_its_field():
    config = load_config(REPOSITORY / "configs" / "quickstart.py")
    settings = ("batch_size=8", "adam_b1=1", "data.root=123", "model.remat=true", "model.res_scale=0.5")
    names = [setting.partition("=")[0] for setting in settings]
    expected = dict(zip(names, (8, 1.0, "123", True, 0.5), strict=True))
    assert override(config, settings, option="--set ") == expected
    fields = flatten(config.to_dict())
    for name, value in expected.items():
        assert (fields[name], type(fields[name])) == (value, type(value))


@pytest.mark.parametrize("setting", ["batch_size=many", "batch_size=4.5", "batch_size", "pretrain=1"])
def test_override_refuses_a_value_of_another_type(setting):
    with pytest.raises(checks.UserError, match=r"--set (batch_size|pretrain): expected"):
        override(load_config(REPOSITORY / "configs" / "quickstart.py"), [setting], option="--set ")
