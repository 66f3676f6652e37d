"""A workdir belongs to one config."""

import json

import pytest

from decloss_jax import checks
from decloss_jax.workdir.claim import check_same_config


def config_of(**weights):
    return {"batch_size": 8, "model": {"hidden": None}, "finetune": {"weights": weights}}


def test_check_same_config_accepts_a_run_older_than_a_field_that_is_not_set(tmp_path):
    older = {"batch_size": 8, "model": {}, "finetune": {"weights": {"l1": 1.0}}}
    (tmp_path / "config.json").write_text(json.dumps(older))
    check_same_config(tmp_path, config_of(l1=1.0, likelihood=0.0))
    with pytest.raises(checks.UserError, match=r"likelihood was not there, is 0.5"):
        check_same_config(tmp_path, config_of(l1=1.0, likelihood=0.5))
    with pytest.raises(checks.UserError, match=r"weights.l1 was 1.0, is 0.0"):
        check_same_config(tmp_path, config_of(l1=0.0))
