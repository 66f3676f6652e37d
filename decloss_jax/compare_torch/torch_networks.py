"""The networks in plain PyTorch, written from their definitions; NCHW, layers named as BasicSR names them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from decloss_jax import models
from decloss_jax.weights.tables import Generator

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
VGG_STAGES = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # convolutions, with a max-pool after each


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Makes a 3x3 convolution with padding 1."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, scaled, plus the input."""

    def __init__(self, features: int, res_scale: float):
        super().__init__()
        self.conv1, self.conv2 = conv(features, features), conv(features, features)
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res_scale * self.conv2(torch.relu(self.conv1(x)))


class Edsr(nn.Module):
    """EDSR on [0,1]; internally it uses 0..255 minus the mean."""

    mean: Tensor

    def __init__(self, scale: int, features: int, blocks: int, res_scale: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.conv_first = conv(3, features)
        self.body = nn.Sequential(*(ResidualBlock(features, res_scale) for _ in range(blocks)))
        self.conv_after_body = conv(features, features)
        stages: list[nn.Module] = []
        for factor in (2, 2) if scale == 4 else (scale,):
            stages += [conv(features, factor**2 * features), nn.PixelShuffle(factor)]
        self.upsample = nn.Sequential(*stages)
        self.conv_last = conv(features, 3)

    def forward(self, low: Tensor) -> Tensor:
        x = self.conv_first((low - self.mean) * 255)
        x = self.conv_after_body(self.body(x)) + x
        return self.conv_last(self.upsample(x)) / 255 + self.mean


def leaky_relu(x: Tensor) -> Tensor:
    """Applies the leaky ReLU of ESRGAN, slope 0.2."""
    return functional.leaky_relu(x, 0.2)


class DenseBlock(nn.Module):
    """Five convolutions; each takes the outputs of all previous ones."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        for k in range(1, 6):
            self.add_module(f"conv{k}", conv(features + (k - 1) * growth, growth if k < 5 else features))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for k in range(1, 5):
            seen = torch.cat([seen, leaky_relu(self.get_submodule(f"conv{k}")(seen))], dim=1)
        return x + 0.2 * self.get_submodule("conv5")(seen)


class Rrdb(nn.Module):
    """Three dense blocks in a residual."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RrdbNet(nn.Module):
    """ESRGAN's generator; scales 1 and 2 unshuffle the input first."""

    def __init__(self, scale: int, features: int, blocks: int, growth: int):
        super().__init__()
        self.unshuffle = 4 // scale
        self.conv_first = conv(3 * self.unshuffle**2, features)
        self.body = nn.Sequential(*(Rrdb(features, growth) for _ in range(blocks)))
        self.conv_body = conv(features, features)
        self.conv_up1, self.conv_up2 = conv(features, features), conv(features, features)
        self.conv_hr, self.conv_last = conv(features, features), conv(features, 3)

    def forward(self, low: Tensor) -> Tensor:
        x = self.conv_first(functional.pixel_unshuffle(low, self.unshuffle))
        x = x + self.conv_body(self.body(x))
        x = leaky_relu(self.conv_up1(functional.interpolate(x, scale_factor=2, mode="nearest")))
        x = leaky_relu(self.conv_up2(functional.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(leaky_relu(self.conv_hr(x)))


class SrResNet(nn.Module):
    """RankSRGAN's generator, with its names."""

    def __init__(self, scale: int, features: int, blocks: int):
        super().__init__()
        self.factors = (2, 2) if scale == 4 else (scale,)
        self.conv_first = conv(3, features)
        self.recon_trunk = nn.Sequential(*(ResidualBlock(features, 1.0) for _ in range(blocks)))
        self.LRconv = conv(features, features)
        for i, factor in enumerate(self.factors, 1):
            self.add_module(f"upconv{i}", conv(features, factor**2 * features))
        self.HRconv, self.conv_last = conv(features, features), conv(features, 3)

    def forward(self, low: Tensor) -> Tensor:
        x = self.conv_first(low)
        x = x + self.LRconv(self.recon_trunk(x))
        for i, factor in enumerate(self.factors, 1):
            x = torch.relu(functional.pixel_shuffle(self.get_submodule(f"upconv{i}")(x), factor))
        return self.conv_last(torch.relu(self.HRconv(x)))


class MsrResNet(nn.Module):
    """BasicSR's MSRResNet: leaky ReLUs of slope 0.1, and a bilinear skip around everything."""

    def __init__(self, scale: int, features: int, blocks: int):
        super().__init__()
        self.scale, self.factors = scale, (2, 2) if scale == 4 else (scale,)
        self.conv_first = conv(3, features)
        self.body = nn.Sequential(*(ResidualBlock(features, 1.0) for _ in range(blocks)))
        for i, factor in enumerate(self.factors, 1):
            self.add_module(f"upconv{i}", conv(features, factor**2 * features))
        self.conv_hr, self.conv_last = conv(features, features), conv(features, 3)

    def forward(self, low: Tensor) -> Tensor:
        x = self.body(functional.leaky_relu(self.conv_first(low), 0.1))
        for i, factor in enumerate(self.factors, 1):
            x = functional.pixel_shuffle(self.get_submodule(f"upconv{i}")(x), factor)
            x = functional.leaky_relu(x, 0.1)
        x = self.conv_last(functional.leaky_relu(self.conv_hr(x), 0.1))
        return x + functional.interpolate(low, scale_factor=self.scale, mode="bilinear", align_corners=False)


def build_twin(model: Generator) -> nn.Module:
    """Builds the torch network that a Flax generator should equal."""
    if isinstance(model, models.EDSR):
        return Edsr(model.scale, model.features, model.blocks, model.res_scale)
    if isinstance(model, models.SRResNet):
        return SrResNet(model.scale, model.features, model.blocks)
    if isinstance(model, models.MSRResNet):
        return MsrResNet(model.scale, model.features, model.blocks)
    return RrdbNet(model.scale, model.features, model.blocks, model.growth)


class Discriminator(nn.Module):
    """The VGG-style discriminator for patches of `size` pixels, halved until their side is 4 to 7."""

    def __init__(self, size: int, features: int):
        super().__init__()
        self.stages = (size // 4).bit_length() - 1
        before = 3
        for s in range(self.stages):
            width = features * min(2**s, 8)
            self.add_module(f"conv{s}_0", nn.Conv2d(before, width, 3, padding=1, bias=s == 0))
            self.add_module(f"conv{s}_1", nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{s}_0", nn.Identity() if s == 0 else nn.BatchNorm2d(width))
            self.add_module(f"bn{s}_1", nn.BatchNorm2d(width))
            before = width
        map_size = (size >> self.stages) ** 2
        self.linear1, self.linear2 = nn.Linear(before * map_size, 100), nn.Linear(100, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for s in range(self.stages):
            for part in (0, 1):
                x = self.get_submodule(f"conv{s}_{part}")(x)
                x = leaky_relu(self.get_submodule(f"bn{s}_{part}")(x))
        return self.linear2(leaky_relu(self.linear1(x.flatten(1))))


class Ranker(nn.Module):
    """RankSRGAN's Ranker, for images that leave a square map."""

    def __init__(self, features: int):
        super().__init__()
        before = 3
        for s, width in enumerate(features * min(2**s, 8) for s in range(5)):
            self.add_module(f"conv{s}_0", nn.Conv2d(before, width, 3, padding=1))
            self.add_module(f"conv{s}_1", nn.Conv2d(width, width, 4, stride=2, padding=1))
            self.add_module(f"bn{s}_0", nn.Identity() if s == 0 else nn.BatchNorm2d(width))
            self.add_module(f"bn{s}_1", nn.BatchNorm2d(width))
            before = width
        self.classifier = nn.Sequential(nn.Linear(before, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for name in (f"{s}_{part}" for s in range(5) for part in (0, 1)):
            x = leaky_relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(x)))
        return self.classifier(x.mean(dim=(2, 3)))


def trunk_features(
    network: str, weights: Sequence[dict[str, np.ndarray]], images: Tensor
) -> dict[str, Tensor]:
    """Computes every convolution's output, before ("conv1_1") and after its ReLU ("relu1_1").

    Args:
        network: "vgg19", "vgg16" or "alexnet".
        weights: the convolutions as `weights.trunks.load_trunk` gives them, HWIO; a shorter list ends early.
        images: [N,3,H,W], normalised.
    """
    features: dict[str, Tensor] = {}
    kernels = [torch.from_numpy(w["kernel"].transpose(3, 2, 0, 1).copy()) for w in weights]
    biases = [torch.from_numpy(np.array(w["bias"])) for w in weights]
    pairs = iter(zip(kernels, biases, strict=True))

    def convolve(x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        kernel, bias = next(pairs)
        features[f"conv{name}"] = functional.conv2d(x, kernel, bias, stride, padding)
        features[f"relu{name}"] = torch.relu(features[f"conv{name}"])
        return features[f"relu{name}"]

    x = images
    if network == "alexnet":
        x = functional.max_pool2d(convolve(x, "1", stride=4, padding=2), 3, 2)
        x = functional.max_pool2d(convolve(x, "2", padding=2), 3, 2)
        for name in ("3", "4", "5"):
            x = convolve(x, name)
        return features
    for stage, count in enumerate(VGG_STAGES[network], start=1):
        for i in range(1, count + 1):
            x = convolve(x, f"{stage}_{i}")
        x = functional.max_pool2d(x, 2)
    return features
