"""Speed of reading pairs of crops from 2K images: our cache, decoding each time, PyTorch's DataLoader.

    python benchmarks/data.py [--photographs DIR] [--rounds 5] [--out results/benchmarks/data.json]

PNG files of 2040 x 1356 are composed of photographs, by default scikit-image's. Each contender reads 192/48
crops in batches of 32 in a separate process, on one core; the contenders take turns. The DataLoader reads
BasicSR's sub-images (480 x 480, every 240 pixels). The parent reads the child's memory from /proc. Prints the
tables and writes the JSON. Needs ten minutes, 9 GB of disk, and Linux.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax.data.augment import random_crop, random_symmetry
from decloss_jax.data.cache import open_cache
from decloss_jax.data.folder import find_pairs
from decloss_jax.data.images import list_images, read_image
from decloss_jax.data.photographs import find_photographs
from decloss_jax.data.pipeline import batch_source, read_ahead
from decloss_jax.ops.resize import bicubic_downscale

HEIGHT, WIDTH, SCALE, CROP, BATCH = 1356, 2040, 4, 192, 32
TILE = (339, 510)  # parts of photographs, enlarged by 3/2, that make up an image
SUB_SIZE, SUB_STEP = 480, 240  # BasicSR's sub-images
DIV2K_BYTES = 3_530_603_713 / 800  # per file: size of the archive divided by the number of images
SPARE_SECONDS = 0.02  # between two readings of a process's memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, help="folder of photographs; default: scikit-image's")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender")
    parser.add_argument("--images", type=int, default=24, help="different 2K images")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        default=[100, 800],
        help="images in a set; images repeat under several names",
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/data.json"))
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--spans", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--set", type=int, default=100, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child](options)
        return
    sizes, rounds = options.size, options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, options.photographs, options.images, sizes)
        images = describe(folder, options.images)
        record = {"hardware": hardware(), "versions": all_versions(), "images": images}
        record["tensorflow"] = "installed" if importlib.util.find_spec("tensorflow") else "not installed"
        record["build"] = [build(folder, size) for size in sizes]
        record["speed"] = measure_speed(folder, sizes[0], rounds)
        record["first_batch"] = [first_batch(folder, size, rounds) for size in sizes]
        record["memory"] = [memory_of("cached", folder, size) for size in sizes]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    show(record)


# The contenders. Each prints "ready" after its first batch, and at the end a line with its speed.


def cached(options: argparse.Namespace) -> None:
    """Our pipeline on a complete cache."""
    pairs = find_pairs(options.folder / f"set{options.set}", scale=SCALE, split="train")
    images = open_cache(pairs, scale=SCALE, cache_dir=options.folder / f"cache{options.set}")
    source = batch_source(images, scale=SCALE, crop_size=CROP, batch_size=BATCH, seed=0)
    report(read_ahead(source, threads=options.workers), options, count=100)


def decoding(options: argparse.Namespace) -> None:
    """The same crops, each from two files that Pillow decodes."""
    low_files, hr_files = (list_images(options.folder / part) for part in ("low", "hr"))

    def read(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        index = rng.integers(len(hr_files))
        low, hr = read_image(low_files[index]), read_image(hr_files[index])
        return random_symmetry(rng, *random_crop(rng, low, hr, scale=SCALE, crop_size=CROP))

    report(stack_forever(read), options, count=1)


def stack_forever(read: Callable[[np.random.Generator], Any]) -> Iterator[list[np.ndarray]]:
    """Yields batches of examples without end."""
    rng = np.random.default_rng(0)
    while True:
        yield [np.stack(images) for images in zip(*(read(rng) for _ in range(BATCH)), strict=True)]


def data_loader(options: argparse.Namespace) -> None:
    """PyTorch's DataLoader on sub-images; crops stay uint8, while BasicSR converts them to float32."""
    import torch

    low_files, hr_files = (list_images(options.folder / f"{part}_sub") for part in ("low", "hr"))

    class SubImages(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1000 * BATCH

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            rng = np.random.default_rng(number)
            index = rng.integers(len(hr_files))
            low, hr = (np.asarray(Image.open(files[index])) for files in (low_files, hr_files))
            crops = random_symmetry(rng, *random_crop(rng, low, hr, scale=SCALE, crop_size=CROP))
            low, hr = (torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))) for crop in crops)
            return low, hr

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(SubImages(), batch_size=BATCH, num_workers=options.workers)
    report(iter(loader), options, count=20)


