"""Runs the scripts as a user types them."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DEVICES = re.compile(r"\w+ing on \d+ x .+")  # what a program says first
CACHE = REPOSITORY / "runs" / "test_cache"


def environment() -> dict[str, str]:
    """The environment of a user: one device, and a compilation cache that the runs share."""
    kept = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return kept | {"JAX_COMPILATION_CACHE_DIR": str(CACHE / "xla"), "COLUMNS": "200"}


def command(script: str, *arguments: object) -> list[str]:
    """The words of a call of a script, or of a package with `python -m`."""
    start = [str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]
    return [sys.executable, *start, *map(str, arguments)]


def run(script: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Runs a script or a package from the repository's folder and returns its status and output."""
    return subprocess.run(
        command(script, *arguments),
        cwd=REPOSITORY,
        env=environment() | options.pop("env", {}),
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Asserts the answer to a mistake: status 2, one line that holds the words, no traceback.

    The line before it, on the devices, may be there.
    """
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip() and not DEVICES.fullmatch(line)]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]
