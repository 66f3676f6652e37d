"""Loads and saves generators, as safetensors and as PyTorch's .pth files."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy, which safetensors needs)
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict
from numpy.typing import DTypeLike

import decloss_jax
from decloss_jax import checks
from decloss_jax.host import files
from decloss_jax.models import MODELS, SRFlow
from decloss_jax.models.edsr import EDSR
from decloss_jax.weights import dialects, srflow, tables
from decloss_jax.weights.pickles import Refusal, quote
from decloss_jax.weights.torch_reader import (
    NOTES,
    StateDict,
    read_torch_state,
    refusals_as_user_errors,
    strip_prefixes,
)
from decloss_jax.weights.torch_writer import torch_bytes

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
FORMAT = "decloss_jax generator"  # names the format of the notes that `save_generator` writes
SAFETENSORS_HEADER_LIMIT = 2**22  # bytes; some 40,000 tensors

SAFETENSORS_ERRORS = (safetensors.SafetensorError, ValueError, TypeError, AttributeError)
NAMES = {kind: name for name, kind in MODELS.items()}
MODEL_ATTRIBUTES = {  # in addition to scale, features and blocks
    "edsr": ("res_scale",),
    "rrdb": ("growth",),
    "srresnet": (),
    "msrresnet": (),
    "srflow": ("growth", "stacked_blocks", "flow_steps", "transitions", "hidden"),
}

# EDSR's weights do not show the residual scale. Among the published networks only the large one has 0.1.
EDSR_LARGE = {"blocks": 32, "features": 256}
LARGE_RES_SCALE, BASELINE_RES_SCALE = 0.1, 1.0
ASSUMED = "assumed from the size"  # `res_scale_from` when neither the caller nor the file gives it


def interpolate(first: Any, second: Any, amount: float) -> Any:
    """Interpolates the parameters of two equal networks, as ESRGAN does to balance fidelity and texture.

    Args:
        first: nested dictionaries of arrays.
        second: the same, with equal names and shapes.
        amount: alpha, 0 for the first and 1 for the second network; ESRGAN's published example has 0.8.

    Returns:
        (1 - alpha) first + alpha second (ESRGAN, Eq. 4).
    """
    a = np.float32(amount)
    return jax.tree.map(lambda x, y: (1 - a) * np.asarray(x) + a * np.asarray(y), first, second)


def load_generator(
    path: str | Path,
    *,
    res_scale: float | None = None,
    stacked_blocks: Sequence[int] | None = None,
    key: str = "",
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Loads a generator from a .safetensors, .pth or .pt file of any known code base.

    Args:
        path: the file. Its keys and shapes determine the dialect, the scale and the sizes.
        res_scale: EDSR's residual scale, which the keys do not show. The default is the value in the file's
            notes (`save_generator` writes them), else 0.1 for 32 blocks of 256 features and 1.0 otherwise.
        stacked_blocks: the blocks that condition SRFlow's flow, which the keys do not show either. The
            default is the value in the file's notes, else that of the authors' x4 network: 1, 8, 15 and 22.
        key: selects a state dict ("params", "params_ema") when a PyTorch file has several; the default is
            the first of `torch_reader.WRAPPERS` that the file has.

    Returns:
        The Flax model, its parameters as float32 NumPy arrays, and a description that fits into JSON: `file`,
        `sha256`, `dialect`, `wrapper`, `model`, `scale`, `features`, `blocks`, `growth` (RRDBNet, SRFlow),
        `unshuffle` (RRDBNet), `res_scale` and `res_scale_from` (EDSR), SRFlow's other attributes,
        `parameters`.

    Raises:
        UserError: the file does not hold such a network; one sentence names the reason.
    """
    state = read_state(path, key)
    details: dict[str, Any] = {}
    model: tables.Generator | SRFlow
    with refusals_as_user_errors(path, "weights of a generator"):
        if srflow.is_srflow(state.tensors):
            dialect = srflow.NAME
            if stacked_blocks is None:
                stacked_blocks = _noted_blocks(state.notes) if state.notes else SRFlow.stacked_blocks
            model = srflow.read_model(state.tensors, stacked_blocks)
            params = srflow.to_params(model, state.tensors)
        else:
            dialect, model, params, details = _read_by_table(state, res_scale)
    for name, value, kind in (("res_scale", res_scale, EDSR), ("stacked_blocks", stacked_blocks, SRFlow)):
        checks.check(
            value is None or isinstance(model, kind),
            name,
            expected=f"none for {type(model).__name__}",
            got=value,
            remedy="leave it out",
        )
    description = {
        "file": Path(path).name,
        "sha256": files.sha256(Path(path)),
        "dialect": dialect,
        "wrapper": state.wrapper,
        "model": NAMES[type(model)],
        **_attributes(model),
        **details,
        "parameters": sum(leaf.size for leaf in flatten_dict(params).values()),
    }
    return model, params, description


def _read_by_table(
    state: StateDict, res_scale: float | None
) -> tuple[str, tables.Generator, dict[str, Any], dict[str, Any]]:
    """Reads a network of `tables.DIALECTS`; returns the dialect, the model, its params, and its details."""
    dialect, attributes = dialects.detect_dialect(state.tensors)
    options: dict[str, Any] = dict(attributes)
    details: dict[str, Any] = {}
    if dialect.model is EDSR:
        options["res_scale"], details["res_scale_from"] = _choose_res_scale(
            res_scale, state.notes, attributes
        )
    model = dialect.model(**options)
    return dialect.name, model, dialects.to_params(dialect, model, state.tensors), options | details


def _attributes(model: tables.Generator | SRFlow) -> dict[str, Any]:
    """Returns the attributes that build the model again, for descriptions and notes."""
    names = ("scale", "features", "blocks", *MODEL_ATTRIBUTES[NAMES[type(model)]])
    return {name: getattr(model, name) for name in names}


