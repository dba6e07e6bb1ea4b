"""What a program that ends is told."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from solarwind import SolarWind, Unavailable, lifecycle
from solarwind.testing.contract import on_loop, until


@on_loop
async def test_leaving_memory_with_events_unhandled_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wind = SolarWind("memory://")

    @wind.on("T", purpose="p")
    async def handle() -> None: ...

    with caplog.at_level(logging.WARNING, "solarwind"):
        async with wind:
            wind.fire_many("T", range(3))
        async with wind:
            await wind.settled(60)
    [line] = caplog.messages
    assert line.startswith("stopped with 3 events on memory:// not handled")


@on_loop
async def test_run_where_a_loop_runs_is_refused() -> None:
    with pytest.raises(Unavailable, match=r"expected run\(\) where no event loop runs.*: use `async with wind:` there"):
        SolarWind("memory://").run()


@on_loop
async def test_run_in_another_thread_than_the_main_one_is_refused() -> None:
    with pytest.raises(Unavailable, match=r"expected run\(\) in the main thread.*: use `with wind:`"):
        await asyncio.to_thread(SolarWind("memory://").run)


def test_with_where_no_loop_can_be_made_raises_instead_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(lifecycle, "_new_loop", no_files)
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            SolarWind("memory://").__enter__()
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(60)
    assert [str(error) for error in raised] == ["[Errno 24] Too many open files"]


@on_loop
async def test_who_waits_for_what_nobody_here_can_settle_is_told_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "STILL_S", 0.01)
    wind = SolarWind("memory://")
    async with wind:
        async with wind.listen("T", "p"):
            pass
        await wind.fire("T")
        wind.on("T", purpose="p", version=2, exchange="fanout")(lambda: None)
        await wind.joined()
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(lifecycle._until_over(wind, asked, True))

        def said() -> list[str]:
            return [each.getMessage() for each in caplog.records if "not settled yet" in each.getMessage()]

        await until(said)
        asked.set_result(None)
        await waiting
        (line,) = said()
        assert "1 pending" in line
        assert "what pends for 'p' on 'T' needs a version whose exchange pends" in line
        with pytest.raises(TimeoutError, match="needs a version whose exchange pends"):
            await wind.settled(0.01)
