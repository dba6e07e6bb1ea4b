"""Notices when the process of an ASGI app begins to stop.

An ASGI server tells its app only after all requests are answered, and a feed, or a fire that waits for an unreachable
server, does not end by itself. So this listens to the signals, and passes them on to the handlers that were there.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Calls `begins`, on the loop, when the process begins to stop."""

    def __init__(self, begins: Callable[[], None]) -> None:
        self._begins = begins
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
        self._over = False

    def watch(self) -> None:
        """Start. Signals come only to the main thread; on another thread this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if callable(before):  # else the process ends at once, or goes on
                self._before[number] = before
                signal.signal(number, self._came)

    def look(self) -> None:
        """Check uvicorn's own `should_exit`, too. Called now and then."""
        for before in self._before.values():
            if getattr(getattr(before, "__self__", None), "should_exit", False):
                self._begins()

    def end(self) -> None:
        """Stop. A signal handler that was installed over this one since stays."""
        self._over = True
        for number, before in self._before.items():
            if signal.getsignal(number) == self._came:
                signal.signal(number, before)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if not self._over:
            self._loop.call_soon_threadsafe(self._begins)
        self._before[signal.Signals(number)](number, frame)
