"""The initial weights of a run: the choice among a file's state dicts, and a discriminator's file."""

import jax
import numpy as np
import pytest
import torch
from small_training import small_config

from configs import base
from decloss_jax import checks
from decloss_jax.compare_torch.torch_networks import Discriminator
from decloss_jax.host import parallel
from decloss_jax.models import build_model
from decloss_jax.training.adversary import build_adversary, read_variables
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.state import draw_params, initial_params, start_stage
from decloss_jax.weights.discriminators import discriminator_variables


@pytest.mark.parametrize(("key", "seed"), [("", 2), ("params_ema", 2), ("params", 1)])
def test_initial_params_takes_the_state_dict_that_is_named_and_says_which(tmp_path, capsys, key, seed):
    config = small_config()
    model, mesh = build_model(config.model), parallel.data_mesh(jax.devices()[:1])
    both = {
        name: {k: torch.from_numpy(np.array(v)) for k, v in basicsr_names(model, each).items()}
        for name, each in (("params", 1), ("params_ema", 2))
    }
    torch.save(both, tmp_path / "both.pth")
    config.init_from, config.init_from_key = str(tmp_path / "both.pth"), key
    params = initial_params(config, model, mesh)
    for ours, expected in zip(*map(jax.tree.leaves, (params, draw_params(model, seed))), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert f"both.pth ({key or 'params_ema'})" in capsys.readouterr().err
    config.init_from_key = "net"
    with pytest.raises(checks.UserError, match=r"without 'net' \(it has params_ema, params\)"):
        initial_params(config, model, mesh)


def basicsr_names(model, seed):
    from decloss_jax.weights import dialects, tables

    return dialects.from_params(tables.WRITTEN[type(model)], model, draw_params(model, seed))


def test_a_stage_begins_with_the_discriminator_of_a_file(tmp_path):
    config = small_config()
    config.discriminator.features = 4
    config.finetune.weights = base.loss_weights(l1=1.0, gan=1.0)
    torch.save(Discriminator(32, 4).state_dict(), tmp_path / "d.pth")
    config.discriminator.init_from = str(tmp_path / "d.pth")
    mesh, model = parallel.data_mesh(jax.devices()[:1]), build_model(config.model)
    adversary = build_adversary(config, "finetune", mesh)
    variables = read_variables(config, adversary.model)
    state = start_stage(
        draw_params(model, 0),
        step=0,
        optimizer=build_optimizer(config),
        discriminator=adversary.model,
        variables=variables,
        seed=0,
        averaged=False,
        mesh=mesh,
    )
    stored = torch.load(tmp_path / "d.pth")
    expected = discriminator_variables({key: value.numpy() for key, value in stored.items()})[1]
    for name in ("params", "batch_stats"):
        ours = getattr(state.discriminator, name)
        assert jax.tree.structure(ours) == jax.tree.structure(expected[name])
        jax.tree.map(np.testing.assert_array_equal, ours, expected[name])

    config.discriminator.features = 8
    wider = build_adversary(config, "finetune", mesh).model
    with pytest.raises(checks.UserError, match="a discriminator with features 8, got 4"):
        read_variables(config, wider)
