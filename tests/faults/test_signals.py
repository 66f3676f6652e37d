"""Signals that come where Python loses exceptions, or when all is decided."""

import subprocess
import sys

import pytest
from command_line import REPOSITORY

IN_A_CALLBACK = """
import gc, signal, sys, time
from argparse import Namespace
from decloss_jax.commands import program

def main(options):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.{name})

    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(60)
    print("went on")

program.start("-c", lambda arguments: Namespace(main=main, resumes={resumes}))
"""
AT_THE_END = """
import signal
from argparse import Namespace
from decloss_jax.commands import program

def main(options):
    raise program.Terminated(143)

complain = program.report_stop
def report_and_signal(*arguments, **options):
    status = complain(*arguments, **options)
    signal.raise_signal(signal.SIGTERM)
    return status

program.report_stop = report_and_signal
program.start("-c", lambda arguments: Namespace(main=main, resumes=True))
"""


def end_of(script: str) -> tuple[int, str, str]:
    words = [sys.executable, "-c", script]
    end = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    return end.returncode, end.stdout, end.stderr


@pytest.mark.parametrize(
    ("name", "resumes", "status", "said"),
    [
        ("SIGTERM", True, 0, "stopped; the same command goes on from there\n"),
        ("SIGTERM", False, 143, ""),
        ("SIGINT", True, 130, "-c: interrupted\n"),
    ],
)
def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost(name, resumes, status, said):
    """JAX has such a callback, and Python drops what is raised in one."""
    assert end_of(IN_A_CALLBACK.format(name=name, resumes=resumes)) == (status, "", said)


def test_a_second_sigterm_does_not_change_the_status():
    assert end_of(AT_THE_END) == (0, "", "stopped; the same command goes on from there\n")