def describe(description: Mapping[str, Any]) -> str:
    """Formats the description of a loaded network, from a file or a checkpoint, as one line."""
    if "workdir" in description:
        return "{workdir}: {stage}, step {step}, {params}, sha256 {sha256:.12}".format_map(description)
    parts = [f"{description['dialect']} x{description['scale']}"]
    parts += [f"{description['blocks']} blocks", f"{description['features']} features"]
    if "growth" in description:
        parts.append(f"growth {description['growth']}")
    if "res_scale" in description:
        parts.append(f"res_scale {description['res_scale']:g} ({description['res_scale_from']})")
    parts += [f"{description['parameters']:,} parameters", f"sha256 {description['sha256'][:12]}"]
    wrapper = f" ({description['wrapper']})" if description.get("wrapper") else ""
    return f"{description['file']}{wrapper}: {', '.join(parts)}"


def save_generator(
    path: str | Path,
    model: tables.Generator | SRFlow,
    params: Mapping[str, Any],
    *,
    dtype: DTypeLike = np.float32,
) -> None:
    """Saves a generator atomically, as .safetensors or as .pth, with BasicSR's parameter names.

    SRResNet gets RankSRGAN's names, and SRFlow its authors' names. The notes (the model's name and attributes
    as JSON) go into the metadata of safetensors, or into a .pth under a key of their own, which PyTorch
    programs ignore. Equal parameters give equal files.

    Args:
        path: the file, with the suffix .safetensors, .pth or .pt.
        model: the generator.
        params: its parameters, float32 arrays of any kind.
        dtype: of the arrays in the file; float16 halves it, and only a .safetensors file can have it.

    Raises:
        UserError: another suffix or dtype, or parameters that do not fit the model.
    """
    check_suffix(path)
    dtypes = ("float32",) if Path(path).suffix.lower() in TORCH_SUFFIXES else ("float32", "float16")
    checks.look_up(dict.fromkeys(dtypes), np.dtype(dtype).name, f"dtype of {Path(path).name}")
    notes = {"format": FORMAT, "version": decloss_jax.__version__, "model": NAMES[type(model)]}
    text = json.dumps(notes | _attributes(model))
    with refusals_as_user_errors(path, f"parameters of {type(model).__name__}"):
        if isinstance(model, SRFlow):
            tensors = srflow.from_params(model, params)
        else:
            tensors = dialects.from_params(tables.WRITTEN[type(model)], model, params)
    if np.dtype(dtype) == np.float16:
        tensors = {key: array.astype(np.float16) for key, array in tensors.items()}
    write_state(path, tensors, text)


def check_suffix(path: str | Path) -> None:
    """Raises `UserError` unless the file has a suffix of `SUFFIXES`."""
    checks.look_up(dict.fromkeys(SUFFIXES), Path(path).suffix.lower(), "ending of the weights file")


def write_state(path: str | Path, tensors: Mapping[str, np.ndarray], notes: str) -> None:
    """Writes tensors by their keys, and the notes; the suffix decides the format."""
    if Path(path).suffix.lower() in TORCH_SUFFIXES:
        files.write_atomically(Path(path), torch_bytes("params", tensors, notes))
    else:
        files.write_atomically(Path(path), safetensors.numpy.save(dict(tensors), metadata={NOTES: notes}))


def read_state(path: str | Path, key: str = "") -> StateDict:
    """Reads tensors and this package's notes from a .safetensors, .pth or .pt file.

    Args:
        path: the file.
        key: the wrapper to choose when a PyTorch file holds several networks.

    Raises:
        UserError: a damaged file, or a key for a .safetensors file.
    """
    if Path(path).suffix.lower() != ".safetensors":
        return read_torch_state(path, key)
    checks.check(
        not key,
        "key",
        expected="none for a .safetensors file, which holds one network",
        got=key,
        remedy="leave it out",
    )
    return read_safetensors(path)


def read_safetensors(path: str | Path) -> StateDict:
    """Reads the tensors and this package's notes from a .safetensors file, and strips prefixes from the keys.

    Raises:
        UserError: a damaged file.
    """
    with refusals_as_user_errors(path, "weights in the safetensors format"):
        with open(files.regular(Path(path)), "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
        if header_size > SAFETENSORS_HEADER_LIMIT:
            raise Refusal("another kind of file, or a header with too many tensors")
        try:
            with safetensors.safe_open(path, "numpy") as content:
                tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
                metadata = content.metadata() or {}
        except SAFETENSORS_ERRORS as error:
            raise Refusal(f"a damaged file ({quote(str(error))})") from error
        return StateDict(strip_prefixes(tensors), notes=metadata.get(NOTES, ""))


def _choose_res_scale(argument: float | None, notes: str, attributes: Mapping[str, int]) -> tuple[float, str]:
    """Returns EDSR's residual scale and its source."""
    if argument is not None:
        return argument, "as given"
    if notes:
        return _noted_res_scale(notes), "from the file's notes"
    large = all(attributes[key] == value for key, value in EDSR_LARGE.items())
    return (LARGE_RES_SCALE if large else BASELINE_RES_SCALE), ASSUMED


def _noted_res_scale(notes: str) -> float:
    try:
        res_scale = float(json.loads(notes)["res_scale"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refusal("damaged notes on the network") from error
    if not math.isfinite(res_scale):
        raise Refusal(f"notes with the res_scale {res_scale}")
    return res_scale


def _noted_blocks(notes: str) -> tuple[int, ...]:
    try:
        return tuple(int(block) for block in json.loads(notes)["stacked_blocks"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refusal("damaged notes on the network") from error
