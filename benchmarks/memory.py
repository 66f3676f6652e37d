"""The memory that a training step of RRDBNet needs, as its compiled program says; nothing is run.

    python benchmarks/memory.py [--blocks 23] [--out results/benchmarks/memory.json]
    CUDA_SITE=DIR python benchmarks/memory.py --target sm_80

Stage 2 of configs/rrdb_decloss.py (L1, perceptual loss, DECLoss) on one device, with VGG-16 for VGG-19, for
batches of 8 and 32 crops of 192 pixels, with and without `remat` and micro-batches of 4. `--target sm_80`
compiles for an A100 without having one; DIR is what `pip install --target DIR --no-deps jax-cuda12-pjrt
jax-cuda12-plugin` of JAX's version has made. Results of the other target in the file are kept.
"""

import functools
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decloss_jax.commands import scripts

BLOCKS = flags.DEFINE_integer("blocks", 23, "RRDBs of the generator.", 1)
TARGET = flags.DEFINE_enum("target", "cpu", ["cpu", "sm_80"], "What the step is compiled for.")
BATCHES = flags.DEFINE_list("batches", ["8", "32"], "Images of the device.")
OUT = flags.DEFINE_string("out", "results/benchmarks/memory.json", "Where the results are written.")
LABELS = {"cpu": "compiled for the CPU, not run", "sm_80": "compiled for sm_80, not run"}
A100 = """
gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
 shared_memory_per_core: 167936 threads_per_core_limit: 2048 core_count: 108 fpus_per_core: 64
 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
 memory_bandwidth: 2039000000000 l2_cache_size: 41943040 clock_rate_ghz: 1.41 device_memory_size: 85000000000
 shared_memory_per_block_optin: 166912 cuda_compute_capability { major: 8 } registers_per_core_limit: 65536
 registers_per_block_limit: 65536 driver_version: "13.0.0" runtime_version: "12.9.0"
 compile_time_toolkit_version: "12.9.0" }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA A100-SXM4-80GB"
"""


def main(arguments: list[str]) -> None:
    if TARGET.value == "sm_80":
        os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
        sys.path.insert(0, os.environ["CUDA_SITE"])
    from decloss_jax.workdir.journal import versions

    out = Path(OUT.value)
    before = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = [row for row in before if row["target"] != LABELS[TARGET.value]]
    for batch, remat, micro_batch in itertools.product(map(int, BATCHES.value), (False, True), (None, 4)):
        rows.append(measure(batch, remat, micro_batch))
        print(rows[-1], flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(
            json.dumps({"blocks": BLOCKS.value, "versions": versions(), "rows": rows}, indent=1) + "\n"
        )


def measure(batch: int, remat: bool, micro_batch: int | None) -> dict[str, Any]:
    """Compiles the step; returns its sizes in GiB: what lives on (the state), and what it needs meanwhile."""
    start = time.perf_counter()
    sizes = compile_step(batch, remat, micro_batch).memory_analysis()
    gib = {name: getattr(sizes, f"{name}_size_in_bytes") / 2**30 for name in ("argument", "temp")}
    return {
        "target": LABELS[TARGET.value],
        "batch": batch,
        "remat": remat,
        "micro_batch": micro_batch,
        "arguments_gib": round(gib["argument"], 3),
        "temporaries_gib": round(gib["temp"], 3),
        "total_gib": round(sum(gib.values()), 2),
        "compile_seconds": round(time.perf_counter() - start),
    }


def compile_step(batch: int, remat: bool, micro_batch: int | None) -> Any:
    """Compiles one update of stage 2 on one device of the target."""
    import jax

    from configs import rrdb_decloss
    from decloss_jax.host import parallel
    from decloss_jax.models import build_model
    from decloss_jax.training.micro_batches import in_micro_batches
    from decloss_jax.training.optim import build_optimizer, build_schedule
    from decloss_jax.training.plan import abstract_batch
    from decloss_jax.training.state import abstract_state
    from decloss_jax.training.step import compile_update, update
    from decloss_jax.training.terms import active_weights, build_terms

    config = rrdb_decloss.get_config()
    config.batch_size, config.micro_batch = batch, micro_batch
    config.model.remat, config.model.blocks = remat, BLOCKS.value
    config.perceptual.network = "vgg16"
    mesh = parallel.data_mesh(devices())
    model, optimizer = build_model(config.model), build_optimizer(config)
    terms = build_terms(config, "finetune", mesh)
    generate = in_micro_batches(lambda params, low: model.apply({"params": params}, low), micro_batch, mesh)
    schedule, weights = build_schedule(config.finetune, "finetune"), active_weights(config, "finetune")
    step = functools.partial(update, generate, terms, None, weights, optimizer, schedule, 0, 0.0)
    frozen = jax.eval_shape(lambda: {name: term.frozen for name, term in terms.items()})
    return (
        compile_update(step, mesh)
        .lower(abstract_state(model, optimizer), abstract_batch(config), frozen)
        .compile()
    )


def devices() -> Any:
    """Returns one device of the target; that of a GPU can be compiled for, but not be used."""
    import jax

    if TARGET.value == "cpu":
        return jax.devices()[:1]
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="cuda", target_config=A100, topology="1x1x1").devices


if __name__ == "__main__":
    scripts.run(main)
