"""SRFlow in plain PyTorch, as functions of a state dict with its authors' names; NCHW."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from decloss_jax.compare_torch.torch_networks import leaky_relu
from decloss_jax.models import SRFlow

State = Mapping[str, Tensor]
LAYERS = "flowUpsamplerNet.layers"


def convolve(state: State, name: str, x: Tensor) -> Tensor:
    """Convolves, and adds the bias if there is one."""
    return functional.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding="same")


def block(state: State, name: str, x: Tensor) -> Tensor:
    """Three dense blocks in a residual."""
    y = x
    for j in range(1, 4):
        seen = y
        for k in range(1, 5):
            more = leaky_relu(convolve(state, f"{name}.RDB{j}.conv{k}", seen))
            seen = torch.cat([seen, more], dim=1)
        y = y + 0.2 * convolve(state, f"{name}.RDB{j}.conv5", seen)
    return x + 0.2 * y


def conditions(state: State, low: Tensor, model: SRFlow) -> list[Tensor]:
    """The conditioning maps of the three levels."""
    x, outputs = convolve(state, "RRDB.conv_first", low), []
    for i in range(model.blocks):
        x = block(state, f"RRDB.RRDB_trunk.{i}", x)
        outputs.append(x)
    stacked = torch.cat([outputs[i] for i in model.stacked_blocks], dim=1)
    x = x + convolve(state, "RRDB.trunk_conv", x)
    doubled = leaky_relu(convolve(state, "RRDB.upconv1", functional.interpolate(x, scale_factor=2)))
    return [
        torch.cat([doubled, functional.interpolate(stacked, scale_factor=2)], dim=1),
        torch.cat([x, stacked], dim=1),
        torch.cat([functional.avg_pool2d(x, 2), stacked[:, :, ::2, ::2]], dim=1),
    ]


def normalize(state: State, name: str, x: Tensor) -> Tensor:
    """Actnorm."""
    return (x + state[f"{name}.actnorm.bias"]) * torch.exp(state[f"{name}.actnorm.logs"])


def zero_convolution(state: State, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The scaled last convolution; returns its even and its odd channels."""
    y = convolve(state, name, x) * torch.exp(3 * state[f"{name}.logs"])
    return y[:, 0::2], y[:, 1::2]


def affine(state: State, name: str, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts and scales x by a network of the condition; returns the result and log|det|."""
    for i in (0, 2):
        hidden = convolve(state, f"{name}.{i}", condition)
        condition = torch.relu(normalize(state, f"{name}.{i}", hidden))
    shift, raw = zero_convolution(state, f"{name}.4", condition)
    scale = torch.sigmoid(raw + 2) + 1e-4
    return (x + shift) * scale, torch.log(scale).sum(dim=(1, 2, 3))


def step(state: State, name: str, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """A step of the flow, with affine layers only if the state has them."""
    matrix, pixels = state[f"{name}.invconv.weight"], x.shape[2] * x.shape[3]
    log_det = pixels * (state[f"{name}.actnorm.logs"].sum() + torch.slogdet(matrix)[1])
    x = torch.einsum("ij,njhw->nihw", matrix, normalize(state, name, x))
    if f"{name}.affine.fFeatures.4.logs" not in state:
        return x, log_det
    x, of_injector = affine(state, f"{name}.affine.fFeatures", x, condition)
    kept, changed = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
    seen = torch.cat([kept, condition], dim=1)
    changed, of_coupling = affine(state, f"{name}.affine.fAffine", changed, seen)
    return torch.cat([kept, changed], dim=1), log_det + of_injector + of_coupling


def encode(state: State, low: Tensor, hr: Tensor, model: SRFlow) -> tuple[list[Tensor], Tensor]:
    """Latents [eps, z] and bits per pixel."""
    x, log_det, index = hr, torch.zeros(()), 0
    latents: list[Tensor] = []
    for condition in conditions(state, low, model):
        x, index = functional.pixel_unshuffle(x, 2), index + 1
        for _ in range(model.transitions + model.flow_steps):
            x, more = step(state, f"{LAYERS}.{index}", x, condition)
            log_det, index = log_det + more, index + 1
        if not latents:
            x, taken = x.chunk(2, dim=1)
            mean, logs = zero_convolution(state, f"{LAYERS}.{index}.conv", x)
            latents.append((taken - mean) * torch.exp(-logs))
            log_det, index = log_det - logs.sum(dim=(1, 2, 3)), index + 1
    latents.append(x)
    log_normal = sum(-0.5 * (z**2 + math.log(2 * math.pi)).sum(dim=(1, 2, 3)) for z in latents)
    return latents, -(log_det + log_normal) / (math.log(2) * hr.shape[2] * hr.shape[3])
