"""A small training for tests: its config, its batches, and its steps on some of the devices."""

import jax
import numpy as np

from configs import base
from decloss_jax.host import parallel
from decloss_jax.models import build_model
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.stages import build_stage
from decloss_jax.training.state import draw_params

STEPS = 20


def small_config():
    config = base.get_config()
    config.batch_size = 8
    config.model.features, config.model.blocks = 8, 2
    config.data.crop_size = 32
    config.finetune.steps = STEPS
    config.finetune.learning_rate = 1e-3
    config.finetune.warmup_steps = 4
    config.finetune.weights = base.loss_weights(l1=1.0, decloss=1e-2)
    config.decloss.threshold_db = 20.0
    return config


def crops(step: int) -> dict[str, np.ndarray]:
    """Smooth random images, so that the mini-patches have positives and negatives."""
    random = np.random.default_rng(step)
    low = random.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    noise = random.integers(-20, 20, (8, 32, 32, 3))
    return {"low": low, "hr": np.clip(low.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8)}


def prepare(config, devices: int):
    """Returns the compiled step, the initial state, and the mesh."""
    mesh = parallel.data_mesh(jax.devices()[:devices])
    model = build_model(config.model)
    stage = build_stage(config, "finetune", model, build_optimizer(config), mesh, first_step=5)
    params = jax.device_put(draw_params(model, config.seed), parallel.replicated(mesh))
    return stage.train_step, stage.start(params, parallel.shard_batch(crops(0), mesh)), mesh


def train(config, devices: int, steps: int = STEPS):
    """Trains from the seed; returns the last state and the scalars of each step."""
    step, state, mesh = prepare(config, devices)
    history = []
    for index in range(steps):
        state, metrics = step(state, parallel.shard_batch(crops(index), mesh))
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history
