"""The testing kit itself: the clock, the fixture, and the contract's own abstractness."""

from __future__ import annotations

import asyncio

import pytest

from solarwind import Event, Retry, SolarWind
from solarwind.testing import FakeClock
from solarwind.testing.contract import EngineContract, Place, on_loop

pytest_plugins = ["solarwind.testing.plugin"]


def test_time_stands_still_until_it_is_told_to_go() -> None:
    clock = FakeClock(1_000)
    assert clock.now() == clock.now() == 1_000
    clock.advance(1.5)
    assert clock.now() == 1_500_001_000
    clock.start(5)
    assert clock.now() == 1_500_001_000, "it never goes back"
    clock.start(2_000_000_000)
    assert clock.now() == 2_000_000_000
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(-1)


def test_what_is_due_is_called_in_order_each_at_its_own_time() -> None:
    """Also what is set meanwhile; what was cancelled is not."""
    clock = FakeClock(0)
    calls: list[tuple[str, int]] = []

    def note(name: str) -> None:
        calls.append((name, clock.now()))

    def again() -> None:
        note("again")
        clock.call_at(clock.now() + 1, lambda: note("set meanwhile"))

    clock.call_at(3, lambda: note("three"))
    clock.call_at(1, again)
    clock.call_at(3, lambda: note("three, too"))
    cancelled = clock.call_at(2, lambda: note("never"))
    clock.call_at(10_000_000_000, lambda: note("not yet"))
    cancelled.cancel()
    assert clock.next_at == 1
    clock.advance(1)
    assert calls == [("again", 1), ("set meanwhile", 2), ("three", 3), ("three, too", 3)]
    assert clock.now() == 1_000_000_000
    assert clock.next_at == 10_000_000_000


@on_loop
async def test_what_is_due_already_is_called_in_the_next_turn() -> None:
    clock = FakeClock(100)
    calls: list[int] = []
    clock.call_at(100, lambda: calls.append(1))
    clock.call_at(5, lambda: calls.append(2))
    assert calls == []
    await asyncio.sleep(0)
    assert sorted(calls) == [1, 2]


def test_the_fixture(wind: SolarWind, wind_clock: FakeClock) -> None:
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
            await wind.settled(10)

    asyncio.run(go())
    assert attempts == [1, 2]


def test_the_fixture_without_asyncio(wind: SolarWind) -> None:
    seen: list[int] = []

    @wind.on("T", purpose="p")
    def handle(number: int) -> None:
        seen.append(number)

    with wind:
        wind.fire("T", 1)
        wind.wait(wind.settled(10))
    assert seen == [1]


def test_a_contract_needs_a_place() -> None:
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
