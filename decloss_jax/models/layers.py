"""Layers that the generators share: the 3x3 convolution, the residual block, and torch's initialisers."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.2)

# torch's default for kernels, kaiming-uniform with a = sqrt 5: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_kernel_init = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> nn.initializers.Initializer:
    """Returns torch's default bias initialiser, U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: Array, shape, dtype=jnp.float32, out_sharding=None) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv3x3(
    inputs: int,
    outputs: int,
    *,
    name: str | None = None,
    dtype: DTypeLike,
    kaiming_gain: float | None = None,
) -> nn.Conv:
    """Makes a 3x3 convolution with stride 1 and padding 1: [N,H,W,inputs] -> [N,H,W,outputs] of `dtype`.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        name: parameter name, equal to BasicSR's, in a compact module; in `setup` the attribute gives it.
        dtype: dtype of the computation; parameters stay float32.
        kaiming_gain: None for torch's default initialisers of kernel and bias; a number for a normal kernel
            with standard deviation kaiming_gain sqrt(2/fan_in) and a zero bias, as in ESRGAN's dense blocks.
    """
    if kaiming_gain is None:
        kernel_init = torch_kernel_init
        bias_init = torch_bias_init(fan_in=9 * inputs)
    else:
        kernel_init = nn.initializers.variance_scaling(2.0 * kaiming_gain**2, "fan_in", "normal")
        bias_init = nn.initializers.zeros_init()
    return nn.Conv(
        outputs,
        (3, 3),
        padding=((1, 1), (1, 1)),
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init,
        name=name,
    )


class ResidualBlock(nn.Module):
    """x + res_scale * conv2(relu(conv1(x))); no batch norm, no activation after the sum."""

    features: int
    res_scale: float
    dtype: DTypeLike
    kaiming_gain: float | None = None  # as in `conv3x3`

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(
            conv3x3, self.features, self.features, dtype=self.dtype, kaiming_gain=self.kaiming_gain
        )
        y = nn.relu(conv(name="conv1")(x))
        return x + self.res_scale * conv(name="conv2")(y)
