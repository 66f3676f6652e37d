"""Weights to and from files of PyTorch and safetensors."""

from decloss_jax.weights.torch_reader import read_torch

__all__ = ["read_torch"]
