"""Shadows: a version that gets a copy of what the current one gets, and is only compared with it."""

from __future__ import annotations

import asyncio
from contextvars import Context
from datetime import UTC, datetime
from functools import partial

from ...errors import ConflictError, NotAllowed, NotFound
from ...event import Event
from ...failure import Reject
from ...records import VersionInfo
from ...shares import Share
from ...wind import SolarWind
from .place import Place, on_loop, refused, until
from .rollouts import Seen, handled, handler, states


async def version(wind: SolarWind, number: int) -> VersionInfo:
    found = (await wind.rollout("T", "p")).versions
    return next(each for each in found if each.version == number)


async def compared(wind: SolarWind, number: int, count: int) -> None:
    """Wait until so many events of a shadow are compared."""

    async def enough() -> bool:
        return (await version(wind, number)).compared >= count

    await until(enough, f"{count} events of version {number} to be compared")


class ShadowRules:
    """The rules of shadows."""

    @on_loop
    async def test_a_shadow_gets_copies_and_nothing_that_it_settles_fires_or_fails_counts(self, place: Place) -> None:
        wind, seen = place.open(), Seen()

        @wind.on("T", purpose="p")
        async def current(number: int) -> None:
            seen.append((1, number))
            await wind.fire("U", number)

        async with wind:
            await wind.joined()

            @wind.on("T", purpose="p", version=2, rollout="shadow")
            async def shadow(number: int) -> None:
                seen.append((2, number))
                await wind.fire("U", number)
                await wind.fire("V", number)
                if number % 2:
                    raise ValueError("odd")

            await wind.joined()
            found = await wind.rollout("T", "p")
            assert states(found) == {1: "current", 2: "shadow"}
            assert [each.share for each in found.versions] == [1.0, 0.0]
            await wind.fire_many("T", range(10))
            await wind.settled(60)
            await compared(wind, 2, 10)
            assert sorted(seen) == [(each, number) for each in (1, 2) for number in range(10)]
            found_now = await wind.statistics()
            counts = found_now.purposes["T", "p"]
            assert (counts.settled, counts.retried, counts.dead, counts.pending, counts.in_flight) == (10, 0, 0, 0, 0)
            assert counts.version_states == ("current", "shadow")
            assert counts.state == "running"
            assert [sum(each.settled.counts) for each in counts.times] == [10, 0]
            assert [sum(each.handler.counts) for each in counts.times] == [10, 10]
            for each in (await wind.rollout("T", "p")).versions:
                assert each.mean_s is not None
                assert each.p95_s is not None
                assert 0 <= each.mean_s < 3600
            assert [(each.handled, each.settled) for each in (await wind.rollout("T", "p")).versions] == [
                (10, 10),
                (10, 0),
            ]
            assert {name: each.fired for name, each in found_now.topics.items()} == {"T": 10, "U": 10}
            assert await wind.dead("T", "p") == []

    @on_loop
    async def test_nothing_is_accepted_that_a_shadow_s_handler_fires_in_whatever_way(self, place: Place) -> None:
        wind, tasks = place.open(), set[asyncio.Task[None]]()
        returned, ended = asyncio.Event(), list[tuple[str, bool]]()
        fired: list[str] = []

        async def outlive(event: Event, where: str) -> None:
            await returned.wait()
            await wind.fire("U", f"{where}, later")
            fired.append(await wind.fire("U", f"{where}, later, now", now=True))
            await asyncio.to_thread(lambda: wind.fire("U", f"{where}, on a thread").wait(60))
            await asyncio.to_thread(lambda: wind.fire_many("U", [f"{where}, many on a thread"]).wait(60))
            ended.append((where, event.shadow))

        async def fire(event: Event, where: str) -> None:
            wind.fire("U", "held")
            await wind.fire("U", f"{where}, now", now=True, within=60)
            await wind.fire_many("U", [f"{where}, many", f"{where}, many now"], now=True)
            await asyncio.create_task(fire_now(f"{where}, task"))
            tasks.add(asyncio.create_task(outlive(event, where)))
            context = Context()  # in which nothing is handled
            tasks.add(asyncio.create_task(fire_because_of(event, where), context=context))

        async def fire_now(what: str) -> None:
            await wind.fire("U", what, now=True)

        async def fire_because_of(event: Event, where: str) -> None:
            await wind.fire("U", f"{where}, cause", cause=event)
            await wind.fire_many("U", [f"{where}, cause of many"], cause=event)

        @wind.on("T", purpose="p")
        async def current(event: Event) -> None:
            await fire(event, "current")

        async with wind:
            await wind.joined()
            wind.on("T", purpose="p", version=2, rollout="shadow")(partial(fire, where="shadow"))
            await wind.joined()
            await wind.fire("T", 0)
            await wind.settled(60)
            await compared(wind, 2, 1)
            returned.set()
            await asyncio.gather(*tasks)
            assert sorted(ended) == [("current", False), ("shadow", True)]
            assert len(set(fired)) == 2, "each has an id"
            topics = (await wind.statistics()).topics
            assert {name: each.fired for name, each in topics.items()} == {"T": 1, "U": 11}
            assert await wind.differences("T", "p") == []

    @on_loop
    async def test_what_a_shadow_made_of_events_is_shown_beside_the_current_s_where_it_differs(
        self, place: Place
    ) -> None:
        wind = place.open()

        @wind.on("T", purpose="p")
        async def current(number: int) -> None:
            if number == 1:
                raise Reject("not here")
            if number in (2, 3):
                await wind.fire("U", number, key="k")

        async with wind:
            await wind.joined()

            @wind.on("T", purpose="p", version=2, rollout="shadow")
            async def shadow(number: int) -> None:
                if number == 0:
                    raise ValueError("what is new is wrong")
                if number == 1:
                    raise Reject("nor here")
                if number == 2:
                    await wind.fire("U", number, key="k")
                if number == 3:
                    wind.fire_many("U", [33, 34])

            await wind.joined()
            assert await wind.differences("T", "p") == []
            ids = wind.fire_many("T", range(5)).ids
            await compared(wind, 2, 5)
            info = await version(wind, 2)
            assert (info.compared, info.differed, info.missed) == (5, 2, 0)
            found = {each.id: each for each in await wind.differences("T", "p")}
            assert found.keys() == {ids[0], ids[3]}
            raised, fired = found[ids[0]], found[ids[3]]
            assert (raised.version, raised.current.outcome, raised.current.error) == (2, "settled", None)
            assert raised.shadow.outcome == "failed"
            assert "what is new is wrong" in (raised.shadow.error or "")
            assert [(each.topic, each.key, each.payload) for each in fired.current.fired] == [("U", "k", "3")]
            assert [(each.topic, each.key, each.payload) for each in fired.shadow.fired] == [
                ("U", None, "33"),
                ("U", None, "34"),
            ]
            assert (fired.current.fired_count, fired.shadow.fired_count) == (1, 2)
            assert len(await wind.differences("T", "p", limit=1)) == 1
            assert (await wind.statistics()).purposes["T", "p"].dead == 1

    @on_loop
    async def test_what_the_current_version_let_expire_is_compared_and_a_copy_that_expired_is_missed(
        self, place: Place
    ) -> None:
        clock, wind, seen = place.clock(), place.open(), Seen()

        @wind.on("T", purpose="p")
        async def current(number: int) -> None: ...

        async def has_reported() -> bool:
            return (await version(wind, 2)).handled == 1

        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout="shadow")
            await wind.joined()
            await wind.off(current)
            id = await wind.fire("T", 0, expires="1h")
            await until(has_reported, "the shadow to have handled it")
            await clock.advance(3_700)
            wind.on("T", purpose="p")(current)
            await wind.joined()
            await wind.settled(60)
            await compared(wind, 2, 1)
            (found,) = await wind.differences("T", "p")
            assert (found.id, found.current.outcome, found.shadow.outcome) == (id, "expired", "settled")
            assert "expired before" in (found.current.error or "")
            await wind.fire("T", 1, expires=datetime(2020, 1, 31, tzinfo=UTC))
            await wind.fire("T", 2)
            await compared(wind, 2, 2)
            info = await version(wind, 2)
            assert (info.compared, info.differed, info.missed) == (2, 1, 1)
            assert (await wind.statistics()).purposes["T", "p"].expired == 2

    @on_loop
    async def test_a_shadow_holds_nobody_up_and_is_promoted_only_when_it_has_no_copies_in_hand(
        self, place: Place
    ) -> None:
        wind, seen, done = place.open(), Seen(), asyncio.Event()
        handler(wind, seen, 1)

        async def in_hand() -> bool:
            return (await version(wind, 2)).in_flight == 1

        async def idle() -> bool:
            return not (await version(wind, 2)).in_flight

        async with wind:
            await wind.joined()

            @wind.on("T", purpose="p", version=2)
            async def slow(number: int, event: Event) -> None:
                await done.wait()
                seen.append((2, number))

            await wind.joined()
            await wind.promote("T", "p", 1)
            found = await wind.shadow("T", "p", 2)
            assert states(found) == {1: "current", 2: "shadow"}
            try:
                id = await wind.fire("T", 0)
                await wind.settled(60)
                await until(in_hand, "the shadow to have its copy in hand")
                (its,) = (await wind.event("T", id)).outcomes
                assert (its.state, its.version) == ("settled", 1)
                for work in (wind.promote("T", "p", 2), wind.share("T", "p", 2, 0.5)):
                    await refused(work, ConflictError, "version 2", "no copies in hand, got 1", "share of 0")
                assert states(await wind.rollout("T", "p")) == {1: "current", 2: "shadow"}
                assert states(await wind.share("T", "p", 2, 0)) == {1: "current", 2: "draining"}
                await wind.fire("T", 1)
            finally:
                done.set()
            await until(idle, "the version to be done with its copy")
            assert states(await wind.rollout("T", "p")) == {1: "current", 2: "held"}
            assert states(await wind.promote("T", "p", 2)) == {1: "drained", 2: "current"}
            await wind.settled(60)
            assert sorted(seen) == [(1, 0), (1, 1), (2, 0)]
            assert await handled(wind, seen, range(5)) == {2: 5}

    @on_loop
    async def test_a_shadow_is_one_after_a_restart_too(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout="shadow")
            handler(wind, seen, 3, rollout=Share(0.5))
            await wind.joined()
            before = states(await wind.rollout("T", "p"))
        wind = place.restart()
        for number in (2, 3, 1):
            handler(wind, seen, number)
        async with wind:
            await wind.joined()
            assert states(await wind.rollout("T", "p")) == before == {1: "current", 2: "shadow", 3: "ramping 50 %"}
            await wind.fire_many("T", range(20))
            await wind.settled(60)
            its = [number for each, number in seen if each == 1]
            await compared(wind, 2, len(its))
            assert sorted(number for each, number in seen if each == 2) == sorted(its)
            assert sorted(number for each, number in seen if each != 2) == list(range(20))

    @on_loop
    async def test_a_shadow_that_has_no_meaning_is_refused_and_changes_nothing(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            await refused(wind.shadow("T", "p", 1), ConflictError, "another version of purpose 'p'")
            handler(wind, seen, 2, rollout="hold")
            handler(wind, seen, 3, exchange="fanout", rollout="hold")
            await wind.joined()
            before = await wind.rollout("T", "p")
            await refused(wind.shadow("T", "p", 9), NotFound, "one of 1, 2, 3, got 9, which never joined")
            await refused(wind.shadow("T", "p", 3), NotAllowed, "'fanout'")
            for work in (wind.shadow("T", "q", 1), wind.differences("T", "q")):
                await refused(work, NotFound, "'q'")
            assert await wind.rollout("T", "p") == before
            assert await wind.differences("T", "p") == []
