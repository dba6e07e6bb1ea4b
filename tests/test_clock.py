"""Real processes whose clock is set while they run, or was wrong when they started: nothing is early, nothing stalls,
and no history and no id is lost. See GUARANTEES.md, "The clock"."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from server.serving import Serving
from solarwind import Event, Later, SolarWind
from solarwind.batch import seal
from solarwind.engine.local import LocalEngine
from solarwind.records import Attention
from solarwind.store.base import Store
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing import FakeClock
from solarwind.testing.contract import on_loop, until
from wrong_clock import CAN, DAY, YEARS, WrongClock

NOW_S = time.time()
HOUR_S = 3600


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the library, which is made once."""
    if not CAN:
        pytest.skip("gcc, which makes the library that sets clocks, is not there")
    folder = tmp_path_factory.mktemp("clock")
    WrongClock.make(folder)
    return folder


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> WrongClock:
    return WrongClock(library, tmp_path / "clock")


@pytest.fixture
def server(clock: WrongClock, tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path, environment=clock.environment)
    yield serving
    serving.kill()


@asynccontextmanager
async def client(server: Serving) -> AsyncIterator[SolarWind]:
    """A client whose own clock is right."""
    async with SolarWind(server.url) as wind:
        yield wind


async def trimmed(wind: SolarWind, topic: str, keep: timedelta) -> int:
    """Have a topic keep its events for that long, which counts at once. Return how many it has when that is done."""
    await wind.fire("mark")
    wind.topic(topic, keep=keep)
    wind.topic("mark", keep=0)  # is trimmed in the same pass, or in a later one

    async def is_done() -> bool:
        found = {each.topic: each for each in await wind.topics()}
        return found[topic].keep == keep.total_seconds() and found["mark"].kept == 0

    await until(is_done, "the topic to be trimmed")
    return {each.topic: each.kept for each in await wind.topics()}[topic]


async def points(wind: SolarWind) -> list[Attention]:
    return [each for each in await wind.attention() if each.kind == "clock"]


class Handler:
    """Handles what is fired on T: each event `tries` times, so many seconds apart."""

    def __init__(self, wind: SolarWind, seconds: float, tries: int = 2) -> None:
        self.times: dict[object, list[float]] = {}

        @wind.on("T", purpose="p", since="beginning", concurrency=20)
        async def handle(event: Event) -> None:
            times = self.times.setdefault(event.payload, [])
            times.append(time.monotonic())
            if len(times) < tries:
                raise Later(seconds)

    def has_tried(self, payload: object, count: int) -> bool:
        return len(self.times.get(payload, ())) == count

    def pauses(self, payload: object) -> list[float]:
        times = self.times[payload]
        return [later - earlier for earlier, later in pairwise(times)]


@on_loop
async def test_a_clock_that_is_set_makes_no_retry_early_stalls_none_and_ends_no_lease(
    server: Serving, clock: WrongClock
) -> None:
    await server.start()
    begun, may_end = 0, asyncio.Event()
    async with client(server) as wind:
        handler = Handler(wind, 0.5, tries=6)

        @wind.on("long", purpose="p", lease=20)
        async def hold(event: Event) -> None:
            nonlocal begun
            begun += 1
            await may_end.wait()

        await wind.joined()
        await wind.fire("long")
        await until(lambda: begun)
        await wind.fire("T", 1)
        for tries, wall_s in enumerate((DAY, -DAY, YEARS, -YEARS, 0), 1):
            await until(lambda tries=tries: handler.has_tried(1, tries), "it to be tried")  # type: ignore[misc]
            clock.set(wall_s)
        await until(lambda: handler.has_tried(1, 6), "it to be tried again")
        assert all(pause >= 0.5 for pause in handler.pauses(1))
        (instance,) = [each for each in await wind.instances() if each.topic == "long"]
        assert (instance.state, instance.in_hand, begun) == ("running", 1, 1)
        may_end.set()
        await wind.settled(60)
        times = (await wind.statistics()).purposes["T", "p"].times
        assert sum(each.settled.sum_s for each in times) < DAY / 2
    assert await server.end() == 0
    assert server.complaints() == ""


