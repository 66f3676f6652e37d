"""Which devices the work runs on, and a word where a GPU lies idle."""

import os
from pathlib import Path

import jax

from decloss_jax.host import parallel

NVIDIA_DEVICE = Path("/dev/nvidia0")  # there when the driver has found a GPU
IDLE_GPU = (
    "warning: this machine has an NVIDIA GPU that JAX does not use; install "
    'pip install -U "jax[cuda13]" (driver 580 or newer) or pip install -U "jax[cuda12]" (525 or newer)'
)

# XLA then uses no GPU kernel that sums in no fixed order, which costs speed. On a CPU nothing changes.
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true"


def make_deterministic() -> None:
    """Asks XLA for the same bits in every run on GPUs; to be called before JAX starts its backend."""
    given = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in given:
        os.environ["XLA_FLAGS"] = f"{given} {DETERMINISTIC}".strip()


def describe_devices() -> str:
    """Describes the devices of all processes, as in "4 x NVIDIA A100-SXM4-80GB"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def has_idle_gpu() -> bool:
    """Tells whether there is a GPU and JAX computes on the CPU, though nobody asked it to (JAX_PLATFORMS)."""
    is_asked_to = "cpu" in os.environ.get("JAX_PLATFORMS", "").lower()
    return NVIDIA_DEVICE.exists() and jax.default_backend() == "cpu" and not is_asked_to


def say_devices(work: str) -> None:
    """Says on which devices `work` runs, as in "training on 1 x cpu", and warns of a GPU that lies idle."""
    parallel.say(f"{work} on {describe_devices()}")
    if has_idle_gpu():
        parallel.say(IDLE_GPU)
