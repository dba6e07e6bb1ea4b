"""Notices when the process of an ASGI app begins to stop.

An ASGI server tells its app only after all requests are answered, and a feed, or a fire that waits for an unreachable
server, does not end by itself. So this listens to the signals, and passes them on to the handlers that were there.
uvicorn may also be told to stop by its `should_exit`, without a signal, so this looks at that now and then.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType, TracebackType
from typing import Any

from .errors import BadArgument

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_S = 0.25


class Shutdown:
    """Calls `begins`, on the loop, when the process begins to stop."""

    def __init__(self, begins: Callable[[], None]) -> None:
        self._begins = begins
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

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
        self._look()

    def _look(self) -> None:
        """Look whether uvicorn was told to exit, now and from time to time until it was."""
        servers = self._servers()
        if any(server.should_exit for server in servers):
            self._begins()
        elif servers:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _servers(self) -> list[Any]:
        """Return the servers whose signal handlers were there: apps may be within each other, each with its own."""
        found: list[Any] = []
        for before in self._before.values():
            of = getattr(before, "__self__", None)
            found += of._servers() if isinstance(of, Shutdown) else [of] if hasattr(of, "should_exit") else []
        return found

    def end(self) -> None:
        """Stop. A signal handler that was installed over this one since stays."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._came:
                signal.signal(number, before)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if not self._over:
            self._loop.call_soon_threadsafe(self._begins)
        self._before[signal.Signals(number)](number, frame)


class Lifespan(AbstractAsyncContextManager[None]):
    """What runs beside an app, from before its first request to after its last. It may be entered again."""

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[None]], where: str) -> None:
        """`where` is the name of the method that returned it."""
        self._begin = begin
        self._where = where

    async def __aenter__(self) -> None:
        self._now = self._begin()
        await self._now.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._now.__aexit__(kind, error, trace)

    def __call__(self, app: Any) -> AbstractAsyncContextManager[None]:
        """Raise `BadArgument`: an app calls the method by itself."""
        raise BadArgument(
            f"expected lifespan={self._where}, the method itself, got {self._where}(), what it returns: leave out the "
            "parentheses"
        )
