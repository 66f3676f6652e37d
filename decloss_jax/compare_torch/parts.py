"""What is compared: each part of the package, run on both sides with equal weights and inputs.

A part yields comparisons: arrays of ours and of PyTorch's, and the bound of their relative difference.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict

from decloss_jax import parallel
from decloss_jax.compare_torch import torch_losses, torch_networks
from decloss_jax.data.photographs import find_photographs
from decloss_jax.losses.decloss import decloss
from decloss_jax.losses.perceptual import perceptual_loss
from decloss_jax.losses.pixel import l1_loss
from decloss_jax.metrics.lpips import LPIPS_NETWORKS, lpips_padded
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.models.features import TRUNKS, extract_features, last_convolution, normalize_imagenet
from decloss_jax.ops.resize import imresize
from decloss_jax.training import optim, step, terms
from decloss_jax.training.state import fresh_state
from decloss_jax.weights import dialects, trunks

Arrays = Mapping[str, np.ndarray]

PHOTOGRAPHS = ("astronaut", "motorcycle_left", "ihc", "retina")  # of the packaged training photographs
LOW_SIZE = 16  # LR pixels a side

# Bounds of the relative differences (`Comparison`). Both sides compute in float32, in another order. Only the
# gradients through feature networks are taken in float64: among millions of ReLUs and poolings, rounding to
# float32 moves some across their kinks, which changes the gradient by per cents.
FORWARD = 1e-5
BACKWARD = 1e-4
BACKWARD_FLOAT64 = 1e-9
MOVEMENT = 1e-2


class Comparison(NamedTuple):
    """One line of the table.

    Attributes:
        quantity: what is compared.
        ours: arrays by name.
        theirs: PyTorch's, by the same names.
        bound: of the relative difference, which for each array is the largest difference over the largest
            absolute value.
    """

    quantity: str
    ours: Arrays
    theirs: Arrays
    bound: float

    def difference(self) -> tuple[float, float]:
        """Returns the largest absolute and the largest relative difference (NaN where one is NaN)."""
        if self.ours.keys() != self.theirs.keys():
            return float("nan"), float("nan")
        absolute, relative = [0.0], [0.0]
        for name, theirs in self.theirs.items():
            largest = np.abs(np.asarray(self.ours[name], np.float64) - theirs).max()
            absolute.append(largest)
            relative.append(largest / max(np.abs(theirs).max(), np.finfo(np.float32).tiny))
        return float(np.max(absolute)), float(np.max(relative))


Part = Callable[[], Iterable[Comparison]]


@functools.cache
def crops(scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the middle out of four photographs: uint8 low [4,16,16,3] and hr [4,16 s,16 s,3]."""
    lows, hrs = [], []
    for pair in find_photographs("train"):
        if pair.name in PHOTOGRAPHS:
            low, hr = pair.load(scale)
            top, left = ((side - LOW_SIZE) // 2 for side in low.shape[:2])
            lows.append(low[top : top + LOW_SIZE, left : left + LOW_SIZE])
            hrs.append(hr[scale * top :, scale * left :][: scale * LOW_SIZE, : scale * LOW_SIZE])
    return np.stack(lows), np.stack(hrs)


def as_floats(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0,1]."""
    return images.astype(np.float32) / np.float32(255)


def as_dithered_floats(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in about [0,1], moved by up to half a grey level.

    In areas of equal pixels, rounding alone would decide which is the largest of a pool, on which side of 0
    a ReLU is, and where the vector of a flat patch points.
    """
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, images.shape)
    return ((images + noise) / 255).astype(np.float32)


def bicubic_pair() -> tuple[np.ndarray, np.ndarray]:
    """Returns (sr, hr) [4,64,64,3] for the losses, with bicubic enlargements as SR."""
    low, hr = crops(4)
    return np.stack([imresize(image, 4) for image in as_dithered_floats(low)]), as_dithered_floats(hr)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """[N,H,W,C] -> a tensor [N,C,H,W] that collects its gradient."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()


def to_numpy(tensor: torch.Tensor | None) -> np.ndarray:
    """A tensor -> an array, with NCHW turned to NHWC."""
    if tensor is None:
        return np.array(np.nan)
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def random_params(model: EDSR | RRDBNet) -> dict[str, Any]:
    """Draws parameters from U(-b, b), b = 1/sqrt(fan in), as torch does."""
    random = np.random.default_rng(0)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]

    def draw(layer: dict[str, Any]) -> dict[str, Any]:
        if "kernel" not in layer:
            return {name: draw(part) for name, part in layer.items()}
        bound = 1 / np.sqrt(np.prod(layer["kernel"].shape[:3]))
        shapes = {name: leaf.shape for name, leaf in layer.items()}
        return {
            name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()
        }

    return draw(tree)


def make_twin(model: EDSR | RRDBNet, params: Mapping[str, Any]) -> torch.nn.Module:
    """Builds the torch network with the same weights."""
    twin = torch_networks.build_twin(model)
    state = state_dict(model, params)
    twin.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in state.items()})
    return twin


def state_dict(model: EDSR | RRDBNet, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names parameters, or their gradients, as the torch network does."""
    return dialects.from_params(dialects.WRITTEN[type(model)], model, params)


