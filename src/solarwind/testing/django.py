"""Tests of a Django project: its `wind` in memory, with handlers that see what the test has in its transaction.

A test's transaction is never committed, so no other connection sees it. Therefore handlers use the test's own
connections, and take turns with the test: they run while it waits, by `wind.wait(...)`, `wind.settled()` or the clock's
`advance`. What the test wrote into an outbox is fired then, too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import connections

from .. import payload as codec
from ..contrib.django import wind as project_wind
from ..contrib.django.service import Connections, DjangoSolarWind
from ..event import Event
from ..failure import Later
from ..outbox.rows import OutboxRow
from .clock import FakeClock, Passing
from .memory import fired_events, memory_engine, warn_of_hung

__all__ = ["WindClock", "WindMixin", "wind_in_memory"]

T = TypeVar("T")

LOOK_S = 0.005  # between two looks whether it is a handler's turn
TURN_S = 5.0  # of real time, that a handler which runs may keep the test from going on
ACCEPT_S = 10.0  # that what was written into an outbox may take to be accepted
_WRITTEN = "SELECT place, id, topic, content, payload, attributes FROM solarwind_outbox ORDER BY place"
_FIRED = "DELETE FROM solarwind_outbox WHERE place = %s"


class WindClock(FakeClock):
    """A clock that only the test moves; handlers have their turn meanwhile."""

    waiting: Callable[[], AbstractContextManager[None]] = nullcontext

    def advance(self, seconds: float | timedelta | str) -> Passing:
        """See `FakeClock.advance`."""
        with self.waiting():
            return super().advance(seconds)


class Lent(Connections):
    """The connections of a test, which handlers use in turn with it."""

    are_committed = False

    def __init__(self, wind: DjangoSolarWind) -> None:
        """Lend the connections of this thread."""
        self._wind = wind
        self._lent = {alias: connections[alias] for alias in connections}
        self._own = threading.local()  # each thread's own connections, while it has the lent ones
        self._turn = threading.Lock()
        self._waits = 0
        self._counting = threading.Lock()
        self._over = False
        self._written: set[str] = set()
        for each in self._lent.values():
            each.inc_thread_sharing()
        self._has_turn = self._turn.acquire()  # the test; not while it waits, or where a handler keeps it

    def end(self) -> None:
        """Let no further handler begin. Those that run may go on to their end."""
        self._over = True
        if self._has_turn:
            self._turn.release()

    def take_back(self) -> None:
        """Lend them no more."""
        for each in self._lent.values():
            each.dec_thread_sharing()

    def before(self) -> None:
        """See `Connections.before`."""
        self._own.connections = {each.alias: each for each in connections.all(initialized_only=True)}
        for alias, lent in self._lent.items():
            connections[alias] = lent

    def after(self) -> None:
        """See `Connections.after`."""
        for alias in self._lent:
            if alias in self._own.connections:
                connections[alias] = self._own.connections[alias]
            else:
                del connections[alias]

    @contextmanager
    def around(self) -> Iterator[None]:
        """Yield when it is the turn of this thread."""
        while not self._turn.acquire(timeout=LOOK_S):
            self._check()
        try:
            self._check()
            with super().around():
                yield
        finally:
            self._turn.release()

    async def run(self, call: Callable[[Any], Awaitable[T]], given: Any) -> T:
        """Call a handler when it is its turn."""
        while not self._turn.acquire(blocking=False):
            self._check()
            await asyncio.sleep(LOOK_S)
        try:
            self._check()
            return await super().run(call, given)
        finally:
            self._turn.release()

    def _check(self) -> None:
        if self._over:
            raise Later(1)

    def written(self, connection: Any) -> None:
        """Note that somebody writes into the outbox of a database."""
        self._written.add(getattr(connection, "alias", connection))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Yield while handlers have their turn. Raise `TimeoutError` where one of them does not give it back."""
        with self._counting:
            self._waits += 1
            is_first = self._waits == 1
        if is_first and self._has_turn:
            self._has_turn = False
            self._turn.release()
        failed = True
        try:
            yield
            failed = False
        finally:
            with self._counting:
                self._waits -= 1
                is_last = self._waits == 0
            if is_last:
                self._has_turn = self._turn.acquire(timeout=TURN_S)
            if is_last and not self._has_turn and not failed:  # else what failed says more
                raise TimeoutError(
                    f"expected handlers to end, or to wait their turn, got one that went on for {TURN_S:g} s after the "
                    "test had waited: have what it waits for end, or give that a timeout"
                )

    async def settle(self, settled: Callable[[], Awaitable[None]]) -> None:
        """Wait until all is settled, with what was written into an outbox."""
        waiting = self.waiting()
        waiting.__enter__()
        try:
            await asyncio.to_thread(self._fire_written)
            await settled()
            while await asyncio.to_thread(self._fire_written):
                await settled()
        finally:
            # Not on this loop: a handler whose turn it is may need it to come to its end.
            await asyncio.to_thread(waiting.__exit__, None, None, None)

    def _fire_written(self) -> int:
        """Fire what is in the outboxes, as a relay does with what was committed. Return how much that was."""
        if not self._written:
            return 0
        found = 0
        with self.around():
            for alias in sorted(self._written & self._lent.keys()):
                with connections[alias].cursor() as cursor:
                    cursor.execute(_WRITTEN)
                    for place, id, topic, content, payload, attributes in cursor.fetchall():
                        self._fire(OutboxRow(place, id, topic, content, bytes(payload), attributes, 0))
                        cursor.execute(_FIRED, [place])
                        found += 1
        return found

    def _fire(self, row: OutboxRow) -> None:
        _, given = row.read()
        payload = codec.decode(row.payload, row.content)
        options: Any = {option: given[column] for option, column in _OPTIONS.items() if column in given}
        options |= {option: _time(given[column]) for option, column in _TIMES.items() if column in given}
        self._wind.fire(row.topic, payload, **options).wait(ACCEPT_S)


