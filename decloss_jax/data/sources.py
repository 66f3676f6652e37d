"""The table of places that images come from, and `build_source`, which lists one from a config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decloss_jax import checks
from decloss_jax.data.folder import find_all_pairs, find_pairs
from decloss_jax.data.pairs import ImagePair
from decloss_jax.data.photographs import find_photographs
from decloss_jax.data.prepared import find_records


def folder_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists `data.root`, or for validation `data.validation_root` where it is set (see `folder.LAYOUTS`)."""
    if split == "validation" and config_data["validation_root"]:
        root = Path(config_data["validation_root"]).expanduser()
        return find_all_pairs(root, scale=scale, field="data.validation_root")
    return find_pairs(Path(config_data["root"]).expanduser(), scale=scale, split=split)


def photographs_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists the photographs inside scikit-image's wheel."""
    return find_photographs(split)


def tfds_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists a data set that TensorFlow Datasets has prepared under `data.root`."""
    return find_records(Path(config_data["root"]).expanduser(), scale=scale, split=split)


SOURCES = {"folder": folder_source, "photographs": photographs_source, "tfds": tfds_source}


def build_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists the image pairs that `config.data` describes.

    Args:
        config_data: `source`, a key of `SOURCES`, `root` and `validation_root`.
        scale: s.
        split: "train" or "validation".

    Returns:
        The pairs, sorted by name. For "validation" the list is empty where the source holds nothing out: then
        training is not evaluated on the way.

    Raises:
        UserError: an unknown source, a missing or empty folder, or images without their partners.
    """
    source = checks.look_up(SOURCES, config_data["source"], "data.source")
    return source(config_data, scale=scale, split=split)
