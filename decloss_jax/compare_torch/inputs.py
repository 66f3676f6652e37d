"""The inputs of both sides, and the comparison of their results."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from decloss_jax.compare_torch import torch_networks
from decloss_jax.data.photographs import find_photographs
from decloss_jax.ops.resize import imresize
from decloss_jax.weights import dialects
from decloss_jax.weights.tables import WRITTEN, Generator

Arrays = Mapping[str, np.ndarray | jax.Array]

PHOTOGRAPHS = ("astronaut", "motorcycle_left", "ihc", "retina")  # of the packaged training photographs
LOW_SIZE = 16  # LR pixels a side

# Bounds of the relative differences (`Comparison`). Both sides compute values in float32, in a different
# order. Gradients of networks are computed in float64: float32 rounding moves some of millions of ReLUs and
# poolings across their kinks, which changes the gradient by per cents. Training is compared in float64 too,
# or it would drift apart. Generators always output float32 images, which limits their precision.
FORWARD = 1e-5
BACKWARD = 5e-5
BACKWARD_GENERATOR = 1e-6
BACKWARD_FEATURES = 1e-9
MOVEMENT = 1e-3


# The paper's settings, and our defaults where it is silent (configs/base.py); mu is a quarter of 64 bins.
DECLOSS: dict[str, Any] = {
    "patch_size": 8,
    "alpha": 1.0,
    "mu": 16.0,
    "threshold_db": 25.0,
    "t_pos": 0.5,
    "t_neg": 1.5,
}


class Comparison(NamedTuple):
    """One line of the table.

    Attributes:
        quantity: what is compared.
        ours: arrays by name.
        theirs: PyTorch's, by the same names.
        bound: of the relative difference: for each array, the largest difference divided by the largest
            absolute value.
    """

    quantity: str
    ours: Arrays
    theirs: Arrays
    bound: float

    def difference(self) -> tuple[float, float]:
        """Returns the largest absolute and relative difference; NaN if a value is, or if shapes differ."""
        ours, theirs = ({name: np.shape(a) for name, a in side.items()} for side in (self.ours, self.theirs))
        if ours != theirs:
            return float("nan"), float("nan")
        absolute, relative = [0.0], [0.0]
        for name, expected in self.theirs.items():
            largest = np.abs(np.asarray(self.ours[name], np.float64) - expected).max()
            absolute.append(largest)
            relative.append(largest / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
        return float(np.max(absolute)), float(np.max(relative))


@functools.cache
def crops(scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the middle out of four photographs: uint8 low [4,16,16,3] and hr [4,16 s,16 s,3]."""
    lows, hrs = [], []
    for pair in find_photographs("train"):
        if pair.name in PHOTOGRAPHS:
            low, hr = pair.load(scale)
            top, left = ((side - LOW_SIZE) // 2 for side in low.shape[:2])
            lows.append(low[top : top + LOW_SIZE, left : left + LOW_SIZE])
            hrs.append(hr[scale * top :, scale * left :][: scale * LOW_SIZE, : scale * LOW_SIZE])
    return np.stack(lows), np.stack(hrs)


def as_floats(images: np.ndarray) -> np.ndarray:
    """Converts uint8 to float32 in [0,1]."""
    return images.astype(np.float32) / np.float32(255)


def as_dithered_floats(images: np.ndarray) -> np.ndarray:
    """Converts uint8 to float32 in about [0,1], with noise of up to half a grey level.

    In areas of equal pixels, rounding alone would decide the maximum of a pool, the sign at a ReLU, and the
    direction of a flat patch's vector.
    """
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, images.shape)
    return ((images + noise) / 255).astype(np.float32)


def bicubic_pair() -> tuple[np.ndarray, np.ndarray]:
    """Returns (sr, hr) [4,64,64,3] for the losses, with bicubic enlargements as SR."""
    low, hr = crops(4)
    return np.stack([imresize(image, 4) for image in as_dithered_floats(low)]), as_dithered_floats(hr)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Converts [N,H,W,C] to a tensor [N,C,H,W] that requires a gradient."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()


def to_numpy(tensor: torch.Tensor | None) -> np.ndarray:
    """Converts a tensor to an array, and NCHW to NHWC; None to NaN."""
    if tensor is None:
        return np.array(np.nan)
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def as_doubles(tree: Any) -> Any:
    """Turns the float32 arrays of a tree into float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def random_params(model: Generator) -> dict[str, Any]:
    """Draws parameters from U(-b, b), b = 1/sqrt(fan in), as torch does."""
    random = np.random.default_rng(0)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]

    def draw(layer: dict[str, Any]) -> dict[str, Any]:
        if "kernel" not in layer:
            return {name: draw(part) for name, part in layer.items()}
        bound = 1 / np.sqrt(np.prod(layer["kernel"].shape[:3]))
        shapes = {name: leaf.shape for name, leaf in layer.items()}
        return {
            name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()
        }

    return draw(tree)


def make_twin(model: Generator, params: Mapping[str, Any]) -> torch.nn.Module:
    """Builds the torch network with the same weights."""
    twin = torch_networks.build_twin(model)
    state = state_dict(model, params)
    twin.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in state.items()})
    return twin


def state_dict(model: Generator, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names parameters, or their gradients, as the torch network does."""
    return dialects.from_params(WRITTEN[type(model)], model, params)


def state_of(twin: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns the torch network's state dict as arrays."""
    return {key: tensor.numpy().copy() for key, tensor in twin.state_dict().items()}
