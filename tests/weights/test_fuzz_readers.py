import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "trials" / "fuzz_readers.py"

# The fuzzer with a reader that hangs on every file that the fuzzer makes.
WITH_A_READER_THAT_HANGS = f"""
import contextlib, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import fuzz_readers
from decloss_jax.weights.torch_reader import refusals_as_user_errors

load_generator = fuzz_readers.load_generator

def hang(path):
    if path.read_bytes() != b"hang":
        return load_generator(path)
    with {{place}}:
        while True:
            pass

fuzz_readers.load_generator = hang
fuzz_readers.MUTATIONS = dict.fromkeys(fuzz_readers.MUTATIONS, [lambda rng, data: b"hang"])
fuzz_readers.SECONDS_PER_FILE = 1
sys.exit(fuzz_readers.main())
"""


def fuzz(*start: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *start, "--seconds", "2"], capture_output=True, text=True, check=False
    )


def test_fuzz_readers_finds_nothing_in_two_seconds():
    result = fuzz(str(SCRIPT))
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broke a rule" in result.stdout


@pytest.mark.parametrize(
    "place", ["refusals_as_user_errors(path, 'weights')", "contextlib.suppress(BaseException)"]
)
def test_fuzz_readers_finds_a_reader_that_hangs(place):
    result = fuzz("-c", WITH_A_READER_THAT_HANGS.format(place=place))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "TimeOut: more than 1 s" in result.stdout
    assert " 0 broke a rule" not in result.stdout
