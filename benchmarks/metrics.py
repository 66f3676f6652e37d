"""Processor seconds per image of each metric, and of upscaling an image to 8 bits.

    OPENBLAS_NUM_THREADS=1 taskset -c 0 python benchmarks/metrics.py [--before FOLDER] [--out FILE.json]

One pair of 2040x1356 pixels, as in DIV2K: packaged photographs, and their bicubic version. If installed,
these are measured too: SSIM as BasicSR computes it, by OpenCV's `filter2D` (opencv-python-headless), and the
official LPIPS (`pip install --no-deps lpips==0.1.4`) on the same weights. `--before` names a checkout of an
earlier version (`git worktree add FOLDER REVISION`).

Times are processor seconds on one core, which other programs on the machine hardly change. The sides take
turns. Compilation is not counted.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax.data.photographs import find_photographs
from decloss_jax.metrics import lpips_each, psnr, ssim
from decloss_jax.metrics.fidelity import C1, C2, WINDOW_SIGMA, WINDOW_SIZE
from decloss_jax.ops.color import rgb_to_y
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.ops.resize import bicubic_downscale, bicubic_upscale
from decloss_jax.weights.trunks import load_trunk

SCALE = 4
Measure = Callable[[np.ndarray, np.ndarray], Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=[1356, 2040], help="height and width of the pair, multiples of 4"
    )
    parser.add_argument("--cases", nargs="+", default=[], help="names of cases; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/metrics.json"))
    options = parser.parse_args()
    before = options.before
    low, sr, hr = make_images(*options.size)
    cases: dict[str, Callable[[], dict[str, Measure]]] = {
        "psnr_rgb": lambda: fidelity_sides("psnr", "rgb", before),
        "psnr_y": lambda: fidelity_sides("psnr", "y", before),
        "ssim_rgb": lambda: fidelity_sides("ssim", "rgb", before),
        "ssim_y": lambda: fidelity_sides("ssim", "y", before),
        "lpips_alex": lambda: lpips_sides("alex", before),
        "lpips_vgg": lambda: lpips_sides("vgg", before),
        "upscale": lambda: upscale_sides(low),
    }
    seconds = {name: compare(name, cases[name](), sr, hr, options.rounds) for name in options.cases or cases}
    record = {
        "image": list(hr.shape),
        "rounds": options.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "jax", "jaxlib")},
        "seconds": seconds,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {options.out}")


def make_images(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns an HR image tiled from a packaged photograph, its LR image, and the bicubic SR image."""
    photograph = next(pair for pair in find_photographs("train") if pair.name == "retina").hr.load()
    hr = np.tile(photograph, (2, 2, 1))[:height, :width]
    low = bicubic_downscale(hr, SCALE)
    return low, bicubic_upscale(low, SCALE), hr


def compare(
    name: str, sides: Mapping[str, Measure], sr: np.ndarray, hr: np.ndarray, rounds: int
) -> dict[str, Any]:
    """Times all sides in turns, after a first call that is not counted."""
    values = {side: measure(sr, hr) for side, measure in sides.items()}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            start = time.process_time()
            measure(sr, hr)
            times[side].append(time.process_time() - start)
    result = {}
    for side, seconds in times.items():
        median = statistics.median(seconds)
        ratios = [other / own for other, own in zip(seconds, times["ours"], strict=True)]
        result[side] = {
            "median": median,
            "smallest": min(seconds),
            "largest": max(seconds),
            "times_ours": [min(ratios), statistics.median(ratios), max(ratios)],
            "largest_difference_to_ours": float(
                np.max(np.abs(np.subtract(values[side], values["ours"], dtype=float)))
            ),
        }
        print(f"{name}, {side}: {median:.4f} s, {statistics.median(ratios):.2f} times ours", flush=True)
    return result


def load_before(checkout: Path, path: str) -> types.ModuleType:
    """Loads a module of the earlier version; its imports load modules of the present version."""
    spec = importlib.util.spec_from_file_location("before", checkout / "decloss_jax" / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fidelity_sides(name: str, channel: str, checkout: Path | None) -> dict[str, Measure]:
    """Returns PSNR or SSIM of one channel as functions of a pair."""
    options = {"crop_border": SCALE, "channel": channel}
    ours = {"psnr": psnr, "ssim": ssim}[name]
    sides: dict[str, Measure] = {"ours": lambda sr, hr: ours(sr, hr, **options)}
    if checkout:
        before = getattr(load_before(checkout, "metrics/fidelity.py"), name)
        sides["before"] = lambda sr, hr: before(sr, hr, **options)
    if name == "ssim" and importlib.util.find_spec("cv2"):
        sides["BasicSR's way"] = lambda sr, hr: ssim_by_opencv(sr, hr, channel)
    return sides


def ssim_by_opencv(sr: np.ndarray, hr: np.ndarray, channel: str) -> float:
    """Computes SSIM with two-dimensional filters over whole images in float64, channel by channel."""
    import cv2

    cv2.setNumThreads(1)
    column = cv2.getGaussianKernel(WINDOW_SIZE, WINDOW_SIGMA)
    inside = np.s_[WINDOW_SIZE // 2 : -(WINDOW_SIZE // 2)]

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.filter2D(image, -1, column @ column.T)[inside, inside]

    values = []
    pair = [image[SCALE:-SCALE, SCALE:-SCALE] for image in (sr, hr)]
    pair = [rgb_to_y(image / 255)[..., None] if channel == "y" else image for image in pair]
    for s, h in zip(*(np.moveaxis(image.astype(np.float64), -1, 0) for image in pair), strict=True):
        mean_s, mean_h = mean(s), mean(h)
        variances = mean(s**2) - mean_s**2 + mean(h**2) - mean_h**2
        covariance = mean(s * h) - mean_s * mean_h
        luminance = (2 * mean_s * mean_h + C1) / (mean_s**2 + mean_h**2 + C1)
        values.append(np.mean(luminance * (2 * covariance + C2) / (variances + C2)))
    return float(np.mean(values))


def lpips_sides(net: str, checkout: Path | None) -> dict[str, Measure]:
    """Returns LPIPS with one network as functions of a pair."""
    sides: dict[str, Measure] = {"ours": lambda sr, hr: next(lpips_each([sr], [hr], net=net))}
    if checkout:
        before = load_before(checkout, "metrics/lpips.py")
        before.extract_features = load_before(checkout, "models/features.py").extract_features
        sides["before"] = lambda sr, hr: next(before.lpips_each([sr], [hr], net=net))
    if importlib.util.find_spec("lpips"):
        sides["official"] = official_lpips(net)
    return sides


def upscale_sides(low: np.ndarray) -> dict[str, Measure]:
    """Returns EDSR-baseline's SR image in 8 bits: rounded on the device, and from floats on the host."""
    import jax

    from decloss_jax.inference import upscale
    from decloss_jax.models import EDSR
    from decloss_jax.training.state import draw_params

    model = EDSR()
    params = jax.device_put(draw_params(model, 0))
    return {
        "ours": lambda sr, hr: upscale(model, params, low, dtype=np.uint8),
        "rounded on the host": lambda sr, hr: to_uint8(upscale(model, params, low)),
    }


def official_lpips(net: str) -> Measure:
    """Returns the official metric, version 0.1, with the packaged weights."""
    import torch

    install_torchvision_stand_in()
    import lpips

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = lpips.LPIPS(net=net, verbose=False).eval()

    def to_tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1

    @torch.inference_mode()
    def measure(sr: np.ndarray, hr: np.ndarray) -> float:
        return float(model(to_tensor(sr), to_tensor(hr)))

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
    main()
