"""The pings of a client's connection: whether the server is there, and how long it takes to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import wire
from ..engine.base import Link
from ..engine.clock import Clock

MAX_SILENT = 2  # beats, of which there are two a heartbeat: so a server that is gone is noticed before the second ends


class Heartbeat:
    """Pings one connection after the other, each from its `welcome` on."""

    def __init__(self, send: Callable[[wire.Message], None], measured: Callable[[float], None]) -> None:
        """`measured` gets the seconds from a question to its answer, or so far if none has come."""
        self._send = send
        self._measured = measured
        self._asked_at: int | None = None  # in ns by the clock, and not answered
        self._timer: asyncio.TimerHandle | None = None

    def hello(self, clock: Clock) -> None:
        """Note that a connection begins with a message that is answered at once."""
        self._clock = clock
        self._asked_at = clock.now()

    def answered(self) -> None:
        """Note that the last message that is answered at once was answered."""
        asked_at, self._asked_at = self._asked_at, None
        if asked_at is not None:
            self._measure(asked_at)

    def _measure(self, asked_at: int) -> None:
        self._measured((self._clock.now() - asked_at) / 1e9)

    def begin(self, link: Link, heartbeat_s: float) -> None:
        """Ping on this connection from now on."""
        self._timer = asyncio.get_running_loop().call_later(heartbeat_s / 2, self._beat, link, heartbeat_s)

    def end(self) -> None:
        """Stop pinging the connection."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self, link: Link, heartbeat_s: float) -> None:
        """Send a ping, and notice when the server sends nothing. Beats are counted instead of seconds, because this
        process may have stood still."""
        if link.silent == MAX_SILENT:
            link.abort("it did not answer")
            return
        self.begin(link, heartbeat_s)  # first, so that it goes on if this fails
        link.silent += 1
        self._send(wire.Ping())
        if self._asked_at is None:
            self._asked_at = self._clock.now()
        else:
            self._measure(self._asked_at)