@pytest.mark.parametrize("wall_s", [DAY, YEARS], ids=["day", "years"])
@on_loop
async def test_a_clock_that_is_set_forward_and_back_costs_no_history_and_no_id(
    server: Serving, clock: WrongClock, wall_s: float
) -> None:
    await server.start()
    async with client(server) as wind:
        await wind.fire("T", id="once")
        clock.set(wall_s)
        assert await trimmed(wind, "T", timedelta(hours=1)) == 1
        (point,) = await points(wind)
        assert point.since is not None
        assert "it was set, or the machine or the store was at rest" in point.text
        await wind.fire("T", id="once")
        await wind.fire("T", id="meanwhile")
        clock.set(0)
        assert await points(wind) == []
        assert await trimmed(wind, "T", timedelta(hours=2)) == 2
        for id in ("once", "meanwhile"):
            await wind.fire("T", id=id)
        assert (await wind.statistics()).topics["T"].fired == 2
    assert await server.end() == 0
    assert server.complaints() == ""


@pytest.mark.long
@on_loop
async def test_a_start_with_a_clock_ten_years_ahead_costs_nothing_and_is_over_with_it(
    server: Serving, clock: WrongClock
) -> None:
    await server.start()
    async with client(server) as wind:
        await wind.fire("T", 1, id="before")
    assert await server.end() == 0

    clock.set(YEARS)
    await server.start()
    async with client(server) as wind:
        assert len(await points(wind)) == 1
        assert await trimmed(wind, "T", timedelta(days=6)) == 1
        await wind.fire("T", 2, id="then")
        handler = Handler(wind, 2.0)
        await until(lambda: handler.has_tried(1, 1) and handler.has_tried(2, 1), "both to be tried")
    assert await server.end() == 0

    clock.set(0)
    await server.start()
    async with client(server) as wind:
        (point,) = await points(wind)
        assert "The last commit in the store was at 203" in point.text
        assert point.text in server.log()
        assert await trimmed(wind, "T", timedelta(days=5)) == 2
        after = Handler(wind, 0, tries=1)
        await until(lambda: after.has_tried(1, 1) and after.has_tried(2, 1), "both to be tried again")
        for event in (1, 2):
            assert after.times[event][0] - handler.times[event][0] >= 2.0
        for id in ("before", "then"):
            await wind.fire("T", id=id)
        await wind.fire("T", 3, id="after")
        await wind.settled(60)
        found = await wind.statistics()
        assert found.topics["T"].fired == 3
        assert sum(each.settled.sum_s for each in found.purposes["T", "p"].times) < DAY
        now = datetime.now(UTC)
        assert all(abs(each.heard - now) < timedelta(hours=1) for each in await wind.instances())
    assert await server.end() == 0

    clock.set(6 * DAY)  # six days pass: history goes by a clock that is right again
    await server.start()
    async with client(server) as wind:
        assert await points(wind) == []

        async def is_gone() -> bool:
            return [each.kept for each in await wind.topics() if each.topic == "T"] == [0]

        await until(is_gone, "what is older than five days to go")
    assert await server.end() == 0
    assert server.complaints() == ""


@pytest.mark.long
@on_loop
async def test_a_clock_that_begins_in_1970_and_is_set_later_costs_nothing(server: Serving, clock: WrongClock) -> None:
    await server.start()
    async with client(server) as wind:
        await wind.fire("T", id="before")
        handler = Handler(wind, 1.0)
        await until(lambda: handler.has_tried(None, 1))
    assert await server.end() == 0

    clock.set(DAY - NOW_S)
    await server.start()
    async with client(server) as wind:
        (point,) = await points(wind)
        assert "The last commit in the store was at 20" in point.text
        await wind.fire("T", 1, id="then")
        after = Handler(wind, 1.0)
        await until(lambda: after.has_tried(1, 1))
        clock.set(0)  # NTP
        assert await trimmed(wind, "T", timedelta(days=6)) == 2
        await until(lambda: after.has_tried(1, 2) and after.has_tried(None, 2), "both to be tried again")
        assert after.pauses(1)[0] >= 1.0
        (point,) = await points(wind)
        assert "more than passed" in point.text
        for id in ("before", "then"):
            await wind.fire("T", id=id)
        assert (await wind.statistics()).topics["T"].fired == 2
    assert await server.end() == 0
    assert server.complaints() == ""