def building(options: argparse.Namespace) -> None:
    """Makes the LR images of a set and decodes the set into its cache."""
    start = time.perf_counter()
    pairs = find_pairs(options.folder / f"set{options.set}", scale=SCALE, split="train")
    open_cache(pairs, scale=SCALE, cache_dir=options.folder / f"cache{options.set}")
    print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


CHILDREN = {"cached": cached, "decoding": decoding, "data_loader": data_loader, "building": building}


def report(stream: Iterator[Any], options: argparse.Namespace, count: int) -> None:
    """Skips batches that may have been read ahead, then prints the speed of spans of `count` batches."""
    next(stream)
    print("ready", flush=True)
    for _ in range(2 * options.workers):
        next(stream)
    speeds = []
    for _ in range(options.spans):
        start = time.perf_counter()
        for _ in itertools.islice(stream, count):
            pass
        speeds.append(count * BATCH / (time.perf_counter() - start))
    print(json.dumps({"pairs_per_second": speeds}), flush=True)


# The images.


def make_images(folder: Path, source: Path | None, count: int, sizes: list[int]) -> None:
    """Writes `count` images into hr/ and low/, their sub-images, and sets that link to them."""
    if source:
        photographs = [read_image(file) for file in list_images(source)]
    else:
        photographs = [
            pair.hr.load() for split in ("train", "validation") for pair in find_photographs(split)
        ]
    photographs = [image for image in photographs if colourful(image)]
    for part in ("hr", "low", "hr_sub", "low_sub"):
        (folder / part).mkdir()
    for number in range(count):
        hr = put_together(photographs, np.random.default_rng(number))
        low = bicubic_downscale(hr, SCALE)
        for part, image, factor in (("hr", hr, 1), ("low", low, SCALE)):
            Image.fromarray(image).save(folder / part / f"{number:04}.png")
            write_sub_images(image, folder / f"{part}_sub", number, SUB_SIZE // factor, SUB_STEP // factor)
    for size in sizes:
        (folder / f"set{size}").mkdir()
        for number in range(size):
            os.link(
                folder / "hr" / f"{number % count:04}.png",
                folder / f"set{size}" / f"{number:04}.png",
            )


def colourful(image: np.ndarray) -> bool:
    """Tells whether an image is large enough and not gray; gray ones would compress too well."""
    return min(image.shape[:2]) >= 300 and bool(np.any(image[..., 0] != image[..., 1]))


def put_together(photographs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Composes an image [1356,2040,3] of enlarged parts of photographs."""
    height, width = TILE
    canvas = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for top in range(0, HEIGHT, height):
        for left in range(0, WIDTH, width):
            photograph = Image.fromarray(photographs[rng.integers(len(photographs))])
            x, y = rng.integers(max(1, photograph.width - 300)), rng.integers(max(1, photograph.height - 226))
            box = (x, y, min(x + 340, photograph.width), min(y + 226, photograph.height))
            tile = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
            canvas[top : top + height, left : left + width] = np.asarray(tile)
    return canvas


def write_sub_images(image: np.ndarray, folder: Path, number: int, size: int, step: int) -> None:
    """Cuts overlapping squares as BasicSR's extract_subimages.py does: the last ones end at the border."""
    starts = [
        sorted({*range(0, length - size + 1, step), length - size})
        for length in (image.shape[0], image.shape[1])
    ]
    for place, (top, left) in enumerate(itertools.product(*starts)):
        part = Image.fromarray(image[top : top + size, left : left + size])
        part.save(folder / f"{number:04}_s{place:03}.png", compress_level=3)


# The measurements.


def start_child(
    name: str, folder: Path, size: int, workers: int = 0, cores: int = 1, spans: int = 1
) -> subprocess.Popen:
    """Starts a contender on some of the cores."""
    words = [sys.executable, __file__, f"--child={name}", f"--folder={folder}", f"--workers={workers}"]
    words.append(f"--spans={spans}")
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    return subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, allowed)), *words, f"--set={size}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def result_of(process: subprocess.Popen) -> dict[str, Any]:
    """Waits for a contender and returns its last line."""
    lines = process.communicate()[0].splitlines()
    if process.returncode != 0:
        sys.exit(f"a contender failed: {' '.join(process.args)}")
    return json.loads(lines[-1])


CONTENDERS = {
    "cached": {"name": "cached", "workers": 8},
    "cached, nothing read ahead": {"name": "cached", "workers": 0},
    "Pillow, each time": {"name": "decoding"},
    "DataLoader, sub-images, 0 workers": {"name": "data_loader"},
    "cached, two cores": {"name": "cached", "workers": 8, "cores": 2},
    "DataLoader, sub-images, 2 workers, two cores": {"name": "data_loader", "workers": 2, "cores": 2},
}


