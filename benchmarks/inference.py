"""Super-resolution of whole images, compared with PyTorch on the same weights; time to the first picture.

    python benchmarks/inference.py [--rounds 5] [--out results/benchmarks/inference.json]

EDSR-baseline x4 with random weights, images cut from scikit-image's photographs, uint8 in and out of memory.
Ours is `inference.upscale`. PyTorch runs eagerly, eagerly in channels_last, and compiled, each on [0,1]
floats made from the same bytes, under inference_mode. The sides take turns on each size, so that other load
on the machine affects all of them. The first call of each compiles and is not counted. Then whole processes
are timed, from their start to the written file, on a picture of 480x320: ours with an empty and with a filled
compilation cache, and a script of a few lines with PyTorch.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = ((80, 120), (160, 240), (320, 480), (680, 1024))  # heights and widths of LR images
PICTURE = (320, 480)  # for timing whole processes

TORCH_SCRIPT = """\
import sys
import numpy as np, torch
from PIL import Image
sys.path.insert(0, sys.argv[4])
from decloss_jax.compare_torch.torch_networks import Edsr
model = Edsr(4, 64, 16, 1.0).eval()
model.load_state_dict(torch.load(sys.argv[1], weights_only=True)["params"])
low = torch.from_numpy(np.asarray(Image.open(sys.argv[2]))).permute(2, 0, 1)[None].float() / 255
with torch.inference_mode():
    sr = (model(low)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
Image.fromarray(sr).save(sys.argv[3])
"""

Side = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted calls of each side on each size")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/inference.json"))
    options = parser.parse_args()
    import jax
    import torch

    from decloss_jax.models import EDSR
    from decloss_jax.training.state import draw_params
    from decloss_jax.weights import save_generator
    from decloss_jax.workdir.journal import versions

    model = EDSR()
    params = jax.tree.map(np.asarray, draw_params(model, seed=0))
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "edsr.pth"
        save_generator(weights, model, params)
        sides = make_sides(model, params, weights)
        record: dict[str, Any] = {
            "versions": versions() | {"torch": torch.__version__},
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "devices": "1 x cpu"},
            "rounds": options.rounds,
            "throughput": [compare(sides, size, options.rounds) for size in SIZES],
            "first_picture": first_pictures(weights, Path(folder), options.rounds),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {options.out}")


def make_sides(model: Any, params: Any, weights: Path) -> dict[str, Side]:
    """Returns ours and PyTorch's forms as functions of an LR image [h,w,3] uint8 to SR uint8."""
    import jax
    import torch

    from decloss_jax.compare_torch.torch_networks import Edsr
    from decloss_jax.inference import upscale

    network = Edsr(model.scale, model.features, model.blocks, model.res_scale).eval()
    network.load_state_dict(torch.load(weights, weights_only=True)["params"])
    channels_last = Edsr(model.scale, model.features, model.blocks, model.res_scale).eval()
    channels_last.load_state_dict(network.state_dict())
    channels_last = channels_last.to(memory_format=torch.channels_last)

    def in_torch(run: Callable[[Any], Any], memory_format: Any) -> Side:
        @torch.inference_mode()
        def side(low: np.ndarray) -> np.ndarray:
            images = torch.from_numpy(low).permute(2, 0, 1)[None].float() / 255
            sr = run(images.contiguous(memory_format=memory_format))[0]
            return (sr.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

        return side

    on_device = jax.device_put(params)
    return {
        "ours": lambda low: upscale(model, on_device, low, dtype=np.uint8),
        "torch eager": in_torch(network, torch.contiguous_format),
        "torch channels_last": in_torch(channels_last, torch.channels_last),
        "torch compiled": in_torch(torch.compile(network), torch.contiguous_format),
    }


def compare(sides: dict[str, Side], size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Times all sides in turns on one image."""
    low = photograph(size)
    results, times = {}, {name: [] for name in sides}
    for name, side in sides.items():
        results[name] = side(low)
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side(low)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    entry: dict[str, Any] = {"height": size[0], "width": size[1]}
    for name, seconds in times.items():
        difference = np.abs(results[name].astype(int) - results["ours"])
        entry[name] = {
            "seconds_median": medians[name],
            "seconds_smallest": min(seconds),
            "seconds_largest": max(seconds),
            "of_ours": medians[name] / medians["ours"],
            "levels_apart_at_most": int(difference.max()),
        }
    ratios = ", ".join(f"{name} {medians[name] / medians['ours']:.2f}" for name in sides)
    print(f"{size[1]}x{size[0]}: seconds over ours ({medians['ours']:.3f} s): {ratios}", flush=True)
    return entry


def photograph(size: tuple[int, int]) -> np.ndarray:
    """Returns an LR image [h,w,3] uint8: the top left part of a packaged photograph."""
    from decloss_jax.data.photographs import find_photographs

    image = next(pair for pair in find_photographs("train") if pair.name == "retina").hr.load()
    return np.ascontiguousarray(image[: size[0], : size[1]])


def first_pictures(weights: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Times whole processes from their start to the written file."""
    Image.fromarray(photograph(PICTURE)).save(folder / "in.png")
    cache, target = folder / "cache", folder / "out.png"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    upscale = [sys.executable, "-m", "decloss_jax", "upscale", folder / "in.png", target, "--overwrite"]
    script = folder / "first.py"
    script.write_text(TORCH_SCRIPT)
    commands = {
        "ours, empty cache": [*upscale, "--weights", weights],
        "ours, warm cache": [*upscale, "--weights", weights],
        "torch eager": [sys.executable, script, weights, folder / "in.png", target, REPOSITORY],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        shutil.rmtree(cache, ignore_errors=True)
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(
                [str(word) for word in command],
                cwd=REPOSITORY,
                env=environment,
                check=True,
                capture_output=True,
            )
            seconds[name].append(time.perf_counter() - start)
    entry = {
        name: {"seconds_median": statistics.median(s), "seconds_smallest": min(s), "seconds_largest": max(s)}
        for name, s in seconds.items()
    }
    for name, values in entry.items():
        print(f"first picture, {name}: {values['seconds_median']:.2f} s", flush=True)
    return {"height": PICTURE[0], "width": PICTURE[1]} | entry


if __name__ == "__main__":
    main()
