"""A dispatcher in memory, for tests."""

from __future__ import annotations

from ..engine.local import LocalEngine
from ..store.memory import MemoryStore
from .clock import FakeClock


def memory_engine(clock: FakeClock) -> LocalEngine:
    """Return an empty dispatcher in memory that goes by `clock`, for `SolarWind(engine=...)` or `wind.use(engine=...)`.

    Its retries have no jitter: they come after the longest wait.
    """
    return LocalEngine(MemoryStore(), clock=clock, random=lambda: 1.0)