def compare_generator(model: EDSR | RRDBNet, params: Mapping[str, Any] | None = None) -> Iterator[Comparison]:
    """Compares output and gradients of a generator; with random parameters when none are given."""
    params = random_params(model) if params is None else params
    low = as_dithered_floats(crops(model.scale)[0])
    direction = np.random.default_rng(1).normal(size=crops(model.scale)[1].shape).astype(np.float32)

    def along(params: Any, low: Any) -> tuple[jax.Array, jax.Array]:
        sr: Any = model.apply({"params": params}, low)
        return jnp.mean(sr * direction), sr

    gradients, sr = jax.jit(jax.grad(along, argnums=(0, 1), has_aux=True))(params, low)

    twin, images = make_twin(model, params), to_torch(low)
    their_sr = twin(images)
    (their_sr * to_torch(direction)).mean().backward()
    their_gradients = {name: to_numpy_flat(p.grad) for name, p in twin.named_parameters()}
    yield Comparison("output", {"sr": sr}, {"sr": to_numpy(their_sr)}, FORWARD)
    yield Comparison("gradient of input", {"low": gradients[1]}, {"low": to_numpy(images.grad)}, BACKWARD)
    yield Comparison("gradient of weights", state_dict(model, gradients[0]), their_gradients, BACKWARD)


def to_numpy_flat(tensor: torch.Tensor | None) -> np.ndarray:
    """A tensor -> an array in torch's own order."""
    return np.array(np.nan) if tensor is None else tensor.detach().numpy()


def compare_image_loss(
    ours: Callable[[Any, Any, Any], jax.Array],
    theirs: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    frozen: Any = (),
    through_features: bool = False,
) -> Iterator[Comparison]:
    """Compares a loss and its gradient with respect to sr.

    Args:
        ours: (frozen, sr, hr) -> a value, or one for each image, which are then averaged.
        theirs: the same in torch.
        frozen: NumPy arrays that both need.
        through_features: take the gradient in float64.
    """
    sr, hr = bicubic_pair()
    if through_features:
        sr, hr = sr[:2], hr[:2]  # the feature networks are the slow part
    yield Comparison(
        "output",
        {"value": jax.jit(ours)(frozen, sr, hr)},
        {"value": theirs(frozen, to_torch(sr), to_torch(hr)).detach().numpy()},
        FORWARD,
    )
    with jax.enable_x64(through_features):
        if through_features:
            sr, hr, frozen = as_doubles((sr, hr, frozen))
        gradient = jax.jit(jax.grad(lambda sr, *rest: jnp.mean(ours(rest[1], sr, rest[0]))))(sr, hr, frozen)
        images = to_torch(sr)
        theirs(frozen, images, to_torch(hr).detach()).mean().backward()
        bound = BACKWARD_FLOAT64 if through_features else BACKWARD
        yield Comparison("gradient of sr", {"sr": gradient}, {"sr": to_numpy(images.grad)}, bound)


