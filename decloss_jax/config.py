"""Loads config files, and overrides their fields from the command line."""

import runpy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decloss_jax import checks

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def is_unset(field: str, value: object) -> bool:
    """Tells whether a config would compute the same without a field: one that is None, or a weight of 0."""
    return value is None or (".weights." in field and value == 0)


def load_config(path: Path) -> "ConfigDict":
    """Runs a config file, a Python program, and returns what its `get_config()` returns.

    Raises:
        UserError: no such file, or a file that does not return a config.
    """
    checks.check(
        path.is_file(),
        "--config",
        expected="a config file",
        got=f"{path}{checks.nearest(str(path), map(str, Path('configs').glob('**/*.py')))}",
        remedy="choose a file of configs/ or write one",
    )
    try:
        namespace = runpy.run_path(str(path))
    except SyntaxError as error:
        checks.fail(
            str(path), expected="a Python file", got=f"line {error.lineno}: {error.msg}", remedy="correct it"
        )
    checks.check(
        "get_config" in namespace,
        str(path),
        expected="a Python file with a function get_config()",
        got="none",
        remedy="choose a file of configs/",
    )
    config = namespace["get_config"]()
    checks.check(
        hasattr(config, "to_dict"),
        str(path),
        expected="a get_config() that returns a ConfigDict",
        got=f"{type(config).__name__}",
        remedy="follow the files in configs/",
    )
    return config


def override(config: "ConfigDict", settings: Iterable[str], *, option: str) -> dict[str, Any]:
    """Sets fields of a config from the command line; returns the values that were set.

    Args:
        config: changed in place.
        settings: "field=value" strings; ml_collections parses each value by the type of its field.
        option: the prefix of a field on the command line, for messages: "--config." or "--set ".

    Raises:
        UserError: a setting without an equals sign, an unknown field, or a value of another type.
    """
    from absl import flags
    from ml_collections import config_flags

    fields = flatten(config.to_dict())
    values: dict[str, Any] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        checks.check(
            bool(equals),
            f"{option}{field}",
            expected=f"{option}FIELD=VALUE",
            got="no equals sign",
            remedy=f"write {option}{field}=VALUE",
        )
        checks.check(
            field in fields,
            f"{option}{field}",
            expected="a field of the config",
            got=f"an unknown one{checks.nearest(field, fields)}",
            remedy="see configs/base.py for all fields",
        )
        word, flag_values = f"--config.{setting}", flags.FlagValues()
        config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=[word])
        try:
            flag_values(["", word])
        except flags.Error as error:
            reason = str(error).partition(": ")[2] or error
            checks.fail(
                f"{option}{field}",
                expected="a value of its type",
                got=f"{text} ({reason})",
                remedy="correct it",
            )
        values |= config_flags.get_override_values(flag_values["config"])
    return values
