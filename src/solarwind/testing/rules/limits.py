"""The limits of a purpose: how many events it is handed out in a time, and how many it has in flight at most."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...errors import BadArgument, ConflictError
from ...event import Event
from ...failure import Retry
from ...shares import Share
from ...wind import SolarWind
from .delay import counts_of, noting
from .place import Place, a_while, all_reported, on_loop, refused, until

BAD_RATES: list[Any] = ["100", "0/s", "-1/s", "100/fortnight", "1.5/s", "2000000/s", "", 100, True, ["1/s"]]
BAD_MAXIMA: list[Any] = [0, -1, 1.5, True, "4", 1_000_000_000]


class Holding:
    """Handlers that hold what they get until they are let go."""

    def __init__(self, wind: SolarWind, instances: int, **options: Any) -> None:
        self.held: list[asyncio.Future[None]] = []
        self.payloads: list[Any] = []
        self.highest = 0
        for _ in range(instances):
            wind.on("T", purpose="p", **options)(self.handle)

    async def handle(self, event: Event) -> None:
        future = asyncio.get_running_loop().create_future()
        self.held.append(future)
        self.payloads.append(event.payload)
        self.highest = max(self.highest, len(self.held))
        await future

    def let_go(self) -> None:
        self.held.pop(0).set_result(None)

    async def let_all_go(self, count: int) -> None:
        """Let so many handlers return, one after the other."""
        for _ in range(count):
            await until(lambda: self.held, "a handler that has an event")
            self.let_go()


class LimitRules:
    """The rules of the limits of a purpose."""

    @on_loop
    async def test_a_purpose_is_handed_out_no_more_than_its_rate_over_all_instances(self, place: Place) -> None:
        wind, loop = place.open(), asyncio.get_running_loop()
        seen = noting(wind, rate="20/s")
        noting(wind, rate="20/s")
        others = noting(wind, "other")
        async with wind:
            await wind.joined()
            began = loop.time()
            await wind.fire_many("T", range(24))
            await until(lambda: len(others) == 24, "the purpose without a limit")
            await wind.settled(60)
            took = loop.time() - began
            # A tenth of a second's worth may come at once, and the others follow one in 50 ms.
            assert took > (24 - 2) * 0.05 - 0.02
            assert len(seen) < 24, "both instances had their part"
            assert (await counts_of(wind)).settled == 24

    @on_loop
    async def test_what_waits_for_its_rate_is_handed_out_when_it_is_its_turn(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen = noting(wind, rate="1/m")
        async with wind:
            await wind.fire_many("T", ["a", "b", "c"])
            await until(lambda: seen == ["a"])
            await all_reported(wind)
            found = await counts_of(wind)
            assert (found.rate, found.at_most, found.limited, found.pending) == ("1/m", None, True, 2)
            await clock.advance(59.9)
            await a_while()
            assert seen == ["a"]
            await clock.advance(0.2)
            await until(lambda: seen == ["a", "b"])
            await all_reported(wind)
            await clock.advance(60)
            await wind.settled(60)
            assert seen == ["a", "b", "c"]
            assert not (await counts_of(wind)).limited
            await clock.advance(600)
            await wind.fire_many("T", ["d", "e"])
            await until(lambda: seen[3:] == ["d"])
            await a_while()
            assert seen[3:] == ["d"], "what was not used is not saved up"
            await all_reported(wind)
            await clock.advance(61)
            await wind.settled(60)

    @on_loop
    async def test_a_retry_counts_for_the_rate(self, place: Place) -> None:
        clock = place.clock()
        wind, attempts = place.open(), list[int]()

        @wind.on("T", purpose="p", rate="1/m", retry=Retry(attempts=2, wait=0))
        async def fail(event: Event) -> None:
            attempts.append(event.attempt)
            raise ValueError("no")

        async with wind:
            await wind.fire("T")
            await until(lambda: attempts == [1])
            await all_reported(wind)
            await clock.advance(59)
            await a_while()
            assert attempts == [1]
            await clock.advance(2)
            await wind.settled(60)
            assert attempts == [1, 2]

    @on_loop
    async def test_a_slow_rate_is_kept_over_a_restart(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        seen = noting(wind, rate="1/h")
        async with wind:
            await wind.fire_many("T", [1, 2])
            await until(lambda: seen == [1])
        wind = place.restart()
        seen = noting(wind, rate="1/h")
        async with wind:
            await clock.advance(3_000)
            await a_while()
            assert seen == []
            await clock.advance(601)
            await until(lambda: seen == [2])

    @on_loop
    async def test_no_more_events_are_in_flight_than_the_maximum_over_all_instances(self, place: Place) -> None:
        wind = place.open()
        holding = Holding(wind, 3, at_most=4)
        async with wind:
            await wind.joined()
            await wind.fire_many("T", range(20))
            await until(lambda: len(holding.held) == 4)
            found = await counts_of(wind)
            assert (found.rate, found.at_most, found.limited, found.in_flight) == (None, 4, True, 4)
            await a_while()
            assert len(holding.held) == 4
            await holding.let_all_go(20)
            await wind.settled(60)
            assert holding.highest == 4
            assert sorted(holding.payloads) == list(range(20))
            assert not (await counts_of(wind)).limited

    @on_loop
    async def test_of_a_keyed_purpose_no_more_keys_are_in_flight_than_the_maximum(self, place: Place) -> None:
        wind = place.open()
        holding = Holding(wind, 2, at_most=2, exchange="keyed")
        async with wind:
            await wind.joined()
            await wind.fire_many("T", range(12), keys=list("abcd" * 3))
            await holding.let_all_go(12)
            await wind.settled(60)
            assert holding.highest <= 2
            for key in range(4):
                its = [each for each in holding.payloads if each % 4 == key]
                assert its == sorted(its)

    @on_loop
    async def test_an_event_that_fails_or_is_given_back_makes_room(self, place: Place) -> None:
        wind, seen = place.open(), list[int]()

        @wind.on("T", purpose="p", at_most=1, retry=Retry(attempts=1))
        async def fail(number: int) -> None:
            seen.append(number)
            raise ValueError("no")

        async with wind:
            await wind.fire_many("T", [1, 2, 3])
            await wind.settled(60)
            assert seen == [1, 2, 3]
            await wind.off(fail)
            async with wind.listen("T", "p", at_most=1) as events:
                await wind.fire_many("T", [4, 5])
                assert (await anext(events)).payload == 4
            async with wind.listen("T", "p", at_most=1) as events:
                assert [(await anext(events)).payload for _ in range(2)] == [4, 5]

    @on_loop
    async def test_a_call_that_takes_too_long_makes_room_and_is_an_attempt(self, place: Place) -> None:
        wind, attempts = place.open(), list[tuple[int, int]]()

        @wind.on("T", purpose="p", at_most=1, timeout=0.05, retry=Retry(attempts=2, wait=0))
        async def hang(number: int, event: Event) -> None:
            attempts.append((number, event.attempt))
            await asyncio.get_running_loop().create_future()

        async with wind:
            await wind.fire_many("T", [1, 2])
            await wind.settled(60)
            assert sorted(attempts) == [(1, 1), (1, 2), (2, 1), (2, 2)]
            assert (await counts_of(wind)).in_flight == 0

    @on_loop
    async def test_versions_side_by_side_keep_together_to_the_limits_of_the_current_one(self, place: Place) -> None:
        wind = place.open()
        holding = Holding(wind, 1, at_most=2)
        wind.on("T", purpose="p", version=2, rollout=Share(0.5))(holding.handle)
        async with wind:
            await wind.joined()
            await wind.fire_many("T", range(30))
            await holding.let_all_go(30)
            await wind.settled(60)
            assert holding.highest == 2
            versions = (await wind.rollout("T", "p")).versions
            assert [(each.version, each.at_most, each.rate) for each in versions] == [(1, 2, None), (2, None, None)]
            assert all(each.settled for each in versions)

    @on_loop
    async def test_a_new_version_changes_the_limits(self, place: Place) -> None:
        wind = place.open()
        holding = Holding(wind, 1, at_most=1)
        async with wind:
            await wind.fire_many("T", range(6))
            await until(lambda: len(holding.held) == 1)
            wind.on("T", purpose="p", version=2, at_most=3, rate="1000/s")(holding.handle)
            await wind.joined()
            await until(lambda: len(holding.held) == 3)
            found = await counts_of(wind)
            assert (found.rate, found.at_most) == ("1000/s", 3)
            await holding.let_all_go(6)
            await wind.settled(60)
            assert holding.highest == 3

    @on_loop
    async def test_instances_of_a_version_state_the_same_limits(self, place: Place) -> None:
        wind = place.open()
        async with wind, wind.listen("T", "p", rate="5/s", at_most=3), wind.listen("T", "p", rate="5/s", at_most=3):
            others: tuple[dict[str, Any], ...] = ({}, {"rate": "5/s"}, {"at_most": 3}, {"rate": "6/s", "at_most": 3})
            for other in others:
                stream = wind.listen("T", "p", **other)
                await refused(
                    stream.open(), ConflictError, "exchange 'direct' with rate='5/s' with at_most=3", "version=2"
                )

    @on_loop
    async def test_what_is_no_limit_is_refused_where_it_is_stated(self, place: Place) -> None:
        wind = place.open()
        for bad in BAD_RATES:
            with pytest.raises(BadArgument, match=r"^expected a rate such as '100/s', .* got "):
                wind.on("T", purpose="p", rate=bad)
            with pytest.raises(BadArgument, match=r"^expected a rate such as '100/s', .* got "):
                wind.listen("T", "p", rate=bad)
        for bad in BAD_MAXIMA:
            with pytest.raises(BadArgument, match=r"^expected at_most to be an integer from 1 to 999,999,999, got "):
                wind.on("T", purpose="p", at_most=bad)
        limits: tuple[dict[str, Any], ...] = ({"rate": "1/s"}, {"at_most": 1})
        for limit in limits:
            with pytest.raises(BadArgument, match=r"^expected no limit with exchange 'fanout', .*: leave it out"):
                wind.on("T", purpose="p", exchange="fanout", **limit)