def as_doubles(tree: Any) -> Any:
    """Turns the float32 arrays of a tree into float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def feature_weights(network: str) -> Any:
    """Returns the weights of a feature network; random ones for VGG-19 where its file is not at hand."""
    if network != "vgg19" or os.environ.get(trunks.VGG19_VARIABLE):
        return trunks.load_trunk(network)
    random = np.random.default_rng(2)
    weights, channels = [], 3
    for layer in TRUNKS[network]:
        if layer.name != "pool":
            width = min(64 * 2 ** (int(layer.name[4]) - 1), 512)
            kernel = random.standard_normal((3, 3, channels, width), np.float32) * np.sqrt(2 / (9 * channels))
            weights.append({"kernel": kernel.astype(np.float32), "bias": np.zeros(width, np.float32)})
            channels = width
    return tuple(weights)


def compare_features(network: str) -> Iterator[Comparison]:
    """Compares every convolution's output, and the gradient through the whole trunk."""
    weights, images = feature_weights(network), as_dithered_floats(crops(4)[1][:2])
    taps = tuple(layer.name for layer in TRUNKS[network] if layer.name != "pool")

    def ours(images: Any, weights: Any) -> dict[str, jax.Array]:
        return extract_features(network, weights, normalize_imagenet(images), taps=taps)

    def theirs(images: torch.Tensor, weights: Any) -> dict[str, torch.Tensor]:
        normalized = torch_losses.normalize(images, torch_losses.IMAGENET_MEAN, torch_losses.IMAGENET_STD)
        return torch_networks.trunk_features(network, weights, normalized)

    their_features = theirs(to_torch(images), weights)
    yield Comparison(
        "taps", jax.jit(ours)(images, weights), {tap: to_numpy(their_features[tap]) for tap in taps}, FORWARD
    )
    with jax.enable_x64(True):
        images, weights = as_doubles((images, weights))
        gradient = jax.jit(jax.grad(lambda images, weights: ours(images, weights)[taps[-1]].mean()))(
            images, weights
        )
        tensor = to_torch(images)
        theirs(tensor, weights)[taps[-1]].mean().backward()
        yield Comparison(
            "gradient of image", {"image": gradient}, {"image": to_numpy(tensor.grad)}, BACKWARD_FLOAT64
        )


