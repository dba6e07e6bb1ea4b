"""Runs a program as if on another system: `python other_system.py darwin|win32 PROGRAM ARGUMENT...`.

What that system has not is taken from Python's modules once those of other people are loaded, which would look for what
that system has instead. It is no substitute for the system, but finds what is asked for on Linux alone.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import runpy
import signal
import socket
import sys
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

OTHERS = "typer.core rich.table rich.console msgspec apsw cronsim starlette.applications websockets h11 httpcore"
NO_MODULES = {"win32": {"fcntl", "grp", "pwd", "resource", "termios", "tty", "uvloop"}}
NO_NAMES: dict[str, dict[ModuleType, str]] = {
    "darwin": {
        os: "fdatasync posix_fallocate posix_fadvise sched_getaffinity pidfd_open eventfd O_TMPFILE",
        socket: "SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK",
    },
    "win32": {
        os: "register_at_fork getuid geteuid getgid getegid fork fchmod fchown chown O_CLOEXEC O_NOFOLLOW O_DIRECTORY "
        "fdatasync pread pwrite posix_fallocate posix_fadvise sched_getaffinity killpg getpgid setsid pidfd_open "
        "eventfd statvfs sysconf O_TMPFILE",
        socket: "SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK SO_REUSEPORT",
        signal: "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE SIGWINCH SIGTSTP SIGCONT SIGQUIT pthread_sigmask",
    },
}


class Missing(MetaPathFinder):
    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def refuse(*_: Any) -> None:
    raise NotImplementedError


def main(system: str, program: str, *arguments: str) -> None:
    for name in OTHERS.split():
        importlib.import_module(name)
    missing = NO_MODULES.get(system, set())
    for name in missing:
        sys.modules.pop(name, None)
    for module, names in NO_NAMES[system].items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    if system == "win32":
        asyncio.SelectorEventLoop.add_signal_handler = refuse  # type: ignore[method-assign]
    sys.meta_path.insert(0, Missing(missing))
    sys.platform = system
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
