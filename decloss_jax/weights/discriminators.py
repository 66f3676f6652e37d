"""BasicSR's VGG-style discriminator: the names and shapes of its state dict, and the way to Flax variables.

Stage s (from 0) has the convolutions conv{s}_0 (3x3) and conv{s}_1 (4x4, stride 2), with features * 2^s
channels but at most 8 * features. All but conv0_0 have no bias and are followed by a batch norm, bn{s}_{0,1}.
Then come linear1 and linear2.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from decloss_jax.weights.dialects import FLOATS, TO_HWIO
from decloss_jax.weights.pickles import Refusal, quote

HIDDEN = 100  # width of linear1
WIDEST = 8  # times `features`
OTHER_FILE = "choose a file of BasicSR's VGGStyleDiscriminator"
BATCH_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def discriminator_variables(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, int], dict[str, Any]]:
    """Converts the state dict of a VGGStyleDiscriminator to Flax variables, using every tensor.

    Args:
        tensors: as `read_torch` gives them.

    Returns:
        `features` and `input_size` (pixels, square), and {"params": ..., "batch_stats": ...} in float32 with
        the layers' own names; the rows of linear1's kernel are in the order H, W, C.

    Raises:
        Refusal: another network, or a missing, unknown or misshapen tensor.
    """
    stages = len({match[1] for key in tensors if (match := re.fullmatch(r"conv(\d+)_1\.weight", key))})
    first, linear1 = tensors.get("conv0_0.weight"), tensors.get("linear1.weight")
    if not stages or first is None or first.ndim != 4 or linear1 is None or linear1.ndim != 2:
        raise Refusal("another network (or one without conv0_0, conv0_1 or linear1)", OTHER_FILE)
    features = first.shape[0]
    widths = [features * min(2**s, WIDEST) for s in range(stages)]
    side = math.isqrt(linear1.shape[1] // max(1, widths[-1]))
    shapes = state_dict_shapes(widths, side)

    wrong = [
        key for key in [*shapes, *tensors] if shapes.get(key) != getattr(tensors.get(key), "shape", None)
    ]
    if wrong:
        key = wrong[0]
        got = list(tensors[key].shape) if key in tensors else "none"
        wanted = list(shapes[key]) if key in shapes else "none"
        raise Refusal(
            f"a discriminator whose {quote(key)} has the shape {got} instead of {wanted}", OTHER_FILE
        )

    flat: dict[tuple[str, ...], np.ndarray] = {}
    for key, array in tensors.items():
        layer, leaf = key.split(".")
        if leaf == "num_batches_tracked":
            continue
        if array.dtype not in FLOATS:
            raise Refusal(f"a discriminator whose {quote(key)} holds {array.dtype}", OTHER_FILE)
        array = array.astype(np.float32)
        if layer.startswith("bn"):
            collection, name = BATCH_NORM[leaf]
            flat[collection, layer, name] = array
        elif leaf == "bias":
            flat["params", layer, "bias"] = array
        else:
            flat["params", layer, "kernel"] = _kernel(layer, array, widths[-1], side)
    return {"features": features, "input_size": side * 2**stages}, unflatten_dict(flat)


def _kernel(layer: str, weight: np.ndarray, channels: int, side: int) -> np.ndarray:
    if layer == "linear1":  # torch flattens C, H, W; images are H, W, C here
        weight = weight.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return np.ascontiguousarray(weight.transpose(TO_HWIO) if weight.ndim == 4 else weight.T)


def state_dict_shapes(widths: list[int], side: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor: `widths` are the stages' channels, `side` that of the last map."""
    shapes: dict[str, tuple[int, ...]] = {}
    for s, (before, width) in enumerate(zip([3, *widths], widths, strict=False)):
        shapes[f"conv{s}_0.weight"] = (width, before, 3, 3)
        shapes[f"conv{s}_1.weight"] = (width, width, 4, 4)
        for norm in (f"bn{s}_0", f"bn{s}_1")[s == 0 :]:
            shapes |= {f"{norm}.{leaf}": (width,) for leaf in BATCH_NORM}
            shapes[f"{norm}.num_batches_tracked"] = ()
    shapes["conv0_0.bias"] = (widths[0],)
    shapes |= {"linear1.weight": (HIDDEN, widths[-1] * side**2), "linear1.bias": (HIDDEN,)}
    return shapes | {"linear2.weight": (1, HIDDEN), "linear2.bias": (1,)}
