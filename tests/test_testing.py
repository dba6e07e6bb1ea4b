"""The testing kit itself: the clock, the fixture, and the contract's own abstractness."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from solarwind import BadArgument, BadName, Event, Retry, SolarWind, Unavailable
from solarwind.records import DeadLetter
from solarwind.testing import FakeClock, clock, memory_engine
from solarwind.testing.contract import EngineContract, Place, on_loop, until
from solarwind.testing.memory import fired_events

pytest_plugins = ["pytest_solarwind"]


def test_time_stands_still_until_it_is_told_to_go() -> None:
    made = FakeClock(1_000)
    assert made.now() == made.now() == 1_000
    made.advance(1.5)
    assert made.now() == 1_500_001_000
    made.start(5)
    assert made.now() == 1_500_001_000, "it never goes back"
    made.start(2_000_000_000)
    assert made.now() == 2_000_000_000
    with pytest.raises(ValueError, match=r"^expected the time to pass as seconds, .* from 0 to ten years, got -1"):
        made.advance(-1)
    made.advance("5m")
    assert made.now() == 302_000_000_000


def test_what_is_due_is_called_in_order_each_at_its_own_time() -> None:
    """Also what is set meanwhile; what was cancelled is not."""
    made = FakeClock(0)
    calls: list[tuple[str, int]] = []

    def note(name: str) -> None:
        calls.append((name, made.now()))

    def again() -> None:
        note("again")
        made.call_at(made.now() + 1, lambda: note("set meanwhile"))

    made.call_at(3, lambda: note("three"))
    made.call_at(1, again)
    made.call_at(3, lambda: note("three, too"))
    cancelled = made.call_at(2, lambda: note("never"))
    made.call_at(10_000_000_000, lambda: note("not yet"))
    cancelled.cancel()
    assert made.next_at == 1
    made.advance(1)
    assert calls == [("again", 1), ("set meanwhile", 2), ("three", 3), ("three, too", 3)]
    assert made.now() == 1_000_000_000
    assert made.next_at == 10_000_000_000


@on_loop
async def test_what_is_due_already_is_called_in_the_next_turn() -> None:
    made = FakeClock(100)
    calls: list[int] = []
    made.call_at(100, lambda: calls.append(1))
    made.call_at(5, lambda: calls.append(2))
    assert calls == []
    await asyncio.sleep(0)
    assert sorted(calls) == [1, 2]


def test_the_fixtures_give_a_solarwind_and_its_clock(wind: SolarWind, wind_clock: FakeClock) -> None:
    """A dispatcher in memory whose retries come when the test says so."""
    attempts: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(wait=60, attempts=2))
    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise RuntimeError("not yet")

    async def go() -> None:
        async with wind:
            await wind.fire("T")
            with pytest.raises(TimeoutError):
                await wind.settled(0.05)
            assert attempts == [1]
            wind_clock.advance(61)
            await wind.settled(60)

    asyncio.run(go())
    assert attempts == [1, 2]


def test_the_fixtures_work_in_a_test_without_asyncio(wind: SolarWind) -> None:
    seen: list[int] = []

    @wind.on("T", purpose="p")
    def handle(number: int) -> None:
        seen.append(number)

    with wind:
        wind.fire("T", 1)
        wind.wait(wind.settled(60))
    assert seen == [1]


@pytest.mark.parametrize("seconds", [2, 31, 10_000])
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
def test_a_handler_that_runs_keeps_its_lease_however_far_time_goes(
    wind: SolarWind, wind_clock: FakeClock, seconds: float, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "HANGS_S", 0.02)
    attempts: list[int] = []
    gate = threading.Event()

    async def awaiting(event: Event) -> None:
        attempts.append(event.attempt)
        await asyncio.to_thread(gate.wait, 10)

    def on_thread(event: Event) -> None:
        attempts.append(event.attempt)
        gate.wait(60)

    wind.on("T", purpose="p", concurrency=2)(awaiting if is_async else on_thread)

    async def go() -> None:
        async with wind:
            await wind.fire_many("T", range(2))
            await until(lambda: len(attempts) == 2)
            before = wind_clock.now()
            for _ in range(2):
                await wind_clock.advance(seconds)
            wind_clock.advance(seconds)
            assert wind_clock.now() == before + 3 * seconds * 1_000_000_000, "those that hang hold up nothing for long"
            assert (await wind.statistics()).purposes["T", "p"].in_flight == 2
            gate.set()
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.settled, counts.dead, counts.retried) == (2, 0, 0)

    asyncio.run(go())
    assert attempts == [1, 1], "a handler that succeeds runs once"


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
def test_each_retry_within_an_advance_comes_at_its_time(wind: SolarWind, wind_clock: FakeClock, is_async: bool) -> None:
    """What it leads to, too: the last attempt fires, and what that fails of is tried again within the same advance."""
    begun = wind_clock.now()
    calls: list[tuple[object, float]] = []

    def fail(event: Event) -> None:
        calls.append((event.payload, (wind_clock.now() - begun) / 1e9))
        if event.payload == "slow" or event.topic == "child":
            time.sleep(0.02)
        if event.topic == "T" and event.attempt == 3:
            wind.fire("child", f"child of {event.payload}")
        else:
            raise RuntimeError("as always")

    async def fail_on_loop(event: Event) -> None:
        await asyncio.sleep(0.01)
        fail(event)

    wind.on("T", purpose="p", retry=Retry(attempts=3, wait=4))(fail_on_loop if is_async else fail)
    wind.on("child", purpose="q", retry=Retry(attempts=2, wait=3))(fail_on_loop if is_async else fail)

    async def go() -> None:
        async with wind:
            await wind.fire("T", "slow")
            await wind_clock.advance(1)
            await wind.fire("T", "quick")
            wind_clock.advance(31)
            await wind.settled(60)
            assert {letter.event.payload for letter in await wind.dead("child", "q")} == {
                "child of slow",
                "child of quick",
            }

    asyncio.run(go())
    assert calls == [
        ("slow", 0),
        ("quick", 1),
        ("slow", 4),
        ("quick", 5),
        ("slow", 12),
        ("child of slow", 12),
        ("quick", 13),
        ("child of quick", 13),
        ("child of slow", 15),
        ("child of quick", 16),
    ]
    assert wind_clock.now() == begun + 32_000_000_000


def test_a_timeout_comes_when_its_time_has_come_and_what_follows_from_it_too(
    wind: SolarWind, wind_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that hangs holds up time for a moment; once it is cancelled, it is waited for again."""
    monkeypatch.setattr(clock, "HANGS_S", 0.02)
    begun, calls = wind_clock.now(), list[tuple[str, float]]()

    def note(what: str) -> None:
        calls.append((what, (wind_clock.now() - begun) / 1e9))

    @wind.on("T", purpose="p", timeout=30, retry=Retry(attempts=2, wait=10))
    async def hang(event: Event) -> None:
        note("begins")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            note("ends")

    async def go() -> None:
        async with wind:
            await wind.fire("T")
            await wind_clock.advance("1h")
            await wind.settled(60)
            [letter] = await wind.dead("T", "p")
            assert letter.error.endswith("to return within 30 s, and it did not: its call was cancelled")

    asyncio.run(go())
    assert calls == [("begins", 0), ("ends", 30), ("begins", 40), ("ends", 70)]


