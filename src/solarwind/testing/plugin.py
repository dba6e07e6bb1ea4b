"""Fixtures for tests of programs that use Solar Wind. Opt in with `pytest_plugins = ["solarwind.testing.plugin"]`."""

from __future__ import annotations

import pytest

from ..wind import SolarWind
from .clock import FakeClock
from .memory import memory_engine


@pytest.fixture
def wind_clock() -> FakeClock:
    """Return the clock of `wind`: `wind_clock.advance(60)` makes everything happen that is due within a minute, in
    order."""
    return FakeClock()


@pytest.fixture
def wind(wind_clock: FakeClock) -> SolarWind:
    """Yield a dispatcher in memory, for this test alone. Register handlers, then start it: `with wind:`, or in a
    coroutine `async with wind:`. Its retries have no jitter: they come after the longest wait."""
    return SolarWind(engine=memory_engine(wind_clock))
