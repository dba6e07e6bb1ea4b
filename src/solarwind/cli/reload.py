"""`run --reload`: run the service in a process of its own, and start it anew when a source file changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from .options import variable
from .show import note

_LOOK_S = 0.25
_NOT_OURS = {"__pycache__", "node_modules", "site-packages"}


class Reloader:
    """Keeps one child running until a signal comes, which the child is told of."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = [sys.executable, "-m", "solarwind", *arguments]
        self._child: subprocess.Popen[bytes] | None = None
        self._over = False

    def run(self) -> int:
        """Gives the exit code of the last child."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        code = 0
        while not self._over:
            files = _times()
            self._start()
            changed = None
            while changed is None and not self._over:
                self._look_away()
                changed = _difference(files, _times())
            if changed is not None and not self._over:
                note(f"solarwind: {changed} changed, starting anew")
            code = self._stop()
        return code

    def _start(self) -> None:
        # A session of its own: a terminal's Ctrl-C would reach it twice, and a second signal ends the draining.
        environment = {name: value for name, value in os.environ.items() if name != variable("reload")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # what it caches may pass for a file saved in the same second
        self._child = subprocess.Popen(self._arguments, env=environment, start_new_session=True)
        if self._over:  # the signal came before there was a child to tell
            self._child.send_signal(signal.SIGTERM)

    def _look_away(self) -> None:
        """Wait a little, or until the child ends because it was told to."""
        assert self._child is not None
        if self._child.poll() is not None:
            time.sleep(_LOOK_S)
            return
        try:
            self._child.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            return
        if not self._over:
            note(f"solarwind: it ended with exit code {self._child.returncode}, waiting for a file to change")

    def _stop(self) -> int:
        """Let it drain, however long its grace is."""
        assert self._child is not None
        if not self._over:
            self._child.send_signal(signal.SIGTERM)
        return self._child.wait()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._over = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)


def _times() -> dict[str, int]:
    return dict(_files("."))


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """The Python files below, and when they changed; without what is hidden or installed."""
    for where, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _NOT_OURS and not each.startswith(".")]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(where, name)
                try:
                    yield path, os.stat(path).st_mtime_ns
                except FileNotFoundError:
                    pass


def _difference(before: dict[str, int], after: dict[str, int]) -> str | None:
    """A file that is new, gone or changed."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            return os.path.relpath(path)
    return None
