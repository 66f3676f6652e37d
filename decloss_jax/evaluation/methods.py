"""Methods to measure: bicubic, the generator of a run, or a file of weights."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn

from decloss_jax import checks
from decloss_jax.host import console
from decloss_jax.inference import on_local_devices, upscale_each
from decloss_jax.inference.samples import sample
from decloss_jax.models import SRFlow
from decloss_jax.models.srflow import HEAT
from decloss_jax.ops.resize import bicubic_upscale
from decloss_jax.weights import describe
from decloss_jax.workdir.checkpoint import trained_stages
from decloss_jax.workdir.network import load_network

DEFAULT_SCALE = 4  # for bicubic without a generator


# Images [h,w,3] uint8 -> pairs of an index and its image [s h,s w,3] uint8, in any order.
UpscaleEach = Callable[[Sequence[np.ndarray]], Iterable[tuple[int, np.ndarray]]]


@dataclass(frozen=True)
class Method:
    """A method that turns LR into SR images.

    Attributes:
        name: its name in tables, and the name of its folder.
        scale: s.
        upscale_each: super-resolves all images of a set.
        sha256: the hash of its weights or checkpoint; empty for a method without weights.
        loaded: the loader's description of its source, which fits into JSON.
    """

    name: str
    scale: int
    upscale_each: UpscaleEach
    sha256: str = ""
    loaded: Mapping[str, Any] = field(default_factory=dict)


def load_methods(
    *,
    names: Sequence[str] = (),
    workdirs: Sequence[str] = (),
    weights: Sequence[str] = (),
    stage: str | None = None,
    scale: int | None = None,
    res_scale: float | None = None,
    heat: float | None = None,
    seed: int | None = None,
) -> list[Method]:
    """Loads all methods, and gives them different names.

    Args:
        names: keys of `BASELINES`.
        workdirs: folders of runs.
        weights: files of weights, in any format that `decloss_jax.weights` reads.
        stage: the stage of the runs: "pretrain", "finetune", "all" (each trained one) or None (the last).
        scale: s; by default the scale of the generators, or 4.
        res_scale: EDSR's residual scale in the files of weights; by default the recorded one.
        heat: the heat of SRFlow's samples; by default 0.9.
        seed: the seed of SRFlow's samples; by default 0.

    Raises:
        UserError: no method, one that cannot be loaded, several scales, or an option without a method.
    """
    checks.check(
        res_scale is None or bool(weights),
        "--res-scale",
        expected="a file of --weights to apply to",
        got="none",
        remedy="leave it out",
    )
    if scale is not None:
        checks.check_positive("--scale", scale)
    generators = [method for workdir in workdirs for method in from_workdir(workdir, stage)]
    generators += [from_path(path, res_scale=res_scale, heat=heat, seed=seed) for path in weights]
    for option, value in (("--heat", heat), ("--seed", seed)):
        checks.check(
            value is None or any("heat" in method.loaded for method in generators),
            option,
            expected="a file of SRFlow among --weights to apply to",
            got="none",
            remedy="leave it out",
        )
    common = scale or (generators[0].scale if generators else DEFAULT_SCALE)
    for method in generators:
        checks.check(
            method.scale == common,
            f"scale of {method.name}",
            expected=f"{common}, as " + ("--scale says" if scale else f"that of {generators[0].name}"),
            got=method.scale,
            remedy=f"give --scale {method.scale}" if scale else "evaluate each scale separately",
        )
    baselines = [checks.look_up(BASELINES, name, "--method")(common) for name in names]
    methods = baselines + generators
    checks.check(
        bool(methods),
        "methods",
        expected="at least one of --workdir, --weights and --method",
        got="none",
        remedy="name a method, for instance --method bicubic",
    )
    return with_own_names(methods)


def one_by_one(upscale: Callable[[np.ndarray], np.ndarray]) -> UpscaleEach:
    """Turns a function of one image into a function of many."""
    return lambda lows: enumerate(map(upscale, lows))


def bicubic(scale: int) -> Method:
    """Makes the baseline: MATLAB's bicubic, rounded to 8 bits after each dimension, like the LR images."""
    return Method("bicubic", scale, one_by_one(lambda low: bicubic_upscale(low, scale)))


BASELINES = {"bicubic": bicubic}


def from_generator(
    name: str, model: nn.Module, params: Any, sha256: str, loaded: Mapping[str, Any]
) -> Method:
    """Makes a method from a generator and its parameters; `loaded` holds SRFlow's heat and seed."""
    on_devices = on_local_devices(params)

    def upscale_network(lows: Sequence[np.ndarray]) -> Iterable[tuple[int, np.ndarray]]:
        return upscale_each(model, on_devices, lows.__getitem__, [low.shape[:2] for low in lows])

    def draw_sample(low: np.ndarray) -> np.ndarray:
        options = {"heat": loaded["heat"], "seed": loaded["seed"]}
        return sample(model, on_devices, low, dtype=np.uint8, **options)

    upscale = one_by_one(draw_sample) if isinstance(model, SRFlow) else upscale_network
    return Method(name, model.scale, upscale, sha256, loaded)


def from_workdir(workdir: str, stage: str | None) -> list[Method]:
    """Loads the generator of one stage of a run, or of all its stages."""
    stages = trained_stages(workdir) if stage == "all" else [stage]
    return [from_path(workdir, stage=each) for each in stages or [None]]


def from_path(
    path: str,
    *,
    stage: str | None = None,
    res_scale: float | None = None,
    heat: float | None = None,
    seed: int | None = None,
) -> Method:
    """Loads the generator of a run or of a file of weights, and describes it in a message."""
    model, params, description = load_network(path, stage=stage, res_scale=res_scale)
    console.say(describe(description))
    if isinstance(model, SRFlow):
        description |= {"heat": HEAT if heat is None else heat, "seed": seed or 0}
    name = "{workdir}-{stage}".format_map(description) if "workdir" in description else Path(path).stem
    return from_generator(name, model, params, description["sha256"], description)


def with_own_names(methods: Sequence[Method]) -> list[Method]:
    """Gives the methods different names."""
    names = own_names([method.name for method in methods])
    return [replace(method, name=name) for method, name in zip(methods, names, strict=True)]


def own_names(names: Sequence[str]) -> list[str]:
    """Adds -2, -3 ... to repeated names."""
    taken: list[str] = []
    for name in names:
        numbered = (f"{name}-{count}" for count in itertools.count(2))
        taken.append(next(each for each in itertools.chain([name], numbered) if each not in taken))
    return taken
