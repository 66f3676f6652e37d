"""Runs `reproduce` within this process."""

from pathlib import Path

import pytest
from command_line import CACHE
from small_reproduction import words_of

from decloss_jax.commands import cli


@pytest.fixture
def reproduce_here(capsys, monkeypatch):
    """Reproduces in miniature in this process, where nothing is trained; returns the status and messages."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))

    def call(folder: Path, *arguments: str) -> tuple[int, str]:
        return cli.main(words_of(folder, *arguments)), capsys.readouterr().err

    return call
