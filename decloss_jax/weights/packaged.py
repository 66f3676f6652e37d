"""The two networks in the package: "faithful" (L1) and "vivid", which was fine-tuned from it with DECLoss."""

from pathlib import Path
from typing import Any

from decloss_jax import checks
from decloss_jax.weights.generators import describe, interpolate, load_generator

FAITHFUL, VIVID = (Path(__file__).with_name(f"{name}.safetensors") for name in ("faithful", "vivid"))
DETAIL = 0.75  # what looks best: at 1, enlarged white areas show a faint texture


def load_packaged(detail: float = DETAIL) -> tuple[Any, dict[str, Any], str]:
    """Loads the packaged EDSR x4, and reads its weights only now.

    Args:
        detail: 0 for "faithful", 1 for "vivid", and in between for the interpolation of their parameters.

    Returns:
        The Flax model, its parameters as float32 NumPy arrays, and a line that describes them.

    Raises:
        UserError: a detail outside 0 to 1.
    """
    checks.check_range("detail", detail, 0, 1)
    model, params, description = load_generator(FAITHFUL)
    _, vivid, _ = load_generator(VIVID)
    return model, interpolate(params, vivid, detail), f"packaged {describe(description)}, detail {detail:g}"
