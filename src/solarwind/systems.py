"""What there is on Linux alone, or not on Windows, and the sentence that says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .errors import NotAllowed

_OF_POSIX = frozenset({"fcntl", "pwd", "resource", "termios"})  # modules of Python
_ELSEWHERE = "use memory:// or a server on another machine, or run it in a container or in WSL"


def after_fork(forget: Callable[[], object]) -> None:
    """Have this called in each forked child, where there are any."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def check_linux(what: str, instead: str) -> None:
    """Raise `NotAllowed` on another system, which says what to do `instead`."""
    if sys.platform != "linux":
        raise NotAllowed(f"expected Linux for {what}, got {sys.platform}: {instead}")


def posix_needed(error: ModuleNotFoundError, what: str) -> Exception:
    """Return what to raise where a module is missing: that `what` needs another system, if that is why."""
    if error.name not in _OF_POSIX:
        return error
    return NotAllowed(f"expected Linux or macOS for {what}, got {sys.platform}: {_ELSEWHERE}")
