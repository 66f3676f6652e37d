"""Denies a process the network and writes down what it wanted of it.

Python imports a module of this name first in every process that finds it on PYTHONPATH. NETWORK_LOG names the
file.
"""

import os
import sys

LOCAL = (None, "", b"", "localhost", "127.0.0.1", "::1")
# Where each event of `socket` has the host, or the address that begins with it.
NAMES = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
ADDRESSES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}


def write_down(line: str) -> None:
    """Appends a line to the log."""
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(line + "\n")


def watch(event: str, arguments: tuple) -> None:
    """Audit hook: raises `OSError` when a socket is to leave this machine."""
    if event in NAMES:
        host = arguments[NAMES[event]]
    elif event in ADDRESSES:
        address = arguments[ADDRESSES[event]]
        host = address[0] if isinstance(address, tuple) else None  # a path, of this machine
    else:
        return
    if host not in LOCAL:
        write_down(f"{event} {host}")
        raise OSError(f"no network: {event} {host}")


sys.addaudithook(watch)
write_down("watching")
