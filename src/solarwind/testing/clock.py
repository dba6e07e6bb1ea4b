"""A clock that stands still until it is told to go, so that retries and leases are tested without sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from ..failure import MOST_SECONDS


class FakeTimer:
    """A call that is due some day, unless it is cancelled."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """An engine's `Clock` for tests: `LocalEngine(store, clock=FakeClock())`.

    It begins at the real time, since that is what events are stamped with, and then only `advance` moves it. It may be
    given to one engine after another: time goes on from where the last one stopped.

    Services in this process go by it too: while a handler is at work its lease runs on, however far time goes. For a
    service that hangs, give them another: `LocalEngine(store, clock=FakeClock(), service_clock=SteadyClock())`.
    """

    def __init__(self, now: int | None = None) -> None:
        """`now` is in ns since 1970; the real time if not given."""
        self._now = time.time_ns() if now is None else now
        self._ahead = 0  # of the wall clock
        self._timers: list[tuple[int, int, FakeTimer]] = []
        self._numbers = count()
        self._soon = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the engine

    def start(self, least: int) -> None:
        """Called by the engine: begin, at `least` (ns since 1970) or later."""
        self._loop = _running_loop()
        self._ahead += max(0, least - self._now)
        self._now = max(self._now, least)

    def now(self) -> int:
        """ns since 1970."""
        return self._now

    def wall(self) -> int:
        """Called by the engine: what the wall clock says, whatever time it began at."""
        return self._now - self._ahead

    def set_wall(self, now: int) -> None:
        """Set the wall clock, as an operator or NTP does: `now()` goes on as before."""
        self._ahead = self._now - now

    def call_at(self, when: int, callback: Callable[[], None]) -> FakeTimer:
        """Called by the engine: call it once `now()` has come to `when`; in the loop's next turn if it has already."""
        timer = FakeTimer(callback)
        heappush(self._timers, (when, next(self._numbers), timer))
        if when <= self._now and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._run_due)
        return timer

    def advance(self, seconds: float) -> None:
        """Let so much time pass: what falls due meanwhile is called in order, each at its own time.

        On the loop, or from wherever there is none: a thread beside it, or between two runs of it. What handlers do
        because of it goes on after you wait for something, such as `settled()`.
        """
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < MOST_SECONDS:
            raise ValueError(f"expected seconds of 0 or more, got {seconds!r}: time never goes back")
        loop, here = self._loop, _running_loop()
        if loop is None or loop is here or loop.is_closed():
            self._advance(seconds)
        elif loop.is_running():
            if here is not None:
                raise RuntimeError(
                    "expected advance() on the loop that the dispatcher runs on, or in a thread without one, got it on "
                    "another loop: call it from the dispatcher's, or use asyncio.to_thread(clock.advance, seconds)"
                )
            asyncio.run_coroutine_threadsafe(self._advance_on_loop(seconds), loop).result()
        elif here is None:
            loop.run_until_complete(self._advance_on_loop(seconds))
        else:
            raise RuntimeError("expected advance() on the dispatcher's loop, got it on another while that one rests")

    def _advance(self, seconds: float) -> None:
        until = self._now + round(seconds * 1e9)
        self._run_until(until)
        self._now = until

    async def _advance_on_loop(self, seconds: float) -> None:
        self._advance(seconds)

    @property
    def next_at(self) -> int | None:
        """When the next call is due, ns since 1970; None where there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _run_due(self) -> None:
        self._soon = False
        self._run_until(self._now)

    def _run_until(self, until: int) -> None:
        while (when := self.next_at) is not None and when <= until:
            _, _, timer = heappop(self._timers)
            self._now = max(self._now, when)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
