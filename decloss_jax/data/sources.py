"""The table of image sources, and `build_source`, which lists the images of a config."""

from collections.abc import Mapping, Sequence
from typing import Any

from decloss_jax import checks
from decloss_jax.data.folder import find_all_pairs, find_pairs_of_roots
from decloss_jax.data.pairs import ImagePair
from decloss_jax.data.photographs import find_photographs
from decloss_jax.data.prepared import find_records
from decloss_jax.host.files import expand


def folder_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists the images of `data.root`, one folder or several (see `folder.LAYOUTS`).

    Validation uses `data.validation_root` if that is set, else the held-out images of `data.root` if there
    are any, else the validation images of its layout.
    """
    roots, count = config_data["root"], config_data["held_out_images"]
    checks.check_range("data.held_out_images", count, 0)
    if split == "validation" and config_data["validation_root"]:
        validation_root = expand(config_data["validation_root"])
        return find_all_pairs(validation_root, scale=scale, field="data.validation_root")
    if count == 0:
        return find_pairs_of_roots(roots, scale=scale, split=split)
    pairs = find_pairs_of_roots(roots, scale=scale, split="train")
    held_out = choose_held_out(pairs, config_data["held_out_prefix"], count)
    return held_out if split == "validation" else [pair for pair in pairs if pair not in held_out]


def choose_held_out(pairs: Sequence[ImagePair], prefix: str, count: int) -> list[ImagePair]:
    """Returns the last `count` of the pairs whose names begin with `prefix`.

    Raises:
        UserError: there are fewer than `count`, or nothing would be left for training.
    """
    named = [pair for pair in pairs if pair.name.startswith(prefix)]
    checks.check(
        count <= len(named) and count < len(pairs),
        "data.held_out_images",
        expected=f"fewer than the {len(pairs)} images of data.root, named {prefix}*",
        got=f"{count} of {len(named)}",
        remedy="lower it or correct data.held_out_prefix",
    )
    return named[-count:]


def photographs_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists the photographs inside scikit-image's wheel."""
    return find_photographs(split)


def tfds_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists a TensorFlow data set under `data.root`; a missing one is prepared from `data.archives`."""
    root, archives = expand(config_data["root"]), config_data["archives"]
    return find_records(root, scale=scale, split=split, archives=archives)


SOURCES = {"folder": folder_source, "photographs": photographs_source, "tfds": tfds_source}


def build_source(config_data: Mapping[str, Any], *, scale: int, split: str) -> list[ImagePair]:
    """Lists the image pairs that `config.data` describes.

    Args:
        config_data: the fields of `config.data`; `source` is a key of `SOURCES`.
        scale: s.
        split: "train" or "validation".

    Returns:
        The pairs, sorted by name. For "validation" the list is empty if the source holds nothing out; then
        training runs without validation.

    Raises:
        UserError: an unknown source, a missing or empty folder, or images without their partners.
    """
    source = checks.look_up(SOURCES, config_data["source"], "data.source")
    checks.check(
        not config_data["archives"] or source is tfds_source,
        "data.archives",
        expected="none unless data.source is 'tfds'",
        got=repr(config_data["archives"]),
        remedy="set data.source to 'tfds', or unpack the archives and set data.root to their folder",
    )
    return source(config_data, scale=scale, split=split)