class Delaying:
    """A process with a store of its own, where events are delayed: see `delaying.py`."""

    def __init__(self, folder: Path, clock: WrongClock) -> None:
        self.clock = clock
        self._file = folder / "notes"
        self._file.touch()
        program = [sys.executable, str(Path(__file__).with_name("delaying.py")), str(folder / "wind.db")]
        environment = os.environ | clock.environment
        self._process = subprocess.Popen([*program, str(self._file)], stdin=subprocess.PIPE, text=True, env=environment)

    async def delay(self, number: int, seconds: float) -> int:
        """Delay an event by so much. Return when it is due."""
        due = self.clock.now() + round(seconds * 1e9)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number} {due}\n")
        self._process.stdin.flush()
        await until(lambda: ["delayed", str(number)] in self._notes(), "it to be durable")
        return due

    def _notes(self) -> list[list[str]]:
        return [line.split() for line in self._file.read_text().splitlines()]

    def handled(self) -> dict[int, int]:
        """Return what was handled, with when, by its own clock."""
        return {int(words[1]): int(words[2]) for words in self._notes() if words[0] == "handled"}

    async def handles(self, number: int) -> int:
        """Wait until it has handled this. Return when that was."""
        await until(lambda: number in self.handled(), f"{number} to be handled")
        return self.handled()[number]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await until(lambda: self._process.poll() is not None, "it to end")
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def delaying(clock: WrongClock, tmp_path: Path) -> Iterator[Delaying]:
    found = Delaying(tmp_path, clock)
    yield found
    found.kill()


@pytest.mark.parametrize("wall_s", [-DAY, -YEARS], ids=["day", "years"])
@on_loop
async def test_a_delayed_event_is_late_where_the_clock_is_set_back_and_never_early(
    delaying: Delaying, clock: WrongClock, wall_s: float
) -> None:
    first = await delaying.delay(1, 1000.0)
    clock.set(wall_s)
    second = await delaying.delay(2, 1.0)
    assert await delaying.handles(2) >= second
    clock.set(0)
    await delaying.delay(3, 0.0)
    await delaying.handles(3)
    assert sorted(delaying.handled()) == [2, 3], "the other is not due by the clock as it is"
    clock.set(1000)
    await delaying.delay(4, 0.0)
    assert await delaying.handles(1) >= first
    await delaying.handles(4)
    await delaying.end()


@on_loop
async def test_a_machine_that_slept_makes_delayed_events_late_and_never_stalls_them(
    delaying: Delaying, clock: WrongClock
) -> None:
    """While it sleeps its monotonic clock stands still, and the wall clock goes on."""
    due = [await delaying.delay(number, seconds) for number, seconds in enumerate((2.0, DAY, 3 * DAY))]
    delaying.send(signal.SIGSTOP)
    began = time.monotonic()
    await asyncio.sleep(0.2)
    clock.set(2 * DAY, began - time.monotonic())
    delaying.send(signal.SIGCONT)
    await delaying.delay(3, 0.0)  # else it is noticed within a minute
    await delaying.handles(3)
    for number in range(2):
        assert await delaying.handles(number) >= due[number]
    assert sorted(delaying.handled()) == [0, 1, 3]
    await delaying.end()


# --- with a clock of the test's own ---------------------------------------------------------------------------


def engine(store: Store, clock: FakeClock) -> LocalEngine:
    return LocalEngine(store, clock=clock, random=lambda: 1.0)


