"""Every config builds, every value matters, and a typo is answered with the nearest name."""

import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base
from decloss_jax import checks
from decloss_jax.commands.scripts import check_config_arguments
from decloss_jax.config import flatten
from decloss_jax.host import parallel
from decloss_jax.models import MODELS, build_model
from decloss_jax.training import plan
from decloss_jax.training.adversary import GAMES
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.terms import TERMS

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    path.relative_to(REPOSITORY) for path in (REPOSITORY / "configs").rglob("*.py") if path.stem != "__init__"
)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_config_builds(path):
    config = runpy.run_path(str(REPOSITORY / path))["get_config"]()
    assert isinstance(config, ConfigDict)
    assert flatten(config.to_dict()).keys() == flatten(base.get_config().to_dict()).keys()
    config.perceptual.network = "vgg16"  # the file of VGG-19 is the user's
    model, optimizer = build_model(config.model), build_optimizer(config)
    assert plan.plan_stages(config, model, optimizer, parallel.data_mesh())


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
    arguments = ["train.py", f"--config={REPOSITORY / 'configs' / 'quickstart.py'}", f"--config.{field}=1"]
    with pytest.raises(checks.UserError, match=f"nearest: {nearest}"):
        check_config_arguments(arguments)
