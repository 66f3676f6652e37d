"""LPIPS side by side with the official torch package, on the same images with the same weights.

    python benchmarks/metrics.py [--quick] [--data ROOT] [--nets alex,vgg] [--out FILE.json]

Needs torch and `pip install --no-deps lpips==0.1.4`. That package builds its networks with torchvision, which
would download other copies of the weights: here a stand-in for torchvision builds the same layers and fills
them with the packaged ones, so that the official code runs unchanged.

Each side gets 8-bit images and returns numbers, its own conversions included. The sides take turns, so that
whatever else the machine does hits both; the medians are compared. Compiling is not counted, but reported.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax.commands import program
from decloss_jax.data.folder import find_all_pairs
from decloss_jax.data.photographs import find_photographs
from decloss_jax.metrics import lpips_each
from decloss_jax.ops.resize import bicubic_upscale
from decloss_jax.weights.trunks import load_trunk

OPTIONS = argparse.Namespace()  # of the command line

SCALE = 4
Images = Sequence[np.ndarray]
Measure = Callable[[Images, Images], list[float]]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line into `OPTIONS`."""
    parser = program.Parser(
        prog="metrics.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one image of 128 x 128 and few rounds: whether it runs at all"
    )
    parser.add_argument(
        "--data", default="", help="folder with HR/ (and LRx4/); by default the packaged photographs"
    )
    parser.add_argument("--out", default="results/benchmarks/metrics.json", help="file for the measurements")
    parser.add_argument("--nets", type=program.comma_list, default=["alex", "vgg"], help="networks of LPIPS")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each side")
    parser.set_defaults(main=main, resumes=False)
    return parser.parse_args(arguments, OPTIONS)


def main(options: argparse.Namespace) -> None:
    srs, hrs = load_images()
    rounds = 3 if OPTIONS.quick else OPTIONS.rounds
    results = {net: compare(net, srs, hrs, rounds) for net in OPTIONS.nets}
    record = {
        "images": len(hrs),
        "megapixels": round(sum(hr.shape[0] * hr.shape[1] for hr in hrs) / 1e6, 3),
        "rounds": rounds,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch", "lpips")},
        "lpips": results,
    }
    for net, result in results.items():
        print(
            f"lpips {net}: ours {result['ours']['images_per_second']:.2f} images/s, "
            f"official {result['official']['images_per_second']:.2f}, ratio {result['ratio']:.2f}, "
            f"largest difference {result['largest_difference']:.1e}"
        )
    Path(OPTIONS.out).write_text(json.dumps(record, indent=2) + "\n")
    print(f"written to {OPTIONS.out}")


def load_images() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the HR images and what bicubic makes of their LR images."""
    pairs = (
        find_all_pairs(Path(OPTIONS.data), scale=SCALE, field="--data")
        if OPTIONS.data
        else find_photographs("validation")
    )
    lows, hrs = zip(*(pair.load(SCALE) for pair in pairs), strict=True)
    if OPTIONS.quick:
        lows, hrs = (lows[0][:32, :32],), (hrs[0][:128, :128],)
    return [bicubic_upscale(low, SCALE) for low in lows], list(hrs)


def compare(net: str, srs: Images, hrs: Images, rounds: int) -> dict[str, object]:
    """Times both sides in turns on all images."""
    sides: dict[str, Measure] = {
        "ours": lambda srs, hrs: list(lpips_each(srs, hrs, net=net)),
        "official": official_lpips(net),
    }
    values, first, times = {}, {}, {name: [] for name in sides}
    for name, measure in sides.items():
        start = time.perf_counter()
        values[name] = measure(srs, hrs)
        first[name] = time.perf_counter() - start
    for _ in range(rounds):
        for name, measure in sides.items():
            start = time.perf_counter()
            measure(srs, hrs)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        **{
            name: {
                "images_per_second": len(hrs) / medians[name],
                "seconds_median": medians[name],
                "seconds_smallest": min(times[name]),
                "seconds_largest": max(times[name]),
                "seconds_first_round": first[name],
            }
            for name in sides
        },
        "ratio": medians["official"] / medians["ours"],
        "largest_difference": float(np.max(np.abs(np.subtract(values["ours"], values["official"])))),
    }


def official_lpips(net: str) -> Measure:
    """Returns the official metric, version 0.1, with the packaged weights."""
    import torch

    install_torchvision_stand_in()
    import lpips

    torch.set_num_threads(os.cpu_count() or 1)
    model = lpips.LPIPS(net=net, verbose=False).eval()

    def to_tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1

    @torch.inference_mode()
    def measure(srs: Images, hrs: Images) -> list[float]:
        return [float(model(to_tensor(sr), to_tensor(hr))) for sr, hr in zip(srs, hrs, strict=True)]

    return measure


def install_torchvision_stand_in() -> None:
    """Puts a module `torchvision.models` in place whose networks have the packaged weights."""
    torchvision, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    models.alexnet = lambda pretrained: types.SimpleNamespace(features=torch_features("alexnet"))
    models.vgg16 = lambda pretrained: types.SimpleNamespace(features=torch_features("vgg16"))
    torchvision.models = models
    sys.modules |= {"torchvision": torchvision, "torchvision.models": models}


def torch_features(network: str):
    """Builds the `features` of torchvision's AlexNet or VGG-16, in torchvision's order of layers."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for position, convolution in enumerate(load_trunk(network)):
        kernel = torch.from_numpy(convolution["kernel"].transpose(3, 2, 0, 1).copy())
        stride, padding = (4, 2) if kernel.shape[-1] == 11 else (1, kernel.shape[-1] // 2)
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[-1], stride=stride, padding=padding)
        layer.weight.data, layer.bias.data = kernel, torch.from_numpy(convolution["bias"].copy())
        layers += [layer, nn.ReLU(inplace=True)]
        pools = {"alexnet": (0, 1, 4), "vgg16": (1, 3, 6, 9, 12)}[network]
        if position in pools:
            layers.append(nn.MaxPool2d(3, 2) if network == "alexnet" else nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


if __name__ == "__main__":
    program.start("metrics.py", parse)
