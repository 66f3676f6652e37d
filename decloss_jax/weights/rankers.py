"""Loads and saves RankSRGAN's Ranker, with its authors' parameter names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import decloss_jax
from decloss_jax.host import files
from decloss_jax.models import Ranker
from decloss_jax.weights.discriminators import ranker_tensors, ranker_variables
from decloss_jax.weights.generators import check_suffix, read_state, write_state
from decloss_jax.weights.torch_reader import refusals_as_user_errors

FORMAT = "decloss_jax ranker"  # names the format of the notes that `save_ranker` writes


def load_ranker(path: str | Path) -> tuple[Ranker, dict[str, Any], dict[str, Any]]:
    """Loads a Ranker from a .safetensors, .pth or .pt file of RankSRGAN's code or of `save_ranker`.

    Args:
        path: the file.

    Returns:
        The Flax model, its variables {"params": ..., "batch_stats": ...} as float32 NumPy arrays, and a
        description that fits into JSON: `file`, `sha256`, `wrapper`, `features`, `parameters`.

    Raises:
        UserError: the file does not hold a Ranker; one sentence names the reason.
    """
    state = read_state(path)
    with refusals_as_user_errors(path, "weights of a Ranker"):
        model, variables = ranker_variables(state.tensors)
    description = {
        "file": Path(path).name,
        "sha256": files.sha256(Path(path)),
        "wrapper": state.wrapper,
        "features": model.features,
        "parameters": sum(leaf.size for layer in variables["params"].values() for leaf in layer.values()),
    }
    return model, variables, description


def save_ranker(path: str | Path, model: Ranker, variables: Mapping[str, Any]) -> None:
    """Saves a Ranker atomically, as .safetensors or as .pth; RankSRGAN's code loads the latter.

    Args:
        path: the file, with the suffix .safetensors, .pth or .pt.
        model: the Ranker.
        variables: {"params": ..., "batch_stats": ...}, float32 arrays of any kind.

    Raises:
        UserError: another suffix, or variables that do not fit the model.
    """
    notes = {"format": FORMAT, "version": decloss_jax.__version__, "features": model.features}
    check_suffix(path)
    with refusals_as_user_errors(path, "variables of a Ranker"):
        tensors = ranker_tensors(model, variables)
    write_state(path, tensors, json.dumps(notes))
