"""What both sides are given, and how their results are compared."""

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

# Bounds of the relative differences (`Comparison`). Values are computed in float32 on both sides, in another
# order. Networks get their gradients in float64: among millions of ReLUs and poolings, rounding to float32
# moves some across their kinks, which changes the gradient by per cents. Training is compared in the same
# way, or it would drift apart. Generators give float32 images in any case, so there float64 ends.
FORWARD = 1e-5
BACKWARD = 5e-5
BACKWARD_GENERATOR = 1e-6
BACKWARD_FEATURES = 1e-9
MOVEMENT = 1e-3


# The paper's settings, and our defaults where it is silent (configs/base.py); mu in bins, N/4 of 64.
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
        bound: of the relative difference, which for each array is the largest difference over the largest
            absolute value.
    """

    quantity: str
    ours: Arrays
    theirs: Arrays
    bound: float

    def difference(self) -> tuple[float, float]:
        """Returns the largest absolute and relative difference; NaN where one is, or where shapes differ."""
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
    """uint8 -> float32 in [0,1]."""
    return images.astype(np.float32) / np.float32(255)


def as_dithered_floats(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in about [0,1], moved by up to half a grey level.

    In areas of equal pixels, rounding alone would decide which is the largest of a pool, on which side of 0
    a ReLU is, and where the vector of a flat patch points.
    """
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, images.shape)
    return ((images + noise) / 255).astype(np.float32)


def bicubic_pair() -> tuple[np.ndarray, np.ndarray]:
    """Returns (sr, hr) [4,64,64,3] for the losses, with bicubic enlargements as SR."""
    low, hr = crops(4)
    return np.stack([imresize(image, 4) for image in as_dithered_floats(low)]), as_dithered_floats(hr)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """[N,H,W,C] -> a tensor [N,C,H,W] that collects its gradient."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()


def to_numpy(tensor: torch.Tensor | None) -> np.ndarray:
    """A tensor -> an array, with NCHW turned to NHWC."""
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
