"""The settings of claims.py: forms of DECLoss, and what each of them is compared with.

A setting changes row 2 (or 6) of Table 1 in miniature. Its name says what differs from the printed loss:
the kernel, the colour, "sharp" for temperatures of 0.2 instead of 0.5 and 1.5, and DECLoss's weight.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """What is trained, or done to pictures.

    Attributes:
        fields: of the config that differ from the row's.
        base: the setting that it is compared with; "" for a stage 1.
        row: index of the row in Table 1 whose config it changes.
        grain: instead of training, grain of this strength is added to the base's pictures.
        blind: the grain's local strength is measured on the base's pictures, not on HR.
    """

    fields: Mapping[str, Any]
    base: str = ""
    row: int = 1
    grain: float = 0.0
    blind: bool = False


WEIGHT, PHASE = "finetune.weights.decloss", "finetune.weights.phase"
FIRST, L1, PHASES = "stage 1", "L1 alone", "L1 and phase"
LONG_L1, PERCEPTUAL = "L1 alone, 1,000 steps", "L1 and VGG"
LARGE_FIRST, LARGE_L1, LARGE_PERCEPTUAL = "large: stage 1", "large: L1 alone", "large: L1 and VGG"
LARGE = {"model.features": 64, "model.blocks": 16, "pretrain.steps": 20_000, "finetune.steps": 1_000}
LONG = {"finetune.steps": 1_000}
WITH_PHASE = {PHASE: 0.3}

SHARP = {"t_pos": 0.2, "t_neg": 0.2}
RADIAL = {"kernel": "radial", "mu": 0.2, "threshold_db": 15.0}
# eta as for "radial": claims_forms.py gives the enhanced images the same strength.
KERNELS = {
    "printed": {},
    "radial": RADIAL,
    "notched": RADIAL | {"kernel": "radial_notched"},
    "whitened": RADIAL | {"kernel": "whitened"},
    "whitened notched": RADIAL | {"kernel": "whitened_notched"},
    "radial whitened": RADIAL | {"kernel": "radial_whitened"},
    "constant": RADIAL | {"kernel": "radial_and_mean"},
}
COLORS = {"RGB": {}, "luma": {"color": "luma"}, "and constant": {"color": "luma_and_constant"}}


def form(
    kernel: str, color: str, weight: float, base: str = L1, *, sharp: bool = True, row: int = 1, **fields: Any
) -> Setting:
    """Returns a setting that trains with DECLoss at a weight; `fields` are further ones of the config."""
    options = KERNELS[kernel] | COLORS[color] | (SHARP if sharp else {})
    decloss = {f"decloss.{name}": value for name, value in options.items()}
    return Setting({WEIGHT: weight} | decloss | fields, base, row)


def without(base: str, row: int = 1, **fields: Any) -> Setting:
    """Returns a setting that trains without DECLoss."""
    return Setting({WEIGHT: 0.0} | fields, base, row)


# Settings to compare with; each comes after what it is compared with.
BASES = {
    FIRST: Setting({"finetune.steps": 0}),
    L1: without(FIRST),
    PHASES: without(FIRST, **WITH_PHASE),
    LONG_L1: without(FIRST, **LONG),
    PERCEPTUAL: without(FIRST, row=5),
    LARGE_FIRST: Setting(LARGE | {"finetune.steps": 0}),
    LARGE_L1: without(LARGE_FIRST, **LARGE),
    LARGE_PERCEPTUAL: without(LARGE_FIRST, row=5, **LARGE),
}
# Hypothesis -> name -> setting.
HYPOTHESES: dict[str, dict[str, Setting]] = {
    "grain": {f"grain {strength}": Setting({}, L1, grain=strength) for strength in (0.05, 0.1, 0.2, 0.3)},
    "blind grain": {
        f"blind grain {strength}": Setting({}, L1, grain=strength, blind=True)
        for strength in (0.1, 0.2, 0.4, 0.6)
    },
    "form": {
        f"{kernel}, {color}, sharp, {weight}": form(kernel, color, float(weight))
        for kernel in ("radial", "notched")
        for color in ("RGB", "luma")
        for weight in ("3e-5", "5e-5", "1e-4", "2e-4")
    },
    "lattice": {
        f"{kernel}, {color}, sharp, {weight}, phase": form(kernel, color, float(weight), PHASES, **WITH_PHASE)
        for kernel, color, weight in (
            ("radial", "RGB", "5e-5"),
            ("radial", "luma", "5e-5"),
            ("radial", "luma", "1e-4"),
            ("notched", "luma", "5e-5"),
        )
    },
    "whitening": {
        f"{kernel}, luma, {name}": form(kernel, "luma", weight, sharp=sharp)
        for kernel in ("whitened", "radial whitened")
        for name, weight, sharp in (("sharp, 5e-5", 5e-5, True), ("1e-3", 1e-3, False))
    }
    | {
        f"whitened notched, luma, sharp, {weight}": form("whitened notched", "luma", float(weight))
        for weight in ("5e-5", "1e-4")
    },
    "strength": {
        f"constant, {name}": form("constant", "and constant", float(name), sharp=False)
        for name in ("1e-3", "1e-2")
    },
    "balance": {
        f"VGG, {name}, {weight:g}": form(kernel, color, weight, PERCEPTUAL, sharp=sharp, row=5)
        for name, kernel, color, sharp in (
            ("printed", "printed", "RGB", False),
            ("notched, luma, sharp", "notched", "luma", True),
        )
        for weight in (0.2, 2.0, 10.0)
    },
    "reduction": {
        f"printed, {name}": form("printed", "RGB", float(name), sharp=False)
        for name in ("3e-5", "1e-3", "4e-3", "8e-3", "1.7e-2")
    },
    "longer": {
        "notched, luma, sharp, 3e-5, 1,000 steps": form("notched", "luma", 3e-5, LONG_L1, **LONG),
        "notched, luma, sharp, 5e-5, 1,000 steps": form("notched", "luma", 5e-5, LONG_L1, **LONG),
        "radial, luma, sharp, 5e-5, phase, 1,000 steps": form(
            "radial", "luma", 5e-5, LONG_L1, **LONG, **WITH_PHASE
        ),
    },
    "larger": {
        "large: printed, 3e-5": form("printed", "RGB", 3e-5, LARGE_L1, sharp=False, **LARGE),
        "large: printed, 4e-3": form("printed", "RGB", 4e-3, LARGE_L1, sharp=False, **LARGE),
        "large: notched, luma, sharp, 5e-5": form("notched", "luma", 5e-5, LARGE_L1, **LARGE),
        "large: constant, 1e-3": form("constant", "and constant", 1e-3, LARGE_L1, sharp=False, **LARGE),
        "large: VGG, printed, 2": form("printed", "RGB", 2.0, LARGE_PERCEPTUAL, sharp=False, row=5, **LARGE),
        "large: VGG, notched, luma, sharp, 2": form("notched", "luma", 2.0, LARGE_PERCEPTUAL, row=5, **LARGE),
    },
}
SETTINGS = BASES | {name: each for group in HYPOTHESES.values() for name, each in group.items()}


def chain(name: str) -> list[str]:
    """Returns a setting and those that it is compared with, in the order in which they are trained."""
    base = SETTINGS[name].base
    return [*chain(base), name] if base else [name]
