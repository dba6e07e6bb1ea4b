"""Schedules whose dispatcher fails, or is killed, between an event and the note that it was fired."""

from __future__ import annotations

import shutil
import signal
import zoneinfo
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from server.serving import Serving
from solarwind import Event, Limits, SolarWind, StoreError
from solarwind.engine.schedules import KIND
from solarwind.schedule import Ticks
from solarwind.store.definitions import StoredDefinitions
from solarwind.testing.contract import on_loop, until
from solarwind.timing import ns_of, time_of

MANY = 3
SECOND = 1_000_000_000  # ns
TZPATH = zoneinfo.TZPATH


@pytest.mark.long
@on_loop
async def test_a_tick_is_fired_once_where_what_was_fired_could_not_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, failed = StoredDefinitions.put, [False]
    events: list[Event] = []

    async def failing(self: StoredDefinitions, kind: str, *given: Any, **more: Any) -> Any:
        if kind == KIND and events and not failed[0]:
            failed[0] = True
            raise StoreError("expected to write, but the disk failed")
        return await put(self, kind, *given, **more)

    monkeypatch.setattr(StoredDefinitions, "put", failing)
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db")

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        events.append(event)

    wind.every("1s", "T", name="s")
    async with wind:
        await until(lambda: len(events) >= MANY and failed[0])
        await wind.settled(60)
    assert "schedule 's' cannot be fired, which is tried again" in caplog.text
    ids = [event.id for event in events]
    assert len(set(ids)) == len(ids)


@on_loop
async def test_a_schedule_whose_time_zone_is_not_known_here_fires_nothing_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a store moves to a machine that has no zones, or older ones."""
    zone = tmp_path / "Here" / "Town"
    zone.parent.mkdir()
    shutil.copy(zone_file("Europe/Berlin"), zone)
    zoneinfo.reset_tzpath([str(tmp_path), *TZPATH])
    try:
        before, after = (SolarWind(f"sqlite:///{tmp_path}/wind.db") for _ in range(2))
        before.every("* * * * *", "T", name="s", zone="Here/Town")
        async with before:
            assert (await before.schedule("s")).next
        zone.unlink()
        zoneinfo.ZoneInfo.clear_cache()
        events: list[Event] = []

        @after.on("U", purpose="p")
        async def handle(event: Event) -> None:
            events.append(event)

        after.every("1s", "U", name="another")
        async with after:
            await until(lambda: events, "an event of the other schedule")
            found, attention = await after.schedule("s"), await after.attention()
            assert await after.run_schedule("s")
            await after.pause_schedule("s")
            assert await after.attention() == []
            await after.remove_schedule("s")
    finally:
        zoneinfo.reset_tzpath(TZPATH)
    assert found.next == ()
    assert "got 'Here/Town', which this machine does not know" in found.words
    assert [(each.kind, each.urgency, each.topic) for each in attention] == [("schedule stuck", "high", "T")]
    assert "'s' fires nothing: expected a time zone" in attention[0].text
    assert "schedule 's' fires nothing, since this machine cannot tell its ticks" in caplog.text


@on_loop
async def test_a_schedule_that_cannot_be_fired_is_tried_again_and_named_until_it_can() -> None:
    wind = SolarWind("memory://", limits=Limits(names=1))
    async with wind:
        await wind.fire("only", 1)
        wind.every("1s", "T", name="s")
        await until(lambda: attention_of(wind), "it is named")
        (found,) = await wind.attention()
    assert (found.kind, found.topic) == ("schedule stuck", "T")
    assert "'s' fires nothing: expected no more than 1 topics" in found.text


FOLDS = {
    "America/New_York": datetime(2026, 11, 1, 4, tzinfo=UTC),
    "Europe/Berlin": datetime(2026, 10, 25, 0, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2026, 4, 4, 14, tzinfo=UTC),  # by half an hour
    "America/Havana": datetime(2026, 11, 1, 4, tzinfo=UTC),
    "Antarctica/Troll": datetime(2026, 10, 25, 0, tzinfo=UTC),  # by two hours
}


@pytest.mark.parametrize("zone", FOLDS)
def test_the_last_tick_is_the_one_before_the_next_also_within_an_hour_that_comes_twice(zone: str) -> None:
    """Else a dispatcher that starts in it would find the same tick due again and again."""
    begin = ns_of(FOLDS[zone])
    for minutes in ("0", "30", "*/20", "59"):
        for hours in ("0", "1", "2", "*", "1-2"):
            ticks = Ticks(f"{minutes} {hours} * * *", zone)
            for time in range(begin, begin + 5 * 3_600 * SECOND, 613 * SECOND):
                last = ticks.until(time)
                assert last is not None
                following = ticks.after(last)
                assert following is not None
                assert last <= time < following, (minutes, hours, time_of(time))


async def attention_of(wind: SolarWind) -> bool:
    return bool(await wind.attention())


def zone_file(name: str) -> Path:
    """Return the file of a time zone on this machine."""
    found = [Path(folder) / name for folder in TZPATH if (Path(folder) / name).exists()]
    return found[0] if found else Path(str(files("tzdata.zoneinfo").joinpath(*name.split("/"))))


@pytest.mark.long
@on_loop
async def test_each_tick_has_one_event_though_two_processes_declare_it_and_the_server_is_killed(tmp_path: Path) -> None:
    server = Serving(tmp_path)
    await server.start()
    try:
        first, second = SolarWind(server.url), SolarWind(server.url)
        handled: list[str] = []

        @first.on("T", purpose="p")
        async def handle(event: Event) -> None:
            handled.append(event.id)

        for wind in (first, second):
            wind.every("1s", "T", name="s")
        async with first, second:
            for _ in range(3):
                count = len(handled)
                await until(lambda count=count: len(handled) >= count + 2, "more ticks")
                await server.end(signal.SIGKILL)
                await server.start()
            count = len(handled)
            await until(lambda: len(handled) >= count + 2, "more ticks")
            await first.schedules()  # which waits until it is back: events may come before
            await first.pause_schedule("s")
            await first.settled(60)
            ids = [event.id for event in await first.events("T", limit=10_000)]
        assert len(set(ids)) == len(ids)
        assert set(handled) == set(ids)
    finally:
        server.kill()
