"""A purpose's own delay: it gets each event so long after it was accepted, in order, while others get it at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ...errors import BadArgument, ConflictError
from ...event import Event
from ...failure import Retry
from ...records import PurposeStatistics
from ...shares import Share
from ...wind import SolarWind
from .place import Place, a_while, all_reported, on_loop, refused, until

BAD_DELAYS: list[Any] = [-1, timedelta(seconds=-1), timedelta(days=4_000), float("nan"), True, "soon", [60]]
EXCHANGES = ["direct", "keyed", "fanout"]


def noting(wind: SolarWind, purpose: str = "p", **more: Any) -> list[Any]:
    """Register a purpose, and return the payloads that it gets, as they come."""
    seen: list[Any] = []

    @wind.on("T", purpose=purpose, **more)
    async def note(event: Event) -> None:
        seen.append(event.payload)

    return seen


async def counts_of(wind: SolarWind, purpose: str = "p") -> PurposeStatistics:
    return (await wind.statistics()).purposes["T", purpose]


async def waiting(wind: SolarWind, count: int, purpose: str = "p") -> None:
    """Wait until the dispatcher has so many events that wait for the delay."""

    async def all_there() -> bool:
        return (await counts_of(wind, purpose)).delayed == count

    await until(all_there, f"{count} events of {purpose!r} that are delayed")


class DelayRules:
    """The rules of a purpose's own delay."""

    @pytest.mark.parametrize("exchange", EXCHANGES)
    @on_loop
    async def test_a_purpose_gets_each_event_so_long_after_it_was_accepted_and_others_at_once(
        self, place: Place, exchange: str
    ) -> None:
        clock = place.clock()
        wind = place.open()
        late, now = noting(wind, exchange=exchange, delay="1m"), noting(wind, "now", exchange=exchange)
        async with wind:
            await wind.fire("T", 1, key="a")
            await until(lambda: now == [1])
            await waiting(wind, 1)
            await clock.advance(20)
            await wind.fire_many("T", [2, 3], keys=["b", "a"])
            await until(lambda: len(now) == 3)
            await waiting(wind, 3)
            await all_reported(wind)
            await clock.advance(39)
            await a_while()
            assert late == []
            await clock.advance(1.1)
            await until(lambda: late == [1])
            await waiting(wind, 2)
            await clock.advance(18.8)
            await a_while()
            assert late == [1]
            await clock.advance(1.1)
            await wind.settled(60)
            assert late == [1, 2, 3]
            counts = await counts_of(wind)
            assert (counts.settled, counts.pending, counts.delayed, counts.delayed_until) == (3, 0, 0, None)

    @on_loop
    async def test_what_waits_for_a_delay_pends_and_is_counted_apart(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        noting(wind, delay=timedelta(hours=1))
        async with wind:
            id = await wind.fire("T", 1)
            await wind.fire_many("T", [2, 3])
            await waiting(wind, 3)
            counts = await counts_of(wind)
            assert (counts.delay, counts.pending, counts.in_flight, counts.state) == (3600.0, 3, 0, "running")
            assert counts.delayed_until is not None
            assert counts.oldest is not None
            ahead = counts.delayed_until - counts.oldest
            assert timedelta(minutes=50) <= ahead < timedelta(minutes=70)
            (outcome,) = (await wind.event("T", id)).outcomes
            assert outcome.state == "waiting"
            assert outcome.until is not None
            assert await wind.attention() == []
            (version,) = (await wind.rollout("T", "p")).versions
            assert version.delay == 3600.0
            with pytest.raises(TimeoutError, match=r"3 pending \(0 of them for a retry, 3 for the delay\)"):
                await wind.settled(0.05)
            await clock.advance(3_601)
            await wind.settled(60)

    @on_loop
    async def test_nobody_is_missed_before_an_event_has_waited(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        async with wind:
            async with wind.listen("T", "p", delay=60):
                pass
            await wind.fire("T", 1)
            await waiting(wind, 1)
            counts = await counts_of(wind)
            assert (counts.state, counts.pending) == ("running", 1)
            await clock.advance(61)

            async def nobody_up() -> bool:
                counts = await counts_of(wind)
                return (counts.state, counts.pending, counts.delayed) == ("nobody up", 1, 0)

            await until(nobody_up)
            await wind.fire("T", 2)
            await waiting(wind, 1)
            assert (await counts_of(wind)).pending == 2

    @on_loop
    async def test_what_is_behind_is_not_counted_as_delayed(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        async with wind, wind.listen("T", "p", delay=60) as events:
            for number in range(40):
                await wind.fire("T", number)
            await waiting(wind, 40)
            await clock.advance(30)
            for number in range(40, 60):
                await wind.fire("T", number)
            await waiting(wind, 60)
            await clock.advance(31)
            assert (await anext(events)).payload == 0
            await waiting(wind, 20)
            counts = await counts_of(wind)
            assert counts.pending + counts.in_flight == 60

    @on_loop
    async def test_a_delay_goes_on_after_a_restart(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        noting(wind, delay=60)
        async with wind:
            await wind.fire_many("T", range(3))
            await waiting(wind, 3)
            await clock.advance(10)
        wind = place.restart()
        seen = noting(wind, delay=60)
        async with wind:
            await waiting(wind, 3)
            await clock.advance(49)
            await a_while()
            assert seen == []
            await clock.advance(12)
            await wind.settled(60)
            assert seen == [0, 1, 2]

    @on_loop
    async def test_a_retry_does_not_wait_for_the_delay_again(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        attempts: list[int] = []

        @wind.on("T", purpose="p", delay=60, retry=Retry(attempts=3, wait=0))
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            raise RuntimeError("no")

        async with wind:
            await wind.fire("T")
            await waiting(wind, 1)
            await clock.advance(61)
            await wind.settled(60)
            assert attempts == [1, 2, 3]
            await wind.redrive("T", "p")
            await wind.settled(60)
            assert attempts == [1, 2, 3] * 2

    @on_loop
    async def test_what_is_replayed_has_waited(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        wind.topic("T", keep=3_600)
        seen = noting(wind, delay=60)
        async with wind:
            await wind.fire("T", 1)
            await waiting(wind, 1)
            await clock.advance(61)
            await wind.settled(60)
            await wind.replay("T", "p", "beginning")
            await wind.settled(60)
            assert seen == [1, 1]

    @pytest.mark.parametrize("exchange", EXCHANGES)
    @on_loop
    async def test_a_new_version_changes_the_delay_of_what_waits(self, place: Place, exchange: str) -> None:
        clock = place.clock()
        wind = place.open()
        first = noting(wind, exchange=exchange, delay=60)
        async with wind:
            await wind.fire_many("T", [1, 2])
            await waiting(wind, 2)
            second = noting(wind, exchange=exchange, version=2, delay=300)
            await wind.joined()
            await waiting(wind, 2)
            await clock.advance(200)
            await a_while()
            assert (first, second) == ([], [])
            await clock.advance(101)
            await until(lambda: second == [1, 2])
            await wind.fire("T", 3)
            await waiting(wind, 1)
            third = noting(wind, exchange=exchange, version=3)
            await wind.joined()
            await until(lambda: third == [3])
            await wind.fire("T", 4)
            await wind.settled(60)
            assert (first, second, third) == ([], [1, 2], [3, 4])
            assert (await counts_of(wind)).delay == 0.0

    @on_loop
    async def test_versions_with_shares_have_delays_of_their_own(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        current = noting(wind)
        async with wind:
            await wind.fire("T", -1)
            await until(lambda: current == [-1])
            part = noting(wind, version=2, rollout=Share(0.5), delay=60)
            await wind.joined()
            await wind.fire_many("T", range(40))

            async def all_else_is_done() -> bool:
                counts = await counts_of(wind)
                others = counts.pending - counts.delayed + counts.in_flight  # what is delayed is about a half
                return counts.settled == len(current) > 10 and not others

            await until(all_else_is_done)
            assert part == []
            await clock.advance(61)
            await wind.settled(60)
            assert sorted(current + part) == list(range(-1, 40))
            assert len(part) >= 10

    @on_loop
    async def test_a_shadow_gets_its_copies_after_its_own_delay(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        current = noting(wind)
        async with wind:
            shadow = noting(wind, version=2, rollout="shadow", delay=60)
            await wind.joined()
            await wind.fire_many("T", range(3))
            await until(lambda: len(current) == 3)
            await a_while()
            assert shadow == []
            await all_reported(wind)
            await clock.advance(61)
            await until(lambda: shadow == [0, 1, 2])

    @on_loop
    async def test_a_fan_out_copies_to_those_who_are_there_when_an_event_has_waited(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen: list[tuple[str, Any]] = []

        def instance(name: str) -> Callable[[Event], Awaitable[None]]:
            async def note(event: Event) -> None:
                seen.append((name, event.payload))

            return wind.on("T", purpose="p", exchange="fanout", delay=60)(note)

        early = instance("early")
        async with wind:
            await wind.fire("T", 1)
            await waiting(wind, 1)
            await clock.advance(30)
            instance("late")
            await wind.joined()
            await wind.off(early)
            await clock.advance(31)
            await until(lambda: seen == [("late", 1)])
            await wind.settled(60)

    @on_loop
    async def test_an_event_that_a_fan_out_is_to_copy_waits_until_then(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        wind.topic("T", keep=3_600)
        seen = noting(wind, exchange="fanout", delay=60)
        async with wind:
            id = await wind.fire("T", 1)
            await waiting(wind, 1)
            (outcome,) = (await wind.event("T", id)).outcomes
            assert (outcome.state, outcome.version) == ("waiting", 1)
            assert outcome.until is not None
            first = (await counts_of(wind)).delayed_until
            assert first is not None
            # NATS has the real time of the event, and not the dispatcher's.
            assert abs(outcome.until - first) < timedelta(seconds=50)
            await clock.advance(61)
            await until(lambda: seen == [1])
            await waiting(wind, 0)
            (outcome,) = (await wind.event("T", id)).outcomes
            assert (outcome.state, outcome.until) == ("copied", None)

    @on_loop
    async def test_a_fan_out_without_instances_drops_what_has_waited_and_holds_no_history(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()

        wind.topic("T", keep=0)

        async def note(event: Event) -> None:
            raise AssertionError("nobody is there")

        wind.on("T", purpose="p", exchange="fanout", delay=60)(note)
        async with wind:
            await wind.fire("T", 1)
            await waiting(wind, 1)
            await clock.advance(50)
            await a_while()
            assert [each.kept for each in await wind.topics()] == [1]
            await wind.off(note)

            async def nothing_kept() -> bool:
                await clock.advance(61)
                return [each.kept for each in await wind.topics()] == [0]

            await until(nothing_kept)
            counts = await counts_of(wind)
            assert (counts.pending, counts.delayed, counts.dropped) == (0, 0, 1)
            await wind.settled(60)

    @on_loop
    async def test_an_event_that_expires_while_it_waits_is_not_handed_out(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen = noting(wind, delay=60)
        async with wind:
            await wind.fire("T", 1, expires=30)
            await wind.fire("T", 2, expires=600)
            await waiting(wind, 2)
            await clock.advance(61)
            await wind.settled(60)
            assert seen == [2]
            assert (await counts_of(wind)).expired == 1

    @on_loop
    async def test_an_event_that_is_due_later_waits_from_when_it_enters_its_topic(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen, now = noting(wind, delay=60), noting(wind, "now")
        async with wind:
            await wind.fire("T", 1, after=30)
            await clock.advance(31)
            await until(lambda: now == [1])
            await waiting(wind, 1)
            await all_reported(wind)
            await clock.advance(55)
            await a_while()
            assert seen == []
            await clock.advance(6)
            await until(lambda: seen == [1])

    @on_loop
    async def test_a_clock_that_is_set_back_makes_nothing_early_and_stalls_nothing(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen = noting(wind, delay=60)
        async with wind:
            await wind.fire("T", 1)
            await waiting(wind, 1)
            clock.set_wall(clock.wall() - 10 * 365 * 86_400 * 10**9)
            await wind.fire("T", 2)
            await waiting(wind, 2)
            await clock.advance(59)
            await a_while()
            assert seen == []
            for _ in range(13):
                await clock.advance(10)
                await a_while()
            await until(lambda: seen == [1, 2])

    @on_loop
    async def test_a_purpose_that_is_paused_gets_what_has_waited_once_it_is_resumed(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen = noting(wind, delay=60)
        async with wind:
            await wind.fire("T", 1)
            await waiting(wind, 1)
            await wind.pause("T", "p")
            await clock.advance(61)
            await a_while()
            assert seen == []
            await wind.resume("T", "p")
            await until(lambda: seen == [1])

    @on_loop
    async def test_instances_of_a_version_state_the_same_delay(self, place: Place) -> None:
        wind = place.open()
        async with wind, wind.listen("T", "p", delay=60), wind.listen("T", "p", delay=timedelta(minutes=1)):
            for other in (0, None, 61):
                stream = wind.listen("T", "p", delay=other)
                await refused(stream.open(), ConflictError, "exchange 'direct' with delay=60", "version=2")

    @on_loop
    async def test_a_delay_is_from_0_to_ten_years(self, place: Place) -> None:
        wind = place.open()
        for bad in BAD_DELAYS:
            with pytest.raises(BadArgument, match=r"expected a delay as seconds, .* from 0 to ten years, got "):
                wind.on("T", purpose="p", delay=bad)
            with pytest.raises(BadArgument, match=r"expected a delay as seconds, .* from 0 to ten years, got "):
                wind.listen("T", "p", delay=bad)
