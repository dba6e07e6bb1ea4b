"""How this machine and process are named in events, instances and connections."""

from __future__ import annotations

import os
import socket
import sys

MACHINE = socket.gethostname()


def process_name() -> str:
    """This process: its program and process id."""
    return f"{os.path.basename(sys.argv[0]) or 'python'}:{os.getpid()}"
