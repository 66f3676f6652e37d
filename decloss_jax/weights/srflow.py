"""Converts SRFlow's parameters between its authors' names and ours.

The authors number the layers of all levels in one list, `flowUpsamplerNet.layers.I`, in which a squeeze has a
number but no keys. We stack the equal steps of a level.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from decloss_jax import checks
from decloss_jax.models import SRFlow, parameter_shapes
from decloss_jax.models.srflow.flow import LEVELS
from decloss_jax.models.srflow.start import CHANNELS
from decloss_jax.weights.dialects import (
    TO_HWIO,
    TO_OIHW,
    check_keys,
    file_keys,
    read_array,
)
from decloss_jax.weights.pickles import Refusal, quote
from decloss_jax.weights.tables import ESRGAN_NEW

NAME = "SRFlow"
OTHER_FILE = "choose a file of SRFlow x4"
LAYERS = "flowUpsamplerNet.layers"
ENCODER = "RRDB"
UNUSED = "flowUpsamplerNet.f.0"  # a convolution in the authors' network that is never applied

TRANSITION = {
    "actnorm/bias": "actnorm.bias",
    "actnorm/logs": "actnorm.logs",
    "mixing/matrix": "invconv.weight",
}
NETWORK = {
    "conv1/kernel": "0.weight",
    "conv1/bias": "0.actnorm.bias",
    "conv1/logs": "0.actnorm.logs",
    "conv2/kernel": "2.weight",
    "conv2/bias": "2.actnorm.bias",
    "conv2/logs": "2.actnorm.logs",
    "conv3/kernel": "4.weight",
    "conv3/bias": "4.bias",
    "conv3/logs": "4.logs",
}
STEP = (
    TRANSITION
    | {f"injector/{ours}": f"affine.fFeatures.{theirs}" for ours, theirs in NETWORK.items()}
    | {f"coupling/{ours}": f"affine.fAffine.{theirs}" for ours, theirs in NETWORK.items()}
)
SPLIT = {"kernel": "conv.weight", "bias": "conv.bias", "logs": "conv.logs"}


def is_srflow(tensors: Mapping[str, Any]) -> bool:
    """Tells whether the keys belong to SRFlow."""
    return any(key.startswith(f"{LAYERS}.") for key in tensors)


def read_model(tensors: Mapping[str, np.ndarray], stacked_blocks: Sequence[int]) -> SRFlow:
    """Builds the network that fits a state dict; its keys and shapes give all sizes.

    Raises:
        Refusal: an SRFlow of another scale, or one whose size cannot be determined.
        UserError: too many or too few stacked blocks, or one that the file does not have.
    """
    sizes = {t.shape[0] for key, t in tensors.items() if key.endswith(".invconv.weight") and t.ndim == 2}
    if sizes != set(CHANNELS):
        raise Refusal(f"{NAME} whose levels have {sorted(sizes)} channels, not {list(CHANNELS)}", OTHER_FILE)
    steps = sum(key.endswith(".affine.fFeatures.0.weight") for key in tensors)
    all_steps = sum(key.endswith(".invconv.weight") for key in tensors)
    transitions = (all_steps - steps) // len(LEVELS)
    features = _kernel_shape(tensors, f"{ENCODER}.conv_first.weight")[0]
    hidden, inputs = _kernel_shape(tensors, f"{LAYERS}.{transitions + 1}.affine.fFeatures.0.weight")[:2]
    pattern = re.compile(rf"{ENCODER}\.{ESRGAN_NEW.block}")
    blocks = len({match[1] for key in tensors if (match := pattern.fullmatch(key))})
    stacked = inputs // features - 1
    checks.check(
        len(stacked_blocks) == stacked and set(stacked_blocks) <= set(range(blocks)),
        "stacked_blocks",
        expected=f"{stacked} numbers from 0 to {blocks - 1}, as the file's shapes say",
        got=list(stacked_blocks),
        remedy="give the stacked blocks of this network's configuration",
    )
    return SRFlow(
        features=features,
        blocks=blocks,
        growth=_kernel_shape(tensors, f"{ENCODER}.RRDB_trunk.0.RDB1.conv1.weight")[0],
        stacked_blocks=tuple(stacked_blocks),
        flow_steps=steps // len(LEVELS),
        transitions=transitions,
        hidden=hidden,
    )


def to_params(model: SRFlow, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts a state dict to the model's parameters (float32), using every tensor except `UNUSED`.

    Raises:
        Refusal: a missing or unknown key, a wrong shape, or values that are not finite floats.
    """
    shapes, stacks = parameter_shapes(model), stacked_keys(model)
    expected = [key for keys in stacks.values() for key in keys]
    check_keys(NAME, expected, tensors, ignored=[f"{UNUSED}.weight", f"{UNUSED}.bias"])
    flat = {}
    for path, keys in stacks.items():
        ours = shapes[path][1:] if is_stacked(path) else shapes[path]
        arrays = [read_array(NAME, key, tensors[key], _their_shape(key, ours)) for key in keys]
        arrays = [array.transpose(TO_HWIO) if len(ours) == 4 else array.reshape(ours) for array in arrays]
        flat[path] = np.stack(arrays) if is_stacked(path) else arrays[0]
    return unflatten_dict(flat, sep="/")


