"""When the counters of a dispatcher are looked at, and how many rings there are at most."""

from __future__ import annotations

import pytest

from solarwind import SolarWind
from solarwind.engine import sampling
from solarwind.engine.local import LocalEngine
from solarwind.store.memory import MemoryStore
from solarwind.testing import FakeClock
from solarwind.testing.contract import on_loop, until

START = 1_800_000_000 * 1_000_000_000


def settled(engine: LocalEngine, purpose: str) -> int:
    """Return how many events the purpose settled in the last day, as its rings have it without a question."""
    rates = engine._dispatcher.purpose("T", purpose).rates
    return 0 if rates is None else sum(rates.read(sampling.SETTLED, 2, engine._sampler.second))


@on_loop
async def test_rates_are_sampled_without_a_question_and_rest_after_five_minutes_without_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "PAUSE_S", 0.001)
    monkeypatch.setattr(sampling, "_QUIET_S", 0.01)
    engine = LocalEngine(MemoryStore())
    wind = SolarWind(engine=engine)

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None: ...

    def rests() -> bool:
        return engine._sampler._task is not None and engine._sampler._task.done()

    async with wind:
        await wind.fire("T", 1)
        await until(lambda: settled(engine, "p") == 1)
        await until(rests)
        await wind.fire("T", 1)
        await until(lambda: settled(engine, "p") == 2)
        await until(rests)


@on_loop
async def test_where_there_are_many_purposes_each_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PAUSE_S", 0.001)
    monkeypatch.setattr(sampling, "MAX_LOOKS", 2)
    engine = LocalEngine(MemoryStore())
    wind = SolarWind(engine=engine)

    async def handle(number: int) -> None: ...

    names = [f"p{number}" for number in range(7)]
    for name in names:
        wind.on("T", purpose=name)(handle)
    async with wind:
        await wind.fire("T", 1)
        await until(lambda: all(settled(engine, name) == 1 for name in names))
        assert engine._sampler._seconds == 4


@on_loop
async def test_only_so_many_purposes_have_rings_those_in_which_something_happened_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "MAX_RINGS", 2)
    engine = LocalEngine(MemoryStore(), clock=FakeClock(START))
    wind = SolarWind(engine=engine)

    async def handle(number: int) -> None: ...

    for topic in ("A", "B", "C"):
        wind.on(topic, purpose="p")(handle)
    async with wind:
        for topic in ("A", "B", "C"):
            await wind.fire(topic, 1)
            await wind.settled(60)
            await wind.statistics()
        assert len(engine._sampler._with_rings) == 2
        found = {topic: sum((await wind.rates(topic, "p")).minutes.settled) for topic in ("A", "B", "C")}
        assert found == {"A": 0, "B": 0, "C": 1}
