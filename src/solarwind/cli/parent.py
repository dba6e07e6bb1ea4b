"""The contract with a parent process, systemd or `run --workers`: notify it of readiness, and end with it."""

from __future__ import annotations

import logging
import os
import signal
import socket

from .options import variable

# The variables that `run` sets for its children.
PARENT = variable("parent")  # its process id
WORKER = variable("worker")  # its number
WORKER_TOKEN = variable("worker-token")  # for the dispatcher that they share
WORKER_URL = variable("worker-url")  # its URL; other users could read a password in it on a command line
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("solarwind")


class EarlySigterm(SystemExit):
    """SIGTERM came before anything was started."""


def follow() -> None:
    """End this process when the parent that `run` started it from ends, even if that is killed."""
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return
    import ctypes  # only where it is needed: it allocates memory that hardened services may not

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if str(os.getppid()) != parent:  # it had ended already
        os._exit(1)


def tell(state: str) -> None:
    """Send `READY=1` or `STOPPING=1` in systemd's notification protocol."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
        try:
            telling.connect("\0" + path[1:] if path.startswith("@") else path)
            telling.sendall(state.encode())
        except OSError as error:
            log.warning("%s cannot be told %s: %s", path, state, error.strerror)
