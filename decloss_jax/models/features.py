"""The frozen trunks behind the perceptual loss and LPIPS: VGG-19, VGG-16 and AlexNet, with named taps.

Weights are passed in as data, one {"kernel": HWIO, "bias": [C]} for each convolution in order
(`weights/trunks.py`); they are never trained. A tap is a convolution's name ("conv5_4", its output before the
activation) or that name after the activation ("relu5_4").
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decloss_jax import checks
from decloss_jax.ops.padding import valid_mask

# For torchvision's networks, on RGB in [0,1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Weights = Sequence[Mapping[str, Any]]


class Layer(NamedTuple):
    """A convolution followed by a ReLU, or a max-pool (name "pool"); size of the window, stride, padding."""

    name: str
    size: int
    stride: int
    padding: int


def vgg(*convolutions: int) -> tuple[Layer, ...]:
    """Lists the layers of a VGG with the given number of 3x3 convolutions in each stage."""
    layers = []
    for stage, count in enumerate(convolutions, start=1):
        layers += [Layer(f"conv{stage}_{i}", 3, 1, 1) for i in range(1, count + 1)] + [Layer("pool", 2, 2, 0)]
    return tuple(layers)


TRUNKS: dict[str, tuple[Layer, ...]] = {
    "vgg19": vgg(2, 2, 4, 4, 4),
    "vgg16": vgg(2, 2, 3, 3, 3),
    "alexnet": (
        Layer("conv1", 11, 4, 2),
        Layer("pool", 3, 2, 0),
        Layer("conv2", 5, 1, 2),
        Layer("pool", 3, 2, 0),
        Layer("conv3", 3, 1, 1),
        Layer("conv4", 3, 1, 1),
        Layer("conv5", 3, 1, 1),
    ),
}


def check_taps(network: str, taps: Collection[str]) -> None:
    """Raises `UserError` for an unknown network, for no tap, or for a tap that the network lacks."""
    layers = checks.look_up(TRUNKS, network, "feature network")
    names = [layer.name for layer in layers if layer.name != "pool"]
    known = {name: name for conv in names for name in (conv, as_relu(conv))}
    checks.check(bool(taps), f"taps of {network}", expected="at least one", got="none", remedy="name a layer")
    for tap in taps:
        checks.look_up(known, tap, f"tap of {network}")


def as_relu(convolution: str) -> str:
    """Returns the name of a convolution's output after the activation: "conv5_4" -> "relu5_4"."""
    return convolution.replace("conv", "relu")


def layers_up_to(network: str, taps: Collection[str]) -> tuple[Layer, ...]:
    """Returns only the layers that the taps need."""
    layers = TRUNKS[network]
    needed = [i for i, layer in enumerate(layers) if layer.name in taps or as_relu(layer.name) in taps]
    return layers[: max(needed) + 1]


def normalize_imagenet(images: Array) -> Array:
    """Normalises RGB images [N,H,W,3] in [0,1] with the mean and deviation of ImageNet's photographs."""
    return (images - jnp.asarray(IMAGENET_MEAN)) / jnp.asarray(IMAGENET_STD)


def extract_features(
    network: str,
    weights: Weights,
    images: Array,
    *,
    taps: Collection[str],
    valid: Array | None = None,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> dict[str, Array]:
    """Computes the named features; layers after the last tap are not computed.

    Args:
        network: a key of `TRUNKS`.
        weights: its convolutions, in order.
        images: [N,H,W,3], normalised for the network.
        taps: names of the wanted features.
        valid: [N,2], height and width of each image, if the images are padded at the bottom and on the right;
            the features are then those of the unpadded images, and 0 outside (`valid_sizes`).
        precision: of the convolutions on accelerators.

    Returns:
        {tap: [N,H',W',C']}.

    Raises:
        UserError: an unknown network or tap.
    """
    check_taps(network, taps)
    features: dict[str, Array] = {}
    convolutions = iter(weights)
    x = clear_outside(images, valid)
    for layer in layers_up_to(network, taps):
        valid = None if valid is None else output_size(valid, layer)
        if layer.name == "pool":
            x = clear_outside(max_pool(x, layer), valid)
            continue
        x = clear_outside(convolve(x, next(convolutions), layer, precision), valid)
        features[layer.name] = x
        x = jax.nn.relu(x)
        features[as_relu(layer.name)] = x
    return {tap: features[tap] for tap in taps}


def convolve(x: Array, convolution: Mapping[str, Any], layer: Layer, precision: lax.PrecisionLike) -> Array:
    """Applies one convolution with its bias: [N,H,W,C] -> [N,H',W',C']."""
    kernel, bias = jnp.asarray(convolution["kernel"]), jnp.asarray(convolution["bias"])
    strides, padding = (layer.stride,) * 2, ((layer.padding,) * 2,) * 2
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, precision=precision
    )
    return y + bias


def max_pool(x: Array, layer: Layer) -> Array:
    """Takes the maximum of each window: [N,H,W,C] -> [N,H',W',C]; leftover rows and columns are dropped."""
    if layer.size == layer.stride == 2:
        return max_pool_2x2(x)
    window, strides = (1, layer.size, layer.size, 1), (1, layer.stride, layer.stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")


def max_pool_2x2(x: Array) -> Array:
    """Takes the maximum of each 2x2 window; of equal values the first one gets the gradient, as in torch.

    The gradient of `reduce_window` scatters to places found at run time, in an order that varies on GPUs;
    here it is two choices, each between two values.
    """
    n, height, width, channels = x.shape
    height, width = height // 2, width // 2
    pairs = x[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, channels)
    rows = larger(pairs[:, :, :, :, 0], pairs[:, :, :, :, 1])
    return larger(rows[:, :, 0], rows[:, :, 1])


def larger(first: Array, second: Array) -> Array:
    """Returns the larger value, the first of equal ones; NaN if either is NaN."""
    return jnp.where((first >= second) | jnp.isnan(first), first, second)


def clear_outside(x: Array, valid: Array | None) -> Array:
    """Sets the area outside the images to zero, as their own zero padding would."""
    return x if valid is None else jnp.where(valid_mask((x.shape[1], x.shape[2]), valid), x, 0)


def output_size(size: Any, layer: Layer) -> Any:
    """Returns floor((size + 2 padding - window) / stride) + 1, for a number or an array."""
    return (size + 2 * layer.padding - layer.size) // layer.stride + 1


def valid_sizes(network: str, valid: Any, taps: Collection[str]) -> dict[str, Any]:
    """Computes the sizes of the named features.

    Args:
        network: a key of `TRUNKS`.
        valid: sides of the images, a number or an array of any shape.
        taps: names of the features.

    Returns:
        {tap: sides of its features, like `valid`}.
    """
    check_taps(network, taps)
    sizes = {}
    for layer in layers_up_to(network, taps):
        valid = output_size(valid, layer)
        sizes[layer.name] = sizes[as_relu(layer.name)] = valid
    return {tap: sizes[tap] for tap in taps}


def last_convolution(network: str) -> str:
    """Returns the name of a network's last convolution: "conv5_4" of VGG-19, "conv5_3" of VGG-16."""
    layers = checks.look_up(TRUNKS, network, "feature network")
    return next(layer.name for layer in reversed(layers) if layer.name != "pool")
