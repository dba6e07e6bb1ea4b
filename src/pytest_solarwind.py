"""Fixtures for tests of programs that use Solar Wind. pytest finds them by itself where Solar Wind is installed.

In a module of its own, so that a run of tests that uses none of them does not import Solar Wind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from solarwind import Event, SolarWind
    from solarwind.testing import FakeClock
    from solarwind.testing.clock import Passing


@pytest.fixture
def wind_clock() -> Iterator[FakeClock]:
    """Yield the clock of `wind`: `wind_clock.advance(60)` makes everything happen that is due within a minute, in
    order. At the end there is a warning of each handler that hung."""
    from solarwind.testing import FakeClock
    from solarwind.testing.memory import warn_of_hung

    clock = FakeClock()
    yield clock
    warn_of_hung(clock)


@pytest.fixture
def wind(wind_clock: FakeClock) -> SolarWind:
    """Yield a dispatcher in memory, for this test alone. Register handlers, then start it: `with wind:`, or in a
    coroutine `async with wind:`. Its retries have no jitter: they come after the longest wait."""
    from solarwind import SolarWind
    from solarwind.testing import memory_engine

    return SolarWind(engine=memory_engine(wind_clock))


@pytest.fixture
def advance(wind_clock: FakeClock) -> Callable[[float | timedelta | str], Passing]:
    """Return `wind_clock.advance`: `advance(60)` or `advance("1m")`, and on a loop `await advance(60)`."""
    return wind_clock.advance


@pytest.fixture
def fired(wind: SolarWind) -> Callable[[str], Sequence[Event]]:
    """Return a function that gives the events of a topic that `wind` has accepted, in order: `fired("order.placed")`.
    What a handler fired is accepted with its settle."""
    from solarwind.testing.memory import fired_events

    def fired(topic: str) -> Sequence[Event]:
        return fired_events(wind.engine, topic)

    return fired


@pytest.fixture
def dead(wind: SolarWind) -> Callable[[str, str], Any]:
    """Return a function that gives the dead letters of a purpose of `wind`: `dead("order.placed", "Confirm")`, and on a
    loop `await dead(...)`."""

    from solarwind.loops import running_loop

    def letters(topic: str, purpose: str) -> Any:
        work = wind.dead(topic, purpose)
        return work if running_loop() is not None else wind.wait(work)

    return letters