def test_a_coroutine_that_asyncio_does_not_run_is_told_so_and_the_wind_may_be_started_yet(wind: SolarWind) -> None:
    """As with trio."""
    starting = wind.start()
    with pytest.raises(Unavailable, match=r"^expected an event loop of asyncio, got none here, .* anyio the backend"):
        starting.send(None)
    with wind:
        wind.fire("T").wait(60)


def test_what_is_due_within_a_leap_of_time_is_handed_out_once(wind: SolarWind, wind_clock: FakeClock) -> None:
    """A retry after a second, and then an hour at once: the lease that begins then does not end with it."""
    attempts: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(wait=1))
    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise RuntimeError("not yet")

    async def go() -> None:
        async with wind:
            await wind.fire("T")
            await until(lambda: attempts)
            await until(lambda: wind_clock.next_at, "the retry to be set")
            wind_clock.advance(3600)
            await wind.settled(60)

    asyncio.run(go())
    assert attempts == [1, 2]


def test_time_goes_on_in_a_test_without_a_loop(wind: SolarWind, wind_clock: FakeClock) -> None:
    attempts: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=60))
    def handle(event: Event) -> None:
        attempts.append(event.attempt)
        raise RuntimeError("never")

    with wind:
        wind.fire("T").wait(60)
        wind_clock.advance(200)
        assert attempts == [1, 2, 3]
        wind.wait(wind.settled(60))
        assert len(wind.wait(wind.dead("T", "p"))) == 1
    wind_clock.advance(61)


def test_time_goes_on_between_two_runs_of_a_loop(wind: SolarWind, wind_clock: FakeClock) -> None:
    attempts: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(wait=60))
    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise RuntimeError("not yet")

    async def begin() -> None:
        await wind.start()
        await wind.fire("T")
        with pytest.raises(TimeoutError):
            await wind.settled(0.05)

    async def end() -> None:
        await wind.settled(60)
        await wind.stop()

    with asyncio.Runner() as runner:
        runner.run(begin())
        wind_clock.advance(61)
        runner.run(end())
    assert attempts == [1, 2]


