"""What became of one event, for each purpose on its topic."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from ...errors import NotFound
from ...event import Event
from ...failure import Reject, Retry
from ...origin import MACHINE, process_name
from ...records import HISTOGRAM_S, Outcome
from ...wind import SolarWind
from .place import Place, on_loop, refused, until

A_WHILE = timedelta(hours=1)  # by which clocks may differ


async def outcome(wind: SolarWind, topic: str, id: str, purpose: str = "p") -> Outcome:
    return next(each for each in (await wind.event(topic, id)).outcomes if each.purpose == purpose)


async def state(wind: SolarWind, topic: str, id: str, purpose: str = "p") -> str:
    return (await outcome(wind, topic, id, purpose)).state


class OutcomeRules:
    """The rules of what is said of one event."""

    @on_loop
    async def test_a_settled_event_is_shown_with_who_handled_it_when_and_in_how_many_attempts(
        self, place: Place
    ) -> None:
        wind, tries = place.open(), Counter[int]()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p", version=3, retry=Retry(wait=0.001))
        async def handle(event: Event) -> None:
            tries[event.payload] += 1
            if event.payload == 1 and tries[1] < 3:
                raise ValueError("not yet")

        @wind.on("T", purpose="other")
        async def pass_by(number: int) -> None: ...

        async with wind:
            before = datetime.now(UTC)
            ids = [await wind.fire("T", number, key="k") for number in range(3)]
            await wind.settled(60)
            for attempts, id in zip((1, 3, 1), ids, strict=True):
                found = await wind.event("T", id)
                assert (found.event.id, found.event.key, found.event.topic) == (id, "k", "T")
                assert [each.purpose for each in found.outcomes] == ["other", "p"]
                its = found.outcomes[1]
                assert (its.state, its.version, its.attempts) == ("settled", 3, attempts)
                assert (its.machine, its.process) == (MACHINE, process_name())
                assert its.since is not None
                assert its.ended is not None
                assert its.took_s is not None
                assert before - A_WHILE < its.since <= its.ended < before + A_WHILE
                assert 0 <= its.took_s < 3600
            assert [(await wind.event("T", id)).position for id in ids] == [0, 1, 2]
            assert found.event.payload == 2
        if place.durable:
            wind = place.restart()
            async with wind:
                its = await outcome(wind, "T", ids[1])
                assert (its.state, its.version, its.attempts, its.process) == ("settled", 3, 3, process_name())

    @on_loop
    async def test_an_event_is_shown_in_hand_and_those_behind_it_with_their_places(self, place: Place) -> None:
        wind, go_on = place.open(), asyncio.Event()

        @wind.on("T", purpose="p", version=2, concurrency=1)
        async def handle(number: int) -> None:
            await go_on.wait()

        async with wind:
            first = await wind.fire("T", 0)
            await until(lambda: _is(wind, first, "in hand"))
            found = await outcome(wind, "T", first)
            assert (found.version, found.attempts, found.process) == (2, 1, process_name())
            assert found.since is not None
            await wind.pause("T", "p")
            behind = [await wind.fire("T", number) for number in (1, 2)]
            await until(lambda: _is(wind, behind[1], "pending"))
            found, last = [await outcome(wind, "T", id) for id in behind]
            assert (found.state, found.place, last.state, last.place) == ("pending", 1, "pending", 2)
            assert (last.version, last.attempts, last.since) == (2, 0, None)
            go_on.set()
            await wind.resume("T", "p")
            await wind.settled(60)

    @on_loop
    async def test_an_event_that_waits_for_a_retry_is_shown_with_when_and_a_dead_one_with_its_error(
        self, place: Place
    ) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p", retry=Retry(wait=500.0, factor=1.0, ceiling=500.0))
        async def handle(number: int) -> None:
            if number:
                raise Reject(f"no room for {number}")
            raise ValueError("again")

        async with wind:
            waits, dead = await wind.fire("T", 0), await wind.fire("T", 1)
            await until(lambda: _is(wind, waits, "waiting"))
            found = await outcome(wind, "T", waits)
            assert found.until is not None
            assert (found.attempts >= 1, found.version) == (True, 1)
            await until(lambda: _is(wind, dead, "dead"))
            found = await outcome(wind, "T", dead)
            assert (found.attempts, found.version, found.process) == (1, 1, process_name())
            assert found.error is not None
            assert "no room for 1" in found.error
            assert found.ended is not None
            assert await wind.discard("T", "p", [dead]) == 1
            found = await outcome(wind, "T", dead)
            assert (found.state, found.error, found.attempts) == ("discarded", None, 1)

    @on_loop
    async def test_a_dead_letter_that_no_handler_had_is_shown_and_so_is_that_it_was_discarded(
        self, place: Place
    ) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p", version=3, exchange="keyed", key_missing="reject")
        async def handle(number: int) -> None: ...

        async with wind:
            id = await wind.fire("T", 0)
            await until(lambda: _is_dead(wind))
            dead = await outcome(wind, "T", id)
            assert (dead.state, dead.version, dead.attempts, dead.process) == ("dead", 3, 0, "")
            await wind.discard("T", "p", [id])
            discarded = await outcome(wind, "T", id)
            assert (discarded.state, discarded.version, discarded.attempts) == ("discarded", 3, 0)
            assert (discarded.since, discarded.took_s, discarded.ended) == (None, None, dead.ended)

    @on_loop
    async def test_an_event_that_is_handled_again_is_shown_as_it_is_now(self, place: Place) -> None:
        wind, rejects = place.open(), [True]
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            if rejects:
                raise Reject("no")

        async with wind:
            id = await wind.fire("T", 1)
            await until(lambda: _is(wind, id, "dead"))
            rejects.clear()
            assert await wind.redrive("T", "p") == 1
            await until(lambda: _is(wind, id, "settled"))
            await wind.pause("T", "p")
            assert await wind.replay("T", "p") == 1
            assert (await outcome(wind, "T", id)).state == "pending"
            await wind.resume("T", "p")
            await until(lambda: _is(wind, id, "settled"))

    @on_loop
    async def test_an_event_is_not_for_a_purpose_that_came_later_and_a_fanout_keeps_nothing_of_it(
        self, place: Place
    ) -> None:
        wind, got = place.open(), list[int]()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="live", exchange="fanout")
        async def show(number: int) -> None:
            got.append(number)

        async with wind:
            first = await wind.fire("T", 1)

            @wind.on("T", purpose="p")
            async def handle(number: int) -> None: ...

            await until(lambda: _has_purposes(wind, 2))
            second = await wind.fire("T", 2)
            await wind.settled(60)
            await until(lambda: len(got) == 2)
            assert await state(wind, "T", first) == "not for it"
            assert await state(wind, "T", second) == "settled"
            await until(lambda: _is(wind, second, "copied", "live"))

    @on_loop
    async def test_an_event_is_not_for_a_purpose_that_was_retired_and_made_anew_since(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p")
        async def reject(number: int) -> None:
            if number:
                raise Reject("no")

        async with wind:
            ids = [await wind.fire("T", number) for number in (0, 1)]
            await until(lambda: _is(wind, ids[0], "settled"))
            await until(lambda: _is(wind, ids[1], "dead"))
            await wind.off(reject)
            await wind.retire("T", "p", force=True)

            @wind.on("T", purpose="p")
            async def handle(number: int) -> None: ...

            await wind.joined()
            assert [await state(wind, "T", id) for id in ids] == ["not for it", "not for it"]
            assert await wind.replay("T", "p") == 2
            await wind.settled(60)
            assert [await state(wind, "T", id) for id in ids] == ["settled", "settled"]
        if place.durable:
            async with place.restart() as again:
                assert [await state(again, "T", id) for id in ids] == ["settled", "settled"]

    @on_loop
    async def test_a_trace_says_of_each_event_what_became_of_it(self, place: Place) -> None:
        wind = place.open()
        for topic in ("T", "U"):
            wind.topic(topic, keep=3600)

        @wind.on("T", purpose="p", version=2)
        async def handle(number: int) -> None:
            wind.fire("U", number)

        @wind.on("U", purpose="q")
        async def fail(number: int) -> None:
            raise Reject("no room")

        async with wind:
            id = await wind.fire("T", 1)
            await wind.settled(60)
            tree = await wind.trace(id)
            (its,), (child,) = tree.outcomes, tree.caused
            assert (its.purpose, its.state, its.version, its.attempts) == ("p", "settled", 2, 1)
            (its,) = child.outcomes
            assert (its.purpose, its.state, its.attempts) == ("q", "dead", 1)
            assert "no room" in str(its.error)

    @on_loop
    async def test_how_long_events_took_is_counted_for_each_version(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p", version=2, retry=Retry(attempts=2, wait=0.001))
        async def handle(number: int) -> None:
            if number < 0:
                raise ValueError("negative")

        async with wind:
            (times,) = (await wind.statistics()).purposes["T", "p"].times
            assert (times.version, sum(times.handler.counts), sum(times.settled.counts)) == (2, 0, 0)
            await wind.fire_many("T", [1, 2, -1])
            await until(lambda: _is_dead(wind))
            await wind.settled(60)
            (times,) = (await wind.statistics()).purposes["T", "p"].times
            assert times.version == 2
            assert sum(times.handler.counts) == 4, "each attempt"
            assert sum(times.settled.counts) == 2
            assert len(times.handler.counts) == len(times.settled.counts) == len(HISTOGRAM_S) + 1
            assert times.handler.sum_s >= 0 <= times.settled.sum_s
        if place.durable:
            async with place.restart() as again:
                assert (await again.statistics()).purposes["T", "p"].times == ()

    @on_loop
    async def test_an_id_that_no_event_has_is_refused_and_so_is_one_that_was_trimmed(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None: ...

        async with wind:
            await refused(wind.event("nowhere", "x"), NotFound, "'nowhere'")
            gone = await wind.fire("T", 1)
            await refused(wind.event("T", "upload-17"), NotFound, "which no event there ever had")
            await wind.settled(60)
            wind.topic("T", keep=0)
            await until(lambda: _is_trimmed(wind))
            await refused(wind.event("T", gone), NotFound, "not kept any more")
            await refused(wind.event("T", "upload-17"), NotFound, "among the 1 that were not kept")


async def _is(wind: SolarWind, id: str, what: str, purpose: str = "p") -> bool:
    return await state(wind, "T", id, purpose) == what


async def _is_dead(wind: SolarWind) -> bool:
    return (await wind.statistics()).purposes["T", "p"].dead == 1


async def _has_purposes(wind: SolarWind, count: int) -> bool:
    return len(await wind.purposes("T")) == count


async def _is_trimmed(wind: SolarWind) -> bool:
    return not any(each.kept for each in await wind.topics())
