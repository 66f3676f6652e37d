"""The spatial contrastive loss and its gradient side by side: time, memory, growth.

    python benchmarks/contrast.py [--quick] [--only=P,...] [--out results/benchmarks/contrast]

Needs torch and matplotlib; KeOps (`pip install pykeops`, and a C++ compiler, which torch.compile wants too)
is left out, and that is recorded, where it does not work. Writes OUT.json and OUT.png and prints the table.

The mini-patches are those of real photographs (scikit-image's, 192 x 192 crops, against what bicubic makes of
their LR), enhanced as in training. The forms take turns on the same vectors, so that whatever else the
machine does hits all of them; the matrix-product peak is measured in between. Peak memory is measured in a
process of its own for each form. The first call, which compiles, is not counted, but recorded.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from contrast_forms import FORMS, Measured, jax_form, temporaries_mib

from decloss_jax.commands import program
from decloss_jax.data.photographs import find_photographs
from decloss_jax.losses.contrast import FULL_UP_TO, TILE_SIZE, spatial_contrast, spatial_contrast_dense
from decloss_jax.ops.fourier import enhance_detail
from decloss_jax.ops.patches import extract_patches
from decloss_jax.ops.resize import bicubic_upscale

OPTIONS = argparse.Namespace()  # of the command line

CROP, SCALE = 192, 4  # Sec. 5.1
SIZES = ((1152, 8), (2304, 8), (4608, 8), (9216, 8), (18_432, 8), (73_728, 4))  # P and p; D = 3 p p
SMALLEST_PATCHES = (36_864, 1)  # one crop in patches of one pixel: the rate for P = 1,179,648 at batch 32
ALONE = (SMALLEST_PATCHES, (294_912, 2))  # ours alone, once
TILES = (192, 256, 384, 512, 768, 1152)
SLOW_ROUNDS = 5  # of what takes over two seconds
COMPILED = {"ours": spatial_contrast, "dense": spatial_contrast_dense}  # tell their temporaries
PEAK_SIZES = (512, 1024, 2048)  # square products; the fastest counts


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line into `OPTIONS`."""
    parser = program.Parser(
        prog="contrast.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="P = 1152 and 2304 only, three rounds: whether it runs at all"
    )
    parser.add_argument(
        "--only",
        type=program.comma_list,
        default=[],
        help="sizes P to measure again; the others stay as OUT.json has them",
    )
    parser.add_argument(
        "--out", default="results/benchmarks/contrast", help="path of the results, without suffix"
    )
    parser.add_argument(
        "--once", default="", help="FORM:P:p, print what the first calls of a form take and leave (internal)"
    )
    parser.set_defaults(main=main, resumes=False)
    return parser.parse_args(arguments, OPTIONS)


def main(options: argparse.Namespace) -> None:
    if OPTIONS.once:
        form, patches, patch_size = OPTIONS.once.split(":")
        print(json.dumps(measure_once(form, int(patches), int(patch_size))))
        return
    out = Path(OPTIONS.out)
    sizes = SIZES[:2] if OPTIONS.quick else SIZES
    chosen = [int(size) for size in OPTIONS.only] or [patches for patches, _ in (*sizes, *ALONE)]
    rows = measured_before(out, chosen) if OPTIONS.only else []
    for patches, patch_size in sizes:
        if patches in chosen:
            rows += compare(patches, patch_size)
            save(out, rows)
    for patches, patch_size in () if OPTIONS.quick else ALONE:
        if patches in chosen:
            rows.append(run_alone(patches, patch_size))
            save(out, rows)
    record = save(out, rows, compare_tiles(1152 if OPTIONS.quick else 4608))
    plot(record, out.with_suffix(".png"))
    print(table(record))


