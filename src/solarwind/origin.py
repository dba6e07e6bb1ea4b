"""The names of this machine and process in events, instances and connections."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from functools import cache, lru_cache

from .systems import after_fork

MACHINE = socket.gethostname()


_NAMES: dict[str, str] = {}  # of this process, by its program
after_fork(_NAMES.clear)


def process_name() -> str:
    """Return the program and process id of this process."""
    program = sys.argv[0] if sys.argv else ""
    return _NAMES.get(program) or _name(program)


def this_process() -> str:
    """Return the name of this process among those of all machines."""
    return _among_all(process_name())  # one text, however many instances have it


def program_name(path: str) -> str:
    """Return the name of the program whose `sys.argv[0]` is `path`, without its arguments, which may be secrets. A
    package that is run, as by `python -m shop`, is its program; text that is given to Python is "python"."""
    folder, name = os.path.split(path)
    if name == "__main__.py":
        name = os.path.basename(os.path.abspath(folder))
    return name if name and not name.startswith("-") else os.path.basename(sys.executable or "python")


@cache
def user_name() -> str:
    """Return the name of this process's user, and the machine."""
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):  # in a container the user may have none
        name = f"uid {os.getuid()}" if hasattr(os, "getuid") else "somebody"
    return f"{name}@{MACHINE}"


@lru_cache(maxsize=1_000)
def user_of(uid: int) -> str:
    """Return the name and number of a user of this machine."""
    try:
        import pwd

        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (ImportError, KeyError, OSError):
        return f"uid {uid}"


def process_of(pid: int) -> str:
    """Return the number of a process of this machine, with its program if that can be seen."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return f"process {pid}"


@cache
def _among_all(name: str) -> str:
    return f"{MACHINE}/{name}"


def _name(program: str) -> str:
    _NAMES.clear()
    name = _NAMES[program] = f"{os.fsencode(program_name(program)).decode(errors='replace')}:{os.getpid()}"
    return name
