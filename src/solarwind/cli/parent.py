"""What a process owes whoever started it, be that systemd or `run --workers`: to say when it is ready, and to end."""

from __future__ import annotations

import logging
import os
import signal
import socket

from .options import variable

# What `run` tells those it starts.
PARENT = variable("parent")  # its process id
WORKER = variable("worker")  # which one of several it is
WORKER_TOKEN = variable("worker-token")  # for the dispatcher that they share
WORKER_URL = variable("worker-url")  # where it is; a command line would show a password to everybody
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("solarwind")


class Told(SystemExit):
    """SIGTERM came before there was anything to end in order."""


def follow() -> None:
    """Where `run` started this process, it ends when that one does, even if that is killed. Nobody is left behind."""
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return
    import ctypes  # not for those whom nobody started: it wants memory that hardened services may not have

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if str(os.getppid()) != parent:  # it ended before this was said
        os._exit(1)


def tell(state: str) -> None:
    """Say `READY=1` or `STOPPING=1`, as systemd wants to hear it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
        try:
            telling.connect("\0" + path[1:] if path.startswith("@") else path)
            telling.sendall(state.encode())
        except OSError as error:
            log.warning("%s cannot be told %s: %s", path, state, error.strerror)
