"""Calls the dispatcher when something is due, or when it has postponed work.

Long work is done in pieces (`Dispatcher.go_on`), one in each turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .clock import Clock, Timer
from .tasks import Tasks

if TYPE_CHECKING:
    from ..core.dispatcher import Dispatcher

NEVER = 1 << 63  # ns since 1970


class Wakeup:
    """One call in the future, at the earliest time that was asked for."""

    def __init__(self, clock: Clock, call: Callable[[], None]) -> None:
        self._clock = clock
        self._call = call
        self._timer: Timer | None = None
        self.at = NEVER  # when it is made

    def set(self, when: int) -> None:
        """Make the call when the clock has reached `when`, or earlier if that was asked for."""
        if when < self.at:
            self.stop()
            self._timer, self.at = self._clock.call_at(when, self._run), when

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self.at = NEVER
        self._call()


class Alarm:
    """The alarm of one dispatcher. `done` carries out the resulting effects. Where the dispatcher fails unexpectedly,
    the owner of `tasks` ends: nothing would be due any more."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, done: Callable[[], None], tasks: Tasks) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._done = done
        self._wakeup = Wakeup(clock, tasks.guard(self._tick, "what the dispatcher does in time"))
        self._next_piece = tasks.guard(self._go_on, "what the dispatcher has postponed")
        self._piece: asyncio.Handle | None = None

    def set(self) -> None:
        """Set the timer for the next thing to do. Called whenever that may have changed."""
        if self._dispatcher.behind and self._piece is None:
            self._piece = asyncio.get_running_loop().call_soon(self._next_piece)
        when = self._dispatcher.wake_at
        if when is not None and when < self._wakeup.at:
            self._wakeup.set(when)

    def stop(self) -> None:
        self._wakeup.stop()
        if self._piece is not None:
            self._piece.cancel()

    def _tick(self) -> None:
        self._dispatcher.tick(self._clock.now())
        self._done()

    def _go_on(self) -> None:
        self._piece = None
        self._dispatcher.go_on(self._clock.now())
        self._done()
