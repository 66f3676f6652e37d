"""Standard output and standard error: usable in any state, and quiet when they cannot be written to."""

import io
import os
import sys

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


def make_usable() -> None:
    """Opens closed streams (`>&-`), and replaces characters that the encoding does not have.

    A closed stream would otherwise be None, and the next file to be opened would get its number, and with it
    what libraries print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass  # fills the lowest free numbers
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(STANDARD_OUTPUT, "w")
    sys.stderr = sys.stderr or os.fdopen(STANDARD_ERROR, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def discard_unwritten() -> None:
    """Drops output that cannot be written, so that the process does not fail on it again when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
