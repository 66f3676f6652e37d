"""The checks of the numbers in a config."""

import jax
import pytest

from configs import base
from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.training import plan


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "seed: expected 0 to 4294967295, got -1"),
        ("batch_size", 0, "a positive multiple of the number of devices"),
        ("data.threads", -1, "data.threads: expected 0 or more"),
        ("data.crop_size", 0, "data.crop_size: expected a value above 0"),
        ("data.crop_size", 18, r"data.crop_size: expected a multiple of model.scale \(4\), got 18"),
        ("adam_b2", 1.0, "adam_b2: expected 0.0 to 0.999999"),
        ("gradient_clip_norm", 0.0, "gradient_clip_norm: expected a value above 0"),
        ("discriminator.features", 0, "discriminator.features: expected a value above 0"),
        ("decloss.mu", float("nan"), "decloss.mu: expected a finite number"),
        ("pretrain.steps", -1, "pretrain.steps: expected 0 or more"),
        ("pretrain.learning_rate", 0.0, "learning_rate: expected a value above 0"),
        ("pretrain.warmup_steps", 200_000, "warmup_steps: expected 0 to 199999"),
        ("pretrain.milestones", (200_000, 5), "milestones: expected increasing numbers of updates"),
        ("pretrain.restarts", 195_000, "pretrain.restarts"),
    ],
)
def test_check_values_names_the_field(field, value, message):
    config, mesh = base.get_config(), parallel.data_mesh(jax.devices()[:2])
    plan.check_values(config, mesh)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(checks.UserError, match=message):
        plan.check_values(config, mesh)