@pytest.mark.parametrize("ahead_s", [HOUR_S, YEARS], ids=["hour", "years"])
@on_loop
async def test_a_retry_waits_for_as_long_as_it_had_to_where_the_clock_is_set_back_between_two_starts(
    tmp_path: Path, ahead_s: int
) -> None:
    tried: list[int] = []

    def opened(clock: FakeClock) -> SolarWind:
        wind = SolarWind(engine=engine(SqliteStore(str(tmp_path / "wind.db")), clock))

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            tried.append(event.attempt)
            if len(tried) == 1:
                raise Later(100)

        return wind

    now = time.time_ns()
    clock = FakeClock(now + ahead_s * 10**9)
    async with opened(clock) as wind:
        await wind.fire("T")
        await until(lambda: tried)
        await clock.advance(40)
        await wind.fire("other")  # the last commit: sixty seconds are left
    clock = FakeClock(now)
    async with opened(clock) as wind:
        await clock.advance(30)
        await wind.fire("other")
    clock = FakeClock(now + 30 * 10**9)
    async with opened(clock) as wind:
        await clock.advance(29)
        assert len(tried) == 1
        await clock.advance(2)
        await wind.settled(60)
    assert len(tried) == 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@on_loop
async def test_history_goes_by_when_it_was_accepted_whatever_its_producer_s_clock_says(
    tmp_path: Path, kind: str
) -> None:
    clock = FakeClock()
    wind = SolarWind(engine=engine(MemoryStore() if kind == "memory" else SqliteStore(str(tmp_path / "w.db")), clock))
    wind.topic("T", keep=timedelta(days=1))

    async def kept() -> list[int]:
        return [each.kept for each in await wind.topics() if each.topic == "T"]

    async with wind:
        for number, seconds in enumerate((0, YEARS, -YEARS)):
            stamp = [clock.wall() + seconds * 10**9]
            made = {"producer": 1, "first": number, "machine": "m", "process": "p"}
            await wind._engine.submit(seal("T", [b"1"], stamp, **made))  # type: ignore[arg-type]
        await clock.advance(23 * HOUR_S)
        assert await kept() == [3]

        async def gone() -> bool:
            return await kept() == [0]

        await until(gone, meanwhile=lambda: clock.advance(600))
        assert clock.wall() < time.time_ns() + 3 * DAY * 10**9


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@on_loop
async def test_a_clock_that_stays_forward_is_believed_after_an_hour_and_what_is_from_the_future_goes_with_the_next(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    wind = SolarWind(engine=engine(MemoryStore() if kind == "memory" else SqliteStore(str(tmp_path / "w.db")), clock))
    wind.topic("T", keep=timedelta(days=1))

    async def kept() -> int:
        return next(each.kept for each in await wind.topics() if each.topic == "T")

    async def has(count: int) -> bool:
        return await kept() == count

    async with wind:
        await wind.fire("T", 1)
        right = clock.wall()
        clock.set_wall(right + YEARS * 10**9)
        await wind.fire("T", 2)
        await clock.advance(0.8 * HOUR_S)
        assert await kept() == 2
        clock.set_wall(right + int(0.8 * HOUR_S) * 10**9)
        await wind.fire("T", 3)
        await clock.advance(23 * HOUR_S)
        assert await kept() == 3
        await until(lambda: has(0), meanwhile=lambda: clock.advance(600))
        assert clock.wall() < right + 3 * DAY * 10**9, "what was accepted in the future went with what came after it"
        await wind.fire("T", 4)
        clock.set_wall(clock.wall() + 2 * DAY * 10**9)
        await clock.advance(0.9 * HOUR_S)
        assert await kept() == 1
        assert [each.kind for each in await wind.attention()] == ["clock"]
        await until(lambda: has(0), meanwhile=lambda: clock.advance(60))
        assert await wind.attention() == []
    assert [message.partition(",")[0][:14] for message in caplog.messages].count("The clock says") >= 1
