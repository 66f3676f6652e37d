"""How programs end: the sentence and the status of each cause, and output that cannot be written."""

import errno
import logging
import os
import subprocess
import sys
from argparse import Namespace

import pytest
from absl import logging as absl_logging
from command_line import REPOSITORY

from decloss_jax import checks
from decloss_jax.commands import program


def end_with(error: BaseException, *, resumes: bool = False) -> int:
    def main(options: Namespace) -> None:
        raise error

    return program.run("some.py", lambda arguments: Namespace(main=main, resumes=resumes))


NO_SPACE = "No space left on device"
FULL = "expected a file or folder that can be used, got No space left on device"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (checks.UserError("x: expected a,\n  got b; c."), 2, "some.py: x: expected a, got b; c.\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "got Permission denied"),
        (OSError(errno.ENOSPC, NO_SPACE, "a/b"), 2, f"some.py: a/b: {FULL}"),
        (OSError(errno.ENOSPC, NO_SPACE), 2, f"some.py: the output: {FULL}"),
        (KeyboardInterrupt(), 130, "some.py: interrupted\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_run_answers_with_one_sentence_and_a_status(capsys, error, status, said):
    assert end_with(error) == status
    output = capsys.readouterr()
    assert said in output.err
    assert output.err.count("\n") == bool(said)
    assert output.out == ""


def test_run_answers_sigterm_as_the_program_resumes_or_not(capsys):
    assert end_with(program.Terminated(143), resumes=True) == 0
    assert capsys.readouterr().err == "stopped; the same command goes on from there\n"
    with pytest.raises(program.Terminated) as raised:
        end_with(program.Terminated(143))
    assert raised.value.code == 143


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("of a library")])
def test_run_raises_a_bug_again(error):
    with pytest.raises(type(error)):
        end_with(error)


def test_run_returns_the_status_of_the_command(capsys):
    for returned, status in ((None, 0), (0, 0), (1, 1)):
        options = Namespace(main=lambda options, returned=returned: returned, resumes=False)
        assert program.run("some.py", lambda arguments, options=options: options) == status


def test_orbax_is_silent_and_others_are_heard(caplog):
    program.prepare_libraries()
    for logger in (absl_logging.get_absl_logger(), logging.getLogger()):
        for place, shown in (("orbax/checkpoint/manager.py", False), ("jax/_src/xla_bridge.py", True)):
            path = f"/venv/site-packages/{place}"
            logger.handle(logger.makeRecord(logger.name, logging.WARNING, path, 1, place, (), None))
            assert (place in caplog.text) == shown
            caplog.clear()
    logging.getLogger("jax._src.xla_bridge").warning("An NVIDIA GPU may be present")
    assert "An NVIDIA GPU may be present" in caplog.text


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A data set with many images that cannot be read, whose names are not ASCII."""
    folder = tmp_path_factory.mktemp("data") / "HR"
    folder.mkdir()
    for number in range(2000):
        (folder / f"grün{number}.png").write_bytes(b"no picture")
    return folder.parent


@pytest.mark.parametrize(
    ("ending", "status", "out", "err"),
    [
        ("", 1, "grün", "problems found"),
        ("| head -n 1", 141, "grün", ""),
        (">&-", 1, "", "problems found"),
        ("2>&-", 1, "grün", ""),
        (">&- 2>&- <&-", 1, "", ""),
        (">/dev/full", 2, "", f"decloss_jax check-data: the output: {FULL}"),
        ("2>/dev/full", 1, "grün", ""),
    ],
)
def test_a_command_ends_well_whatever_becomes_of_its_output(damaged, ending, status, out, err):
    words = f"set -o pipefail; {sys.executable} -m decloss_jax check-data {damaged} {ending}"
    environment = os.environ | {"PYTHONUNBUFFERED": ""}  # as most people have it; the end flushes
    result = subprocess.run(
        ["bash", "-c", words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode == status, result.stderr
    assert out in result.stdout
    assert bool(out) == bool(result.stdout)
    assert err in result.stderr
    assert ("decloss_jax check-data: " in result.stderr) == (status == 2), result.stderr
    assert "Traceback" not in result.stderr


def test_output_that_is_not_utf_8_gets_replacement_characters(damaged):
    words = [sys.executable, "-m", "decloss_jax", "check-data", str(damaged)]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, timeout=120)
    assert result.returncode == 1, result.stderr
    assert b"gr?n0.png" in result.stdout