def save(out: Path, rows: list[dict[str, Any]], tiles: dict[str, Any] | None = None) -> dict[str, Any]:
    """Writes what is measured so far, with what follows from it, to OUT.json; returns it."""
    rows.sort(key=lambda row: (-row["depth"], row["patches"]))
    for row in rows:
        add_shares(row)
        if row["form"] in COMPILED and "temporaries_mib" not in row:
            row["temporaries_mib"] = temporaries_mib(COMPILED[row["form"]], row["patches"], row["depth"])
    record = {
        "hardware": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": versions("jax", "jaxlib", "torch", "pykeops", "numpy"),
        "quick": OPTIONS.quick,
        "rows": rows,
        "tiles": tiles,
        "exponents": {form: exponents(rows, form) for form in FORMS},
        "single_pixels": cost_of_single_pixels(rows),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def measured_before(out: Path, chosen: list[int]) -> list[dict[str, Any]]:
    """Reads the rows of the other sizes from an earlier run on this machine."""
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    return [row for row in rows if row["patches"] not in chosen]


def mini_patches(patches: int, patch_size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns enhanced SR and HR mini-patches [P,D] of photographs, and eta in dB.

    eta = 25 dB at p = 8, and the same distance per pixel at other sizes.
    """
    rng = np.random.default_rng(0)
    pairs = find_photographs("train") + find_photographs("validation")
    srs, hrs = [], []
    for index in range(patches // (CROP // patch_size) ** 2):
        low, hr = pairs[index % len(pairs)].load(SCALE)
        top, left = (rng.integers(0, side - CROP + 1) for side in hr.shape[:2])
        crop = slice(top, top + CROP), slice(left, left + CROP)
        srs.append(bicubic_upscale(low, SCALE)[crop])
        hrs.append(hr[crop])
    vectors = [
        np.array(extract_patches(enhance_detail(images, alpha=1.0, mu=CROP / 4), patch_size))
        for images in (np.stack(srs).astype(np.float32) / 255, np.stack(hrs).astype(np.float32) / 255)
    ]
    return vectors[0], vectors[1], 25 + 20 * math.log10(8 / patch_size)


def compare(patches: int, patch_size: int) -> list[dict[str, Any]]:
    """Times all forms that can run at one size, in turns, with the peak in between; returns their rows."""
    sr, hr, threshold_db = mini_patches(patches, patch_size)
    measured: dict[str, Measured] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, form in FORMS.items():
        if patches > form.largest:
            continue
        row = {"form": name, "patches": patches, "depth": sr.shape[1]}
        start = time.perf_counter()
        try:
            measured[name] = form.make(sr, hr, threshold_db)
            loss, gradient = measured[name]()
        except Exception as error:
            if name in ("ours", "dense"):
                raise
            rows[name] = row | {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
            measured.pop(name, None)
            continue
        rows[name] = row | {"loss": float(loss), "first_seconds": time.perf_counter() - start, "seconds": []}
        if name == "ours":
            reference = np.asarray(gradient)
            rows[name]["mask_share"] = mask_share(hr, threshold_db)
        elif name != "ours, equal lengths":
            difference = np.abs(np.asarray(gradient) - reference).max() / np.abs(reference).max()
            rows[name]["gradient_difference"] = float(difference)
    rounds = {name: rounds_for(seconds_of(call)) for name, call in measured.items()}
    peaks = []
    for turn in range(max(rounds.values())):
        peaks.append(peak_gflops())
        for name, call in measured.items():
            if turn < rounds[name]:
                if rounds[name] > SLOW_ROUNDS:
                    call()  # not counted: caches and threads are not to depend on who came before
                rows[name]["seconds"].append(seconds_of(call))
    for name in measured:
        alone = in_own_process(name, patches, patch_size)
        rows[name] |= summary(rows[name]["seconds"]) | {"memory_mib": alone.get("memory_mib")}
        rows[name] |= {"peak_gflops": max(peaks), "date": today()}
        if "failed" in alone:
            rows[name]["memory_failed"] = alone["failed"]
        print(f"P = {patches}, {name}: {rows[name]['median']:.4g} s", flush=True)
    return list(rows.values())


def run_alone(patches: int, patch_size: int) -> dict[str, Any]:
    """Measures ours once, in a process of its own, at a size that no other form reaches in time."""
    measured = in_own_process("ours", patches, patch_size)
    _, hr, threshold_db = mini_patches(patches, patch_size)
    row = {
        "form": "ours",
        "patches": patches,
        "depth": hr.shape[1],
        "mask_share": mask_share(hr, threshold_db),
        "peak_gflops": max(peak_gflops() for _ in range(SLOW_ROUNDS)),
        "date": today(),
    }
    if "failed" in measured:
        return row | measured
    row |= measured | {"seconds": [measured["seconds"]]} | summary([measured["seconds"]])
    print(f"P = {patches}, ours alone: {row['median']:.4g} s", flush=True)
    return row


def compare_tiles(patches: int) -> dict[str, Any]:
    """Times the strips with other tile sizes, in turns."""
    vectors = mini_patches(patches, 8)
    calls = {tile: jax_form(spatial_contrast, *vectors, tile_size=tile) for tile in TILES}
    for call in calls.values():
        call()
    seconds: dict[int, list[float]] = {tile: [] for tile in TILES}
    for _ in range(9):
        for tile, call in calls.items():
            seconds[tile].append(seconds_of(call))
    return {
        "patches": patches,
        "depth": 192,
        "median": {tile: statistics.median(seconds[tile]) for tile in TILES},
    }


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rounds_for(seconds: float) -> int:
    """How often a form is measured: at least 5 times, but 3 times or once what takes very long."""
    if OPTIONS.quick:
        return 3
    return (
        51
        if seconds < 0.2
        else 9
        if seconds < 2
        else SLOW_ROUNDS
        if seconds < 30
        else 3
        if seconds < 100
        else 1
    )


def peak_gflops() -> float:
    """Measures the rate of the fastest square product."""
    return max(2 * size**3 / seconds_of(call) for size, call in products().items()) / 1e9


@functools.cache
def products() -> dict[int, Callable[[], Any]]:
    """Square float32 products of each peak size, compiled."""
    import jax
    import jax.numpy as jnp

    square = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    calls = {}
    for size in PEAK_SIZES:
        matrix = jnp.ones((size, size))
        jax.block_until_ready(square(matrix))
        calls[size] = lambda matrix=matrix: jax.block_until_ready(square(matrix))
    return calls


def mask_share(hr: np.ndarray, threshold_db: float) -> float:
    """The share of pairs of tiles for which the strips compute the mask: lengths within the radius."""
    lengths = np.sort(np.linalg.norm(hr - hr.mean(axis=0), axis=1))
    tiles = np.array_split(lengths, -(-len(lengths) // TILE_SIZE))
    low, high = (np.array([bound(tile) for tile in tiles]) for bound in (np.min, np.max))
    gaps = np.maximum(low[:, None] - high, low - high[:, None])
    return float(np.mean(gaps <= 10 ** (-threshold_db / 20)))


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds)}


def add_shares(row: dict[str, Any]) -> None:
    """Adds how many products at the peak of its run the time would have sufficed for, and the share of it."""
    if "median" not in row:
        return
    one_product = 2 * row["patches"] ** 2 * row["depth"] / (1e9 * row["peak_gflops"])
    row["products_at_peak"] = row["median"] / one_product
    row["share_of_peak"] = executed_products(row) / row["products_at_peak"]


def executed_products(row: dict[str, Any]) -> float:
    """Returns how many products of 2 P P D operations a form executes."""
    ours = row["form"].startswith("ours")
    if ours and row["patches"] <= FULL_UP_TO:
        return FORMS["dense"].products
    # The strips' mask, where lengths allow it, and the diagonal tiles of the halved products.
    extra = row.get("mask_share", 1.0) + TILE_SIZE / row["patches"] if ours else 0
    return FORMS[row["form"]].products + extra


def measure_once(form: str, patches: int, patch_size: int) -> dict[str, float]:
    """Makes a form, calls it twice; returns the seconds of both calls, and the memory they took on top."""
    vectors = mini_patches(patches, patch_size)
    if form.startswith(("torch", "keops")):
        import torch  # noqa: F401 its libraries are not the form's memory
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, start = status_mebibytes("VmRSS"), time.perf_counter()
    call = FORMS[form].make(*vectors)
    loss, _ = call()
    return {
        "loss": float(loss),
        "first_seconds": time.perf_counter() - start,
        "seconds": seconds_of(call),
        "memory_mib": status_mebibytes("VmHWM") - before,
    }


def status_mebibytes(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def in_own_process(form: str, patches: int, patch_size: int) -> dict[str, Any]:
    """Runs `measure_once` in a new process; {"failed": how, with the end of its errors} when that dies."""
    command = [sys.executable, __file__, f"--once={form}:{patches}:{patch_size}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"failed": f"exit code {done.returncode}: {done.stderr[-500:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def exponents(rows: list[dict[str, Any]], form: str) -> dict[str, float] | None:
    """Fits time, memory and temporaries as powers of P at D = 192, from the sizes above `FULL_UP_TO`."""
    points = [
        row
        for row in rows
        if row["form"] == form
        and row["depth"] == 192
        and row["patches"] > FULL_UP_TO
        and row.get("memory_mib")
    ]
    if len(points) < 2:
        return None
    logs = np.log([row["patches"] for row in points])
    return {
        name: float(np.polyfit(logs, np.log([row[name] for row in points]), 1)[0])
        for name in ("median", "memory_mib", "temporaries_mib")
        if name in points[0]
    }


def cost_of_single_pixels(rows: list[dict[str, Any]]) -> dict[str, float] | None:
    """What p = 1 at batch 32 costs here: P = 1,179,648, from the rate measured at one crop."""
    patches, depth = SMALLEST_PATCHES[0], 3
    measured = [row for row in rows if (row["patches"], row["depth"]) == (patches, depth) and "median" in row]
    if not measured:
        return None
    rate = patches**2 / measured[0]["median"]
    pairs = (32 * CROP * CROP) ** 2
    return {"pairs": pairs, "pairs_per_second": rate, "hours": pairs / rate / 3600}


def today() -> str:
    return datetime.date.today().isoformat()


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())


def versions(*names: str) -> dict[str, str]:
    installed = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    found = {name: importlib.metadata.version(name) for name in names if name in installed}
    return {"python": platform.python_version(), **found}


def table(record: dict[str, Any]) -> str:
    """The rows as Markdown; ratios are against the strips of the same size."""
    base = {
        (row["patches"], row["depth"]): row["median"]
        for row in record["rows"]
        if row["form"] == "ours" and "median" in row
    }
    lines = [
        "| P | D | form | seconds (fastest to slowest of n) | against ours | memory MiB | temporaries MiB "
        "| products at peak | share of peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        place = f"| {row['patches']:,} | {row['depth']} | {row['form']} |"
        if "failed" in row:
            lines.append(f"{place} failed: {row['failed'].splitlines()[0]} | | | | | |")
            continue
        spread = f"{row['fastest']:.3g} to {row['slowest']:.3g}, {len(row['seconds'])}"
        memory = "?" if row["memory_mib"] is None else f"{row['memory_mib']:,.0f}"
        temporaries = f"{row['temporaries_mib']:,.0f}" if "temporaries_mib" in row else ""
        ratio = row["median"] / base[row["patches"], row["depth"]]
        share = f"{row['share_of_peak']:.0%}" if row["share_of_peak"] else ""
        lines.append(
            f"{place} {row['median']:.3g} ({spread}) | {ratio:.2f} | {memory} "
            f"| {temporaries} | {row['products_at_peak']:.1f} | {share} |"
        )
    return "\n".join(lines)


def plot(record: dict[str, Any], path: Path) -> None:
    """Time and the compiled function's temporaries against P, with the fitted powers of P at D = 192."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, field, label in (
        (axes[0], "median", "seconds, loss and gradient"),
        (axes[1], "temporaries_mib", "temporaries, MiB"),
    ):
        for index, form in enumerate(FORMS):
            rows = [row for row in record["rows"] if row["form"] == form and row.get(field)]
            for depth, marker in ((192, "o"), (48, "s"), (12, "^"), (3, "v")):
                points = [(row["patches"], row[field]) for row in rows if row["depth"] == depth]
                name = form if depth == 192 else f"{form}, D = {depth}"
                if points:
                    axis.plot(*zip(*points, strict=True), marker, color=f"C{index}", label=name, markersize=5)
            power = (record["exponents"][form] or {}).get(field)
            fitted = [row for row in rows if row["depth"] == 192 and row["patches"] > FULL_UP_TO]
            if power and fitted:
                patches, values = (np.array([row[key] for row in fitted]) for key in ("patches", field))
                fit = np.exp(np.mean(np.log(values / patches**power))) * patches**power
                axis.plot(patches, fit, "-", color=f"C{index}", label=f"P^{power:.2f}")
        axis.set(xscale="log", yscale="log", xlabel="mini-patches P (D = 192 where not named)", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    program.start("contrast.py", parse)
