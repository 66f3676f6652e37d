"""The networks, and `build_model`, which makes a generator from a config."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from decloss_jax import checks
from decloss_jax.models.discriminator import VGGDiscriminator
from decloss_jax.models.edsr import EDSR
from decloss_jax.models.rrdb import RRDBNet

__all__ = ["EDSR", "MODELS", "RRDBNet", "VGGDiscriminator", "build_model"]

MODELS: dict[str, type[nn.Module]] = {"edsr": EDSR, "rrdb": RRDBNet}


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Builds the generator that `config.model` describes.

    Args:
        config: `name`, a key of `MODELS`, and the network's attributes; an attribute that is None is not set,
            which is how `configs/base.py` marks options of the other networks.

    Returns:
        The Flax module, [N,h,w,3] -> [N,s h,s w,3].

    Raises:
        UserError: an unknown name, or an option that the network does not have.
    """
    model = checks.look_up(MODELS, config["name"], "model.name")
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
