"""What an operator can ask about purposes and their instances."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from ...errors import NotFound
from ...failure import Retry
from ...origin import MACHINE, process_name
from ...records import InstanceInfo, PurposeRates
from ...wind import SolarWind
from .place import Place, on_loop, refused, until


async def only_instance(wind: SolarWind) -> InstanceInfo:
    (found,) = await wind.instances("T")
    return found


async def oldest(wind: SolarWind) -> datetime | None:
    return (await wind.statistics()).purposes["T", "p"].oldest


class FactRules:
    """The rules of what is shown of instances, and of the age of what pends."""

    @on_loop
    async def test_an_instance_is_shown_with_where_it_runs_since_when_and_what_it_has_in_hand(
        self, place: Place
    ) -> None:
        wind, go_on, before = place.open(), asyncio.Event(), datetime.now(UTC)

        @wind.on("T", purpose="p", version=3, concurrency=2)
        async def handle(number: int) -> None:
            await go_on.wait()

        @wind.on("U", purpose="other")
        async def pass_by(number: int) -> None: ...

        async with wind:
            await wind.fire_many("T", range(2))
            await until(lambda: _has_in_hand(wind, 2))
            found = await only_instance(wind)
            assert (found.topic, found.purpose, found.version) == ("T", "p", 3)
            assert (found.machine, found.process, found.state) == (MACHINE, process_name(), "running")
            assert before - timedelta(hours=1) < found.since <= found.heard
            assert (found.room, found.settled, found.error) == (2, 0, None)
            assert [each.purpose for each in await wind.instances()] == ["p", "other"]
            go_on.set()
            await wind.settled(60)
            found = await only_instance(wind)
            assert (found.in_hand, found.settled) == (0, 2)
            assert 0 < found.rate <= 2
        async with place.open() as other:
            await until(lambda: _nobody_is_up(other))

    @on_loop
    async def test_a_store_is_shown_with_how_long_its_commits_take(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None: ...

        async with wind:
            await wind.fire("T", 1)
            await wind.settled(60)
            stores = await wind.stores()
            assert sum(sum(each.commits.counts) for each in stores) > 0
            assert sum(each.commits.sum_s for each in stores) > 0
            assert len({each.store for each in stores}) == len(stores)
            assert not any(each.full for each in stores)
            assert all(each.free is None or each.size is not None for each in stores)

    @on_loop
    async def test_who_watches_gets_all_facts_and_then_what_changes(self, place: Place) -> None:
        wind, seen = place.open(), list[dict[str, Any]]()

        @wind.on("T", purpose="p")
        def handle(number: int) -> None: ...

        async with wind:
            async for change in wind.watch(("purposes", "topics"), topic="T"):
                if not seen:
                    assert change["snapshot"]["interval"] == 1
                    await wind.fire("T", 1)
                seen.append(change)
                if change.get("purposes", {}).get("T/p", {}).get("settled") == 1:
                    break
            assert any(each.get("topics", {}).get("T", {}).get("fired") == 1 for each in seen)

    @on_loop
    async def test_an_instance_is_shown_with_the_last_error_of_its_handler(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p", retry=Retry(attempts=1))
        async def handle(number: int) -> None:
            raise ValueError(f"no room for {number}" + "x" * 10_000)

        async with wind:
            for number in range(2):
                await wind.fire("T", number)
                await wind.settled(60)
            found = await only_instance(wind)
        assert found.error is not None
        assert "no room for 1" in found.error
        assert len(found.error) == 500

    @on_loop
    async def test_an_instance_whose_lease_ended_is_shown_as_silent_until_it_is_heard_of(self, place: Place) -> None:
        clock, go_on = place.clock(), asyncio.Event()
        wind = place.open()

        @wind.on("T", purpose="p", lease=36_000.0)
        async def handle(number: int) -> None:
            await go_on.wait()

        async with wind:
            await wind.fire("T", 1)
            await until(lambda: _has_in_hand(wind, 1))
            heard = (await only_instance(wind)).heard
            clock.advance(36_001)
            found = await only_instance(wind)
            assert (found.state, found.heard, found.in_hand) == ("silent", heard, 0)
            go_on.set()
            await until(lambda: _is(wind, "running"))
            assert (await only_instance(wind)).heard > heard

    @on_loop
    async def test_the_oldest_event_that_is_not_settled_is_shown_also_after_a_restart(self, place: Place) -> None:
        wind, go_on = place.open(), asyncio.Event()

        @wind.on("T", purpose="p", concurrency=1)
        async def handle(number: int) -> None:
            if number:
                await go_on.wait()

        async with wind:
            assert await oldest(wind) is None
            await wind.off(handle)
            first, second = await wind.fire("T", 0), await wind.fire("T", 1)
            assert await oldest(wind) == (await wind.trace(first)).event.time
        if place.durable:
            wind = place.restart()
            wind.on("T", purpose="p", concurrency=1)(handle)
            async with wind:
                await until(lambda: _has_in_hand(wind, 1))
                await until(lambda: _settled(wind, 1))
                assert await oldest(wind) == (await wind.trace(second)).event.time, "also while it is in flight"
                go_on.set()
                await wind.settled(60)
                assert await oldest(wind) is None

    @on_loop
    async def test_the_oldest_of_a_fanouts_copies_is_shown(self, place: Place) -> None:
        wind, go_on = place.open(), asyncio.Event()
        wind.topic("T", keep=3600)  # else what a slow test asks of is trimmed by then

        @wind.on("T", purpose="p", exchange="fanout", concurrency=1)
        async def handle(number: int) -> None:
            await go_on.wait()

        async with wind:
            first = await wind.fire("T", 0)
            await until(lambda: _has_in_hand(wind, 1))
            second = await wind.fire("T", 1)
            await until(lambda: _pending(wind, 1))
            assert await oldest(wind) == (await wind.trace(second)).event.time > (await wind.trace(first)).event.time
            go_on.set()
            await wind.settled(60)
            assert await oldest(wind) is None

    @on_loop
    async def test_rates_are_the_events_of_the_last_minutes_and_not_those_from_before_a_restart(
        self, place: Place
    ) -> None:
        wind = place.open()

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.001))
        async def handle(number: int) -> None:
            if number < 0:
                raise ValueError("negative")

        async with wind:
            await wind.fire_many("T", [1, 2, 3, -1])
            await until(lambda: _dead(wind, 1))
            await wind.settled(60)
            history = await wind.rates("T", "p")
            assert (history.topic, history.purpose) == ("T", "p")
            for counts, slots in ((history.seconds, 300), (history.ten_seconds, 360), (history.minutes, 1440)):
                assert {len(each) for each in (counts.fired, counts.settled, counts.retried, counts.dead)} == {slots}
            assert [*map(sum, (history.minutes.fired, history.minutes.settled))] == [4, 3]
            assert [*map(sum, (history.minutes.retried, history.minutes.dead))] == [1, 1]
            found = (await wind.statistics()).purposes["T", "p"].rates
            assert sum(found.recent) in (0, 3), "nothing more where this took five minutes"
            assert 0 <= found.settled <= 0.3
            await refused(wind.rates("T", "q"), NotFound, "'q'")
            for topic, name in ((None, ""), ("T", "T")):
                total = await wind.all_rates(topic)
                assert (total.topic, total.purpose, total.minutes) == (name, "", history.minutes)
            assert sum((await wind.all_rates("U")).minutes.fired) == 0
        if place.durable:
            async with place.restart() as again:
                history = await again.rates("T", "p")
                assert sum(history.minutes.settled) == sum(history.minutes.fired) == 0
                assert (await again.statistics()).purposes["T", "p"].rates == PurposeRates()

    @on_loop
    async def test_rates_are_means_of_the_last_ten_seconds(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None: ...

        async with wind:
            await wind.fire_many("T", range(5))
            await wind.settled(60)
            statistics = await wind.statistics()
            found = statistics.purposes["T", "p"].rates
            assert (found.fired, found.settled, found.retried, found.dead) == (0.5, 0.5, 0.0, 0.0)
            assert statistics.topics["T"].fired_per_s == 0.5
            clock.advance(100)
            await wind.fire_many("T", range(2))
            await wind.settled(60)
            found = (await wind.statistics()).purposes["T", "p"].rates
            assert found.settled == 0.2
            assert [each for each in found.recent if each] == [5, 2]
            assert found.recent[-11] == 5
            clock.advance(600)
            assert (await wind.statistics()).purposes["T", "p"].rates == PurposeRates()


async def _has_in_hand(wind: SolarWind, count: int) -> bool:
    return (await only_instance(wind)).in_hand == count


async def _nobody_is_up(wind: SolarWind) -> bool:
    return not await wind.instances()


async def _is(wind: SolarWind, state: str) -> bool:
    return (await only_instance(wind)).state == state


async def _pending(wind: SolarWind, count: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].pending == count


async def _dead(wind: SolarWind, count: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].dead == count


async def _settled(wind: SolarWind, count: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].settled == count
