"""Loads a trained network from a file of weights or from the workdir of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import linen as nn

from decloss_jax import checks
from decloss_jax.host import files
from decloss_jax.models import Ranker
from decloss_jax.models.ranker import NAME
from decloss_jax.weights import load_generator, load_ranker
from decloss_jax.weights.discriminators import ranker_tensors
from decloss_jax.workdir.checkpoint import load_checkpoint


def load_network(
    path: str | Path, *, stage: str | None = None, res_scale: float | None = None, key: str = ""
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Loads the generator from a file of weights, or from the newest checkpoint of a run.

    Args:
        path: a .safetensors, .pth or .pt file, or a workdir of train.py.
        stage: the stage of a run, "pretrain" or "finetune"; by default the last one that has a checkpoint.
        res_scale: EDSR's residual scale, for a file that does not record it.
        key: selects a state dict, such as "params_ema", if a PyTorch file has several; "" is the default one.

    Returns:
        The Flax model, its parameters (NumPy arrays), and a description that fits into JSON, from
        `weights.load_generator` or `checkpoint.load_checkpoint`; `weights.describe` formats it as one line.

    Raises:
        UserError: no network at `path`, or an option that does not apply to it.
    """
    path = existing(path)
    if not path.is_dir():
        checks.check(
            stage is None, "stage", expected=f"none for the file {path}", got=stage, remedy="leave it out"
        )
        return load_generator(path, res_scale=res_scale, key=key)
    for option, value in (("res_scale", res_scale), ("key", key or None)):
        checks.check(
            value is None, option, expected=f"none for the run {path}", got=value, remedy="leave it out"
        )
    return load_checkpoint(path, stage=stage)


def load_trained_ranker(path: str | Path) -> tuple[Any, Any, dict[str, Any]]:
    """Loads a Ranker from a file of weights, or from the newest checkpoint of its run.

    Args:
        path: a .safetensors, .pth or .pt file, or a workdir of train.py.

    Returns:
        The Flax model, its variables {"params": ..., "batch_stats": ...} (NumPy arrays), and a description
        that fits into JSON.

    Raises:
        UserError: no Ranker at `path`.
    """
    path = existing(path)
    return load_checkpoint(path, build=build_ranker) if path.is_dir() else load_ranker(path)


def build_ranker(options: Mapping[str, Any], variables: Any) -> Ranker:
    """Builds the Ranker of `config.model`; raises an error if the variables are not its own."""
    checks.check(
        options["name"] == NAME,
        "its network",
        expected="a Ranker",
        got=options["name"],
        remedy="choose the workdir of a run that trained one",
    )
    model = Ranker(features=options["features"])
    ranker_tensors(model, variables)
    return model


def existing(path: str | Path) -> Path:
    """Returns the path of a file of weights or of a run; raises `UserError` if there is nothing."""
    path = files.expand(path)
    checks.check(
        path.exists(),
        str(path),
        expected="a file of weights or the workdir of a run",
        got="nothing there",
        remedy="check the path",
    )
    return path
