"""The names of this machine and process in events, instances and connections."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache

MACHINE = socket.gethostname()


def process_name() -> str:
    """Return the program and process id of this process."""
    return _name(sys.argv[0], os.getpid())


def this_process() -> str:
    """Return the name of this process among those of all machines."""
    return f"{MACHINE}/{process_name()}"


@cache
def _name(program: str, pid: int) -> str:
    return f"{os.fsencode(os.path.basename(program)).decode(errors='replace') or 'python'}:{pid}"
