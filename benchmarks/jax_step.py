"""Training steps of configs for measurements: ready to run on photographs, or compiled from shapes."""

import functools
import time
from typing import Any

import numpy as np


class Stepper:
    """The last stage of a config, ready to do a step.

    Args:
        config: an experiment of `configs/`.
        devices: over which the batch is split; None: all.
    """

    def __init__(self, config: Any, devices: Any = None):
        import jax

        from decloss_jax.host import parallel
        from decloss_jax.models import build_model
        from decloss_jax.training.optim import build_optimizer
        from decloss_jax.training.stages import plan_stages
        from decloss_jax.training.state import draw_params

        mesh, model, optimizer = (
            parallel.data_mesh(devices),
            build_model(config.model),
            build_optimizer(config),
        )
        stage = plan_stages(config, model, optimizer, mesh)[-1]
        params = jax.device_put(draw_params(model, 0), parallel.replicated(mesh))
        self._train_step: Any = stage.train_step
        batch = crops(config.batch_size, config.data.crop_size, config.model.scale)
        self._batch = parallel.shard_batch(batch, mesh)
        self.state: Any = stage.start(params, self._batch)
        self.metrics: dict[str, Any] = {}
        self.seconds()

    def seconds(self, steps: int = 1) -> float:
        """Does some steps without waiting in between, as training does; returns the seconds of one."""
        import jax

        start = time.perf_counter()
        for _ in range(steps):
            self.state, self.metrics = self._train_step(self.state, self._batch)
        jax.block_until_ready((self.state, self.metrics))
        return (time.perf_counter() - start) / steps


def crops(count: int, size: int, scale: int) -> dict[str, np.ndarray]:
    """Cuts the middle out of photographs: "hr" [count,size,size,3] and "low", uint8."""
    from decloss_jax.data.photographs import find_photographs

    pairs = find_photographs("train")
    batch: dict[str, list[np.ndarray]] = {"low": [], "hr": []}
    for index in range(count):
        low, hr = pairs[index % len(pairs)].load(scale)
        side = size // scale
        top, left = ((length - side) // 2 for length in low.shape[:2])
        batch["low"].append(low[top : top + side, left : left + side])
        batch["hr"].append(hr[scale * top :, scale * left :][:size, :size])
    return {key: np.stack(images) for key, images in batch.items()}


def compile_step(config: Any, mesh: Any) -> Any:
    """Compiles the update of stage 2 for a mesh whose devices need not exist; runs nothing.

    The networks of the terms come with their weights, so a config has to name a packaged one (vgg16).
    """
    import jax

    from decloss_jax.models import build_model
    from decloss_jax.training.optim import build_optimizer
    from decloss_jax.training.stages import abstract_batch, build_recipe
    from decloss_jax.training.state import abstract_state
    from decloss_jax.training.step import compile_update, update

    model, optimizer = build_model(config.model), build_optimizer(config)
    recipe = build_recipe(config, "finetune", model, optimizer, mesh, first_step=0)
    discriminator = recipe.adversary.model if recipe.adversary else None
    state = abstract_state(model, optimizer, discriminator, averaged=config.ema_decay > 0)
    frozen = jax.eval_shape(lambda: recipe.frozen)
    compiled = compile_update(functools.partial(update, recipe), mesh)
    return compiled.lower(state, abstract_batch(config), frozen).compile()
