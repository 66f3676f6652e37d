"""Weights to and from files of PyTorch and safetensors."""

from decloss_jax.weights.generators import describe, interpolate, load_generator, save_generator
from decloss_jax.weights.rankers import load_ranker, save_ranker
from decloss_jax.weights.torch_reader import read_torch

__all__ = [
    "describe",
    "interpolate",
    "load_generator",
    "load_ranker",
    "read_torch",
    "save_generator",
    "save_ranker",
]
