"""Requests bit-for-bit reproducible results on GPUs."""

import os
from typing import Any

FLAG = "--xla_gpu_exclude_nondeterministic_ops=true"


def request(config: Any) -> None:
    """Adds XLA's flag to XLA_FLAGS if `config.deterministic`; call it before JAX starts its backend.

    XLA then avoids GPU kernels that sum in an arbitrary order, which costs speed. On a CPU nothing changes.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if config.deterministic and FLAG not in given:
        os.environ["XLA_FLAGS"] = f"{given} {FLAG}".strip()