_OPTIONS = {"id": "ids", "key": "keys", "cause": "causes", "extensions": "extensions"}
_TIMES = {"at": "due", "expires": "expires"}


def _time(ns: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns / 1_000)


@contextmanager
def wind_in_memory(clock: WindClock | None = None) -> Iterator[DjangoSolarWind]:
    """Yield the project's `wind`, running on an empty dispatcher in memory, with all its handlers.

    Handlers see what the test has in its transaction, and run while it waits: `wind.wait(wind.settled(10))`. Use it in
    the test's thread. Raise what the start raises."""
    wind, clock = project_wind, clock or WindClock()
    before = wind._connections, wind.handles_here
    wind.use(engine=memory_engine(clock))
    lent = Lent(wind)
    wind._connections, wind.handles_here = lent, True
    clock.waiting = lent.waiting
    try:
        wind.begin()
        try:
            yield wind
        finally:
            lent.end()
            wind.close()
    finally:
        lent.take_back()
        wind._connections, wind.handles_here = before
        wind._restore()
    warn_of_hung(clock)


class WindMixin:
    """For Django's test cases: `class OrderTest(WindMixin, TestCase)`. In each test `self.wind` is the project's, in
    memory and running."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()  # type: ignore[misc]
        self.wind_clock = WindClock()
        self.wind: DjangoSolarWind = self.enterContext(wind_in_memory(self.wind_clock))  # type: ignore[attr-defined]

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until all that was fired is handled, with what is in an outbox. Raise `TimeoutError`."""
        self.wind.wait(self.wind.settled(timeout))

    def fired(self, topic: str) -> Sequence[Event]:
        """Return the events of a topic that were accepted, in order; those in an outbox after `settle`."""
        return fired_events(self.wind.engine, topic)

    def dead(self, topic: str, purpose: str) -> Any:
        """Return the dead letters of a purpose."""
        return self.wind.wait(self.wind.dead(topic, purpose))

    def advance(self, seconds: float | timedelta | str) -> None:
        """Let time pass, with all that is due meanwhile."""
        self.wind_clock.advance(seconds)
