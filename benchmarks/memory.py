"""The memory of a training step of RRDBNet, read from its compiled program; nothing is run.

    python benchmarks/memory.py [--blocks 23] [--out results/benchmarks/memory.json]
    PYTHONPATH=DIR python benchmarks/memory.py --target sm_80

Stage 2 of configs/rrdb_decloss.py (L1, perceptual loss, DECLoss) on one device, with VGG-16 for VGG-19, for
batches of 8 and 32 crops of 192 pixels, with and without `remat` and micro-batches of 4. `--target sm_80`
compiles for an A100 without a GPU; DIR is the target of `pip install --target DIR --no-deps jax-cuda12-pjrt
jax-cuda12-plugin` with JAX's version. Results for the other target in the file stay.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jax_step import compile_step

LABELS = {"cpu": "compiled for the CPU, not run", "sm_80": "compiled for sm_80, not run"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=23, help="RRDBs of the generator")
    parser.add_argument("--target", choices=LABELS, default="cpu", help="what the step is compiled for")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="images of the device")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/memory.json"))
    options = parser.parse_args()
    mesh = mesh_of_target(options.target)
    from decloss_jax.workdir.journal import versions

    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for batch, remat, micro_batch in itertools.product(options.batches, (False, True), (None, 4)):
        sizes = measure(mesh, make_config(options.blocks, batch, remat, micro_batch))
        row = {"target": LABELS[options.target], "batch": batch, "remat": remat, "micro_batch": micro_batch}
        rows = [other for other in rows if not row.items() <= other.items()]
        rows.append(row | sizes)
        print(rows[-1], flush=True)
        record = {"blocks": options.blocks, "versions": versions(), "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def mesh_of_target(target: str) -> Any:
    """Returns a mesh of one device; a mesh of a GPU is only for compiling."""
    if target == "sm_80":
        from compile_for_a100 import mesh_of

        return mesh_of(1)
    import jax

    from decloss_jax.host import parallel

    return parallel.data_mesh(jax.devices()[:1])


def make_config(blocks: int, batch: int, remat: bool, micro_batch: int | None) -> Any:
    """Returns configs/rrdb_decloss.py with VGG-16 and the given sizes."""
    from configs import rrdb_decloss

    config = rrdb_decloss.get_config()
    config.batch_size, config.micro_batch = batch, micro_batch
    config.model.remat, config.model.blocks = remat, blocks
    config.perceptual.network = "vgg16"
    return config


def measure(mesh: Any, config: Any) -> dict[str, Any]:
    """Compiles the step; returns GiB of the state, which persists, and of temporary memory."""
    start = time.perf_counter()
    sizes = compile_step(config, mesh).memory_analysis()
    gib = {name: getattr(sizes, f"{name}_size_in_bytes") / 2**30 for name in ("argument", "temp")}
    return {
        "arguments_gib": round(gib["argument"], 3),
        "temporaries_gib": round(gib["temp"], 3),
        "total_gib": round(sum(gib.values()), 2),
        "compile_seconds": round(time.perf_counter() - start),
    }


if __name__ == "__main__":
    main()
