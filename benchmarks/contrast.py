"""Time and memory of the spatial contrastive loss and its gradient, compared with PyTorch; effect of TF32.

    python benchmarks/contrast.py [--sizes P ...] [--rounds N] [--out results/benchmarks/contrast]

Needs torch, matplotlib, and a C++ compiler for torch.compile. Writes OUT.json and OUT.png. The mini-patches
come from 192 x 192 crops of scikit-image's photographs (HR) and their bicubic versions (SR), enhanced as in
training. The forms take turns on the same vectors, so that other load on the machine affects all of them.
Both wall-clock and processor time are measured, since other programs disturb the latter less. The first call
compiles and is not counted.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from contrast_forms import FORMS, jax_form, jitted

from decloss_jax.data.photographs import find_photographs
from decloss_jax.losses.contrast import spatial_contrast, spatial_contrast_dense
from decloss_jax.ops.fourier import enhance_detail
from decloss_jax.ops.patches import extract_patches
from decloss_jax.ops.resize import bicubic_upscale

CROP, SCALE, PATCH_SIZE = 192, 4, 8  # Sec. 5.1
THRESHOLD_DB = 25.0
PRECISION_PATCHES = 2304
MANTISSA_BITS = {"tf32": 10, "bfloat16": 7}
COMPILED_SIZES = ((4608, 192), (18_432, 192), (73_728, 48), (294_912, 12))  # P and D


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2304, 4608, 18_432], help="mini-patches P")
    parser.add_argument("--rounds", type=int, default=5, help="calls of each form")
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/contrast"), help="without suffix"
    )
    options = parser.parse_args()
    out = options.out
    record = {
        "hardware": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_before": os.getloadavg()[0],
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch", "numpy")},
        "precision": compare_precisions(),
        "temporaries_mib": {
            f"{name}, P = {patches}": temporaries_mib(form, patches, depth)
            for name, form in (("ours", spatial_contrast), ("dense", spatial_contrast_dense))
            for patches, depth in COMPILED_SIZES
            if name == "ours" or patches <= 18_432
        },
        "rows": [],
    }
    for size in options.sizes:
        record["rows"] += compare(size, options.rounds)
        record["load_after"] = os.getloadavg()[0]
        out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    plot(record["rows"], out.with_suffix(".png"))


def mini_patches(patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns enhanced SR and HR mini-patches [P,D] of photographs."""
    rng = np.random.default_rng(0)
    pairs = find_photographs("train") + find_photographs("validation")
    srs, hrs = [], []
    for index in range(patches // (CROP // PATCH_SIZE) ** 2):
        low, hr = pairs[index % len(pairs)].load(SCALE)
        top, left = (rng.integers(0, side - CROP + 1) for side in hr.shape[:2])
        crop = slice(top, top + CROP), slice(left, left + CROP)
        srs.append(bicubic_upscale(low, SCALE)[crop])
        hrs.append(hr[crop])
    sr, hr = (
        np.array(extract_patches(enhance_detail(images, alpha=1.0, mu=CROP / 4), PATCH_SIZE))
        for images in (np.stack(srs).astype(np.float32) / 255, np.stack(hrs).astype(np.float32) / 255)
    )
    return sr, hr


def compare(patches: int, rounds: int) -> list[dict[str, Any]]:
    """Times all forms at one size, in turns; returns a row for each."""
    sr, hr = mini_patches(patches)
    rows: list[dict[str, Any]] = []
    reference = None
    calls = {name: make(sr, hr, THRESHOLD_DB) for name, make in FORMS.items()}
    for name, call in calls.items():
        loss, gradient = call()
        reference = np.asarray(gradient) if name == "ours" else reference
        difference = relative_difference(gradient, reference)
        rows.append(
            {"form": name, "patches": patches, "loss": float(loss), "gradient_difference": difference}
        )
        rows[-1] |= {"seconds": [], "processor_seconds": []}
    for _ in range(rounds):
        for row, call in zip(rows, calls.values(), strict=True):
            clock, processor = time.perf_counter(), time.process_time()
            call()
            row["seconds"].append(time.perf_counter() - clock)
            row["processor_seconds"].append(time.process_time() - processor)
    for row in rows:
        row |= {f"median_{kind}": statistics.median(row[kind]) for kind in ("seconds", "processor_seconds")}
        print(
            row["form"],
            patches,
            *(f"{row[f'median_{kind}']:.3f}" for kind in ("seconds", "processor_seconds")),
        )
    return rows


def compare_precisions() -> dict[str, dict[str, float]]:
    """Emulates products of rounded inputs, except for the mask; returns the changes of loss and gradient.

    The tensor cores of GPUs take the inputs of a product in TF32 or bfloat16 and sum in float32.
    """
    sr, hr = mini_patches(PRECISION_PATCHES)
    exact, exact_gradient = jax_form(spatial_contrast, sr, hr, THRESHOLD_DB)()
    matmul = jnp.matmul

    def changes(bits: int) -> dict[str, float]:
        def rounded(a: jax.Array, b: jax.Array, *, precision: lax.PrecisionLike) -> jax.Array:
            if precision != lax.Precision.HIGHEST:  # the mask's
                a, b = (lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits) for x in (a, b))
            return matmul(a, b, precision=lax.Precision.HIGHEST)

        jax.clear_caches()
        with mock.patch.object(jnp, "matmul", rounded):
            loss, gradient = jax_form(spatial_contrast, sr, hr, THRESHOLD_DB, precision="high")()
        return {
            "loss_relative": abs(float(loss / exact) - 1),
            "gradient_of_its_maximum": relative_difference(gradient, exact_gradient),
        }

    return {name: changes(bits) for name, bits in MANTISSA_BITS.items()}


def relative_difference(gradient: Any, reference: Any) -> float:
    """Returns the largest difference, relative to the reference's largest value."""
    return float(np.abs(np.asarray(gradient) - reference).max() / np.abs(reference).max())


def temporaries_mib(form: Any, patches: int, depth: int) -> float:
    """Returns the MiB that value and gradient need in addition to arguments and results, as compiled."""
    vectors = jax.ShapeDtypeStruct((patches, depth), "float32")
    compiled = jitted(form, THRESHOLD_DB).lower(vectors, vectors).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 1)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots the median wall-clock time against P."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for form in FORMS:
        points = [(row["patches"], row["median_seconds"]) for row in rows if row["form"] == form]
        axis.plot(*zip(*points, strict=True), "o-", label=form)
    axis.set(
        xscale="log", yscale="log", xlabel="mini-patches P (D = 192)", ylabel="seconds, loss and gradient"
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
