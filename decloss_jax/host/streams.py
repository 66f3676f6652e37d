"""The output of a process: usable whatever it was started with, and quiet when it cannot be written."""

import io
import os
import sys

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


def make_usable() -> None:
    """Opens what was closed (`>&-`) and lets every character be written, whatever the encoding.

    A closed stream would otherwise be None, and its number that of the next file to be opened, which would
    then hold what libraries print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass  # fills the lowest numbers that are free
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(STANDARD_OUTPUT, "w")
    sys.stderr = sys.stderr or os.fdopen(STANDARD_ERROR, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def discard_unwritten() -> None:
    """Drops what a stream could not write, so that the end of the process does not fail on it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
