"""EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017).

Parameter names are BasicSR's with dots written as slashes and underscores (`body.3.conv1` is `body_3/conv1`,
`upsample.0` is `upsample_0`). Weights of EDSR-PyTorch, which works on 0..255, fit unchanged: the network
subtracts the mean and multiplies by 255, and undoes both at the end.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.models.layers import ResidualBlock, conv3x3
from decloss_jax.ops.shuffle import pixel_shuffle

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # mean RGB of the DIV2K training images (EDSR-PyTorch, src/option.py)
PIXEL_RANGE = 255.0  # the range in which EDSR's weights were defined
UPSAMPLE_FACTORS = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}


class EDSR(nn.Module):
    """Super-resolves [N,h,w,3] in [0,1] to [N,s h,s w,3], float32, not clipped.

    Attributes:
        scale: s, 2, 3, 4 or 8.
        features: width of the residual blocks (64 for EDSR-baseline, 256 for EDSR).
        blocks: number of residual blocks (16 and 32).
        res_scale: factor of each residual branch (1.0 and 0.1).
        dtype: dtype of the convolutions; parameters and output are float32 in any case.
    """

    scale: int = 4
    features: int = 64
    blocks: int = 16
    res_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        factors = checks.look_up(UPSAMPLE_FACTORS, self.scale, "EDSR scale")
        conv = functools.partial(conv3x3, self.features, dtype=self.dtype)
        block = functools.partial(ResidualBlock, self.features, self.res_scale, self.dtype)
        self.conv_first = conv3x3(3, self.features, dtype=self.dtype)
        self.body = [block() for _ in range(self.blocks)]
        self.conv_after_body = conv(self.features)
        # BasicSR's Sequential counts the parameterless PixelShuffle too: upsample.0, upsample.2.
        self.upsample = {str(2 * i): conv(self.features * r**2) for i, r in enumerate(factors)}
        self.conv_last = conv(3)

    def __call__(self, low: Array) -> Array:
        return self.reconstruct(self.extract(low))

    def extract(self, low: Array) -> Array:
        """Extracts features at the size of the LR images: [N,h,w,3] -> [N,h,w,features]."""
        checks.check_images("low", low, channels=3)
        mean = jnp.asarray(DIV2K_MEAN, jnp.float32)
        x = self.conv_first(((low - mean) * PIXEL_RANGE).astype(self.dtype))
        y = x
        for block in self.body:
            y = block(y)
        return self.conv_after_body(y) + x

    def reconstruct(self, features: Array) -> Array:
        """Reconstructs the images from their features: [N,h,w,features] -> [N,s h,s w,3], float32."""
        for conv, factor in zip(self.upsample.values(), UPSAMPLE_FACTORS[self.scale], strict=True):
            features = pixel_shuffle(conv(features), factor)
        return self.conv_last(features).astype(jnp.float32) / PIXEL_RANGE + jnp.asarray(DIV2K_MEAN)
