"""Joining and leaving a purpose, and leases."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import partial

import pytest

from ...errors import ConflictError, NotFound, Unavailable
from ...event import Event
from ...failure import Reject, Retry
from ...wind import SolarWind
from .place import Place, on_loop, refused, until


class JoiningRules:
    """The rules of exchanges and joining a purpose."""

    @on_loop
    async def test_another_statement_for_a_version_is_a_conflict(self, place: Place) -> None:
        """The error names both statements and the way out; other instances go on undisturbed."""
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p")
        async def first(number: int) -> None:
            seen.append(number)

        async with wind:

            @wind.on("T", purpose="p", exchange="fanout")
            async def second(number: int) -> None:
                seen.append(-1)

            text = str(await refused(wind.joined(), ConflictError, "'p'", "'T'", "'direct'", "'fanout'", "version=2"))
            assert "version 1" in text
            await wind.fire_many("T", range(10))
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert seen == list(range(10))
        assert (counts.exchange, counts.instances, counts.versions) == ("direct", 1, (1,))

    @on_loop
    async def test_joining_with_another_key_is_a_conflict(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p", exchange="keyed", key="$.a")
        async def first() -> None: ...

        @wind.on("T", purpose="p", exchange="keyed", key="$.b")
        async def second() -> None: ...

        await refused(wind.start(), ConflictError, "$.a", "$.b", "version=2")

    @on_loop
    async def test_a_statement_outlives_a_restart(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p")
        async def first() -> None: ...

        async with wind:
            pass
        wind = place.restart()

        @wind.on("T", purpose="p", exchange="keyed")
        async def second() -> None: ...

        await refused(wind.start(), ConflictError, "'direct'", "'keyed'")

    @on_loop
    async def test_a_new_version_may_state_another_exchange(self, place: Place) -> None:
        """The highest version with a live instance gets the events."""
        wind = place.open()
        seen: list[tuple[int, int]] = []

        @wind.on("T", purpose="p")
        async def first(number: int, event: Event) -> None:
            seen.append((number, event.version))

        @wind.on("T", purpose="p", exchange="keyed", version=2)
        async def second(number: int, event: Event) -> None:
            seen.append((number, event.version))

        async with wind:
            await wind.fire("T", 1)
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.versions, counts.exchange, counts.instances) == ((1, 2), "keyed", 2)
            await wind.off(second)
            await wind.fire("T", 2)
            await wind.settled(60)
        assert seen == [(1, 2), (2, 1)]

    @on_loop
    async def test_what_pends_when_a_version_states_fanout_pends_on_until_one_joins_that_pends(
        self, place: Place
    ) -> None:
        """Nothing of it is lost or uncounted, whether it waited for a retry or was never handed out."""
        wind = place.open()
        seen: list[tuple[int, int]] = []

        async def handle(number: int, event: Event) -> None:
            seen.append((event.version, number))
            if event.version == 1:
                raise ValueError("not yet")

        on = partial(wind.on, "T", purpose="p")
        async with wind:
            first = on(retry=Retry(attempts=1000, wait=0.05, ceiling=0.05))(handle)
            await wind.joined()
            await wind.fire_many("T", [0, 1])
            await until(lambda: len(seen) >= 2, "both to be tried")
            await wind.off(first)
            await wind.fire("T", 2)
            seen.clear()
            page = on(version=2, exchange="fanout")(handle)
            await wind.joined()
            await wind.fire("T", 3)
            await until(lambda: seen, "the copy")
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.exchange, counts.pending, counts.dead, counts.dropped) == ("fanout", 3, 0, 0)
            await wind.off(page)
            await refused(wind.retire("T", "p"), ConflictError, "3 pending events")
            on(version=3)(handle)
            await wind.settled(60)
        assert sorted(seen) == [(2, 3), (3, 0), (3, 1), (3, 2)]

    @on_loop
    async def test_retire_is_refused_while_something_is_left(self, place: Place) -> None:
        """The error names pending events, dead letters and live instances."""
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            if number == 0:
                raise Reject("no")

        async with wind:
            await refused(wind.retire("T", "p"), ConflictError, "1 live instance", "force")
            await wind.fire("T", 0)
            await wind.settled(60)
            await wind.off(handle)
            await refused(wind.retire("T", "p"), ConflictError, "1 dead letter")
            await wind.fire_many("T", [1, 2])
            text = str(await refused(wind.retire("T", "p"), ConflictError, "2 pending events", "1 dead letter"))
            assert "instance" not in text.partition(":")[0]
            assert await wind.discard("T", "p", None) == 1
            wind.on("T", purpose="p")(handle)
            await wind.settled(60)
            await wind.off(handle)
            await wind.retire("T", "p")
            assert await wind.purposes() == []
            await refused(wind.retire("T", "p"), NotFound, "'p'", "'T'")
            await wind.fire("T", 3)

    @on_loop
    async def test_retire_by_force_deletes_the_purpose_with_its_events(self, place: Place) -> None:
        """The purpose is deleted with all its events, its instances are told, and its name is free again."""
        wind = place.open()
        seen: list[int] = []
        async with wind:
            stream = await wind.listen("T", "p").open()
            await wind.fire_many("T", range(5))
            assert (await anext(stream)).payload == 0
            await wind.retire("T", "p", force=True)
            await refused(anext(stream), Unavailable, "retired")
            await stream.aclose()
            assert await wind.purposes() == []

            @wind.on("T", purpose="p", exchange="fanout")
            async def again(number: int) -> None:
                seen.append(number)

            await wind.joined()
            await wind.fire("T", 5)
            await wind.settled(60)
        assert seen == [5]

    @on_loop
    async def test_retired_stays_retired_across_a_restart(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle() -> None: ...

        async with wind:
            await wind.off(handle)
            await wind.fire("T")
            await wind.retire("T", "p", force=True)
        async with place.restart() as wind:
            assert await wind.purposes() == []

    @on_loop
    async def test_when_a_lease_ends_another_takes_over_and_the_late_settle_is_refused(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What the late instance fired does not count either."""
        clock = place.clock()
        wind = place.open()
        gate = asyncio.Event()
        begun: list[tuple[str, int]] = []
        fired: list[str] = []

        def service(name: str) -> None:
            @wind.on("T", purpose="p", lease=20, concurrency=1)
            async def handle(event: Event) -> None:
                begun.append((name, event.attempt))
                wind.fire("child", name)
                if len(begun) == 1:
                    await gate.wait()

        @wind.on("child", purpose="q")
        async def child(name: str) -> None:
            fired.append(name)

        service("one")
        service("two")
        async with wind:
            await wind.fire("T")
            await until(lambda: begun)
            clock.advance(19)
            assert len(begun) == 1
            clock.advance(2)
            await until(lambda: len(begun) == 2, "the other instance to take over")
            await until(lambda: fired, "what it fired")
            with caplog.at_level(logging.WARNING, "solarwind"):
                gate.set()
                await until(lambda: caplog.records, "the late settle to be refused")
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert begun[0][1] == 1
        assert begun[1][1] == 2
        assert begun[0][0] != begun[1][0]
        assert fired == [begun[1][0]]
        assert (counts.settled, counts.pending, counts.in_flight) == (1, 0, 0)
        assert "does not count" in caplog.records[0].getMessage()

    @on_loop
    async def test_an_instance_that_hung_gets_events_again_once_it_is_heard_of(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        gate = asyncio.Event()
        begun: list[int] = []

        @wind.on("T", purpose="p", lease=20, concurrency=1)
        async def handle(number: int) -> None:
            begun.append(number)
            if len(begun) == 1:
                await gate.wait()

        async with wind:
            await wind.fire_many("T", [1, 2])
            await until(lambda: begun)
            clock.advance(21)
            await until(lambda: _has_pending(wind, 2), "the events to be taken away")
            gate.set()
            await wind.settled(60)
        assert begun == [1, 1, 2]

    @on_loop
    async def test_an_event_at_which_every_instance_hangs_is_dead_in_the_end(self, place: Place) -> None:
        """An attempt counts although no report came; the other events are handled."""
        clock = place.clock()
        wind = place.open()
        gate = asyncio.Event()
        attempts: list[int] = []
        seen: list[int] = []

        def service() -> None:
            @wind.on("T", purpose="p", lease=10, concurrency=1, retry=Retry(attempts=2, wait=0))
            async def handle(number: int, event: Event) -> None:
                if number == 0:
                    attempts.append(event.attempt)
                    await gate.wait()
                    raise RuntimeError("much too late")
                seen.append(number)

        for _ in range(3):
            service()
        async with wind:
            await wind.fire_many("T", range(5))
            await until(lambda: len(seen) == 4, "the others", meanwhile=lambda: clock.advance(1))
            await until(lambda: _dead(wind), "the end of it", meanwhile=lambda: clock.advance(1))
            assert [(letter.event.payload, letter.attempts) for letter in await wind.dead("T", "p")] == [(0, 2)]
            gate.set()
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert attempts == [1, 2]
        assert sorted(seen) == [1, 2, 3, 4]
        assert (counts.settled, counts.dead) == (4, 1)

    @on_loop
    async def test_a_lease_is_renewed_while_the_handler_runs(self, place: Place) -> None:
        """In real time, because it is the service that renews it; a process may stand still for a second meanwhile."""
        wind = place.open()
        begun: list[int] = []

        @wind.on("T", purpose="p", lease=3.0)
        async def handle(event: Event) -> None:
            begun.append(event.attempt)
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(4.0, over.set)
            await over.wait()

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
        assert begun == [1]

    @on_loop
    async def test_an_instance_that_leaves_gives_back_what_it_did_not_start(self, place: Place) -> None:
        """It does so at once, and no attempt is counted."""
        wind = place.open()
        gate = asyncio.Event()
        first_saw: list[int] = []
        second_saw: list[tuple[int, int]] = []

        @wind.on("T", purpose="p", concurrency=5)
        async def first(numbers: list[int]) -> None:
            first_saw.extend(numbers)
            await gate.wait()

        async with wind:
            await wind.fire("T", 0)
            await until(lambda: first_saw)
            leaving = asyncio.ensure_future(wind.off(first))
            await wind.fire_many("T", range(1, 50))

            @wind.on("T", purpose="p")
            async def second(number: int, event: Event) -> None:
                second_saw.append((number, event.attempt))

            await until(lambda: len(first_saw) + len(second_saw) >= 50, "the rest to be handled")
            gate.set()
            await leaving
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert 0 in first_saw
        assert sorted(first_saw + [number for number, _ in second_saw]) == list(range(50))
        assert {attempt for _, attempt in second_saw} == {1}
        assert (counts.settled, counts.retried) == (50, 0)

    @on_loop
    async def test_what_waits_in_an_instance_goes_to_another_when_it_leaves(self, place: Place) -> None:
        wind = place.open()
        gate = asyncio.Event()
        begun: list[int] = []
        others: list[int] = []
        quick = True

        @wind.on("T", purpose="p", concurrency=1)
        async def first(number: int) -> None:
            begun.append(number)
            if not quick:
                await gate.wait()

        async with wind:
            await wind.fire_many("T", range(1_000))  # so that its room grows
            await wind.settled(60)
            quick = False
            begun.clear()
            await wind.fire_many("T", range(50))
            await until(lambda: begun)
            leaving = asyncio.ensure_future(wind.off(first))

            @wind.on("T", purpose="p")
            async def second(number: int) -> None:
                others.append(number)

            await until(lambda: len(others) == 49, "all but the one that was begun")
            gate.set()
            await leaving
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert begun == [0]
        assert sorted(others) == list(range(1, 50))
        assert counts.settled == 1_050

    @on_loop
    async def test_slow_instances_hold_no_more_than_they_can_handle_soon(self, place: Place) -> None:
        """Two instances with slow handlers share a burst evenly, and hold no more than they can do soon."""
        wind = place.open()
        handled: Counter[str] = Counter()
        max_in_flight = 0

        def service(name: str) -> None:
            @wind.on("T", purpose="p", concurrency=1)
            async def handle(event: Event) -> None:
                nonlocal max_in_flight
                over = asyncio.Event()
                asyncio.get_running_loop().call_later(0.02, over.set)
                await over.wait()
                handled[name] += 1
                max_in_flight = max(max_in_flight, (await wind.statistics()).purposes["T", "p"].in_flight)

        service("one")
        service("two")
        async with wind:
            await wind.fire_many("T", range(60))
            await wind.settled(60)
        assert handled.total() == 60
        assert min(handled.values()) >= 22, handled
        assert max_in_flight <= 14, "100 ms of work each is 5 events each"

    @on_loop
    async def test_a_handler_that_becomes_slow_gives_back_its_surplus(self, place: Place) -> None:
        """Its room had grown with fast events; other instances do not wait until it has handled what it holds."""
        wind = place.open()
        gate = asyncio.Event()
        begun: list[int] = []
        others: list[int] = []
        quick = True

        @wind.on("T", purpose="p", concurrency=1)
        async def first(number: int) -> None:
            begun.append(number)
            if not quick:
                await gate.wait()

        async with wind:
            await wind.fire_many("T", range(2_000))
            await wind.settled(60)
            quick = False
            begun.clear()
            await wind.fire_many("T", range(100))
            await until(lambda: begun)

            @wind.on("T", purpose="p")
            async def second(number: int) -> None:
                others.append(number)

            await until(lambda: len(others) >= 97, "the surplus to be given back")
            gate.set()
            await wind.settled(60)
        assert sorted(begun + others) == list(range(100))

    @on_loop
    async def test_a_handler_registered_while_running_joins_at_once(self, place: Place) -> None:
        wind = place.open()
        seen: dict[str, list[int]] = {"first": [], "second": [], "third": []}
        async with wind:
            for number, name in enumerate(seen):

                @wind.on("T", purpose=name, retry=Retry(attempts=1))
                async def handle(number: int, event: Event) -> None:
                    seen[event.purpose].append(number)

                await wind.joined()
                await wind.fire("T", number)
            await wind.settled(60)
            assert [info.purpose for info in await wind.purposes("T")] == ["first", "second", "third"]
            assert await wind.purposes("U") == []
        assert seen == {"first": [0, 1, 2], "second": [1, 2], "third": [2]}

    @on_loop
    async def test_off_removes_all_instances_of_a_function(self, place: Place) -> None:
        wind = place.open()
        seen: list[str] = []

        @wind.on("T", purpose="p")
        @wind.on("U", purpose="q")
        async def handle(event: Event) -> None:
            seen.append(event.topic)

        async with wind:
            await wind.fire("T")
            await wind.fire("U")
            await wind.settled(60)
            await wind.off(handle)
            await wind.fire("T")
            await wind.fire("U")
            purposes = (await wind.statistics()).purposes
        assert sorted(seen) == ["T", "U"]
        assert [(counts.instances, counts.pending) for counts in purposes.values()] == [(0, 1), (0, 1)]


async def _dead(wind: SolarWind) -> bool:
    return (await wind.statistics()).purposes["T", "p"].dead > 0


async def _has_pending(wind: SolarWind, count: int) -> bool:
    statistics = await wind.statistics()
    return bool(statistics.purposes["T", "p"].pending == count)
