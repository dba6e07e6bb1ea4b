"""A dispatcher in memory, for tests."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Collection, Sequence

from ..core.track import Track
from ..engine.base import NOTHING, Engine
from ..engine.local import LocalEngine
from ..errors import BadArgument, Unavailable
from ..event import Event, HandOut
from ..names import check_topic, shown
from ..store.memory import MemoryStore
from ..timing import MAX_DELAY_NS, STEP_NS
from .clock import LOOK_S, FakeClock

GRACE_S = 3.0  # of real time, that handlers have at the end of a test
STANDS_S = 0.2  # of real time, in which nothing is at work: then only time makes it go on
_STEPS_A_S = 1_000_000_000 // STEP_NS


class _KeepingStore(MemoryStore):
    """A store in memory that keeps history, as others do, for longer than a test goes on."""

    keep_ns = MAX_DELAY_NS

    def events(self, topic: str) -> Sequence[Event]:
        """Return the events of a topic, in order. It may be called from any thread."""
        log = self._topics.get(topic)
        batches = [] if log is None else list(log.batches)
        return [Event(HandOut(batch), index) for batch in batches for index in range(len(batch))]


class _MemoryEngine(LocalEngine):
    """A dispatcher whose time passes only when its test says so: what waits for that is refused, and handlers that hang
    are not waited for."""

    grace_s = GRACE_S
    store: _KeepingStore

    def __init__(self, clock: FakeClock) -> None:
        if not isinstance(clock, FakeClock):
            raise BadArgument(f"expected a clock of tests, such as FakeClock(), got {shown(clock)}")
        super().__init__(_KeepingStore(), clock=clock, random=lambda: 1.0)
        self._test_clock = clock
        self.was_started = False

    async def start(self) -> None:
        """See `LocalEngine.start`."""
        self.was_started = True
        await super().start()

    async def idle(self, purposes: Collection[tuple[str, str]]) -> None:
        """See `LocalEngine.idle`. Raise `TimeoutError` once nothing but the test's clock can make them go on."""
        idle, still_s = asyncio.ensure_future(super().idle(purposes)), 0.0
        try:
            while not (await asyncio.wait([idle], timeout=LOOK_S))[0]:
                is_at_work = self._under_way() or self._commits.waiting or self._dispatcher.behind
                missing = "" if is_at_work else self._missing(purposes)
                still_s = still_s + LOOK_S if missing else 0.0
                if still_s >= STANDS_S:
                    raise TimeoutError(f"expected everything settled, got {await super().left(purposes)}{missing}")
            return idle.result()
        finally:
            idle.cancel()

    async def left(self, purposes: Collection[tuple[str, str]]) -> str:
        """See `LocalEngine.left`. It says how much time has to pass, too."""
        left = await super().left(purposes)
        missing = "" if left == NOTHING else self._missing(purposes)
        return left + missing

    def _missing(self, purposes: Collection[tuple[str, str]]) -> str:
        """Return the end of a sentence, how much time has to pass before these purposes go on; "" where something else
        may make them go on."""
        dispatcher, clock = self._dispatcher, self._test_clock
        if clock._passes:
            return ""
        times: list[int] = []
        for topic, name in purposes:
            if dispatcher.has_work(topic, name):
                purpose = dispatcher.purpose(topic, name)
                before = len(times)
                if not purpose.paused and not purpose.in_flight:
                    times += [each for track in purpose.all_tracks for each in self._waits(track)]
                if len(times) == before:
                    return ""
        if not times:
            return ""
        steps = -(-(min(times) - clock.now()) // STEP_NS)
        seconds = f"{steps / _STEPS_A_S:.3f}".rstrip("0").rstrip(".")
        return f", which waits for the test's clock: call advance({seconds}) first"

    def _waits(self, track: Track) -> list[int]:
        """Return the times at which what waits in a track goes on: retries, its delay, and the rate."""
        now, wall = self._clock.now(), self._clock.wall()
        delay, limiter = track.delay, track.limiter
        times = [track.state.due[each] for each in track.retrying if each in track.state.due]
        if delay is not None and delay.waiting >= 0:
            times.append(now + delay.until - wall)
        if limiter is not None and track in limiter.waiting:
            times.append(limiter.at)
        return [each for each in times if each > now]

    def cut_off(self, handler: str, events: Sequence[Event]) -> None:
        """See `Engine`."""
        first = events[0] if events else None
        at = "" if first is None else f", at event {first.id!r} with the payload {shown(_payload_of(first))}"
        self._test_clock.hung.append(
            f"expected each handler to end with its test, got {handler}, which did not within {self.grace_s:g} s{at}: "
            "have what it waits for end, or give that a timeout"
        )


def _payload_of(event: Event) -> object:
    try:
        return event.payload
    except Exception:
        return event.data


def warn_of_hung(clock: FakeClock) -> None:
    """Warn of the handlers that did not end with their test, so that the summary of a run of tests says it."""
    hung, clock.hung = clock.hung, []
    for each in hung:
        warnings.warn(each, RuntimeWarning, stacklevel=2)


def memory_engine(clock: FakeClock) -> LocalEngine:
    """Return an empty dispatcher in memory that goes by `clock`, for `SolarWind(engine=...)` or `wind.use(engine=...)`.

    Its retries have no jitter: they come after the longest wait. It keeps history, as `sqlite://` does. Where only time
    makes it go on, `settled` says how long to advance the clock. Handlers have three seconds to end when a `SolarWind`
    stops, unless its `grace` is less, or `stop` says otherwise; then `clock.hung` says which did not.
    """
    return _MemoryEngine(clock)


def fired_events(engine: Engine, topic: str) -> Sequence[Event]:
    """Return the events of a topic that a dispatcher of `memory_engine` has accepted, in order; delayed ones once they
    are due. Raise `BadArgument` for another engine, and `Unavailable` for one that was never started."""
    if not isinstance(engine, _MemoryEngine):
        raise BadArgument(
            "expected a SolarWind on memory_engine(clock), which keeps what was fired, got another engine: "
            "say wind.use(engine=memory_engine(wind_clock)) in the test"
        )
    check_topic(topic)
    if not engine.was_started:
        raise Unavailable(
            "expected a SolarWind that was started, got the one of the fixture wind, which was not: start it, or where "
            "the program has its own, have a fixture named wind return that"
        )
    return engine.store.events(topic)
