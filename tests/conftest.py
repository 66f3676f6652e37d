"""Eight virtual CPU devices for every test, and the folder of golden values and photographs."""

import os
from pathlib import Path

# Before the first import of jax: the number of devices is fixed when the backend starts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `../shared` with golden values and benchmark images; a machine without it skips the test."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the golden values and images in {folder}")
    return folder
