"""Twenty steps of training: the package's own step beside a plain torch loop."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict

from decloss_jax import parallel
from decloss_jax.compare_torch import torch_losses
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
    to_torch,
)
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.training import optim, step, terms
from decloss_jax.training.state import fresh_state

STEPS, WARMUP_STEPS, LEARNING_RATE = 20, 4, 1e-4
L1_WEIGHT, DECLOSS_WEIGHT = 1.0, 1e-2


def compare_training(model: EDSR | RRDBNet, params: Mapping[str, Any] | None = None) -> Iterator[Comparison]:
    """Compares 20 steps of L1 + DECLoss with Adam, warm-up and cosine, on crops of photographs."""
    params = random_params(model) if params is None else params
    lows, hrs = crops(model.scale)
    batches = [(lows[i % 3 :][:2], hrs[i % 3 :][:2]) for i in range(STEPS)]

    with jax.enable_x64(True):
        precise = model.clone(dtype=jnp.float64)
        state, losses = train_ours(precise, as_doubles(params), batches)
        end = state_dict(model, jax.device_get(state.params))
    twin = make_twin(model, params).double()
    their_losses = train_theirs(twin, batches)
    start = state_dict(model, params)
    their_end = {name: parameter.detach().numpy() for name, parameter in twin.named_parameters()}
    yield Comparison("losses", {"total": np.array(losses)}, {"total": np.array(their_losses)}, FORWARD)
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
    for index, (low, hr) in enumerate((as_floats(low), as_floats(hr)) for low, hr in batches):
        optimizer.param_groups[0]["lr"] = torch_losses.cosine_with_warmup(
            index, steps=STEPS, warmup_steps=WARMUP_STEPS, learning_rate=LEARNING_RATE
        )
        sr, target = twin(to_torch(low).double()).float(), to_torch(hr).detach()
        loss = L1_WEIGHT * torch_losses.l1(sr, target)
        loss = loss + DECLOSS_WEIGHT * torch_losses.decloss(sr, target, **DECLOSS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
