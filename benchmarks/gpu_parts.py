"""The parts of gpu.py, each run in a separate process: `python gpu_parts.py FUNCTION ARGUMENT FOLDER`.

The last line of the output is the result as JSON. With DECLOSS_TINY=1 sizes fit a CPU in seconds.
"""

import functools
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TINY = os.environ.get("DECLOSS_TINY") == "1"
ROUNDS = 2 if TINY else 10
SIZES = {"small": 576, "paper": 576} if TINY else {"small": 4_608, "paper": 18_432}  # mini-patches P
STEPS = 2 if TINY else 20  # of `repeat`, and of each round of a step
ROWS = {
    "row1": "table1/01_edsr_l1",
    "row3": "table1/03_edsr_perceptual",
    "row6": "table1/06_edsr_perceptual_decloss",
    "row7": "table1/07_edsr_perceptual_decloss_ragan",
    "rrdb": "table1/08_rrdb_perceptual_decloss",
}
PICTURE = (96, 64) if TINY else (510, 339)  # LR pixels of DIV2K's usual 2040 x 1356


def environment(_: str, folder: Path) -> dict[str, Any]:
    import jax

    from decloss_jax.workdir.journal import versions

    torch_version: Any = None
    try:
        import torch

        torch_version = {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "gpu": torch.cuda.is_available(),
        }
    except ImportError:
        pass
    return {
        "devices": [device.device_kind for device in jax.devices()],
        "platform": jax.devices()[0].client.platform_version.splitlines()[0],
        "versions": versions(),
        "torch": torch_version,
        "cores": os.cpu_count(),
    }


def vectors(size: str) -> tuple[np.ndarray, np.ndarray, float]:
    from contrast import mini_patches

    return (*mini_patches(SIZES[size]), 25.0)


def loss_reference(size: str, folder: Path) -> dict[str, Any]:
    """Computes the gradient in float64 with PyTorch, rows in chunks, and leaves it in the folder."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    *patches, threshold_db = vectors(size)
    sr, hr = (torch.from_numpy(x).double().to(device) for x in patches)
    sr.requires_grad_()
    unit, unit_hr = (torch.nn.functional.normalize(x, dim=1) for x in (sr, hr))
    leaf = unit.detach().requires_grad_()
    log_sum, used = 0.0, 0
    for start in range(0, len(sr), 256):
        rows = slice(start, start + 256)
        positive = torch.cdist(hr[rows], hr, compute_mode="donot_use_mm_for_euclid_dist") <= 10 ** (
            -threshold_db / 20
        )
        t = torch.where(positive, 0.5, 1.5)
        scores = torch.exp(leaf[rows] @ leaf.T / t) + 2 * torch.exp(leaf[rows] @ unit_hr.T / t)
        q_pos, q_neg = (scores * positive).sum(1), (scores * ~positive).sum(1)
        kept = q_neg > 0
        some = torch.log(q_neg[kept] / q_pos[kept]).sum()
        some.backward()
        log_sum, used = log_sum + some.item(), used + int(kept.sum())
    unit.backward(leaf.grad / used)
    np.save(folder / f"{size}.npy", sr.grad.cpu().numpy())
    return {"loss": log_sum / used, "device": device}


def loss_jax(size: str, folder: Path) -> dict[str, Any]:
    """Measures value and gradient of our forms; the dense one computes in float32 alone."""
    import jax

    from decloss_jax.losses.contrast import spatial_contrast, spatial_contrast_dense

    sr, hr, threshold_db = vectors(size)
    inputs = jax.device_put((sr, hr))
    reference, results = np.load(folder / f"{size}.npy"), {}
    forms = {
        "ours high": functools.partial(spatial_contrast, precision="high"),
        "ours highest": functools.partial(spatial_contrast, precision="highest"),
        "dense highest": spatial_contrast_dense,
    }
    for name, form in forms.items():
        of = functools.partial(form, threshold_db=threshold_db, t_pos=0.5, t_neg=1.5)
        compiled = jax.jit(jax.value_and_grad(of)).lower(*inputs).compile()
        call = functools.partial(waiting, compiled, *inputs)
        loss, gradient = call()
        results[name] = {
            "loss": float(loss),
            "gradient_error": error(np.asarray(gradient), reference),
            "temporaries_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        } | timed(call)
    return results


def waiting(call: Callable, *inputs: Any) -> Any:
    import jax

    return jax.block_until_ready(call(*inputs))


def loss_torch(size: str, folder: Path) -> dict[str, Any]:
    """Measures PyTorch's dense form, eager and compiled, in float32 and with TF32."""
    import torch
    from contrast_forms import torch_loss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not TINY:
        return {"skipped": "torch sees no GPU"}
    sr, hr, threshold_db = vectors(size)
    leaf, target = torch.from_numpy(sr).to(device).requires_grad_(), torch.from_numpy(hr).to(device)
    reference, results = np.load(folder / f"{size}.npy"), {}
    for name, form in (("eager", torch_loss), ("compiled", torch.compile(torch_loss))):
        for kind in ("tf32", "float32"):
            torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()

            def call(form: Callable = form) -> tuple[Any, Any]:
                loss = form(leaf, target, threshold_db)
                (gradient,) = torch.autograd.grad(loss, leaf)
                if device == "cuda":
                    torch.cuda.synchronize()
                return loss, gradient

            loss, gradient = call()
            peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
            results[f"{name} {kind}"] = {
                "loss": loss.item(),
                "gradient_error": error(gradient.cpu().numpy(), reference),
                "peak_mib": peak,
            } | timed(call)
    return results


