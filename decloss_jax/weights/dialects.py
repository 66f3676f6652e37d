"""Converts generators between other code bases' state dicts and our parameters, by the tables of `tables.py`.

Their kernels are OIHW, ours HWIO.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from decloss_jax.models import parameter_shapes
from decloss_jax.models.edsr import EDSR
from decloss_jax.models.rrdb import RRDBNet
from decloss_jax.models.srresnet import MSRResNet, SRResNet
from decloss_jax.weights.pickles import Refusal, quote
from decloss_jax.weights.tables import DIALECTS, Dialect, Generator

FLOATS = tuple(map(np.dtype, ("float16", "float32", "float64", ml_dtypes.bfloat16)))
LEAVES = {"kernel": "weight", "bias": "bias"}  # Flax's name -> torch's
TO_HWIO, TO_OIHW = (2, 3, 1, 0), (3, 2, 0, 1)
OTHER_FILE = "choose a file of a known generator"

EDSR_SCALES = {(4, 1): 2, (9, 1): 3, (4, 2): 4, (4, 3): 8}  # first stage's widening, number of stages
# Input channels (more than 3 after a pixel-unshuffle) and number of upsamplings -> scale, unshuffle.
RRDB_SCALES = {
    (48, 2): (1, True),
    (12, 2): (2, True),
    (3, 0): (1, False),
    (3, 1): (2, False),
    (3, 2): (4, True),
    (3, 3): (8, True),
}


def detect_dialect(tensors: Mapping[str, np.ndarray]) -> tuple[Dialect, dict[str, Any]]:
    """Recognises the dialect and the network of a state dict by its keys and shapes.

    Returns:
        The dialect, and the attributes of its model: scale, features, blocks; for RRDBNet growth, unshuffle.

    Raises:
        Refusal: an unknown network, or one whose size cannot be determined.
    """
    if any("conv1x1" in key for key in tensors):
        raise Refusal("ESRGAN+ (its dense blocks have conv1x1 layers, RRDBNet's do not)", OTHER_FILE)
    for dialect in DIALECTS:
        # The blocks are counted. Their highest number would make a key like body.999999999 expensive.
        blocks = len({match[1] for key in tensors if (match := re.fullmatch(dialect.block, key))})
        if blocks and (not dialect.marker or dialect.marker in tensors):
            return dialect, {"blocks": blocks, **ATTRIBUTES[dialect.model](dialect, tensors)}
    keys = ", ".join(map(quote, itertools.islice(tensors, 3)))
    known = ", ".join(dialect.name for dialect in DIALECTS)
    raise Refusal(f"an unknown network (its keys are {keys} ...)", f"choose a file of {known}")


def _edsr_attributes(dialect: Dialect, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    features = _kernel_shape(dialect, tensors, "conv_first")[0]
    widened = _kernel_shape(dialect, tensors, "upsample_0")[0]
    layers = {key.rpartition(".")[0] for key in tensors}
    stages = sum(their in layers for ours, their in dialect.table.items() if ours.startswith("upsample_"))
    scale = EDSR_SCALES.get((widened // features, stages))
    if scale is None:
        raise Refusal(
            f"{dialect.name} that is not x2, x3, x4 or x8 ({stages} upsampling layers, the first of "
            f"{features} -> {widened} channels)",
            OTHER_FILE,
        )
    return {"scale": scale, "features": features}


def _rrdb_attributes(dialect: Dialect, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    features, entering = _kernel_shape(dialect, tensors, "conv_first")[:2]
    growth = _kernel_shape(dialect, tensors, "body_{i}/rdb{j}/conv{k}")[0]
    layers = {key.rpartition(".")[0] for key in tensors}
    names = (dialect.layer("conv_up{u}", **_upsampling(u)) for u in itertools.count(1))
    upsamplings = sum(1 for _ in itertools.takewhile(layers.__contains__, names))
    if entering not in {channels for channels, _ in RRDB_SCALES}:
        raise Refusal(f"{dialect.name} of images with {entering} channels", OTHER_FILE)
    if (entering, upsamplings) not in RRDB_SCALES:
        raise Refusal(
            f"{dialect.name} of {entering} channels with {upsamplings} upsampling layers", OTHER_FILE
        )
    scale, unshuffle = RRDB_SCALES[entering, upsamplings]
    return {"scale": scale, "features": features, "growth": growth, "unshuffle": unshuffle}


def _upsampling(u: int) -> dict[str, int]:
    """Returns the counters for RRDBNet's upsampling convolution u: the old ESRGAN numbers every layer."""
    return {"u": u, "up": 3 * u}


ATTRIBUTES: dict[type[Generator], Callable[[Dialect, Mapping[str, np.ndarray]], dict[str, Any]]] = {
    EDSR: _edsr_attributes,
    RRDBNet: _rrdb_attributes,
    SRResNet: _edsr_attributes,
    MSRResNet: _edsr_attributes,
}


