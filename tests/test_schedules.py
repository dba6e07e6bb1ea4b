"""Schedules whose dispatcher fails, or is killed, between an event and the note that it was fired."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from server.serving import Serving
from solarwind import Event, SolarWind, StoreError
from solarwind.engine.schedules import KIND
from solarwind.store.definitions import StoredDefinitions
from solarwind.testing.contract import on_loop, until

MANY = 3


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
            await first.pause_schedule("s")
            await first.settled(60)
            ids = [event.id for event in await first.events("T", limit=10_000)]
        assert len(set(ids)) == len(ids)
        assert set(handled) == set(ids)
    finally:
        server.kill()
