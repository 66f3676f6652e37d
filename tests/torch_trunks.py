"""torchvision's feature networks in plain torch, built from its own lists: the oracle of the trunks."""

import numpy as np
import torch
from torch import nn

# torchvision's configurations D and E; "M" is a max-pool.
VGG_CONFIGURATIONS = {
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    "vgg19": (64, 64, "M", 128, 128, "M", *4 * (256,), "M", *4 * (512,), "M", *4 * (512,), "M"),
}


def torch_trunk(network: str, *, width: int = 1) -> nn.Sequential:
    """Builds `features` of a torchvision network, all channels but RGB divided by `width`."""
    if network == "alexnet":
        c = [64 // width, 192 // width, 384 // width, 256 // width, 256 // width]
        return nn.Sequential(
            nn.Conv2d(3, c[0], 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(c[0], c[1], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(c[1], c[2], 3, padding=1), nn.ReLU(),
            nn.Conv2d(c[2], c[3], 3, padding=1), nn.ReLU(),
            nn.Conv2d(c[3], c[4], 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG_CONFIGURATIONS[network]:
        if entry == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(channels, entry // width, 3, padding=1), nn.ReLU()]
        channels = entry // width
    return nn.Sequential(*layers)


def randomize(trunk: nn.Sequential, seed: int = 0) -> None:
    """Fills a trunk with random weights that keep the activations alive."""
    generator = torch.Generator().manual_seed(seed)
    for layer in trunk:
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            layer.bias.data = 0.1 * torch.randn(layer.bias.shape, generator=generator)


def to_convolutions(trunk: nn.Sequential) -> list[dict[str, np.ndarray]]:
    """Returns the convolutions as decloss_jax takes them."""
    return [
        {"kernel": layer.weight.detach().numpy().transpose(2, 3, 1, 0), "bias": layer.bias.detach().numpy()}
        for layer in trunk
        if isinstance(layer, nn.Conv2d)
    ]


def from_convolutions(network: str, convolutions) -> nn.Sequential:
    """Builds a trunk with given weights."""
    trunk = torch_trunk(network)
    for layer, weights in zip([m for m in trunk if isinstance(m, nn.Conv2d)], convolutions, strict=True):
        layer.weight.data = torch.from_numpy(weights["kernel"].transpose(3, 2, 0, 1).copy())
        layer.bias.data = torch.from_numpy(weights["bias"].copy())
    return trunk


def torch_features(trunk: nn.Sequential, images: torch.Tensor, index: int) -> torch.Tensor:
    """Computes the output of `features.INDEX`: NCHW."""
    for layer in trunk[: index + 1]:
        images = layer(images.clone())  # clone: nothing may change a tap in place
    return images
