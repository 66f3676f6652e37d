"""The request for results that are the same bit for bit on GPUs."""

import os

FLAG = "--xla_gpu_exclude_nondeterministic_ops=true"


def request(deterministic: bool) -> None:
    """Adds XLA's flag to XLA_FLAGS; to be called before JAX starts its backend.

    On a CPU it changes nothing. XLA then uses no GPU kernel whose sums have no fixed order, which costs speed.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if deterministic and FLAG not in given:
        os.environ["XLA_FLAGS"] = f"{given} {FLAG}".strip()