def measure_speed(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Lets the contenders take turns; returns pairs per second, and the speed-up of the cache."""
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    if not importlib.util.find_spec("torch"):
        found = {name: values for name, values in found.items() if "DataLoader" not in name}
    for _ in range(rounds):
        for name, values in found.items():
            options: dict[str, Any] = CONTENDERS[name]
            values += result_of(start_child(folder=folder, size=size, **options))["pairs_per_second"]
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {
        "pairs_per_second": {
            name: {"median": medians[name], "all": values} for name, values in found.items()
        },
        "cached_over": {
            name: medians["cached, two cores" if "two cores" in name else "cached"] / median
            for name, median in medians.items()
            if not name.startswith("cached")
        },
    }


def build(folder: Path, size: int) -> dict[str, Any]:
    """Builds the cache of a set on all cores; returns the time and the memory it took."""
    process = start_child("building", folder, size, cores=os.cpu_count() or 1)
    memory = watch(process)
    seconds = result_of(process)["seconds"]
    return {"images": size, "seconds": seconds, "images_per_second": size / seconds} | memory


def first_batch(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Times from the start of a process to its first batch from a warm cache."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        process = start_child("cached", folder, size, workers=8, cores=os.cpu_count() or 1)
        process.stdout.readline()
        seconds.append(time.perf_counter() - start)
        process.kill()
        process.communicate()
    return {"images": size, "median": statistics.median(seconds), "all": seconds}


def memory_of(name: str, folder: Path, size: int) -> dict[str, Any]:
    """Returns the peak memory of a contender, and its speeds while the files enter the page cache."""
    process = start_child(name, folder, size, workers=8, spans=8)
    memory = watch(process)
    return {"images": size} | memory | result_of(process)


def watch(process: subprocess.Popen) -> dict[str, float]:
    """Watches a process until it ends; returns the peaks of its resident memory in MB."""
    peaks = {"VmRSS": 0, "RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:  # it has just ended
            break
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        for key in peaks:
            peaks[key] = max(peaks[key], int(values.get(key, "0 kB").split()[0]))
        time.sleep(SPARE_SECONDS)
    names = {"VmRSS": "resident_mb", "RssAnon": "anonymous_mb", "RssFile": "mapped_files_mb"}
    return {names[key]: kilobytes / 1024 for key, kilobytes in peaks.items()}


def hardware() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}


def all_versions() -> dict[str, str]:
    import importlib.metadata

    from decloss_jax.workdir.journal import versions

    torch = {"torch": importlib.metadata.version("torch")} if importlib.util.find_spec("torch") else {}
    return versions() | torch


def describe(folder: Path, count: int) -> dict[str, Any]:
    """Returns the number and the mean size of the files, and the mean size of DIV2K's."""
    mean = statistics.mean(file.stat().st_size for file in (folder / "hr").iterdir())
    return {
        "different": count,
        "size": [WIDTH, HEIGHT],
        "mean_bytes": mean,
        "div2k_bytes": DIV2K_BYTES,
    }


def show(record: dict[str, Any]) -> None:
    """Prints the tables."""
    print("| contender | pairs per second (slowest to fastest) | speed-up of the cache |\n|---|---|---|")
    for name, row in record["speed"]["pairs_per_second"].items():
        ratio = record["speed"]["cached_over"].get(name)
        spread = f"{row['median']:.0f} ({min(row['all']):.0f} to {max(row['all']):.0f})"
        print(f"| {name} | {spread} | {f'{ratio:.1f}' if ratio else ''} |")
    print(
        "\n| images | build, s | peak MB | first batch, s | reading, peak MB | unmapped part, MB | pairs/s |"
    )
    print("|---|---|---|---|---|---|---|")
    for built, first, memory in zip(record["build"], record["first_batch"], record["memory"], strict=True):
        times = f"{built['seconds']:.1f} | {built['resident_mb']:.0f} | {first['median']:.2f}"
        peaks = f"{memory['resident_mb']:.0f} | {memory['anonymous_mb']:.0f}"
        speeds = memory["pairs_per_second"]
        print(f"| {built['images']} | {times} | {peaks} | {speeds[0]:.0f}, at last {speeds[-1]:.0f} |")
    print(f"\nTensorFlow with tf.data: {record['tensorflow']}, not measured")


if __name__ == "__main__":
    main()
