"""Parameters of SRFlow with which every layer acts; drawing the initial ones takes long to compile."""

import jax
import numpy as np


def random_params(model):
    """Small random numbers, and rotations."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32))["params"]
    rng = np.random.default_rng(0)

    def one(path, shape):
        if path[-1].key == "matrix":
            return np.linalg.qr(rng.standard_normal(shape.shape))[0].astype(np.float32)
        return 0.1 * rng.standard_normal(shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)