def from_params(model: SRFlow, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts the model's parameters to the authors' state dict; their unused convolution becomes 0.

    Raises:
        Refusal: parameters that are not the model's.
    """
    shapes = parameter_shapes(model)
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(params), sep="/").items()}
    for path in sorted(flat.keys() | shapes.keys()):
        got = flat[path].shape if path in flat else None
        if got != shapes.get(path):
            raise Refusal(f"the parameter {path} with the shape {got} instead of {shapes.get(path)}")
    tensors = {}
    for path, keys in stacked_keys(model).items():
        for key, array in zip(keys, flat[path] if is_stacked(path) else [flat[path]], strict=True):
            theirs = array.transpose(TO_OIHW) if array.ndim == 4 else array
            tensors[key] = np.ascontiguousarray(theirs.reshape(_their_shape(key, array.shape)))
    inputs = model.features * (1 + len(model.stacked_blocks))
    tensors[f"{UNUSED}.weight"] = np.zeros((CHANNELS[-1], inputs, 3, 3), np.float32)
    tensors[f"{UNUSED}.bias"] = np.zeros(CHANNELS[-1], np.float32)
    return tensors


def stacked_keys(model: SRFlow) -> dict[str, list[str]]:
    """Maps our path to their keys, in the order of the stack; one key if the parameter is not stacked."""
    stacks: dict[str, list[str]] = {}
    for path, key in file_keys(ESRGAN_NEW, model.blocks).items():
        ours = "encoder/" + re.sub(r"^body_\d+/", "body/", path)
        stacks.setdefault(ours, []).append(f"{ENCODER}.{key}")
    index = 0
    for level in LEVELS:
        index += 1  # the squeeze
        for part, table, count in (
            ("transitions", TRANSITION, model.transitions),
            ("steps", STEP, model.flow_steps),
        ):
            for ours, theirs in table.items():
                stacks[f"flow/{level}/{part}/{ours}"] = [
                    f"{LAYERS}.{index + i}.{theirs}" for i in range(count)
                ]
            index += count
        if level == LEVELS[0]:
            for ours, theirs in SPLIT.items():
                stacks[f"flow/{level}/split/{ours}"] = [f"{LAYERS}.{index}.{theirs}"]
            index += 1
    return stacks


def is_stacked(path: str) -> bool:
    """Tells whether a parameter stacks those of several equal layers along its first axis."""
    return path.startswith("encoder/body/") or "/steps/" in path or "/transitions/" in path


def _their_shape(key: str, ours: tuple[int, ...]) -> tuple[int, ...]:
    if len(ours) == 4:
        return tuple(ours[axis] for axis in TO_OIHW)
    if ".actnorm." in key:
        return (1, *ours, 1, 1)
    return (*ours, 1, 1) if key.endswith(".logs") else ours


def _kernel_shape(tensors: Mapping[str, np.ndarray], key: str) -> tuple[int, ...]:
    if key not in tensors:
        raise Refusal(f"{NAME} without {quote(key)}", OTHER_FILE)
    shape = tensors[key].shape
    if len(shape) != 4 or 0 in shape:
        raise Refusal(f"{NAME} whose {quote(key)} has the shape {list(shape)}", OTHER_FILE)
    return shape
