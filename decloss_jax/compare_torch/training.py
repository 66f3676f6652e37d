"""Some steps of training: the package's own step and a plain torch loop."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from decloss_jax.compare_torch import torch_losses, torch_networks
from decloss_jax.compare_torch.inputs import (
    DECLOSS,
    FORWARD,
    MOVEMENT,
    Comparison,
    as_doubles,
    as_floats,
    crops,
    make_twin,
    random_params,
    state_dict,
    state_of,
    to_torch,
)
from decloss_jax.host import parallel
from decloss_jax.training import optim
from decloss_jax.training.stages import build_recipe
from decloss_jax.training.state import DiscriminatorState, TrainState, fresh_state
from decloss_jax.training.step import make_train_step
from decloss_jax.weights.discriminators import discriminator_variables
from decloss_jax.weights.tables import Generator

STEPS, ADVERSARIAL_STEPS, WARMUP_STEPS, LEARNING_RATE = 20, 10, 4, 1e-4
CONTRAST = {"l1": 1.0, "decloss": 1e-2}
FEATURES = 8  # of the discriminator

Batches = list[tuple[np.ndarray, np.ndarray]]


def compare_training(model: Generator, params: Mapping[str, Any] | None = None) -> Iterator[Comparison]:
    """Compares 20 steps of L1 + DECLoss with Adam, warm-up and cosine, on crops of photographs."""
    params = random_params(model) if params is None else params
    batches = draw_batches(model.scale, STEPS)
    with jax.enable_x64(True):
        state, metrics = train_ours(model, params, batches, CONTRAST)
        end = state_dict(model, jax.device_get(state.params))
    twin = make_twin(model, params).double()
    their_losses = train_theirs(twin, batches)
    ours = np.array([each["loss/total"] for each in metrics])
    yield Comparison("losses", {"total": ours}, {"total": np.array(their_losses)}, FORWARD)
    yield compare_movement("movement of weights", state_dict(model, params), end, state_of(twin))


def compare_adversarial_training(model: Generator, term: str) -> Iterator[Comparison]:
    """Compares 10 steps of L1 and an adversarial term, with both networks updated at once."""
    weights = {"l1": 1.0, term: 5e-3}
    params, batches = random_params(model), draw_batches(model.scale, ADVERSARIAL_STEPS)
    torch.manual_seed(0)
    other_twin = torch_networks.Discriminator(batches[0][1].shape[1], FEATURES)
    start = discriminator_variables(state_of(other_twin))[1]
    with jax.enable_x64(True):
        state, metrics = train_ours(model, params, batches, weights, start)
        end = state_dict(model, jax.device_get(state.params))
        its_end = flatten_dict(jax.device_get(state.discriminator).params, sep="/")
    twin, other_twin = make_twin(model, params).double(), other_twin.double()
    their_losses = train_their_adversaries(twin, other_twin, batches, term, weights)
    names = ("loss/total", "loss/discriminator")
    ours = {name: np.array([each[name] for each in metrics]) for name in names}
    yield Comparison("losses", ours, dict(zip(names, np.array(their_losses).T, strict=True)), FORWARD)
    yield compare_movement("movement, generator", state_dict(model, params), end, state_of(twin))
    its_start = flatten_dict(start["params"], sep="/")
    if term == "ragan":  # a constant added to all logits has no gradient: only rounding moves it
        its_start.pop("linear2/bias")
    their_end = flatten_dict(discriminator_variables(state_of(other_twin))[1]["params"], sep="/")
    yield compare_movement("movement, discriminator", its_start, its_end, their_end)


def compare_movement(
    quantity: str,
    start: Mapping[str, np.ndarray],
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
) -> Comparison:
    """Compares the change of each weight from the common initial values."""
    return Comparison(
        quantity,
        {name: ours[name] - start[name] for name in start},
        {name: theirs[name] - start[name] for name in start},
        MOVEMENT,
    )


def draw_batches(scale: int, steps: int) -> Batches:
    """Returns pairs of crops for some steps, cycling through three batches."""
    lows, hrs = crops(scale)
    return [(lows[i % 3 :][:2], hrs[i % 3 :][:2]) for i in range(steps)]


def train_ours(
    model: Any,
    params: Any,
    batches: Batches,
    weights: Mapping[str, float],
    variables: Mapping[str, Any] | None = None,
) -> tuple[TrainState, list[dict[str, float]]]:
    """Trains in float64 with the package's own step on one device.

    Args:
        model: the generator.
        params: its parameters.
        batches: pairs of uint8 crops, one for each step.
        weights: of the terms.
        variables: of the discriminator, if there is an adversarial term.

    Returns:
        The last state and the scalars of each step.
    """
    mesh = parallel.data_mesh(jax.devices()[:1])
    config = make_config(weights, crop_size=batches[0][1].shape[1], steps=len(batches))
    optimizer = optim.build_optimizer(config)
    recipe = build_recipe(config, "stage", model.clone(dtype=jnp.float64), optimizer, mesh, first_step=0)
    train_step = make_train_step(recipe, mesh)
    state = fresh_state(jax.tree.map(jnp.array, as_doubles(params)), step=0, optimizer=optimizer)
    if variables is not None:
        variables = jax.tree.map(jnp.array, as_doubles(variables))
        discriminator = DiscriminatorState(**variables, opt_state=optimizer.init(variables["params"]))
        state = dataclasses.replace(state, discriminator=discriminator)
    state = jax.device_put(state, parallel.replicated(mesh))
    history = []
    for low, hr in batches:
        state, metrics = train_step(state, parallel.shard_batch({"low": low, "hr": hr}, mesh))
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


def make_config(weights: Mapping[str, float], *, crop_size: int, steps: int) -> ConfigDict:
    """Returns the fields of an experiment's config that the step needs."""
    config = ConfigDict(
        {"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8, "data": {"crop_size": crop_size}}
    )
    config.micro_batch, config.ema_decay = None, 0.0
    config.decloss = DECLOSS | {
        "mu": DECLOSS["mu"] / crop_size,
        "kernel": "separable",
        "color": "rgb",
        "mode": "multiply",
        "temperature": "exponent",
        "scope": "global",
        "tile_size": None,
        "precision": "highest",
    }
    config.discriminator = {
        "features": FEATURES,
        "stages": None,
        "learning_rate_ratio": 1.0,
        "statistics": "global",
        "dtype": "float32",
    }
    config.stage = {
        "steps": steps,
        "warmup_steps": WARMUP_STEPS,
        "learning_rate": LEARNING_RATE,
        "schedule": "cosine",
        "restarts": 0,
        "restart_gamma": 1.0,
        "weights": dict(weights),
    }
    return config


def train_theirs(twin: torch.nn.Module, batches: Batches) -> list[float]:
    """Trains the torch network in place with torch's own Adam on L1 + DECLoss; returns the losses."""
    optimizer = make_adam(twin)
    losses = []
    for index, (low, hr) in enumerate(batches):
        set_learning_rate(optimizer, index, len(batches))
        sr, target = twin(to_torch(as_floats(low)).double()).float(), to_torch(as_floats(hr)).detach()
        loss = CONTRAST["l1"] * torch_losses.l1(sr, target)
        loss = loss + CONTRAST["decloss"] * torch_losses.decloss(sr, target, **DECLOSS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def train_their_adversaries(
    twin: torch.nn.Module,
    other_twin: torch.nn.Module,
    batches: Batches,
    term: str,
    weights: Mapping[str, float],
) -> list[tuple[float, float]]:
    """Trains both torch networks in place: the generator, then the discriminator on the same SR images.

    Returns:
        The losses of both, for each step.
    """
    optimizer, other_optimizer = make_adam(twin), make_adam(other_twin)
    losses = []
    for index, (low, hr) in enumerate(batches):
        for each in (optimizer, other_optimizer):
            set_learning_rate(each, index, len(batches))
        sr, target = twin(to_torch(as_floats(low)).double()).float(), to_torch(as_floats(hr)).detach()
        logits = [other_twin(images.double()) for images in (target, sr)]
        loss = weights["l1"] * torch_losses.l1(sr, target)
        loss = loss + weights[term] * torch_losses.gan_losses(*logits)[f"{term} generator"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        logits = [other_twin(images.double()) for images in (target, sr.detach())]
        other_loss = torch_losses.gan_losses(*logits)[f"{term} discriminator"]
        other_optimizer.zero_grad()
        other_loss.backward()
        other_optimizer.step()
        losses.append((float(loss.detach()), float(other_loss.detach())))
    return losses


def make_adam(network: torch.nn.Module) -> torch.optim.Adam:
    """Returns torch's Adam as the paper sets it."""
    return torch.optim.Adam(network.parameters(), betas=(0.9, 0.999), eps=1e-8)


def set_learning_rate(optimizer: torch.optim.Optimizer, index: int, steps: int) -> None:
    """Sets the rate of an update, counted from 0."""
    optimizer.param_groups[0]["lr"] = torch_losses.cosine_with_warmup(
        index, steps=steps, warmup_steps=WARMUP_STEPS, learning_rate=LEARNING_RATE
    )
