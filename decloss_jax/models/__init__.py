"""The networks, and `build_model`, which makes a generator from a config.

- `edsr`, `rrdb`, `srresnet`, `srflow`: the generators
- `discriminator`, `ranker`: VGG-style networks that judge images
- `features`: the frozen trunks of the perceptual loss and LPIPS
- `layers`: what the generators share
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from decloss_jax import checks
from decloss_jax.models.discriminator import VGGDiscriminator
from decloss_jax.models.edsr import EDSR
from decloss_jax.models.ranker import Ranker
from decloss_jax.models.rrdb import RRDBNet
from decloss_jax.models.srflow import SRFlow
from decloss_jax.models.srresnet import MSRResNet, SRResNet

__all__ = [
    "EDSR",
    "MODELS",
    "MSRResNet",
    "RRDBNet",
    "Ranker",
    "SRFlow",
    "SRResNet",
    "VGGDiscriminator",
    "build_model",
    "check_params",
    "parameter_shapes",
]

LARGEST = 4096  # features, blocks, growth; so many blocks would take hours to compile
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MODELS: dict[str, type[nn.Module]] = {
    "edsr": EDSR,
    "rrdb": RRDBNet,
    "srresnet": SRResNet,
    "msrresnet": MSRResNet,
    "srflow": SRFlow,
}


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Builds the generator that `config.model` describes.

    Args:
        config: `name`, a key of `MODELS`, and the network's attributes; an attribute that is None keeps its
            default (`configs/base.py` leaves the options of the other networks at None).

    Returns:
        The Flax module, [N,h,w,3] -> [N,s h,s w,3].

    Raises:
        UserError: an unknown name or dtype, a size out of its range, an option that the network does not
            have, or one of the wrong type.
    """
    model = checks.look_up(MODELS, str(config.get("name")), "model.name")
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value  # JSON has lists only
        for key, value in config.items()
        if key != "name" and value is not None
    }
    fields = {key: field.default for key, field in model.__dataclass_fields__.items()}
    fields = {key: default for key, default in fields.items() if key not in ("parent", "name")}
    for key, value in options.items():
        checks.check(
            key in fields,
            f"model.{key}",
            expected=f"an option of {config['name']} ({', '.join(sorted(fields))})",
            got=value,
            remedy=f"leave model.{key} unset (None)",
        )
        kinds = (
            str if key == "dtype" else (int, float) if isinstance(fields[key], float) else type(fields[key])
        )
        checks.check(
            isinstance(value, kinds),
            f"model.{key}",
            expected=f"a value like {fields[key]!r}",
            got=repr(value)[:100],
            remedy=f"change model.{key}",
        )
    for size in ("features", "blocks", "growth"):
        if size in options:
            checks.check_range(f"model.{size}", options[size], 1, LARGEST)
    if "dtype" in options:
        checks.look_up(DTYPES, options["dtype"], "model.dtype")
    return model(**options)


def parameter_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of a generator by its path, such as "body_3/conv1/kernel"."""
    # All blocks are equal, so only one is traced: tracing RRDBNet's 23 would take a second and a half.
    # SRFlow's blocks are stacked and traced once anyway.
    single = model if isinstance(model, SRFlow) else model.clone(blocks=1)
    tree = jax.eval_shape(single.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3), jnp.float32))["params"]
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in flatten_dict(tree, sep="/").items():
        for i in range(model.blocks) if path.startswith("body_0/") else (0,):
            shapes[path.replace("body_0/", f"body_{i}/", 1)] = leaf.shape
    return shapes


def check_params(subject: str, model: nn.Module, params: Any, *, remedy: str) -> None:
    """Raises `UserError` unless nested dictionaries of arrays have the model's names and shapes."""
    leaves = flatten_dict(params, sep="/") if isinstance(params, dict) else {"": params}
    shapes = {name: getattr(leaf, "shape", None) for name, leaf in leaves.items()}
    wanted = parameter_shapes(model)
    for name in sorted(shapes.keys() | wanted.keys()):
        checks.check(
            shapes.get(name) == wanted.get(name),
            subject,
            expected=f"{name} of shape {wanted.get(name, 'none (no such parameter)')}",
            got=shapes.get(name, "no such parameter"),
            remedy=remedy,
        )
