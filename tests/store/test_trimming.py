"""When history goes: by the wall clock as it is now, at once, and in pieces. Real files, and a clock of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from solarwind import SolarWind
from solarwind.core.spans import Spans
from solarwind.engine.local import LocalEngine
from solarwind.store import reading, sqlite, writeahead
from solarwind.store.check import check
from solarwind.store.sqlite import SqliteStore
from solarwind.testing import FakeClock
from solarwind.testing.contract import until

from .test_sqlite import batch

YEARS_S = 10 * 365 * 24 * 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


def on_wind(path: Path, clock: FakeClock, test: Callable[[SolarWind], Awaitable[Any]]) -> None:
    async def main() -> None:
        wind = SolarWind(engine=LocalEngine(SqliteStore(str(path)), clock=clock))
        async with wind:
            await test(wind)

    asyncio.run(asyncio.wait_for(main(), 300))


async def kept(wind: SolarWind) -> dict[str, int]:
    return {topic.topic: topic.kept for topic in await wind.topics()}


async def keeps(wind: SolarWind, **events: int) -> bool:
    return await kept(wind) == events


async def fire_one(wind: SolarWind) -> None:
    await wind.fire("T", id="only once")


def ahead(seconds: float) -> FakeClock:
    return FakeClock(time.time_ns() + int(seconds * 1e9))


def test_one_start_with_a_clock_ten_years_ahead_makes_no_history_vanish_and_no_id_new_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def commit(wind: SolarWind) -> None:
        await wind.fire("other")

    on_wind(path, ahead(YEARS_S), commit)
    clock = FakeClock()

    async def look(wind: SolarWind) -> None:
        await fire_one(wind)
        for _ in range(3):
            clock.advance(24 * 3600)
            await wind.fire("other")
        await fire_one(wind)
        assert (await kept(wind))["T"] == (await wind.statistics()).topics["T"].fired == 1

    with caplog.at_level(logging.WARNING, "solarwind"):
        on_wind(path, clock, look)
    assert any("The last commit in the store was at 20" in record.message for record in caplog.records)


def test_what_was_fired_while_the_clock_was_far_behind_goes_once_it_is_right(path: Path) -> None:
    clock = FakeClock()

    async def work(wind: SolarWind) -> None:
        wind.topic("T", keep=timedelta(days=1))
        await wind.fire("T")
        assert await kept(wind) == {"T": 1}
        clock.set_wall(clock.wall() + int(YEARS_S * 1e9))  # as far as events are concerned, it was 2016 up to now
        await until(lambda: keeps(wind, T=0), meanwhile=lambda: clock.advance(61))

    on_wind(path, clock, work)


def test_a_quiet_store_is_trimmed_after_a_restart_though_no_event_comes(path: Path) -> None:
    on_wind(path, FakeClock(), fire_one)

    async def look(wind: SolarWind) -> None:
        await until(lambda: keeps(wind, T=0))

    on_wind(path, ahead(8 * 24 * 3600), look)


@pytest.mark.parametrize("shorter", [timedelta(0), timedelta(hours=1)])
def test_a_shorter_keep_takes_effect_at_once_in_pieces(
    path: Path, shorter: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_TRIM_ROWS", 3)
    clock = FakeClock()

    async def work(wind: SolarWind) -> None:
        for _ in range(20):
            await wind.fire("T")
        await wind.fire("U")
        await clock.advance(2 * 3600)
        wind.topic("T", keep=shorter)
        await until(lambda: keeps(wind, T=0, U=1))

    on_wind(path, clock, work)


def test_a_transaction_of_trimming_ends_when_its_time_is_up_however_many_ids_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_TRIM_S", 0)

    async def work() -> None:
        store = SqliteStore(str(path))
        await store.open(1)
        for first in range(3):
            ids: list[str | None] = [f"{first}-{number}" for number in range(100)]
            await store.commit([batch("a", 100, first=100 * first, ids=ids)], [], [], 1)
        trims = [await store.trim("a", Spans([300, 1 << 60]), None, 0) for _ in range(4)]
        assert (trims, await store.find("1-7")) == ([100, 100, 100, 0], None)
        await store.close()

    asyncio.run(work())
    assert check(str(path)) == []


def test_what_is_replayed_while_history_goes_is_handled_or_was_gone_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_TRIM_ROWS", 3)
    seen: list[int] = []

    async def work(wind: SolarWind) -> None:
        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            seen.append(number)

        for number in range(40):
            await wind.fire("T", number)
        await wind.settled(60)
        seen.clear()
        wind.topic("T", keep=timedelta(0))
        count = await wind.replay("T", "p", since="beginning", until="now")
        await wind.settled(60)
        assert len(seen) == count
        assert sorted(seen) == list(range(40 - count, 40))

    on_wind(path, FakeClock(), work)


def test_the_file_shrinks_by_itself_after_trimming_while_commits_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_FREE_BYTES", 1 << 20)
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 1 << 20)

    async def work(wind: SolarWind) -> None:
        for _ in range(12):
            await wind.fire_many("T", ["x" * 50_000] * 20)
        await until(lambda: path.stat().st_size > 8 << 20)
        wind.topic("T", keep=timedelta(0))
        number = 0

        async def is_small() -> bool:
            nonlocal number
            number += 1
            await wind.fire("U", number)
            return path.stat().st_size < 3 << 20

        await until(is_small)
        assert (await kept(wind)) == {"T": 0, "U": number}

    on_wind(path, FakeClock(), work)
    assert check(str(path)) == []


def test_what_may_be_trimmed_is_found_among_many_dead_letters_a_piece_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, select = 0, reading.select

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return select(*arguments)

    monkeypatch.setattr(reading, "_TRIM_SEARCH", 20)
    monkeypatch.setattr(reading, "select", counted)

    async def work() -> None:
        store = SqliteStore(str(path))
        await store.open(0)
        await store.commit([batch("T", 100, first=100 * number) for number in range(60)], [], [], now=1)
        pinned = Spans.of(position for position in range(5_900) if position % 3 == 0)
        pinned.add(1_000, 3_000)
        for before, max_bytes in ((1 << 62, None), (None, 0)):
            assert await store.trim("T", pinned, before, max_bytes) == (100 if before else 0)
        assert await store.history("T") == (5_900, store._known.topics["T"].bytes)
        await store.close()

    asyncio.run(asyncio.wait_for(work(), 300))
    assert asked < 50, "not one question for each of two thousand gaps"