def error(gradient: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference over the largest absolute value."""
    return float(np.abs(gradient - reference).max() / np.abs(reference).max())


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """Median, fastest and slowest milliseconds of some calls that wait for the device."""
    values = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        values.append(1000 * (time.perf_counter() - start))
    return {"milliseconds": statistics.median(values), "fastest": min(values), "slowest": max(values)}


def make_config(row: str) -> Any:
    """A row of Table 1 at the paper's size; stage 1's step is row 1's."""
    import importlib

    config = importlib.import_module("configs." + ROWS[row].replace("/", ".")).get_config()
    if TINY:
        config.update({"batch_size": 2, "model": {"features": 8, "blocks": 1}, "data": {"crop_size": 96}})
        config.discriminator.features = 8
        if config.model.name == "rrdb":
            config.model.growth = 8
    return config


def use_random_vgg19() -> None:
    """Replaces VGG-19's file by random weights, on which the time of a step does not depend."""
    from torch_step import VGG19

    from decloss_jax.training import terms

    rng, channels, layers = np.random.default_rng(0), 3, []
    for width in VGG19:
        if width != "pool":
            kernel = rng.normal(0, (2 / (9 * channels)) ** 0.5, (3, 3, channels, int(width)))
            layers.append({"kernel": kernel.astype(np.float32), "bias": np.zeros(int(width), np.float32)})
            channels = int(width)
    terms.load_trunk = lambda network, **_: tuple(layers)  # type: ignore[assignment]


def step_jax(row: str, folder: Path) -> dict[str, Any]:
    import jax
    from jax_step import Stepper

    use_random_vgg19()
    start = time.perf_counter()
    stepper = Stepper(make_config(row), jax.devices()[:1])
    compiled = time.perf_counter() - start
    times = [1000 * stepper.seconds(STEPS) for _ in range(ROUNDS)]
    statistics_ = jax.devices()[0].memory_stats() or {}
    return {
        "milliseconds": statistics.median(times),
        "fastest": min(times),
        "slowest": max(times),
        "first_step_seconds": compiled,
        "peak_mib": statistics_.get("peak_bytes_in_use", 0) / 2**20,
    }


def step_torch(row: str, folder: Path) -> dict[str, Any]:
    import torch
    from torch_step import make_step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not TINY:
        return {"skipped": "torch sees no GPU"}
    step = make_step(make_config(row), device=device)

    def steps() -> None:
        for _ in range(STEPS):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    steps()
    times = {name: value / STEPS for name, value in timed(steps).items()}
    return times | {"peak_mib": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None}


def cards(count: str, folder: Path) -> dict[str, Any]:
    """Measures row 6 at the paper's global batch, split over the first `count` devices."""
    import jax
    from jax_step import Stepper

    if len(jax.devices()) < int(count):
        return {"skipped": f"{len(jax.devices())} devices here"}
    use_random_vgg19()
    config = make_config("row6")
    stepper = Stepper(config, jax.devices()[: int(count)])
    loss = float(stepper.metrics["loss/total"])
    times = [1000 * stepper.seconds(STEPS) for _ in range(ROUNDS)]
    return {"milliseconds": statistics.median(times), "first_loss": loss}


def repeat(turn: str, folder: Path) -> dict[str, Any]:
    """Hashes the parameters after some steps of row 7."""
    from decloss_jax.host.devices import make_deterministic

    if os.environ["DECLOSS_DETERMINISTIC"] == "1":
        make_deterministic()
    import jax
    from jax_step import Stepper

    use_random_vgg19()
    stepper = Stepper(make_config("row7"))
    seconds = stepper.seconds(STEPS)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(stepper.state)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return {"sha256": digest.hexdigest(), "milliseconds": 1000 * seconds}


def validation(_: str, folder: Path) -> dict[str, Any]:
    """Measures EDSR-baseline on pictures of DIV2K's size, one for each device, to 8 bits and PSNR."""
    import jax

    from decloss_jax.inference import on_local_devices, upscale_each
    from decloss_jax.metrics import psnr
    from decloss_jax.models import EDSR
    from decloss_jax.training.state import draw_params

    model = EDSR(features=8, blocks=1) if TINY else EDSR()
    params = on_local_devices(draw_params(model, 0))
    rng = np.random.default_rng(0)
    lows = [rng.integers(0, 256, (*PICTURE, 3), np.uint8) for _ in range(2 * len(jax.devices()))]
    hrs = [low.repeat(4, axis=0).repeat(4, axis=1) for low in lows]

    def measure() -> list[float]:
        srs = upscale_each(model, params, lows.__getitem__, [low.shape[:2] for low in lows])
        return [psnr(sr, hrs[index], crop_border=4, channel="y") for index, sr in srs]

    measure()
    times = timed(measure)
    return {"pictures": len(lows), "milliseconds_per_picture": times["milliseconds"] / len(lows)}


if __name__ == "__main__":
    name, argument, folder_name = sys.argv[1:]
    print(json.dumps(globals()[name](argument, Path(folder_name))))
