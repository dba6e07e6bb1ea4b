"""How `fanout` hands out copies."""

from __future__ import annotations

import asyncio
import logging

import pytest

from .place import Place, on_loop, until


class FanoutRules:
    """The rules of copies."""

    @on_loop
    async def test_fanout_without_an_instance_drops_and_counts(self, place: Place) -> None:
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p", exchange="fanout")
        async def show(number: int) -> None:
            seen.append(number)

        async with wind:
            await wind.fire("T", 0)
            await wind.settled(60)
            await wind.off(show)
            await wind.fire_many("T", range(1, 6))
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.instances, counts.pending, counts.dropped, counts.settled) == (0, 0, 5, 1)
            wind.on("T", purpose="p", exchange="fanout")(show)
            await wind.joined()
            await wind.fire("T", 6)
            await wind.settled(60)
        assert seen == [0, 6]

    @on_loop
    async def test_a_slow_fanout_instance_drops_its_oldest_and_nobody_else_waits(self, place: Place) -> None:
        wind = place.open()
        gate = asyncio.Event()
        slow_saw: list[int] = []
        quick_saw: list[int] = []
        direct_saw: list[int] = []

        @wind.on("T", purpose="p", exchange="fanout", concurrency=1)
        async def slow(number: int) -> None:
            slow_saw.append(number)
            await gate.wait()

        @wind.on("T", purpose="p", exchange="fanout")
        async def quick(number: int) -> None:
            quick_saw.append(number)

        @wind.on("T", purpose="other")
        async def other(number: int) -> None:
            direct_saw.append(number)

        async with wind:
            for start in range(0, 13_000, 1_000):
                await wind.fire_many("T", range(start, start + 1_000))
                await until(lambda stop=start + 1_000: len(quick_saw) == stop)  # type: ignore[misc]
            await until(lambda: len(direct_saw) == 13_000, "the direct purpose")
            counts = (await wind.statistics()).purposes["T", "p"]
            assert counts.pending <= 10_000
            gate.set()
            await wind.settled(60)
            after = (await wind.statistics()).purposes["T", "p"]
        assert quick_saw == list(range(13_000))
        assert after.dropped == 13_000 - len(slow_saw)
        assert 2_980 <= after.dropped <= 3_000
        # The one in its hands is the first; its buffer then holds the youngest.
        assert slow_saw[0] == 0
        assert len(set(slow_saw)) == len(slow_saw)
        assert sorted(slow_saw)[-9_990:] == list(range(3_010, 13_000))

    @on_loop
    async def test_a_burst_of_a_whole_buffer_and_what_comes_as_it_drains_is_not_dropped(self, place: Place) -> None:
        """Nothing is handled before the whole burst is there, so that the result does not depend on speed."""
        wind = place.open()
        gate = asyncio.Event()
        first: list[int] = []
        second: list[int] = []

        @wind.on("T", purpose="p", exchange="fanout")
        async def one(number: int) -> None:
            await gate.wait()
            first.append(number)

        @wind.on("T", purpose="p", exchange="fanout")
        async def other(number: int) -> None:
            await gate.wait()
            second.append(number)

        async def has_room() -> bool:
            counts = (await wind.statistics()).purposes["T", "p"]
            return counts.pending + counts.in_flight <= 9_000

        async with wind:
            await wind.fire_many("T", range(10_000))
            gate.set()
            for start in range(10_000, 15_000, 1_000):
                await until(has_room, "room for a thousand more with each instance")
                await wind.fire_many("T", range(start, start + 1_000))
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert sorted(first) == sorted(second) == list(range(15_000))  # ten at a time: under load in another order
        assert (counts.settled, counts.dropped) == (30_000, 0)

    @on_loop
    async def test_a_fanout_handler_that_raises_is_logged_and_counted(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()
        calls: list[int] = []

        @wind.on("T", purpose="Live page", exchange="fanout")
        async def show(number: int) -> None:
            calls.append(number)
            if number == 1:
                raise RuntimeError("no such page")

        with caplog.at_level(logging.ERROR, "solarwind"):
            async with wind:
                receipts = wind.fire_many("T", range(3))
                await wind.settled(60)
                counts = (await wind.statistics()).purposes["T", "Live page"]
        assert calls == [0, 1, 2], "there is nothing to retry"
        assert (counts.settled, counts.dropped, counts.dead, counts.retried) == (2, 1, 0, 0)
        texts = [record.getMessage() for record in caplog.records if record.name == "solarwind"]
        assert len(texts) == 1
        for word in (receipts.ids[1], "'T'", "'Live page'", "now dropped"):
            assert word in texts[0]

    @on_loop
    async def test_a_fanout_instance_that_leaves_drops_what_it_held(self, place: Place) -> None:
        """The copies are counted as dropped, and no other instance gets them."""
        wind = place.open()
        gate = asyncio.Event()
        seen: dict[str, list[int]] = {"slow": [], "quick": []}

        @wind.on("T", purpose="p", exchange="fanout", concurrency=1)
        async def slow(number: int) -> None:
            seen["slow"].append(number)
            await gate.wait()

        @wind.on("T", purpose="p", exchange="fanout")
        async def quick(number: int) -> None:
            seen["quick"].append(number)

        async with wind:
            await wind.fire_many("T", range(100))
            await until(lambda: len(seen["quick"]) == 100)
            leaving = asyncio.ensure_future(wind.off(slow))
            gate.set()
            await leaving
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert seen["slow"] == [0]
        assert (counts.settled, counts.dropped, counts.pending, counts.in_flight) == (101, 99, 0, 0)
