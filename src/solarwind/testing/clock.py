"""A clock that only tests move, so that retries and leases are tested without sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

from ..engine.clock import UnderWay
from ..errors import BadArgument
from ..names import shown
from ..timing import STEP_NS, check_delay

HANGS_S = 1.0  # of real time, in which nothing ends: what is still at work is not waited for
ENDLESS_S = 10.0  # of real time, in which there is always something new at work
SPIN_S = 0.001
LOOK_S = 0.01  # that count at most between two looks: a process that stood still has not waited meanwhile


class FakeTimer:
    """A call that is due at a time, unless it is cancelled."""

    __slots__ = ("callback", "ends")

    def __init__(self, callback: Callable[[], None], ends: bool) -> None:
        self.callback: Callable[[], None] | None = callback
        self.ends = ends  # what is under way

    def cancel(self) -> None:
        self.callback = None


class Passing:
    """The time that `advance` lets pass. Awaiting it waits until it has passed."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None] | None = None) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, None]:
        if self._task is not None:
            yield from asyncio.shield(self._task).__await__()


class FakeClock:
    """An engine's `Clock` for tests: `LocalEngine(store, clock=FakeClock())`.

    It begins at the real time, with which events are stamped, and then only `advance` moves it. It may be given to one
    engine after another: time goes on from where the last one stopped.

    Services in this process use it too: while a handler runs its lease is renewed, however far time goes. To test a
    service that hangs, give the services another clock: `LocalEngine(store, clock=FakeClock(),
    service_clock=SteadyClock())`. On `memory_engine`, `hung` has a sentence for each handler that did not end with its
    test.
    """

    def __init__(self, now: int | None = None) -> None:
        """`now` is in ns since 1970; the real time by default, at a whole step of due times: what is due after a minute
        is so once a minute has passed, and not a part of a step later. Raise `BadArgument`."""
        if now is not None and (type(now) is not int or not 0 <= now < 1 << 63):
            raise BadArgument(f"expected now in ns since 1970, such as time.time_ns(), got {shown(now)}")
        self._now = time.time_ns() // STEP_NS * STEP_NS if now is None else now
        self._until = self._now  # time passes till then
        self._ahead = 0  # of the wall clock
        self._timers: list[tuple[int, int, FakeTimer]] = []
        self._numbers = count()
        self._soon = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the engine
        self._under_way: UnderWay | None = None
        self._hanging: set[object] = set()  # what was waited for in vain
        self._passing: asyncio.Task[None] | None = None
        self.hung: list[str] = []  # which handlers did not end when they were to, a sentence each

    @property
    def _passes(self) -> bool:
        """Whether time passes by itself, as `advance` said."""
        return self._passing is not None or self._now < self._until

    def start(self, earliest: int, under_way: UnderWay | None = None) -> None:
        """Begin, at `earliest` (ns since 1970) or later. Called by the engine."""
        self._loop, self._under_way, self._passing = _running_loop(), under_way, None
        wall = max(self._now, self._until) - self._ahead
        self._until = self._now = max(wall, earliest)
        self._ahead = self._now - wall

    def now(self) -> int:
        """Return ns since 1970."""
        return self._now

    def wall(self) -> int:
        """Return the wall clock's time in ns since 1970. Called by the engine."""
        return self._now - self._ahead

    def set_wall(self, now: int) -> None:
        """Set the wall clock, as an operator or NTP does: `now()` goes on as before."""
        self._ahead = self._now - now

    def call_at(self, when: int, callback: Callable[[], None], *, ends: bool = False) -> FakeTimer:
        """Call `callback` once `now()` has reached `when`; in the loop's next turn if it has already. Called by the
        engine."""
        timer = FakeTimer(callback, ends)
        heappush(self._timers, (when, next(self._numbers), timer))
        if when <= self._now and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._run_due)
        return timer

    def advance(self, seconds: float | timedelta | str) -> Passing:
        """Let `seconds` pass, or a timedelta, or a text such as "5m".

        Everything due meanwhile is done in order, each at its own time, with all that follows from it: a retry that is
        due after a second, and the next one that is due two seconds after that.

        Before time goes on, everything under way ends: running handlers are waited for. One that runs for more than a
        second of real time is not waited for any longer, and keeps its lease.

        Call it on the loop; or from another thread, or between two runs of the loop, where it returns when the time has
        passed. On the loop, time passes as soon as the loop goes on, for instance while you wait for `settled()`; or
        use `await clock.advance(60)`."""
        passed = check_delay("the time to pass", seconds)  # time never goes back
        loop, here = self._loop, _running_loop()
        if loop is None or loop is here or loop.is_closed():
            return self._advance(passed)
        elif loop.is_running():
            if here is not None:
                raise RuntimeError(
                    "expected advance() on the loop that the dispatcher runs on, or in a thread without one, got it on "
                    "another loop: call it from the dispatcher's, or use asyncio.to_thread(clock.advance, seconds)"
                )
            asyncio.run_coroutine_threadsafe(self._advance_on_loop(passed), loop).result()
        elif here is None:
            loop.run_until_complete(self._advance_on_loop(passed))
        else:
            raise RuntimeError("expected advance() on the dispatcher's loop, got it on another while that one rests")
        return Passing()

    def _advance(self, passed: int) -> Passing:
        self._until += passed
        if self._passing is None:
            while not self._left() and self._step():  # what a step begins or ends is waited for
                pass
            if self._now < self._until:
                self._passing = asyncio.get_running_loop().create_task(self._pass())
        return Passing(self._passing)

    async def _advance_on_loop(self, passed: int) -> None:
        await self._advance(passed)

    async def _pass(self) -> None:
        try:
            while self._now < self._until:
                await self._all_done()
                self._step()
        finally:
            self._passing, self._now = None, self._until

    def _left(self) -> set[object]:
        """Return what is under way, and may end soon."""
        if self._under_way is None or self._loop is not _running_loop():
            return set()
        left = self._under_way()
        self._hanging &= left
        return {*left} - self._hanging

    async def _all_done(self) -> None:
        """Wait until nothing is under way, or nothing of it has ended for a while."""
        looked, waited, idle = time.monotonic(), 0.0, 0.0
        before: set[object] = set()
        while left := self._left():
            looked, passed = (now := time.monotonic()), min(now - looked, LOOK_S)
            waited += passed
            idle = idle + passed if left == before else 0.0
            before = left
            if idle > HANGS_S or waited > ENDLESS_S:
                self._hanging |= left
                return
            await asyncio.sleep(0 if idle < SPIN_S else SPIN_S)

    def _step(self) -> bool:
        """Go to the time when the next call is due, and do everything due then. Return False past the end."""
        when = self.next_at
        if when is None or when > self._until:
            self._now = self._until
            return False
        self._run_until(max(when, self._now))
        return True

    @property
    def next_at(self) -> int | None:
        """Return when the next call is due, in ns since 1970; None where there is none."""
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
            if callback is not None and timer.ends:
                self._hanging.clear()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
