"""RRDBNet, the generator of ESRGAN (Wang et al., ECCVW 2018), with BasicSR's parameter names.

`body.3.rdb1.conv2` is `body_3/rdb1/conv2`. Scales 1 and 2 put a pixel-unshuffle in front of the x4 network,
as BasicSR does, or have fewer upsampling convolutions, as ESRGAN's own code does.
"""

import functools
import math

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.models.layers import conv3x3, leaky_relu
from decloss_jax.ops.shuffle import pixel_unshuffle

RESIDUAL_SCALE = 0.2  # of each dense block and of each RRDB (ESRGAN, Sec. 3.1)
DENSE_INIT_GAIN = 0.1  # kaiming-normal times 0.1 in the dense blocks (ESRGAN's code)
UNSHUFFLE_FACTORS = {1: 4, 2: 2, 4: 1, 8: 1}  # at each scale


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
        def conv(seen: Array, outputs: int, name: str) -> Array:
            inputs = seen.shape[-1]
            return conv3x3(inputs, outputs, name=name, dtype=self.dtype, kaiming_gain=DENSE_INIT_GAIN)(seen)

        seen = x
        for k in range(1, 5):
            seen = jnp.concatenate([seen, leaky_relu(conv(seen, self.growth, f"conv{k}"))], axis=-1)
        return x + RESIDUAL_SCALE * conv(seen, self.features, "conv5")


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
        scale: s, 1, 2, 4 or 8.
        features: width of the trunk.
        blocks: number of RRDBs (23 in ESRGAN).
        growth: channels that each dense convolution adds.
        dtype: dtype of the convolutions; parameters and output are float32 in any case.
        remat: recompute the inside of each RRDB in the backward pass, to save memory on accelerators.
        unshuffle: whether scales 1 and 2 begin with a pixel-unshuffle by `factor` 4 and 2, which must then
            divide h and w.
    """

    scale: int = 4
    features: int = 64
    blocks: int = 23
    growth: int = 32
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    unshuffle: bool = True

    @property
    def factor(self) -> int:
        """Number of LR pixels, along each side, that the pixel-unshuffle merges into one pixel."""
        factor = checks.look_up(UNSHUFFLE_FACTORS, self.scale, "RRDBNet scale")
        return factor if self.unshuffle else 1

    @property
    def upsamplings(self) -> int:
        """How often the features are doubled in size."""
        return int(math.log2(self.scale * self.factor))

    def setup(self) -> None:
        conv = functools.partial(conv3x3, self.features, dtype=self.dtype)
        block = nn.remat(RRDB) if self.remat else RRDB
        self.conv_first = conv3x3(3 * self.factor**2, self.features, dtype=self.dtype)
        self.body = [block(self.features, self.growth, self.dtype) for _ in range(self.blocks)]
        self.conv_body = conv(self.features)
        for u in range(1, self.upsamplings + 1):
            setattr(self, f"conv_up{u}", conv(self.features))
        self.conv_hr = conv(self.features)
        self.conv_last = conv(3)

    def __call__(self, low: Array) -> Array:
        return self.reconstruct(self.extract(low))

    def extract(self, low: Array) -> Array:
        """Extracts features at the LR size divided by `factor`: [N,h,w,3] -> [N,h/f,w/f,features]."""
        checks.check_images("low", low, channels=3)
        x = self.conv_first(pixel_unshuffle(low, self.factor).astype(self.dtype))
        y = x
        for block in self.body:
            y = block(y)
        return x + self.conv_body(y)

    def reconstruct(self, features: Array) -> Array:
        """Reconstructs the images from their features: [N,h/f,w/f,features] -> [N,s h,s w,3], float32."""
        y = features
        for u in range(1, self.upsamplings + 1):
            y = leaky_relu(getattr(self, f"conv_up{u}")(upsample_nearest_x2(y)))
        y = leaky_relu(self.conv_hr(y))
        return self.conv_last(y).astype(jnp.float32)
