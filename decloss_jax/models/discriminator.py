"""The VGG-style discriminator of SRGAN and ESRGAN with BasicSR's parameter names, built from the patch size.

Every stage halves the image: conv{s}_0 (3x3), then conv{s}_1 (4x4, stride 2), each but the very first with a
batch norm, and each with a leaky ReLU. linear1 and linear2 follow. The stages halve the image until its
side is 4 to 7 pixels: 128 and 256 give BasicSR's two networks (five and six stages, 4x4). For 192, the patch
of the DECLoss paper, no network is published; it gets five stages and a 6x6 map, with the convolutions of
BasicSR's 128. RankSRGAN's has five stages for 296 and thus a map of 9x9: a given number of stages takes any
size.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from decloss_jax import checks
from decloss_jax.models.layers import leaky_relu, torch_bias_init, torch_kernel_init

SMALLEST_MAP = 4  # pixels, the side of the map that BasicSR flattens
CONVOLUTIONS = ((3, 1), (4, 2))  # size and stride of a stage's two
WIDEST = 8  # times `features`: the stages double the width up to this factor
HIDDEN = 100  # width of linear1

# torch's momentum is the share of the new statistics, 0.1; flax's is the share of the old ones.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


def count_stages(input_size: int, stages: int | None = None) -> int:
    """Returns the number of halvings: `stages`, or by default as many as leave a side of 4 to 7 pixels.

    Raises:
        UserError: stages that leave no pixel; or, by default, a side that is not 4, 5, 6 or 7 times 2, 4, 8,
            16, ...
    """
    if stages is not None:
        checks.check_range("discriminator.stages", stages, 1, input_size.bit_length() - 1)
        return stages
    stages = max(1, (input_size // SMALLEST_MAP).bit_length() - 1)
    below = input_size - input_size % 2**stages
    checks.check(
        input_size == below >= 2 * SMALLEST_MAP,
        "input_size of the discriminator (the side of the HR crops)",
        expected="4, 5, 6 or 7 times 2, 4, 8, 16, ... (such as 96, 128, 160, 192, 256)",
        got=input_size,
        remedy=f"take {max(below, 2 * SMALLEST_MAP)}",
    )
    return stages


class VGGDiscriminator(nn.Module):
    """Judges patches [N,H,W,3] in [0,1], H = W = input_size: logits [N,1], above 0 for "real".

    In training the batch norms use the statistics of the batch and update the running ones (the collection
    "batch_stats", which must be mutable); in evaluation they use the running ones. Under jit the batch is the
    global one, so the logits do not depend on the number of devices. Inside `shard_map` it is each device's
    own share, as in BasicSR's runs on several GPUs, unless `axis_name` is set. The running variance is the
    biased one (a sum over n values divided by n; torch divides by n - 1).

    Attributes:
        features: channels of the first stage.
        input_size: side of the patches, pixels; 4, 5, 6 or 7 times a power of two (`count_stages`), or, if
            `stages` is given, any size that leaves a map.
        stages: how often a patch is halved, rounding down; None: until its side is 4 to 7 pixels.
        dtype: dtype of the layers' computation; None: that of the parameters and images. Parameters,
            statistics and logits are float32 in any case.
        axis_name: inside `shard_map`, the mesh axis to average the batch statistics over; None elsewhere.
    """

    features: int = 64
    input_size: int = 192
    stages: int | None = None
    dtype: DTypeLike | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        checks.check_images("images", images, channels=3)
        height, width = images.shape[1:3]
        checks.check(
            height == width == self.input_size,
            "images for the discriminator",
            expected=f"{self.input_size}x{self.input_size} pixels",
            got=f"{height}x{width}",
            remedy="set input_size to the side of the patches",
        )

        x = apply_vgg_stages(
            images,
            features=self.features,
            stages=count_stages(self.input_size, self.stages),
            train=train,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        x = leaky_relu(dense(x.reshape(len(x), -1), HIDDEN, name="linear1", dtype=self.dtype))
        logits = dense(x, 1, name="linear2", dtype=self.dtype)
        return logits if self.dtype is None else logits.astype(jnp.float32)


def apply_vgg_stages(
    x: Array,
    *,
    features: int,
    stages: int,
    biased: bool = False,
    train: bool,
    dtype: DTypeLike | None = None,
    axis_name: str | None,
) -> Array:
    """Applies the convolutions, [N,H,W,3] -> [N,H/2^stages,W/2^stages,C], inside a compact module.

    Args:
        x: images.
        features: channels of the first stage; each stage doubles them, up to eight times as many.
        stages: number of stages.
        biased: whether all convolutions have a bias or only the first; a batch norm cancels a bias.
        train: whether the batch norms use the statistics of the batch.
        dtype: as in `VGGDiscriminator`.
        axis_name: as in `VGGDiscriminator`.
    """
    for s in range(stages):
        for part, (size, stride) in enumerate(CONVOLUTIONS):
            is_first = s == part == 0
            x = nn.Conv(
                features * min(2**s, WIDEST),
                (size, size),
                stride,
                padding=((1, 1), (1, 1)),
                dtype=dtype,
                use_bias=biased or is_first,
                kernel_init=torch_kernel_init,
                bias_init=torch_bias_init(fan_in=size**2 * x.shape[-1]),
                name=f"conv{s}_{part}",
            )(x)
            if not is_first:
                norm = batch_norm(axis_name=axis_name, dtype=dtype, name=f"bn{s}_{part}")
                x = norm(x, use_running_average=not train)
            x = leaky_relu(x)
    return x


def dense(x: Array, features: int, *, name: str, dtype: DTypeLike | None = None) -> Array:
    """Applies a fully connected layer, [N,D] -> [N,features], inside a compact module."""
    bias_init = torch_bias_init(fan_in=x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=torch_kernel_init, bias_init=bias_init, name=name)(x)
