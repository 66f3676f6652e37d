"""The networks, and `build_model`, which makes a generator from a config."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from decloss_jax import checks
from decloss_jax.models.discriminator import VGGDiscriminator
from decloss_jax.models.edsr import EDSR
from decloss_jax.models.rrdb import RRDBNet

__all__ = ["EDSR", "MODELS", "RRDBNet", "VGGDiscriminator", "build_model"]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MODELS: dict[str, type[nn.Module]] = {"edsr": EDSR, "rrdb": RRDBNet}


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Builds the generator that `config.model` describes.

    Args:
        config: `name`, a key of `MODELS`, and the network's attributes; an attribute that is None is not set,
            which is how `configs/base.py` marks options of the other networks.

    Returns:
        The Flax module, [N,h,w,3] -> [N,s h,s w,3].

    Raises:
        UserError: an unknown name or dtype, a size below 1, or an option that the network does not have.
    """
    model = checks.look_up(MODELS, config["name"], "model.name")
    for size in ("features", "blocks", "growth"):
        if config.get(size) is not None:
            checks.check_range(f"model.{size}", config[size], 1)
    if config.get("dtype") is not None:
        checks.look_up(DTYPES, config["dtype"], "model.dtype")
    options = {key: value for key, value in config.items() if key != "name" and value is not None}
    fields = set(model.__dataclass_fields__) - {"parent", "name"}
    for key, value in options.items():
        checks.check(
            key in fields,
            f"model.{key}",
            expected=f"an option of {config['name']} ({', '.join(sorted(fields))})",
            got=value,
            remedy=f"leave model.{key} unset (None)",
        )
    return model(**options)
