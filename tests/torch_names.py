"""Reads BasicSR's state dicts into our parameter trees with torch itself, independently of our readers."""

import re
from pathlib import Path
from typing import Any

import numpy as np


def basicsr_params(path: Path) -> dict[str, Any]:
    """Reads a BasicSR `.pth` of a generator: OIHW -> HWIO, `body.3.conv1` -> `body_3/conv1`."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["params"]
    params: dict[str, Any] = {}
    for key, tensor in state.items():
        *path_parts, leaf = re.sub(r"\.(\d+)", r"_\1", key).split(".")
        node = params
        for part in path_parts:
            node = node.setdefault(part, {})
        array = tensor.numpy()
        node["kernel" if leaf == "weight" else "bias"] = (
            np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array
        )
    return params
