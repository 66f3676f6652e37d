"""EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017).

Parameter names are BasicSR's with dots written as slashes and underscores (`body.3.conv1` is `body_3/conv1`,
`upsample.0` is `upsample_0`). Weights of EDSR-PyTorch, which works on 0..255, fit unchanged: the mean is
taken off, the image multiplied by 255, and both undone at the end.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.models.layers import conv3x3
from decloss_jax.ops.shuffle import pixel_shuffle

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # mean RGB of the DIV2K training images (EDSR-PyTorch, src/option.py)
PIXEL_RANGE = 255.0  # the range in which EDSR's weights were defined
UPSAMPLE_FACTORS = {2: (2,), 3: (3,), 4: (2, 2)}


class ResidualBlock(nn.Module):
    """x + res_scale * conv2(relu(conv1(x))); no batch norm, no activation after the sum."""

    features: int
    res_scale: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.relu(conv3x3(x, self.features, name="conv1", dtype=self.dtype))
        y = conv3x3(y, self.features, name="conv2", dtype=self.dtype)
        return x + self.res_scale * y


class EDSR(nn.Module):
    """Super-resolves [N,h,w,3] in [0,1] to [N,s h,s w,3], float32, not clipped.

    Attributes:
        scale: s, 2, 3 or 4.
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

    @nn.compact
    def __call__(self, low: Array) -> Array:
        checks.check_images("low", low, channels=3)
        factors = checks.look_up(UPSAMPLE_FACTORS, self.scale, "EDSR scale")
        mean = jnp.asarray(DIV2K_MEAN, jnp.float32)

        x = ((low - mean) * PIXEL_RANGE).astype(self.dtype)
        x = conv3x3(x, self.features, name="conv_first", dtype=self.dtype)
        y = x
        for i in range(self.blocks):
            y = ResidualBlock(self.features, self.res_scale, self.dtype, name=f"body_{i}")(y)
        y = conv3x3(y, self.features, name="conv_after_body", dtype=self.dtype) + x
        for stage, factor in enumerate(factors):
            # BasicSR's Sequential counts the parameterless PixelShuffle too: upsample.0, upsample.2.
            y = conv3x3(y, self.features * factor**2, name=f"upsample_{2 * stage}", dtype=self.dtype)
            y = pixel_shuffle(y, factor)
        y = conv3x3(y, 3, name="conv_last", dtype=self.dtype)
        return y.astype(jnp.float32) / PIXEL_RANGE + mean
