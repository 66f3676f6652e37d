import subprocess
import sys
from pathlib import Path


def test_fuzz_readers_finds_nothing_in_two_seconds():
    script = Path(__file__).parent / "fuzz_readers.py"
    result = subprocess.run(
        [sys.executable, str(script), "--seconds", "2"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broke a rule" in result.stdout
