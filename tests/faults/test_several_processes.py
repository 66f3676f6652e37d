"""train.py as several processes, joined by jax.distributed: one run, and a death leaves none behind."""

import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from small_run import (
    MARKS,
    SmallRun,
    communicate,
    differences,
    free_port,
    kill,
    last_step,
    records_without_speed,
    wait_until,
)

LENGTH = {"pretrain": 24, "finetune": 16, "log": 4, "checkpoint": 8, "evaluate": 16}
SECONDS_TO_END = 30  # in which the others have to notice a death


def assert_others_end(processes: list[subprocess.Popen[str]]) -> None:
    start = time.monotonic()
    for process in processes:
        status, said = communicate(process, timeout=SECONDS_TO_END)
        assert status != 0, said
    assert time.monotonic() - start < SECONDS_TO_END


def test_a_killed_process_ends_the_others_and_the_restarted_set_goes_on_bit_for_bit(tmp_path):
    """Process 0 dies in a save, then process 1 in stage 2. The undisturbed run is one process with as many
    devices: a sum of two terms has no order, so that even that agrees bit for bit.
    """
    expected, run = SmallRun(tmp_path / "one", **LENGTH), SmallRun(tmp_path / "two", **LENGTH)
    expected.finish(devices=2)
    for victim, has_come in ((0, lambda: MARKS["saving"](run)), (1, lambda: last_step(run) >= 36)):
        processes = run.start_several(2)
        assert wait_until(processes[victim], has_come), [communicate(process) for process in processes]
        assert kill(processes.pop(victim))[0] == -signal.SIGKILL
        assert_others_end(processes)
    assert "finetune: resuming from the checkpoint of step 32" in run.finish(processes=2)
    assert differences(run, expected) == []


def test_a_run_moves_between_one_and_several_processes(tmp_path):
    """From one process with four devices to four, to two with two each, and back, stopped by SIGTERM."""
    expected, run = SmallRun(tmp_path / "stays", **LENGTH), SmallRun(tmp_path / "moves", **LENGTH)
    expected.finish(devices=4)
    for count, leave_at in ((1, 4), (4, 12), (2, 36)):
        processes = run.start_several(count, devices=4 // count)
        assert wait_until(processes[0], lambda step=leave_at: last_step(run) >= step)
        processes[-1].terminate()  # one of them; all leave at the same step
        ends = [communicate(process) for process in processes]
        assert [status for status, _ in ends] == [0] * count, ends
        assert len({said.splitlines()[-1] for _, said in ends}) == 1
        assert "state saved; the same command goes on from there" in ends[0][1]
    run.finish(devices=4)
    records, wanted = records_without_speed(run.workdir), records_without_speed(expected.workdir)
    assert [record.keys() for record in records] == [record.keys() for record in wanted]
    for record, other in zip(records, wanted, strict=True):
        for name, value in record.items():
            if isinstance(value, float):
                # The discriminator sees a batch of four: mean logits are small differences of large numbers.
                loose = name.startswith("discriminator/") or name == "gradient_norm"
                bounds = {"atol": 1e-3, "rtol": 1e-2} if loose else {"rtol": 1e-5}
                place = f"{name} at {record['step']}"
                np.testing.assert_allclose(value, other[name], **bounds, err_msg=place)


@pytest.mark.parametrize(
    ("further", "named"),
    [
        ("--config.seed=5", "config: expected the same on all processes, got a different one on process 1"),
        ("--workdir={elsewhere}", "choose a --workdir on a disk that all processes share"),
    ],
)
def test_processes_that_do_not_belong_together_are_refused(tmp_path, further, named):
    run = SmallRun(tmp_path / "run", **LENGTH)
    together = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    first = run.start(*together, "--process=0")
    second = run.start(*together, "--process=1", further.format(elsewhere=tmp_path / "elsewhere"))
    for process in (first, second):
        status, said = communicate(process)
        assert status == 2
        assert named in said
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--processes=2"], "expected HOST:PORT of process 0 and a number from 0 to 1, got None and 0"),
        (["--processes=2", "--coordinator=localhost:{port}", "--process=2"], "got localhost:{port} and 2"),
        (["--processes=2", "--coordinator=localhost:{port}"], "expected a free port of process 0"),
        (["--processes=2", "--coordinator=no host:1", "--process=1"], "expected a machine that can be found"),
    ],
)
def test_join_refuses_what_cannot_be_joined(tmp_path, options, named):
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        run = SmallRun(tmp_path / "run", **LENGTH)
        status, said = communicate(run.start(*(option.format(port=port) for option in options)))
    assert status == 2
    assert named.format(port=port) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_process_that_waits_for_the_others_can_be_stopped(tmp_path):
    run = SmallRun(tmp_path / "run", **LENGTH)
    process = run.start(f"--coordinator=localhost:{free_port()}", "--processes=2")
    assert "waiting for 1 other process" in process.stderr.readline()
    process.terminate()
    assert communicate(process, timeout=60) == (0, "stopped; the same command goes on from there\n")
