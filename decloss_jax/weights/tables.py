"""The names of the generators' parameters in other code bases.

A dialect is one table, our layer -> their layer. {i} counts the blocks from 0; {j} counts the three dense
blocks, {k} their five convolutions and {u} RRDBNet's upsamplings from 1; {blocks} is the number of blocks.
The old ESRGAN numbers every layer: {up} is an upsampling, {hr} and {last} follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from decloss_jax.models.edsr import DIV2K_MEAN, EDSR, PIXEL_RANGE
from decloss_jax.models.rrdb import RRDBNet
from decloss_jax.models.srresnet import MSRResNet, SRResNet

Generator = EDSR | RRDBNet | SRResNet | MSRResNet


@dataclass(frozen=True)
class Dialect:
    """The names that one code base uses in the state dict of a network.

    Attributes:
        name: the name in messages.
        model: the class of the network.
        block: pattern of the keys inside a block, with its number as group 1. It identifies the dialect and
            counts the blocks.
        table: our layer -> their layer.
        marker: a key that the dialect must have, if another dialect has the same blocks.
        constants: optional keys and the values they must hold; our networks have these values in code.
    """

    name: str
    model: type[Generator]
    block: str
    table: Mapping[str, str]
    marker: str = ""
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    def layer(self, ours: str, **counts: int) -> str:
        """Returns their name for our layer (a key of the table), with the counters filled in."""
        return self.table[ours].format(**counts)


def _rgb_convolution(name: str, bias: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.eye(3).reshape(3, 3, 1, 1), f"{name}.bias": bias}


EDSR_PYTORCH = Dialect(
    name="EDSR-PyTorch",
    model=EDSR,
    block=r"body\.(\d+)\.body\.\d\..*",
    table={
        "conv_first": "head.0",
        "body_{i}/conv1": "body.{i}.body.0",
        "body_{i}/conv2": "body.{i}.body.2",
        "conv_after_body": "body.{blocks}",
        "upsample_0": "tail.0.0",
        "upsample_2": "tail.0.2",
        "upsample_4": "tail.0.4",
        "conv_last": "tail.1",
    },
    constants=_rgb_convolution("sub_mean", -PIXEL_RANGE * np.array(DIV2K_MEAN))
    | _rgb_convolution("add_mean", PIXEL_RANGE * np.array(DIV2K_MEAN)),
)
BASICSR_EDSR = Dialect(
    name="BasicSR EDSR",
    model=EDSR,
    block=r"body\.(\d+)\.conv\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/conv1": "body.{i}.conv1",
        "body_{i}/conv2": "body.{i}.conv2",
        "conv_after_body": "conv_after_body",
        "upsample_0": "upsample.0",
        "upsample_2": "upsample.2",
        "upsample_4": "upsample.4",
        "conv_last": "conv_last",
    },
)
ESRGAN_OLD = Dialect(
    name="ESRGAN (old)",
    model=RRDBNet,
    block=r"model\.1\.sub\.(\d+)\.RDB\d\..*",
    table={
        "conv_first": "model.0",
        "body_{i}/rdb{j}/conv{k}": "model.1.sub.{i}.RDB{j}.conv{k}.0",
        "conv_body": "model.1.sub.{blocks}",
        "conv_up{u}": "model.{up}",
        "conv_hr": "model.{hr}",
        "conv_last": "model.{last}",
    },
)
ESRGAN_NEW = Dialect(
    name="ESRGAN (new)",
    model=RRDBNet,
    block=r"RRDB_trunk\.(\d+)\.RDB\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/rdb{j}/conv{k}": "RRDB_trunk.{i}.RDB{j}.conv{k}",
        "conv_body": "trunk_conv",
        "conv_up{u}": "upconv{u}",
        "conv_hr": "HRconv",
        "conv_last": "conv_last",
    },
)
BASICSR_RRDB = Dialect(
    name="BasicSR RRDBNet",
    model=RRDBNet,
    block=r"body\.(\d+)\.rdb\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/rdb{j}/conv{k}": "body.{i}.rdb{j}.conv{k}",
        "conv_body": "conv_body",
        "conv_up{u}": "conv_up{u}",
        "conv_hr": "conv_hr",
        "conv_last": "conv_last",
    },
)
RANKSRGAN_OLD = Dialect(
    name="RankSRGAN (old)",
    model=SRResNet,
    block=r"model\.1\.sub\.(\d+)\.res\.\d\..*",
    table={
        "conv_first": "model.0",
        "body_{i}/conv1": "model.1.sub.{i}.res.0",
        "body_{i}/conv2": "model.1.sub.{i}.res.2",
        "conv_body": "model.1.sub.{blocks}",
        "upsample_0": "model.2",
        "upsample_2": "model.5",
        "conv_hr": "model.8",
        "conv_last": "model.10",
    },
)
MMSR_MSRRESNET = Dialect(
    name="MMSR MSRResNet",
    model=MSRResNet,
    block=r"recon_trunk\.(\d+)\.conv\d\..*",
    table={
        "conv_first": "conv_first",
        "body_{i}/conv1": "recon_trunk.{i}.conv1",
        "body_{i}/conv2": "recon_trunk.{i}.conv2",
        "upsample_0": "upconv1",
        "upsample_2": "upconv2",
        "conv_hr": "HRconv",
        "conv_last": "conv_last",
    },
)
RANKSRGAN = Dialect(
    name="RankSRGAN",
    model=SRResNet,
    block=MMSR_MSRRESNET.block,
    marker="LRconv.weight",
    table={**MMSR_MSRRESNET.table, "conv_body": "LRconv"},
)
BASICSR_MSRRESNET = Dialect(
    name="BasicSR MSRResNet",
    model=MSRResNet,
    block=BASICSR_EDSR.block,
    marker="upconv1.weight",
    table={
        ours: theirs.replace("recon_trunk", "body").replace("HRconv", "conv_hr")
        for ours, theirs in MMSR_MSRRESNET.table.items()
    },
)
DIALECTS = (  # a dialect with a marker precedes those with the same blocks
    EDSR_PYTORCH,
    BASICSR_MSRRESNET,
    BASICSR_EDSR,
    ESRGAN_OLD,
    ESRGAN_NEW,
    BASICSR_RRDB,
    RANKSRGAN_OLD,
    RANKSRGAN,
    MMSR_MSRRESNET,
)
WRITTEN: dict[type[Generator], Dialect] = {
    EDSR: BASICSR_EDSR,
    RRDBNet: BASICSR_RRDB,
    SRResNet: RANKSRGAN,
    MSRResNet: BASICSR_MSRRESNET,
}  # the dialect in which each network is saved
