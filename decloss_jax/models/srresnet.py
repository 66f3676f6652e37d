"""SRResNet without batch norm, RankSRGAN's generator, and MSRResNet, the network of its base models.

SRResNet is SRGAN's generator (Ledig et al., CVPR 2017) in RankSRGAN's version (Zhang et al., ICCV 2019):
without batch norm, with ReLUs. MSRResNet (MMSR, BasicSR) has no skip over its blocks, but a bilinear one
around the whole network, and leaky ReLUs. Layers have the names of EDSR's and RRDBNet's.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.models.layers import ResidualBlock, conv3x3
from decloss_jax.ops.shuffle import pixel_shuffle

UPSAMPLE_FACTORS = {2: (2,), 3: (3,), 4: (2, 2)}
INIT_GAIN = 0.1  # kaiming-normal times 0.1, of all convolutions but SRResNet's conv_body (MMSR's code)
leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.1)  # MSRResNet's


class ResNet(nn.Module):
    """The layers that both networks share, and the step from features to images.

    Attributes:
        scale: s, 2, 3 or 4.
        features: width of the residual blocks.
        blocks: number of residual blocks.
        dtype: dtype of the convolutions; parameters and output are float32 in any case.
    """

    scale: int = 4
    features: int = 64
    blocks: int = 16
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        factors = checks.look_up(UPSAMPLE_FACTORS, self.scale, f"{type(self).__name__} scale")
        conv = functools.partial(conv3x3, self.features, dtype=self.dtype, kaiming_gain=INIT_GAIN)
        block = functools.partial(ResidualBlock, self.features, 1.0, self.dtype, INIT_GAIN)
        self.conv_first = conv3x3(3, self.features, dtype=self.dtype, kaiming_gain=INIT_GAIN)
        self.body = [block() for _ in range(self.blocks)]
        self.upsample = {str(2 * i): conv(self.features * r**2) for i, r in enumerate(factors)}
        self.conv_hr = conv(self.features)
        self.conv_last = conv(3)

    def apply_body(self, x: Array) -> Array:
        """Applies the residual blocks to [N,h,w,features]."""
        for block in self.body:
            x = block(x)
        return x

    def to_images(self, x: Array, activate: Callable[[Array], Array]) -> Array:
        """Makes images from features: [N,h,w,features] -> [N,s h,s w,3], float32."""
        for conv, factor in zip(self.upsample.values(), UPSAMPLE_FACTORS[self.scale], strict=True):
            x = activate(pixel_shuffle(conv(x), factor))
        return self.conv_last(activate(self.conv_hr(x))).astype(jnp.float32)


class SRResNet(ResNet):
    """Super-resolves [N,h,w,3] in [0,1] to [N,s h,s w,3], float32, not clipped; attributes of `ResNet`."""

    def setup(self) -> None:
        super().setup()
        self.conv_body = conv3x3(self.features, self.features, dtype=self.dtype)

    def __call__(self, low: Array) -> Array:
        return self.reconstruct(self.extract(low))

    def extract(self, low: Array) -> Array:
        """Extracts features at the size of the LR images: [N,h,w,3] -> [N,h,w,features]."""
        checks.check_images("low", low, channels=3)
        x = self.conv_first(low.astype(self.dtype))
        return x + self.conv_body(self.apply_body(x))

    def reconstruct(self, features: Array) -> Array:
        """Reconstructs the images from their features: [N,h,w,features] -> [N,s h,s w,3], float32."""
        return self.to_images(features, nn.relu)


class MSRResNet(ResNet):
    """Super-resolves [N,h,w,3] in [0,1] to [N,s h,s w,3], float32, not clipped; attributes of `ResNet`."""

    def __call__(self, low: Array) -> Array:
        return self.reconstruct(self.extract(low))

    def extract(self, low: Array) -> Array:
        """Extracts features and appends the image to them: [N,h,w,3] -> [N,h,w,features+3]."""
        checks.check_images("low", low, channels=3)
        x = self.apply_body(leaky_relu(self.conv_first(low.astype(self.dtype))))
        return jnp.concatenate([x, low], axis=-1)

    def reconstruct(self, features: Array) -> Array:
        """Reconstructs the images from `extract`'s output: [N,h,w,features+3] -> [N,s h,s w,3], float32."""
        x, low = features[..., :-3], features[..., -3:]
        count, height, width = low.shape[:3]
        base = jax.image.resize(low, (count, self.scale * height, self.scale * width, 3), "bilinear")
        return self.to_images(x, leaky_relu) + base.astype(jnp.float32)
