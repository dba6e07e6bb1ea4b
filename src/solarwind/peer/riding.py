"""Settles that ride: one that follows another within a millisecond goes with the next message, or soon without one.

Each message wakes the server, which has something more urgent to do then: somebody waits for an acknowledgement or for
an event, and nobody for a settle. A lone event's is sent at once, since nothing can be saved there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from .. import wire
from ..core.effects import Join
from ..plugins import registered

RIDE_S = 0.001  # that a settle waits at most


def may_ride(join: Join) -> bool:
    """Return whether an instance's settles may wait: not where they let a later event of a key go."""
    exchange = registered.lookup(join.exchange)
    return exchange is not None and not exchange.keyed


def is_settle(report: wire.Report) -> bool:
    """Return whether a report only says that events are done, for which nobody waits and whose handlers fired nothing.
    Where they took longer than it would ride, its instance may have little room, and needs it back."""
    urgent = report.ref or report.fired or report.failed or report.returned
    return not urgent and report.busy_ns < RIDE_S * 1e9


class Rides:
    """The settles of a client. `flush` sends everything that is to be sent."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._sent_at = float("-inf")  # when the last one went that did not ride, or those that did
        self._timer: asyncio.TimerHandle | None = None

    def wait(self) -> bool:
        """Return whether the settle that is to be sent may wait. If so it is sent in time."""
        if self._timer is None:
            now = monotonic()
            if now - self._sent_at >= RIDE_S:
                self._sent_at = now
                return False
            self._timer = asyncio.get_running_loop().call_later(RIDE_S, self._over)
        return True

    def _over(self) -> None:
        self._timer, self._sent_at = None, monotonic()
        self._flush()

    def end(self) -> None:
        """Forget the timer, because everything was sent or is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