def test_time_does_not_go_on_from_another_loop(wind: SolarWind, wind_clock: FakeClock) -> None:
    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
            wind_clock.advance(1)
        await asyncio.to_thread(wind_clock.advance, 1)

    before = wind_clock.now()
    with wind:
        asyncio.run(elsewhere())
    assert wind_clock.now() == before + 1_000_000_000


@pytest.mark.parametrize("seconds", [-1, True, "1", None, 10**12, float("nan"), float("inf")])
def test_time_that_cannot_pass_is_refused(seconds: object) -> None:
    with pytest.raises(ValueError, match=r"^expected the time to pass as seconds, .* from 0 to ten years, got "):
        FakeClock().advance(seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("now", ["now", datetime(2026, 1, 31, tzinfo=UTC), 1.7e9, -1, True, 1 << 63])
def test_a_clock_that_begins_at_no_time_is_refused(now: object) -> None:
    with pytest.raises(BadArgument, match=r"^expected now in ns since 1970, such as time\.time_ns\(\), got "):
        FakeClock(now)  # type: ignore[arg-type]


def test_a_dispatcher_of_tests_goes_by_a_clock_of_tests() -> None:
    with pytest.raises(BadArgument, match=r"^expected a clock of tests, such as FakeClock\(\), got 60"):
        memory_engine(60)  # type: ignore[arg-type]


def test_nothing_is_known_of_what_another_wind_has_fired(
    wind: SolarWind, wind_clock: FakeClock, fired: Callable[[str], Sequence[Event]]
) -> None:
    """The program's own, for which no fixture of this name was made: else the test fails with an empty list, and does
    not say why."""
    own = SolarWind(engine=memory_engine(wind_clock))
    with own:
        own.fire("T").wait(60)
        with pytest.raises(
            Unavailable, match=r"got the one of the fixture wind, which was not: .* a fixture named wind"
        ):
            fired("T")
    with wind:
        wind.fire("T").wait(60)
    assert len(fired("T")) == 1, "also once it has stopped"


def test_a_place_without_open_is_refused_and_no_rule_is_a_coroutine() -> None:
    with pytest.raises(NotImplementedError):
        Place().open()
    rules = [name for name in dir(EngineContract) if name.startswith("test_")]
    assert len(rules) >= 80
    for name in rules:
        assert not asyncio.iscoroutinefunction(getattr(EngineContract, name)), f"{name} would never be awaited"


def test_no_rule_hides_another() -> None:
    """Each has its own name, over all chapters."""
    names = [name for chapter in EngineContract.__bases__ for name in vars(chapter) if name.startswith("test_")]
    assert len(names) == len(set(names))


@on_loop
async def test_what_is_due_after_a_time_is_due_once_that_time_has_passed() -> None:
    """And not a part of a millisecond later, to which due times are rounded up."""
    for _ in range(20):
        made, got = FakeClock(), list[int]()
        wind = SolarWind(engine=memory_engine(made))

        @wind.on("T", purpose="p")
        async def handle(number: int, got: list[int] = got) -> None:
            got.append(number)

        async with wind:
            await wind.fire("T", 7, after=60)
            await made.advance(59.999)
            assert not fired_events(wind.engine, "T")
            await made.advance(0.001)
            await wind.settled(60)
            assert got == [7]


def test_what_was_fired_is_known_by_the_engine_of_tests_alone(wind: SolarWind) -> None:
    with pytest.raises(BadArgument, match=r"say wind.use\(engine=memory_engine\(wind_clock\)\) in the test"):
        fired_events(SolarWind("memory://").engine, "T")
    with pytest.raises(BadName):
        fired_events(wind.engine, "no topic")


def test_what_a_failed_handler_fired_is_not_among_what_was_fired(
    wind: SolarWind, fired: Callable[[str], Sequence[Event]], dead: Callable[[str, str], list[DeadLetter]]
) -> None:
    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    def handle(number: int) -> None:
        wind.fire("next", number)
        if number == 1:
            raise RuntimeError("no")

    with wind:
        wind.fire_many("T", [1, 2]).wait(60)
        wind.wait(wind.settled(60))
        assert [event.payload for event in fired("next")] == [2]
        assert [letter.event.payload for letter in dead("T", "p")] == [1]
    assert not fired("nothing.of.the.kind")


def test_a_run_of_pytest_without_its_fixtures_does_not_import_solar_wind() -> None:
    program = "import sys, pytest_solarwind; sys.exit('solarwind' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
