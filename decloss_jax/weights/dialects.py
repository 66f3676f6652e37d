"""The names that EDSR's and RRDBNet's parameters have in other people's files, and the way to ours and back.

A dialect is one table, our layer -> their layer; {i} counts the blocks from 0, {j} the three dense blocks
and {k} their five convolutions from 1, {blocks} is the number of blocks. Kernels are OIHW there, HWIO here.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from decloss_jax.models import parameter_shapes
from decloss_jax.models.edsr import DIV2K_MEAN, EDSR, PIXEL_RANGE
from decloss_jax.models.rrdb import RRDBNet
from decloss_jax.weights.pickles import Refusal, quote

Generator = EDSR | RRDBNet

FLOATS = tuple(map(np.dtype, ("float16", "float32", "float64", ml_dtypes.bfloat16)))
LEAVES = {"kernel": "weight", "bias": "bias"}  # Flax's name -> torch's
TO_HWIO, TO_OIHW = (2, 3, 1, 0), (3, 2, 0, 1)
OTHER_FILE = "choose a file of EDSR or RRDBNet"

EDSR_SCALES = {(4, False): 2, (9, False): 3, (4, True): 4}  # first stage's widening, is there a second
RRDB_SCALES = {3: 4, 12: 2, 48: 1}  # channels that enter, after the pixel-unshuffle of scales 2 and 1


@dataclass(frozen=True)
class Dialect:
    """How one code base writes the state dict of a network.

    Attributes:
        name: what messages call it.
        model: the class of the network.
        block: pattern of the keys inside block (1), by which the dialect is known and the blocks are counted.
        table: our layer -> their layer.
        constants: keys that may be there, and must then hold these values, as our networks hold them in code.
    """

    name: str
    model: type[EDSR] | type[RRDBNet]
    block: str
    table: Mapping[str, str]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    def layer(self, ours: str, **counts: int) -> str:
        """Returns their name of our layer (a key of the table), with the counts filled in."""
        return self.table[ours].format(**counts)


def _rgb_convolution(name: str, bias: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.eye(3).reshape(3, 3, 1, 1), f"{name}.bias": bias}


EDSR_PYTORCH = Dialect(
    name="EDSR-PyTorch",
    model=EDSR,
    block=r"body\.(\d+)\.body\.\d\..*",
    table={
        "conv_first": "head.0",
        "body_{i}/conv1": "body.{i}.body.0",
        "body_{i}/conv2": "body.{i}.body.2",
        "conv_after_body": "body.{blocks}",
        "upsample_0": "tail.0.0",
        "upsample_2": "tail.0.2",
        "conv_last": "tail.1",
    },
    constants=_rgb_convolution("sub_mean", -PIXEL_RANGE * np.array(DIV2K_MEAN))
    | _rgb_convolution("add_mean", PIXEL_RANGE * np.array(DIV2K_MEAN)),
)
BASICSR_EDSR = Dialect(
    name="BasicSR EDSR",
    model=EDSR,
    block=r"body\.(\d+)\.conv\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/conv1": "body.{i}.conv1",
        "body_{i}/conv2": "body.{i}.conv2",
        "conv_after_body": "conv_after_body",
        "upsample_0": "upsample.0",
        "upsample_2": "upsample.2",
        "conv_last": "conv_last",
    },
)
ESRGAN_OLD = Dialect(
    name="ESRGAN (old)",
    model=RRDBNet,
    block=r"model\.1\.sub\.(\d+)\.RDB\d\..*",
    table={
        "conv_first": "model.0",
        "body_{i}/rdb{j}/conv{k}": "model.1.sub.{i}.RDB{j}.conv{k}.0",
        "conv_body": "model.1.sub.{blocks}",
        "conv_up1": "model.3",
        "conv_up2": "model.6",
        "conv_hr": "model.8",
        "conv_last": "model.10",
    },
)
ESRGAN_NEW = Dialect(
    name="ESRGAN (new)",
    model=RRDBNet,
    block=r"RRDB_trunk\.(\d+)\.RDB\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/rdb{j}/conv{k}": "RRDB_trunk.{i}.RDB{j}.conv{k}",
        "conv_body": "trunk_conv",
        "conv_up1": "upconv1",
        "conv_up2": "upconv2",
        "conv_hr": "HRconv",
        "conv_last": "conv_last",
    },
)
BASICSR_RRDB = Dialect(
    name="BasicSR RRDBNet",
    model=RRDBNet,
    block=r"body\.(\d+)\.rdb\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/rdb{j}/conv{k}": "body.{i}.rdb{j}.conv{k}",
        "conv_body": "conv_body",
        "conv_up1": "conv_up1",
        "conv_up2": "conv_up2",
        "conv_hr": "conv_hr",
        "conv_last": "conv_last",
    },
)
DIALECTS = (EDSR_PYTORCH, BASICSR_EDSR, ESRGAN_OLD, ESRGAN_NEW, BASICSR_RRDB)
WRITTEN = {EDSR: BASICSR_EDSR, RRDBNet: BASICSR_RRDB}  # the dialect in which each network is saved


def detect_dialect(tensors: Mapping[str, np.ndarray]) -> tuple[Dialect, dict[str, int]]:
    """Tells from keys and shapes who wrote a state dict, and which network it fits.

    Returns:
        The dialect, and the attributes of its model: scale, features, blocks, and growth for RRDBNet.

    Raises:
        Refusal: a network that is not known here, or one whose size cannot be told.
    """
    if any("conv1x1" in key for key in tensors):
        raise Refusal("ESRGAN+ (its dense blocks have conv1x1 layers, RRDBNet's do not)", OTHER_FILE)
    for dialect in DIALECTS:
        # Counted, not the highest number: a key like body.999999999 must not cost anything.
        blocks = len({match[1] for key in tensors if (match := re.fullmatch(dialect.block, key))})
        if blocks:
            read = _edsr_attributes if dialect.model is EDSR else _rrdb_attributes
            return dialect, {"blocks": blocks, **read(dialect, tensors)}
    keys = ", ".join(map(quote, itertools.islice(tensors, 3)))
    known = ", ".join(dialect.name for dialect in DIALECTS)
    raise Refusal(f"a network that is not known here (its keys are {keys} ...)", f"choose a file of {known}")


def _edsr_attributes(dialect: Dialect, tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    features = _kernel_shape(dialect, tensors, "conv_first")[0]
    widened = _kernel_shape(dialect, tensors, "upsample_0")[0]
    second = any(key.startswith(f"{dialect.layer('upsample_2')}.") for key in tensors)
    scale = EDSR_SCALES.get((widened // features, second))
    if scale is None:
        raise Refusal(
            f"{dialect.name} that is not x2, x3 or x4 ({features} -> {widened} channels)", OTHER_FILE
        )
    return {"scale": scale, "features": features}


def _rrdb_attributes(dialect: Dialect, tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    features, entering = _kernel_shape(dialect, tensors, "conv_first")[:2]
    growth = _kernel_shape(dialect, tensors, "body_{i}/rdb{j}/conv{k}")[0]
    if entering not in RRDB_SCALES:
        raise Refusal(f"{dialect.name} of images with {entering} channels", OTHER_FILE)
    return {"scale": RRDB_SCALES[entering], "features": features, "growth": growth}


def _kernel_shape(dialect: Dialect, tensors: Mapping[str, np.ndarray], ours: str) -> tuple[int, ...]:
    key = f"{dialect.layer(ours, i=0, j=1, k=1)}.weight"
    if key not in tensors:
        raise Refusal(f"{dialect.name} without {quote(key)}", OTHER_FILE)
    shape = tensors[key].shape
    if len(shape) != 4 or 0 in shape:
        raise Refusal(f"{dialect.name} whose {quote(key)} has the shape {list(shape)}", OTHER_FILE)
    return shape


def file_keys(dialect: Dialect, blocks: int) -> dict[str, str]:
    """Returns our path -> their key for every parameter that the dialect can name."""
    keys: dict[str, str] = {}
    for ours, theirs in dialect.table.items():
        for i in range(blocks) if "{i}" in ours else (0,):
            for j, k in itertools.product(range(1, 4), range(1, 6)) if "{j}" in ours else ((0, 0),):
                counts = {"i": i, "j": j, "k": k, "blocks": blocks}
                for leaf, their_leaf in LEAVES.items():
                    keys[f"{ours.format(**counts)}/{leaf}"] = f"{theirs.format(**counts)}.{their_leaf}"
    return keys


def to_params(dialect: Dialect, model: Generator, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts a state dict to the model's parameters (float32), using every tensor and filling every one.

    Raises:
        Refusal: a missing or unknown key, a wrong shape, numbers that are no finite floats.
    """
    shapes = parameter_shapes(model)
    keys = {path: key for path, key in file_keys(dialect, model.blocks).items() if path in shapes}
    network = f"{dialect.name} (scale {model.scale}, blocks {model.blocks}, features {model.features})"
    expected = set(keys.values())
    missing = [key for key in keys.values() if key not in tensors]
    unknown = [key for key in tensors if key not in expected and key not in dialect.constants]
    if missing or unknown:
        without = f" without {_listed(missing)}" if missing else ""
        beside = f" with unknown {_listed(unknown)}" if unknown else ""
        raise Refusal(f"{network}{without}{beside}", OTHER_FILE)
    for key, constant in dialect.constants.items():
        if key in tensors and not _is_close(tensors[key], constant):
            raise Refusal(f"{network} whose {key} is not that of DIV2K's mean on 0..255", OTHER_FILE)

    flat: dict[str, np.ndarray] = {}
    for path, key in keys.items():
        array, shape = tensors[key], shapes[path]
        theirs = tuple(shape[axis] for axis in TO_OIHW) if len(shape) == 4 else shape
        if array.shape != theirs:
            got = f"{network} whose {quote(key)} has the shape {list(array.shape)} instead of {list(theirs)}"
            raise Refusal(got, OTHER_FILE)
        if array.dtype not in FLOATS:
            raise Refusal(f"{network} whose {quote(key)} holds {array.dtype}", OTHER_FILE)
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise Refusal(
                f"{network} whose {quote(key)} is not finite", "choose weights from before it broke"
            )
        flat[path] = np.ascontiguousarray(array.transpose(TO_HWIO) if array.ndim == 4 else array)
    return unflatten_dict(flat, sep="/")


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
    keys = file_keys(dialect, model.blocks)
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
    # Files in half precision carry the mean with three digits.
    return bool(np.allclose(array.astype(np.float64), expected, rtol=4e-3, atol=1e-6))
