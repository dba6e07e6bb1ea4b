"""Calls the dispatcher when something is due, or when it has postponed work.

Long work is done in pieces (`Dispatcher.go_on`), one in each turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.dispatcher import Dispatcher
from .clock import Clock, Timer


class Alarm:
    """The alarm of one dispatcher. `done` carries out the resulting effects."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, done: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._done = done
        self._timer: Timer | None = None
        self._timer_at = 0
        self._piece: asyncio.Handle | None = None

    def set(self) -> None:
        """Set the timer for the next thing to do. Called whenever that may have changed."""
        if self._dispatcher.behind and self._piece is None:
            self._piece = asyncio.get_running_loop().call_soon(self._go_on)
        when = self._dispatcher.wake_at
        if when is None or (self._timer is not None and self._timer_at <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._clock.call_at(when, self._tick), when

    def stop(self) -> None:
        for each in (self._timer, self._piece):
            if each is not None:
                each.cancel()

    def _tick(self) -> None:
        self._timer = None
        self._dispatcher.tick(self._clock.now())
        self._done()

    def _go_on(self) -> None:
        self._piece = None
        self._dispatcher.go_on(self._clock.now())
        self._done()
