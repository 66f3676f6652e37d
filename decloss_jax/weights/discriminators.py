"""Converts the state dicts of BasicSR's VGG-style discriminator and RankSRGAN's Ranker to Flax and back.

The layer names are ours, except those of the Ranker's fully connected layers. Their kernels are OIHW, ours
HWIO. Where linear1 takes a flattened map, their order is C, H, W and ours H, W, C.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from decloss_jax.models import Ranker, VGGDiscriminator
from decloss_jax.models.discriminator import HIDDEN
from decloss_jax.models.ranker import STAGES as RANKER_STAGES
from decloss_jax.weights.dialects import FLOATS, TO_HWIO, TO_OIHW
from decloss_jax.weights.pickles import Refusal, quote

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
RANKER_LINEAR = {"linear1": "classifier.0", "linear2": "classifier.2"}
UNUSED = ".num_batches_tracked"  # torch's batch counter, for a running mean that is not exponential
LARGEST_STAGES = 10

Judge = VGGDiscriminator | Ranker
NAMES = {VGGDiscriminator: "discriminator", Ranker: "Ranker"}
SOURCES = {VGGDiscriminator: "BasicSR's VGGStyleDiscriminator", Ranker: "RankSRGAN's Ranker"}

Path = tuple[str, str, str]  # collection, layer, leaf


def discriminator_variables(tensors: Mapping[str, np.ndarray]) -> tuple[VGGDiscriminator, dict[str, Any]]:
    """Converts the state dict of a VGGStyleDiscriminator to Flax variables, using every tensor.

    Args:
        tensors: as `read_torch` returns them.

    Returns:
        The network, and {"params": ..., "batch_stats": ...} in float32. Its `input_size` is the smallest
        patch size that fits the file.

    Raises:
        Refusal: another network, or a missing, unknown or misshapen tensor.
    """
    features, stages, inputs = _measure(VGGDiscriminator, tensors)
    of_one_pixel = VGGDiscriminator(features, 1 << stages, stages)
    side = math.isqrt(inputs // state_dict_shapes(of_one_pixel)["linear1.weight"][1])
    model = VGGDiscriminator(features, max(1, side) << stages, stages)
    return model, _to_variables(model, tensors)


def ranker_variables(tensors: Mapping[str, np.ndarray]) -> tuple[Ranker, dict[str, Any]]:
    """Converts the state dict of RankSRGAN's Ranker to Flax variables, using every tensor.

    Args:
        tensors: as `read_torch` returns them.

    Returns:
        The network, and {"params": ..., "batch_stats": ...} in float32.

    Raises:
        Refusal: another network, or a missing, unknown or misshapen tensor.
    """
    model = Ranker(_measure(Ranker, tensors)[0])
    return model, _to_variables(model, tensors)


def ranker_tensors(model: Ranker, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts a Ranker's variables to RankSRGAN's state dict; the inverse of `ranker_variables`.

    Raises:
        Refusal: variables that are not the model's.
    """
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(variables)).items()}
    shapes = variable_shapes(model)
    for path in [*flat, *shapes]:
        got = flat[path].shape if path in flat else None
        if got != shapes.get(path):
            raise Refusal(f"the variable {'/'.join(path)} with the shape {got} instead of {shapes.get(path)}")
    return {
        their_key(model, path): np.ascontiguousarray(
            flat[path].transpose(TO_OIHW) if flat[path].ndim == 4 else flat[path].T
        )
        for path in shapes
    }


def variable_shapes(model: Judge) -> dict[Path, tuple[int, ...]]:
    """Returns the shapes of the parameters and running statistics, by collection, layer and leaf."""
    side = model.input_size if isinstance(model, VGGDiscriminator) else 1 << RANKER_STAGES
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flatten_dict(dict(tree)).items()}


def their_key(model: Judge, path: Path) -> str:
    """Returns the key of a variable in the state dict."""
    _, layer, leaf = path
    names = RANKER_LINEAR if isinstance(model, Ranker) else {}
    return f"{names.get(layer, layer)}.{LEAVES[leaf]}"


def state_dict_shapes(model: Judge) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor that the model uses, by its key in the state dict."""
    return {
        their_key(model, path): tuple(shape[axis] for axis in TO_OIHW) if len(shape) == 4 else shape[::-1]
        for path, shape in variable_shapes(model).items()
    }


def _measure(kind: type[Judge], tensors: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Returns the channels of the first stage, the number of stages, and the number of inputs to linear1."""
    stages = len({match[1] for key in tensors if (match := re.fullmatch(r"conv(\d+)_1\.weight", key))})
    linear = RANKER_LINEAR["linear1"] if kind is Ranker else "linear1"
    first, linear1 = (tensors.get(f"{layer}.weight", np.empty(0)) for layer in ("conv0_0", linear))
    if not 1 <= stages <= LARGEST_STAGES or first.ndim != 4 or first.size == 0 or linear1.ndim != 2:
        other = f"another network (or one without conv0_0, conv0_1 or {linear})"
        raise Refusal(other, f"choose a file of {SOURCES[kind]}")
    return first.shape[0], stages, linear1.shape[1]


def _to_variables(model: Judge, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    network, other_file = f"a {NAMES[type(model)]}", f"choose a file of {SOURCES[type(model)]}"
    shapes = state_dict_shapes(model)
    used = {key: array for key, array in tensors.items() if not key.endswith(UNUSED)}
    for key in [*shapes, *used]:
        if key not in used or used[key].shape != shapes.get(key):
            got = list(used[key].shape) if key in used else "none"
            wanted = list(shapes[key]) if key in shapes else "none"
            raise Refusal(f"{network} whose {quote(key)} has the shape {got} instead of {wanted}", other_file)
        if used[key].dtype not in FLOATS:
            raise Refusal(f"{network} whose {quote(key)} holds {used[key].dtype}", other_file)

    flat = {}
    side = 1 if isinstance(model, Ranker) else model.input_size >> (model.stages or 0)
    for path in variable_shapes(model):
        array = used[their_key(model, path)].astype(np.float32)
        if path[1:] == ("linear1", "kernel"):  # torch flattens C, H, W; images are H, W, C here
            array = array.reshape(HIDDEN, -1, side, side).transpose(0, 2, 3, 1).reshape(HIDDEN, -1)
        flat[path] = np.ascontiguousarray(array.transpose(TO_HWIO) if array.ndim == 4 else array.T)
    return unflatten_dict(flat)
