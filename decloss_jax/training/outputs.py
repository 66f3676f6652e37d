"""What a stage trains a network by: its SR images, or the likelihood of SRFlow's density.

A stage also starts and validates accordingly, so one table holds all three.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from jax import Array

from decloss_jax import checks
from decloss_jax.inference import upscale_each
from decloss_jax.inference.samples import regress, sample
from decloss_jax.models import SRFlow
from decloss_jax.models.srflow import fit_once
from decloss_jax.ops.padding import Size
from decloss_jax.ops.quantize import dequantize

Read = Callable[[int], np.ndarray]


class Output(NamedTuple):
    """What a network gives in a stage.

    Attributes:
        give: (model, params, low, hr) -> SR images [N,H,W,3] or bits per pixel [N], which the terms see.
        upscale_each: (model, params, read, sizes) -> index and SR image of each validation image, uint8.
        fit: (model, params, first batch) -> the parameters with which the stage starts; None: as they are.
    """

    give: Callable[[nn.Module, Any, Array, Array], Any]
    upscale_each: Callable[[nn.Module, Any, Read, Sequence[Size]], Iterable[tuple[int, np.ndarray]]]
    fit: Callable[[Any, Any, Mapping[str, Array]], Any] | None = None


def to_floats(batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns low and hr of a batch as float32 in [0,1]."""
    return dequantize(batch["low"]), dequantize(batch["hr"])


def one_by_one(upscale: Callable[..., np.ndarray]) -> Callable[..., Iterator[tuple[int, np.ndarray]]]:
    """Turns a function of (model, params, low) into one of many images."""

    def each(model: nn.Module, params: Any, read: Read, sizes: Sequence[Size]) -> Any:
        for index in range(len(sizes)):
            yield index, upscale(model, params, read(index), dtype=np.uint8)

    return each


def fit_flow(model: SRFlow, params: Any, first_batch: Mapping[str, Array]) -> Any:
    """Fits the actnorms of a flow that has not been trained."""
    return fit_once(params, *to_floats(first_batch), model.stacked_blocks)


OUTPUTS = {
    "sr": Output(lambda model, params, low, hr: model.apply({"params": params}, low), upscale_each),
    # The encoder's image: a flow can be trained on only after it.
    "regress": Output(
        lambda model, params, low, hr: model.apply({"params": params}, low, method="regress"),
        one_by_one(regress),
    ),
    # Validated as `evaluate.py` measures: one sample of heat 0.9, whose noise seed and image determine.
    "bits": Output(
        lambda model, params, low, hr: model.apply({"params": params}, low, hr, method="encode")[1],
        one_by_one(sample),
        fit_flow,
    ),
}


def choose_output(model: nn.Module, weights: Mapping[str, float], *, stage: str) -> Output:
    """Returns what the terms of a stage need: the likelihood bits per pixel, all others images.

    Args:
        model: the generator.
        weights: of the terms, none of them 0.
        stage: its name, for messages.

    Raises:
        UserError: a likelihood beside other terms, or of a network without one.
    """
    if "likelihood" not in weights:
        return OUTPUTS["regress" if isinstance(model, SRFlow) else "sr"]
    checks.check(
        isinstance(model, SRFlow),
        f"{stage}.weights.likelihood",
        expected="0 for a network without a density",
        got=f"{weights['likelihood']} for {type(model).__name__}",
        remedy=f"set --config.{stage}.weights.likelihood=0 or --config.model.name=srflow",
    )
    others = [name for name in weights if name != "likelihood"]
    checks.check(
        not others,
        f"{stage}.weights",
        expected="no other term beside likelihood, which sees no image",
        got=", ".join(others),
        remedy=f"set --config.{stage}.weights.{(others or ['NAME'])[0]}=0",
    )
    return OUTPUTS["bits"]
