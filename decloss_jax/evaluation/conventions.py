"""Measurement conventions, and their description in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from decloss_jax import checks
from decloss_jax.metrics import ICOO_SEED, METRIC_GROUPS, METRICS
from decloss_jax.metrics.icoo import ROUNDS
from decloss_jax.weights.trunks import PACKAGED


@dataclass(frozen=True)
class Conventions:
    """Conventions of measuring.

    Attributes:
        metrics: the default metrics, keys of METRIC_GROUPS.
        crop_border: pixels cropped from each side before PSNR and SSIM; None means the scale.
        only_here: metrics that only reproduce a table and are misleading elsewhere.
    """

    metrics: tuple[str, ...]
    crop_border: int | None
    only_here: tuple[str, ...] = ()


CONVENTIONS = {
    # The usual conventions: both RGB and Y, and LPIPS as its authors define it.
    "basicsr": Conventions(("psnr", "ssim", "lpips_alex", "icoo"), crop_border=None),
    # Table 3 of the paper: RGB, no border, and VGG-16's LPIPS on values in 0..255.
    "paper": Conventions(
        ("psnr_rgb", "lpips_vgg_unscaled", "icoo"), crop_border=0, only_here=("lpips_vgg_unscaled",)
    ),
}


@dataclass(frozen=True)
class Protocol:
    """The conventions of one evaluation: a key of `CONVENTIONS`, the border, and keys of METRICS."""

    name: str
    crop_border: int
    metrics: tuple[str, ...]


def choose_protocol(
    name: str, *, scale: int, crop_border: int | None = None, metrics: Sequence[str] = ()
) -> Protocol:
    """Completes the user's choices with the defaults of the conventions.

    Args:
        name: a key of `CONVENTIONS`.
        scale: s.
        crop_border: pixels, or None for the conventions' default.
        metrics: names or groups of metrics; empty for the conventions' default.

    Raises:
        UserError: an unknown name, a negative border, or a metric that belongs to other conventions.
    """
    conventions = checks.look_up(CONVENTIONS, name, "--conventions")
    border = crop_border if crop_border is not None else conventions.crop_border
    columns: list[str] = []
    for group in metrics or conventions.metrics:
        columns += checks.look_up(METRIC_GROUPS, group, "--metrics")
    for other_name, other in CONVENTIONS.items():
        foreign = [column for column in columns if column in other.only_here and other_name != name]
        checks.check(
            not foreign,
            "--metrics",
            expected=f"metrics of the conventions {name!r}",
            got=", ".join(foreign),
            remedy=f"add --conventions {other_name}, which it reproduces",
        )
    return Protocol(name, scale if border is None else border, tuple(dict.fromkeys(columns)))


def describe_protocol(protocol: Protocol, scale: int) -> dict[str, object]:
    """Describes the measurement in words, for summary.json and for the notes below every table."""
    words: dict[str, object] = {"name": protocol.name, "scale": scale, "crop_border": protocol.crop_border}
    used = {name.split("_")[0] for name in protocol.metrics}
    if used & {"psnr", "ssim"}:
        words["psnr_ssim"] = (
            f"8 bits (clip to [0,1], times 255, round), {protocol.crop_border} pixels cut off each side; "
            "rgb: all channels, y: BT.601 luma 16..235; mean over the images"
        )
    if {"lpips_alex", "lpips_vgg"} & set(protocol.metrics):
        words["lpips"] = "v0.1, 8 bits brought to [-1,1], whole images; mean over the images"
    if "lpips_vgg_unscaled" in protocol.metrics:
        words["lpips_vgg_unscaled"] = (
            "LPIPS v0.1 with VGG-16 fed with 0..255, whole images: reproduces Table 3 of the paper, "
            "compares with nothing else"
        )
    if "niqe" in used:
        words["niqe"] = (
            f"no reference; Y rounded to 8 bits, {protocol.crop_border} pixels cut off each side; "
            "mean over the images that hold at least two blocks of 96x96 pixels that are not flat"
        )
    if "icoo" in used:
        words["icoo"] = (
            f"mini-patches of all images, {ROUNDS} rounds, seed {ICOO_SEED}; depends on their number; "
            "differences mean something, absolute values do not compare with the paper's; "
            "texture, not fidelity"
        )
    return words


def list_weights(protocol: Protocol) -> dict[str, str]:
    """Lists the SHA-256 of the networks inside the metrics."""
    networks = {name: METRICS[name].network for name in protocol.metrics}
    return {name: PACKAGED[network].sha256 for name, network in networks.items() if network}
