"""A dispatcher in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.base import Engine
from ..engine.local import LocalEngine
from ..errors import BadArgument
from ..event import Event, HandOut
from ..names import check_topic
from ..store.memory import MemoryStore
from ..timing import MAX_DELAY_NS
from .clock import FakeClock


class _KeepingStore(MemoryStore):
    """A store in memory that keeps history, as others do, for longer than a test goes on."""

    keep_ns = MAX_DELAY_NS

    def events(self, topic: str) -> Sequence[Event]:
        """Return the events of a topic, in order. It may be called from any thread."""
        log = self._topics.get(topic)
        batches = [] if log is None else list(log.batches)
        return [Event(HandOut(batch), index) for batch in batches for index in range(len(batch))]


def memory_engine(clock: FakeClock) -> LocalEngine:
    """Return an empty dispatcher in memory that goes by `clock`, for `SolarWind(engine=...)` or `wind.use(engine=...)`.

    Its retries have no jitter: they come after the longest wait. It keeps history, as `sqlite://` does.
    """
    return LocalEngine(_KeepingStore(), clock=clock, random=lambda: 1.0)


def fired_events(engine: Engine, topic: str) -> Sequence[Event]:
    """Return the events of a topic that a dispatcher of `memory_engine` has accepted, in order; delayed ones once they
    are due. Raise `BadArgument` for another engine."""
    store = getattr(engine, "store", None)
    if not isinstance(store, _KeepingStore):
        raise BadArgument(
            "expected a SolarWind on memory_engine(clock), which keeps what was fired, got another engine: "
            "say wind.use(engine=memory_engine(wind_clock)) in the test"
        )
    return store.events(check_topic(topic))
