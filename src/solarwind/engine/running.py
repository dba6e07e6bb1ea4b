"""The part that is the same in all engines: whether one runs, its random numbers, and the log line for a late
report."""

from __future__ import annotations

import asyncio
import random as chance
from collections.abc import Callable, Sequence
from typing import Any

from ..core.effects import Join
from ..errors import SolarWindError, Unavailable
from ..event import Event
from ..logs import limited


class Running:
    """The part of an engine that knows whether it was started, and what it failed with."""

    _running = False
    _error: SolarWindError | None = None
    patience_s = float("inf")
    grace_s = float("inf")
    delay_s = 0.0
    store_id = ""
    _random: Callable[[], float] = staticmethod(chance.random)

    def leave_behind(self, error: SolarWindError) -> None:
        """Give up everything in a forked child: nothing here is its own, and stopping does nothing."""
        self._error, self._running = error, False

    def random(self) -> float:
        """See `Engine`."""
        return self._random()

    def cut_off(self, handler: str, events: Sequence[Event]) -> None:
        """Do nothing: see `Engine`. The log says it."""

    def add_author(self, secret: bytes) -> None:
        """Do nothing: see `Engine`. Here authors are not checked."""

    def remove_author(self, secret: bytes) -> None:
        """See `Engine`."""

    def _check_running(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._running:
            raise Unavailable("expected a dispatcher that runs, got one that is not started, or was stopped: start it")


def log_stale(join: Join | None, instance: int, lease: int) -> None:
    """Log that a report does not count. `join` is the instance's, if it is still known."""
    whose = f"{join.purpose!r} on {join.topic!r}" if join is not None else "a purpose that it has left"
    limited.warning(
        ("stale", join and join.topic, join and join.purpose),
        "instance %d of %s reported on lease %d, which is no longer its own: what it did does not count",
        instance,
        whose,
        lease,
    )


def refuse(future: asyncio.Future[Any] | None, error: Exception) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
        future.exception()  # the log says it, too
