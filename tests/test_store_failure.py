"""What a process sees when its store breaks its promise, or has no room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from solarwind import SolarWind, StoreError, Unavailable
from solarwind.batch import Batch
from solarwind.core.effects import Report
from solarwind.core.log import Stored
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Snapshot
from solarwind.engine.held_reports import HeldReports
from solarwind.engine.local import LocalEngine
from solarwind.store.base import Full
from solarwind.store.memory import MemoryStore


class Failing(MemoryStore):
    """Refuses every commit that has batches, once `error` is set."""

    error: Exception | None = None

    async def commit(
        self, batches: Sequence[Batch], changes: Sequence[Change], snapshots: Sequence[Snapshot], now: int, *more: Any
    ) -> list[Stored | None]:
        await asyncio.sleep(0)
        if self.error is not None and batches:
            raise self.error
        return await super().commit(batches, changes, snapshots, now, *more)


def test_whoever_waits_for_a_commit_of_unknown_outcome_is_told_and_everything_stops() -> None:
    async def main() -> None:
        store = Failing()
        wind = SolarWind(engine=LocalEngine(store), grace=0)

        @wind.on("T", purpose="p")
        async def handle() -> None: ...

        @wind.on("slow", purpose="p")
        async def never() -> None:
            await asyncio.Event().wait()

        async with wind:
            await wind.fire("slow")
            settled = asyncio.ensure_future(wind.settled(600))
            stream = wind.listen("T", "q")
            listening = asyncio.ensure_future(anext(stream))
            await wind.fire("T")
            await listening
            again = asyncio.ensure_future(anext(stream))
            store.error = StoreError("the disk is gone")
            with pytest.raises(StoreError, match="the disk is gone"):
                await wind.fire("T")
            with pytest.raises(Unavailable, match="the disk is gone"):
                await again
            with pytest.raises(StoreError, match="the disk is gone"):
                await wind.settled(60)
            with pytest.raises(StoreError, match="the disk is gone"):
                await asyncio.wait_for(settled, 60)  # it does not wait for its own time limit
            with pytest.raises(StoreError, match="the disk is gone"):
                await wind.statistics()
            assert isinstance(wind.failed.exception(), StoreError)

    asyncio.run(asyncio.wait_for(main(), 300))


def test_a_full_store_refuses_what_is_fired_goes_on_settling_and_goes_on_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        store = Failing()
        wind = SolarWind(engine=LocalEngine(store))
        gate = asyncio.Event()

        @wind.on("T", purpose="p")
        async def handle() -> None:
            await gate.wait()

        async with wind:
            await wind.fire("T")
            store.error = Full("no room: free some")
            with pytest.raises(StoreError, match="no room: free some"):
                await wind.fire("T")
            (found,) = await wind.attention()
            assert (found.urgency, found.kind) == ("high", "store full")
            assert "no room: free some" in found.text
            gate.set()
            await wind.settled(60)
            assert (await wind.statistics()).purposes["T", "p"].settled == 1
            store.error = None
            await wind.fire("T")
            await wind.settled(60)
            assert await wind.attention() == []
            assert (await wind.statistics()).purposes["T", "p"].settled == 2
            await wind.fire("T")
            said = [each.message for each in caplog.records if each.levelname == "WARNING"]
            assert said == ["no room: free some", "there is room again"]

    asyncio.run(asyncio.wait_for(main(), 300))


def test_attention_says_that_a_store_is_nearly_full() -> None:
    async def main() -> None:
        wind = SolarWind(engine=LocalEngine(MemoryStore(20_000)))
        async with wind:
            async with wind.listen("T", "p"):
                assert await wind.attention() == []
            await wind.fire("T", "x" * 19_100)
            assert [(each.urgency, each.kind) for each in await wind.attention()][1:] == [
                ("medium", "store nearly full")
            ]

    asyncio.run(asyncio.wait_for(main(), 300))


def test_what_a_handler_fired_waits_with_its_settle_until_there_is_room() -> None:
    async def main() -> None:
        store = Failing()
        wind = SolarWind(engine=LocalEngine(store))
        seen = []

        @wind.on("T", purpose="p")
        async def handle() -> None:
            wind.fire("U", 1)
            store.error = Full("no room: free some")

        @wind.on("U", purpose="p")
        async def follow(number: int) -> None:
            seen.append(number)

        async with wind:
            await wind.fire("T")
            with pytest.raises(TimeoutError):
                await wind.settled(0.4)
            assert seen == []
            store.error = None
            await wind.settled(60)
            assert seen == [1]

    asyncio.run(asyncio.wait_for(main(), 300))


def test_a_report_that_waited_for_room_counts_once_though_its_instance_left_meanwhile() -> None:
    async def main() -> None:
        counted: list[int] = []
        held = HeldReports(lambda report, fired: not counted.append(report.instance))
        future = held.add(Report(7, 1, Spans()), [])
        held.count_all(7)
        held.count_next()
        assert (counted, future.result()) == ([7], True)

    asyncio.run(main())