def _kernel_shape(dialect: Dialect, tensors: Mapping[str, np.ndarray], ours: str) -> tuple[int, ...]:
    key = f"{dialect.layer(ours, i=0, j=1, k=1)}.weight"
    if key not in tensors:
        raise Refusal(f"{dialect.name} without {quote(key)}", OTHER_FILE)
    shape = tensors[key].shape
    if len(shape) != 4 or 0 in shape:
        raise Refusal(f"{dialect.name} whose {quote(key)} has the shape {list(shape)}", OTHER_FILE)
    return shape


def file_keys(dialect: Dialect, blocks: int, upsamplings: int = 2) -> dict[str, str]:
    """Maps our path to their key, for every parameter that the dialect can name."""
    keys: dict[str, str] = {}
    ends = {"blocks": blocks, "hr": 3 * upsamplings + 2, "last": 3 * upsamplings + 4}
    for ours, theirs in dialect.table.items():
        for i in range(blocks) if "{i}" in ours else (0,):
            for j, k, u in _inner_counts(ours, upsamplings):
                counts = {"i": i, "j": j, "k": k, **_upsampling(u), **ends}
                for leaf, their_leaf in LEAVES.items():
                    keys[f"{ours.format(**counts)}/{leaf}"] = f"{theirs.format(**counts)}.{their_leaf}"
    return keys


def _inner_counts(ours: str, upsamplings: int) -> Iterable[tuple[int, int, int]]:
    """Returns the values that {j}, {k} and {u} take in our name of a layer."""
    dense = "{j}" in ours
    return itertools.product(
        range(1, 4) if dense else (0,),
        range(1, 6) if dense else (0,),
        range(1, upsamplings + 1) if "{u}" in ours else (0,),
    )


def to_params(dialect: Dialect, model: Generator, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts a state dict to the model's parameters (float32); every tensor is used, every parameter set.

    Integers and booleans that the dialect does not know, such as a random generator's state, are ignored.

    Raises:
        Refusal: a missing or unknown key, a wrong shape, or values that are not finite floats.
    """
    shapes = parameter_shapes(model)
    named = file_keys(dialect, model.blocks, getattr(model, "upsamplings", 0))
    keys = {path: key for path, key in named.items() if path in shapes}
    network = f"{dialect.name} ({model.blocks} blocks of {model.features} features)"
    check_keys(network, list(keys.values()), tensors, ignored=dialect.constants)
    for key, constant in dialect.constants.items():
        if key in tensors and not _is_close(tensors[key], constant):
            raise Refusal(f"{network} whose {key} does not hold DIV2K's mean on 0..255", OTHER_FILE)

    flat: dict[str, np.ndarray] = {}
    for path, key in keys.items():
        shape = shapes[path]
        theirs = tuple(shape[axis] for axis in TO_OIHW) if len(shape) == 4 else shape
        array = read_array(network, key, tensors[key], theirs)
        flat[path] = np.ascontiguousarray(array.transpose(TO_HWIO) if array.ndim == 4 else array)
    return unflatten_dict(flat, sep="/")


def check_keys(
    network: str, expected: Collection[str], tensors: Mapping[str, Any], *, ignored: Collection[str]
) -> None:
    """Raises `Refusal` unless a state dict has the expected keys, and no others except the ignored ones."""
    missing = [key for key in expected if key not in tensors]
    known = {*expected, *ignored}
    unknown = [key for key, array in tensors.items() if key not in known and array.dtype in FLOATS]
    if missing or unknown:
        lacking = f" without {_listed(missing)}" if missing else ""
        surplus = f" with unknown {_listed(unknown)}" if unknown else ""
        raise Refusal(f"{network}{lacking}{surplus}", OTHER_FILE)


def read_array(network: str, key: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor as float32; raises `Refusal` for another shape or values that are not finite."""
    if array.shape != shape:
        got = f"{network} whose {quote(key)} has the shape {list(array.shape)} instead of {list(shape)}"
        raise Refusal(got, OTHER_FILE)
    if array.dtype not in FLOATS:
        raise Refusal(f"{network} whose {quote(key)} holds {array.dtype}", OTHER_FILE)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise Refusal(f"{network} whose {quote(key)} is not finite", "choose weights from before it broke")
    return array


def from_params(dialect: Dialect, model: Generator, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts the model's parameters to the state dict of a dialect; the inverse of `to_params`.

    Raises:
        Refusal: parameters that are not the model's.
    """
    shapes = parameter_shapes(model)
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(dict(params), sep="/").items()}
    for path in [*flat, *shapes]:
        got = flat[path].shape if path in flat else None
        if got != shapes.get(path):
            raise Refusal(f"the parameter {path} with the shape {got} instead of {shapes.get(path)}")
    keys = file_keys(dialect, model.blocks, getattr(model, "upsamplings", 0))
    return {
        key: np.ascontiguousarray(flat[path].transpose(TO_OIHW) if flat[path].ndim == 4 else flat[path])
        for path, key in keys.items()
        if path in flat
    }


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
    return ", ".join(map(quote, keys[:2])) + more


def _is_close(array: np.ndarray, expected: np.ndarray) -> bool:
    if array.shape != expected.shape or array.dtype not in FLOATS:
        return False
    # Half precision keeps about three digits of the mean.
    return bool(np.allclose(array.astype(np.float64), expected, rtol=4e-3, atol=1e-6))
