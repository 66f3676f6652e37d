"""RRDBNet, the generator of ESRGAN (Wang et al., ECCVW 2018), with BasicSR's parameter names.

`body.3.rdb1.conv2` is `body_3/rdb1/conv2`. Scales 1 and 2 put a pixel-unshuffle in front of the x4 network,
as BasicSR does.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.models.layers import conv3x3, leaky_relu
from decloss_jax.ops.shuffle import pixel_unshuffle

RESIDUAL_SCALE = 0.2  # of each dense block and of each RRDB (ESRGAN, Sec. 3.1)
DENSE_INIT_GAIN = 0.1  # kaiming-normal times 0.1 in the dense blocks (ESRGAN's code)
UNSHUFFLE_FACTORS = {1: 4, 2: 2, 4: 1}


def upsample_nearest_x2(x: Array) -> Array:
    """Repeats every pixel twice along both axes: [N,H,W,C] -> [N,2H,2W,C]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class ResidualDenseBlock(nn.Module):
    """Five densely connected convolutions, scaled by 0.2 and added to the input."""

    features: int
    growth: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        seen = x
        for k in range(1, 5):
            y = conv3x3(seen, self.growth, name=f"conv{k}", dtype=self.dtype, kaiming_gain=DENSE_INIT_GAIN)
            seen = jnp.concatenate([seen, leaky_relu(y)], axis=-1)
        y = conv3x3(seen, self.features, name="conv5", dtype=self.dtype, kaiming_gain=DENSE_INIT_GAIN)
        return x + RESIDUAL_SCALE * y


class RRDB(nn.Module):
    """Residual in residual: three dense blocks, scaled by 0.2 and added to the input."""

    features: int
    growth: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for j in range(1, 4):
            y = ResidualDenseBlock(self.features, self.growth, self.dtype, name=f"rdb{j}")(y)
        return x + RESIDUAL_SCALE * y


class RRDBNet(nn.Module):
    """Super-resolves [N,h,w,3] in [0,1] to [N,s h,s w,3], float32, not clipped.

    Attributes:
        scale: s, 1, 2 or 4; h and w are divisible by 4 at scale 1 and by 2 at scale 2.
        features: width of the trunk.
        blocks: number of RRDBs (23 in ESRGAN).
        growth: channels that each dense convolution adds.
        dtype: dtype of the convolutions; parameters and output are float32 in any case.
        remat: recompute the inside of each RRDB in the backward pass, to save memory on accelerators.
    """

    scale: int = 4
    features: int = 64
    blocks: int = 23
    growth: int = 32
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, low: Array) -> Array:
        checks.check_images("low", low, channels=3)
        factor = checks.look_up(UNSHUFFLE_FACTORS, self.scale, "RRDBNet scale")
        block = nn.remat(RRDB) if self.remat else RRDB

        def conv(x: Array, features: int, name: str) -> Array:
            return conv3x3(x, features, name=name, dtype=self.dtype)

        x = conv(pixel_unshuffle(low, factor).astype(self.dtype), self.features, "conv_first")
        y = x
        for i in range(self.blocks):
            y = block(self.features, self.growth, self.dtype, name=f"body_{i}")(y)
        y = x + conv(y, self.features, "conv_body")
        y = leaky_relu(conv(upsample_nearest_x2(y), self.features, "conv_up1"))
        y = leaky_relu(conv(upsample_nearest_x2(y), self.features, "conv_up2"))
        y = leaky_relu(conv(y, self.features, "conv_hr"))
        return conv(y, 3, "conv_last").astype(jnp.float32)
