"""Reads and writes weights in the formats of PyTorch and safetensors.

- `generators`: loads and saves the generators, in .safetensors, .pth and .pt files
- `packaged`: the two networks that come with the package
- `tables`, `dialects`: the parameter names of other code bases, and the conversion to ours and back
- `srflow`: the same for SRFlow
- `rankers`, `discriminators`: RankSRGAN's Ranker and BasicSR's discriminator
- `trunks`: VGG-19, VGG-16 and AlexNet, with LPIPS's linear layers
- `torch_reader`, `pickles`: read PyTorch's files without PyTorch and without running anything in them
- `torch_writer`: writes such files
"""

from decloss_jax.weights.generators import describe, interpolate, load_generator, save_generator
from decloss_jax.weights.packaged import load_packaged
from decloss_jax.weights.rankers import load_ranker, save_ranker
from decloss_jax.weights.torch_reader import read_torch

__all__ = [
    "describe",
    "interpolate",
    "load_generator",
    "load_packaged",
    "load_ranker",
    "read_torch",
    "save_generator",
    "save_ranker",
]
