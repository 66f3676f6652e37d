"""The losses, LPIPS and the learning rate in plain PyTorch, written from the equations; images are NCHW."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from decloss_jax.compare_torch.torch_networks import trunk_features

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
DIRECT_DISTANCES = "donot_use_mm_for_euclid_dist"  # matrix products would lose digits
LPIPS_TAPS = {
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
}


def normalize(images: Tensor, shift: Sequence[float], scale: Sequence[float]) -> Tensor:
    """Shifts and scales each channel."""

    def per_channel(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=images.dtype).reshape(1, 3, 1, 1)

    return (images - per_channel(shift)) / per_channel(scale)


def l1(sr: Tensor, hr: Tensor) -> Tensor:
    """mean |sr - hr| (Eq. 24)."""
    return (sr - hr).abs().mean()


def perceptual(
    sr: Tensor,
    hr: Tensor,
    *,
    network: str,
    weights: Sequence[dict[str, np.ndarray]],
    tap: str,
    criterion: str,
) -> Tensor:
    """Mean distance of the features of one layer (Eq. 25)."""

    def features(images: Tensor) -> Tensor:
        return trunk_features(network, weights, normalize(images, IMAGENET_MEAN, IMAGENET_STD))[tap]

    difference = features(sr) - features(hr).detach()
    return difference.abs().mean() if criterion == "l1" else difference.square().mean()


def lpips(
    sr: Tensor,
    hr: Tensor,
    *,
    network: str,
    weights: Sequence[dict[str, np.ndarray]],
    linear: Sequence[np.ndarray],
) -> Tensor:
    """LPIPS v0.1 of images in [0,1]: [N]."""

    def features(images: Tensor) -> dict[str, Tensor]:
        return trunk_features(network, weights, normalize(2 * images - 1, LPIPS_SHIFT, LPIPS_SCALE))

    def unit(x: Tensor) -> Tensor:
        return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)

    of_sr, of_hr = features(sr), features(hr)
    total = torch.zeros(len(sr), dtype=sr.dtype)
    for tap, channel_weights in zip(LPIPS_TAPS[network], linear, strict=True):
        squares = (unit(of_sr[tap]) - unit(of_hr[tap])).square()
        total = total + (squares * torch.from_numpy(channel_weights).reshape(1, -1, 1, 1)).sum(dim=1).mean(
            (1, 2)
        )
    return total


def enhance(images: Tensor, *, alpha: float, mu: float) -> Tensor:
    """Re IDFT((K_H^T K_W) . DFT(images)) with the full complex transform (Eq. 12-17)."""

    def kernel(size: int) -> Tensor:
        i = torch.arange(size, dtype=torch.float64)
        return alpha * torch.exp(-((i - (size - 1) / 2) ** 2) / (2 * mu**2))

    gain = torch.outer(kernel(images.shape[2]), kernel(images.shape[3])).to(images)
    return torch.fft.ifft2(gain * torch.fft.fft2(images)).real


def mini_patches(images: Tensor, size: int) -> Tensor:
    """Cuts images into vectors [P,D]: image, patch row, patch column; row, column, channel inside."""
    n, channels, height, width = images.shape
    blocks = images.reshape(n, channels, height // size, size, width // size, size)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size * channels)


def decloss(
    sr: Tensor,
    hr: Tensor,
    *,
    patch_size: int,
    alpha: float,
    mu: float,
    threshold_db: float,
    t_pos: float,
    t_neg: float,
) -> Tensor:
    """The whole loss with full matrices (Eq. 12-23), mode "multiply", MAX 1, temperatures in the exponent."""
    u, v = (mini_patches(enhance(images, alpha=alpha, mu=mu), patch_size) for images in (sr, hr))
    v = v.detach()
    positive = (
        -20 * torch.log10(torch.cdist(v.double(), v.double(), compute_mode=DIRECT_DISTANCES)) >= threshold_db
    )
    u, v = functional.normalize(u), functional.normalize(v)
    t = torch.where(positive, t_pos, t_neg)
    terms = torch.exp(u @ u.T / t) + 2 * torch.exp(u @ v.T / t)
    q_pos, q_neg = (terms * positive).sum(dim=1), (terms * ~positive).sum(dim=1)
    used = (~positive).any(dim=1)
    return -torch.log(q_pos[used] / q_neg[used]).mean()


def ranking(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """RankSRGAN's loss of pairs of scores, with its margin 0.5."""
    return functional.margin_ranking_loss(first.clamp(-5, 5), second.clamp(-5, 5), target, margin=0.5)


def rank_content(scores: Tensor, *, bias: float) -> Tensor:
    """RankSRGAN's loss of the generator: the sum of the sigmoids of the Ranker's scores."""
    return torch.sigmoid(scores - bias).sum()


def gan_losses(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Both sides of GAN and RaGAN, by cross-entropy on logits; the generator's hold `real` constant."""

    def cost(logits: Tensor, target: float) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def relative(real: Tensor, fake: Tensor, real_target: float) -> Tensor:
        of_real = cost(real - fake.mean(), real_target)
        return (of_real + cost(fake - real.mean(), 1 - real_target)) / 2

    return {
        "gan generator": cost(fake, 1.0),
        "gan discriminator": cost(real, 1.0) + cost(fake, 0.0),
        "ragan generator": relative(real.detach(), fake, 0.0),
        "ragan discriminator": relative(real, fake, 1.0),
    }


def cosine_with_warmup(step: int, *, steps: int, warmup_steps: int, learning_rate: float) -> float:
    """Linear to the peak, reached at the last update of the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    return learning_rate * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps))) / 2
