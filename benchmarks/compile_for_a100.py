"""Compiles the loss and a training step for an A100 without a GPU, and counts the kernels it would launch.

    pip install --no-deps --target DIR jax-cuda12-pjrt==VERSION jax-cuda12-plugin==VERSION  (as jax)
    PYTHONPATH=DIR python benchmarks/compile_for_a100.py [--config configs/NAME.py] [--out OUT.json]

Nothing runs and nothing is tuned, so the counts say how a program is built, not how long it takes. Writes
OUT.json and prints it. The plugins are about 180 MB; neither a GPU nor a driver is needed.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # of the process; the programs are compiled for the GPU below
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # the check would look for a driver

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jax_step import compile_step

from decloss_jax.config import load_config, override
from decloss_jax.losses.contrast import spatial_contrast, spatial_contrast_dense

# NVIDIA A100-SXM4-80GB (data sheet; limits of compute capability 8.0 from the CUDA C++ Programming Guide).
A100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 108
  fpus_per_core: 64 shared_memory_per_block: 49152 shared_memory_per_block_optin: 166912
  shared_memory_per_core: 167936 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 2039000000000 l2_cache_size: 41943040 clock_rate_ghz: 1.41
  device_memory_size: 85000000000 cuda_compute_capability { major: 8 }
  driver_version: "13.0.0" runtime_version: "12.9.0" compile_time_toolkit_version: "12.9.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA A100-SXM4-80GB"
"""
SIZES = ((4608, 192), (18_432, 192), (73_728, 48), (294_912, 12))  # P and D; the second is the paper's
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="its second stage's step is compiled, too")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="changes of the config")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/compile_for_a100.json"))
    options = parser.parse_args()
    rows = [{"program": "loss", **count_loss(spatial_contrast, *size)} for size in SIZES]
    rows.append({"program": "loss, four devices", **count_loss(spatial_contrast, *SIZES[1], devices=4)})
    rows.append({"program": "dense form", **count_loss(spatial_contrast_dense, *SIZES[1])})
    if options.config is not None:
        config = load_config(options.config)
        override(config, options.set, option="--set ")
        rows.append({"program": "training step", **count_step(config)})
    record = {"note": "compiled for an A100, not run", "jax": jax.__version__, "rows": rows}
    text = json.dumps(record, indent=1)
    options.out.write_text(text + "\n")
    print(text)


def mesh_of(devices: int) -> Mesh:
    """Returns a mesh of A100s that exist only as a description."""
    topology = topologies.get_topology_desc(platform="cuda", target_config=A100, topology=f"1x1x{devices}")
    return Mesh(np.array(topology.devices), ("data",))


def count_loss(form: Any, patches: int, depth: int, devices: int = 1) -> dict[str, Any]:
    """Counts value and gradient of the contrast of [P,D] mini-patches, spread over the devices."""
    mesh, split = mesh_of(devices), PartitionSpec("data")
    local = partial(form, threshold_db=25.0, t_pos=0.5, t_neg=1.5)
    if devices > 1:
        local = partial(local, axis_name="data")
        local = jax.shard_map(local, mesh=mesh, in_specs=(split, split), out_specs=PartitionSpec())
    vectors = jax.ShapeDtypeStruct((patches, depth), jnp.float32, sharding=NamedSharding(mesh, split))
    compiled = jax.jit(jax.value_and_grad(local)).lower(vectors, vectors).compile()
    return {"patches": patches, "depth": depth, "devices": devices, **counts(compiled)}


def count_step(config: Any) -> dict[str, Any]:
    """Counts the second stage's step of a config on one A100."""
    compiled = compile_step(config, mesh_of(1))
    return {"images": config.batch_size, "side": config.data.crop_size, **counts(compiled)}


def counts(compiled: Any) -> dict[str, Any]:
    """Counts the operations of a compiled program; those in a loop's body count once per iteration."""
    computations = computations_of(compiled.as_text())
    total: Counter[str] = Counter()

    def add(name: str, times: int) -> None:
        for line in computations[name]:
            kind = kind_of(line)
            total[kind] += times
            if kind == "loops":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                total["loops of unknown length"] += trips is None
                total["turns"] += int(trips.group(1)) if trips else 1
                add(
                    re.search(r"body=%?([\w.-]+)", line).group(1), times * int(trips.group(1) if trips else 1)
                )
            elif called := re.search(r" call\(.*to_apply=%?([\w.-]+)", line):
                add(called.group(1), times)

    add("ENTRY", 1)
    del total[""]
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return {**{name: total[name] for name in sorted(total)}, "temporaries_mib": round(memory, 1)}


def computations_of(program: str) -> dict[str, list[str]]:
    """Splits a program's text into its computations, by name; the first one to run is "ENTRY"."""
    found: dict[str, list[str]] = {}
    for block in program.split("\n\n"):
        head, *lines = block.strip().splitlines() or [""]
        if head.endswith("{"):
            name = "ENTRY" if head.startswith("ENTRY") else re.match(r"%?([\w.-]+)", head).group(1)
            found[name] = lines
    return found


def kind_of(line: str) -> str:
    """Returns the kind under which an instruction is counted, or "" if it launches nothing."""
    match = re.search(r" ([a-z][a-z-]*)\(", line.split(", metadata=")[0])
    operation = match.group(1).removesuffix("-start") if match else ""
    if operation in COLLECTIVES:
        return operation
    if operation == "custom-call":
        return "library calls"
    names = {"fusion": "fusions", "while": "loops", "copy": "copies", "conditional": "conditionals"}
    return names.get(operation, "")


if __name__ == "__main__":
    main()
