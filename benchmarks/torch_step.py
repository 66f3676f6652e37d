"""A PyTorch training step for a row of Table 1, with the speed-ups that PyTorch's documentation recommends.

These are channels_last, TF32, cudnn.benchmark and fused Adam. Weights are random, which does not affect time.
The networks are those of decloss_jax/compare_torch, which are checked against ours; the loss is the dense
form of contrast_forms.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from contrast_forms import torch_loss
from torch import Tensor, nn
from torch.nn import functional

from decloss_jax.compare_torch import torch_losses, torch_networks

VGG19 = (64, 64, "pool", 128, 128, "pool", *(256,) * 4, "pool", *(512,) * 4, "pool", *(512,) * 4)


def use_tensor_cores() -> None:
    """Allows TF32 in convolutions and matrix products, and lets cuDNN choose its algorithms by trial."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def vgg19_features() -> nn.Sequential:
    """Builds VGG-19 up to conv5_4, before its activation."""
    layers: list[nn.Module] = []
    channels = 3
    for width in VGG19:
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [torch_networks.conv(channels, int(width)), nn.ReLU(inplace=False)]
            channels = int(width)
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def decloss(sr: Tensor, hr: Tensor, *, patch_size: int, mu: float, threshold_db: float) -> Tensor:
    """Enhances detail, cuts mini-patches and contrasts them."""
    enhanced = (torch_losses.enhance(images.contiguous(), alpha=1.0, mu=mu) for images in (sr, hr))
    u, v = (torch_losses.mini_patches(images, patch_size) for images in enhanced)
    return torch_loss(u, v.detach(), threshold_db)


def make_step(config: Any, *, device: str) -> Callable[[], None]:
    """Builds a step of the last stage of a config on one batch of random crops.

    Args:
        config: an experiment of `configs/`; `finetune` where it has steps, else `pretrain`.
        device: "cuda" or "cpu".

    Returns:
        A function that does one step and returns before the device has done it.
    """
    use_tensor_cores()
    stage = config.finetune if config.finetune.steps else config.pretrain
    weights = {name: weight for name, weight in stage.weights.items() if weight}
    place = {"device": device, "memory_format": torch.channels_last}
    size, scale = config.data.crop_size, config.model.scale
    hr = torch.rand(config.batch_size, 3, size, size).to(**place)
    low = functional.interpolate(hr, scale_factor=1 / scale, mode="area").to(**place)
    generator = build_generator(config.model).to(**place)
    optimizers = [torch.optim.Adam(generator.parameters(), fused=device == "cuda")]
    terms = build_terms(config, weights, place)
    adversary = next((name for name in ("gan", "ragan") if name in weights), None)
    if adversary is not None:
        discriminator = torch_networks.Discriminator(size, config.discriminator.features).to(**place)
        optimizers.append(torch.optim.Adam(discriminator.parameters(), fused=device == "cuda"))

    def step() -> None:
        sr = generator(low)
        loss = sum(weights[name] * term(sr, hr) for name, term in terms.items())
        if adversary is not None:
            discriminator.requires_grad_(False)
            with torch.no_grad():
                real = discriminator(hr)
            logits = real, discriminator(sr)
            loss = loss + weights[adversary] * torch_losses.gan_losses(*logits)[f"{adversary} generator"]
        update(optimizers[0], loss)
        if adversary is not None:
            discriminator.requires_grad_(True)
            logits = discriminator(hr), discriminator(sr.detach())
            update(optimizers[1], torch_losses.gan_losses(*logits)[f"{adversary} discriminator"])

    return step


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Does one update."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def build_generator(options: Any) -> nn.Module:
    """Builds EDSR or RRDBNet."""
    if options.name == "edsr":
        res_scale = 1.0 if options.res_scale is None else options.res_scale
        return torch_networks.Edsr(options.scale, options.features, options.blocks, res_scale)
    return torch_networks.RrdbNet(options.scale, options.features, options.blocks, options.growth or 32)


def build_terms(
    config: Any, weights: Mapping[str, float], place: Mapping[str, Any]
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Builds those terms of (sr, hr) whose weight is not zero, adversarial ones left out."""
    options = config.decloss
    terms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": torch_losses.l1}
    if "perceptual" in weights:
        vgg = vgg19_features().to(**place)
        mean, std = (
            torch.tensor(values, device=place["device"]).reshape(1, 3, 1, 1)
            for values in (torch_losses.IMAGENET_MEAN, torch_losses.IMAGENET_STD)
        )

        def perceptual(sr: Tensor, hr: Tensor) -> Tensor:
            of_sr, of_hr = vgg((sr - mean) / std), vgg((hr - mean) / std)
            return (of_sr - of_hr).abs().mean()

        terms["perceptual"] = perceptual
    if "decloss" in weights:
        terms["decloss"] = lambda sr, hr: decloss(
            sr,
            hr,
            patch_size=options.patch_size,
            mu=options.mu * config.data.crop_size,
            threshold_db=options.threshold_db,
        )
    return {name: term for name, term in terms.items() if name in weights}