def compare_perceptual(network: str, criterion: str) -> Iterator[Comparison]:
    """Compares the perceptual loss on the last convolution, before its activation."""
    tap = last_convolution(network)

    def ours(weights: Any, sr: Any, hr: Any) -> jax.Array:
        of_sr, of_hr = (
            extract_features(network, weights, normalize_imagenet(images), taps=(tap,)) for images in (sr, hr)
        )
        return perceptual_loss(of_sr, of_hr, weights={tap: 1.0}, criterion=criterion)

    def theirs(weights: Any, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return torch_losses.perceptual(sr, hr, network=network, weights=weights, tap=tap, criterion=criterion)

    return compare_image_loss(ours, theirs, frozen=feature_weights(network), through_features=True)


def compare_lpips(net: str) -> Iterator[Comparison]:
    """Compares LPIPS of each pair."""
    network = LPIPS_NETWORKS[net].trunk

    def ours(frozen: Any, sr: Any, hr: Any) -> jax.Array:
        return lpips_padded(*frozen, sr, hr, None, net=net, scaling="official")

    def theirs(frozen: Any, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        weights, linear = frozen
        return torch_losses.lpips(sr, hr, network=network, weights=weights, linear=linear)

    frozen = (trunks.load_trunk(network), trunks.load_lpips_linear(network))
    return compare_image_loss(ours, theirs, frozen=frozen, through_features=True)


# The paper's settings, and our defaults where it is silent (configs/base.py); mu in bins, N/4 of 64.
DECLOSS: dict[str, Any] = {
    "patch_size": 8,
    "alpha": 1.0,
    "mu": 16.0,
    "threshold_db": 25.0,
    "t_pos": 0.5,
    "t_neg": 1.5,
}


def compare_decloss() -> Iterator[Comparison]:
    """Compares DECLoss as training computes it with full matrices in torch."""
    return compare_image_loss(
        lambda _, sr, hr: decloss(sr, hr, mode="multiply", **DECLOSS),
        lambda _, sr, hr: torch_losses.decloss(sr, hr, **DECLOSS),
    )


STEPS, WARMUP_STEPS, LEARNING_RATE = 20, 4, 1e-3
L1_WEIGHT, DECLOSS_WEIGHT = 1.0, 1e-2


def compare_training(model: EDSR | RRDBNet, params: Mapping[str, Any] | None = None) -> Iterator[Comparison]:
    """Compares 20 steps of L1 + DECLoss with Adam, warm-up and cosine, on crops of photographs."""
    params = random_params(model) if params is None else params
    start = state_dict(model, params)
    lows, hrs = crops(model.scale)
    batches = [slice(i % 3, i % 3 + 2) for i in range(STEPS)]

    state, losses = train_ours(model, params, [(lows[b], hrs[b]) for b in batches])
    twin = make_twin(model, params)
    their_losses = train_theirs(twin, [(as_floats(lows[b]), as_floats(hrs[b])) for b in batches])
    end = state_dict(model, jax.device_get(state.params))
    their_end = {name: parameter.detach().numpy() for name, parameter in twin.named_parameters()}
    yield Comparison("losses", {"total": np.array(losses)}, {"total": np.array(their_losses)}, BACKWARD)
    yield Comparison(
        "movement of weights",
        {name: end[name] - start[name] for name in end},
        {name: their_end[name] - start[name] for name in end},
        MOVEMENT,
    )


def train_ours(
    model: Any, params: Any, batches: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[Any, list[float]]:
    """Trains with the package's own step on one device; returns the last state and the losses."""
    mesh = parallel.data_mesh(jax.devices()[:1])
    crop_size = batches[0][1].shape[1]
    config = ConfigDict(
        {"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8, "data": {"crop_size": crop_size}}
    )
    config.decloss = DECLOSS | {
        "mu": DECLOSS["mu"] / crop_size,
        "mode": "multiply",
        "temperature": "exponent",
        "scope": "global",
        "tile_size": None,
        "precision": "highest",
    }
    config.stage = {
        "steps": STEPS,
        "warmup_steps": WARMUP_STEPS,
        "learning_rate": LEARNING_RATE,
        "schedule": "cosine",
        "restarts": 0,
        "restart_gamma": 1.0,
        "weights": {"l1": L1_WEIGHT, "decloss": DECLOSS_WEIGHT},
    }
    optimizer = optim.build_optimizer(config)
    train_step = step.make_train_step(
        model,
        terms=terms.build_terms(config, "stage", mesh),
        weights=config.stage.weights,
        optimizer=optimizer,
        schedule=optim.build_schedule(config.stage, "stage"),
        first_step=0,
        mesh=mesh,
    )
    state = jax.device_put(
        fresh_state(jax.tree.map(jnp.array, params), step=0, optimizer=optimizer), parallel.replicated(mesh)
    )
    losses = []
    for low, hr in batches:
        state, metrics = train_step(state, parallel.shard_batch({"low": low, "hr": hr}, mesh))
        losses.append(float(metrics["loss/total"]))
    return state, losses


def train_theirs(twin: torch.nn.Module, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Trains the torch network in place with torch's own Adam; returns the losses."""
    optimizer = torch.optim.Adam(twin.parameters(), betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for index, (low, hr) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = torch_losses.cosine_with_warmup(
            index, steps=STEPS, warmup_steps=WARMUP_STEPS, learning_rate=LEARNING_RATE
        )
        sr, target = twin(to_torch(low)), to_torch(hr).detach()
        loss = L1_WEIGHT * torch_losses.l1(sr, target)
        loss = loss + DECLOSS_WEIGHT * torch_losses.decloss(sr, target, **DECLOSS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def generator_parts(model: EDSR | RRDBNet, params: Mapping[str, Any]) -> dict[str, Part]:
    """Lists the parts that depend on the network, for one with given parameters."""
    name = f"{type(model).__name__} x{model.scale}"
    return {
        name: functools.partial(compare_generator, model, params),
        f"{name}, {STEPS} steps": functools.partial(compare_training, model, params),
    }


LOSS_PARTS: dict[str, Part] = {
    "AlexNet": functools.partial(compare_features, "alexnet"),
    "VGG-16": functools.partial(compare_features, "vgg16"),
    "VGG-19": functools.partial(compare_features, "vgg19"),
    "L1": lambda: compare_image_loss(
        lambda _, sr, hr: l1_loss(sr, hr), lambda _, sr, hr: torch_losses.l1(sr, hr)
    ),
    "perceptual, VGG-16, l1": functools.partial(compare_perceptual, "vgg16", "l1"),
    "perceptual, AlexNet, l2": functools.partial(compare_perceptual, "alexnet", "l2"),
    "DECLoss": compare_decloss,
    "LPIPS alex": functools.partial(compare_lpips, "alex"),
    "LPIPS vgg": functools.partial(compare_lpips, "vgg"),
}

SMALL_EDSR = EDSR(scale=4, features=16, blocks=2)
PARTS: dict[str, Part] = {
    "EDSR x2": functools.partial(compare_generator, EDSR(scale=2, features=16, blocks=2)),
    "EDSR x3": functools.partial(compare_generator, EDSR(scale=3, features=16, blocks=2, res_scale=0.1)),
    "EDSR x4": functools.partial(compare_generator, SMALL_EDSR),
    "RRDBNet x4": functools.partial(compare_generator, RRDBNet(features=16, blocks=1, growth=8)),
    **LOSS_PARTS,
    "EDSR x4, 20 steps": functools.partial(compare_training, SMALL_EDSR),
}
