"""Versions of a purpose side by side: what a new one does, shares, and how operators change them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from ...errors import BadArgument, BadName, ConflictError, NotAllowed, NotFound
from ...event import Event
from ...failure import Reject, Retry
from ...records import RolloutInfo
from ...shares import Share
from ...wind import SolarWind
from .place import Place, all_reported, on_loop, refused, until

Seen = list[tuple[int, int]]  # the version, and what it handled


def handler(wind: SolarWind, seen: Seen, version: int, **options: object) -> Callable[..., object]:
    """Register a version of the purpose, and return its function."""

    async def handle(number: int, event: Event) -> None:
        seen.append((event.version, number))

    return wind.on("T", purpose="p", version=version, **options)(handle)  # type: ignore[arg-type]


def states(found: RolloutInfo) -> dict[int, str]:
    return {each.version: each.state for each in found.versions}


async def handled(wind: SolarWind, seen: Seen, numbers: range | list[int], **options: object) -> Counter[int]:
    """Fire these numbers. Return how many of them each version handled; each of them once."""
    seen.clear()
    await wind.fire_many("T", numbers, **options)  # type: ignore[arg-type]
    await wind.settled(60)
    assert sorted(number for _, number in seen) == sorted(numbers)
    return Counter(version for version, _ in seen)


def about(found: Counter[int], expected: dict[int, int]) -> bool:
    """Return whether each number is at most 10 beside the expected one: four in a row go to one version."""
    return found.keys() == expected.keys() and all(abs(found[each] - expected[each]) <= 10 for each in expected)


async def _check_outcomes(wind: SolarWind, ids: Sequence[str], by: dict[str, int]) -> None:
    """Check that these events are settled, each at once by the version that handled it."""
    for id in ids:
        (its,) = (await wind.event("T", id)).outcomes
        assert (its.state, its.version, its.attempts) == ("settled", by[id], 1)


class RolloutRules:
    """The rules of versions side by side."""

    @on_loop
    async def test_a_new_version_is_current_held_or_has_a_share_as_it_states(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout="hold")
            await wind.joined()
            assert states(await wind.rollout("T", "p")) == {1: "current", 2: "held"}
            assert await handled(wind, seen, range(20)) == {1: 20}
            handler(wind, seen, 3, rollout=Share(0.5))
            await wind.joined()
            found = await wind.rollout("T", "p")
            assert states(found) == {1: "current", 2: "held", 3: "ramping 50 %"}
            assert [each.share for each in found.versions] == [0.5, 0.0, 0.5]
            assert about(await handled(wind, seen, range(100)), {1: 50, 3: 50})
            handler(wind, seen, 4)
            await wind.joined()
            found = await wind.rollout("T", "p")
            assert states(found) == {1: "drained", 2: "held", 3: "ramping 50 %", 4: "current"}
            assert (found.topic, found.purpose, found.current) == ("T", "p", 4)
            counts = (await wind.statistics()).purposes["T", "p"]
            assert counts.version_states == ("drained", "held", "ramping 50 %", "current")

    @on_loop
    async def test_when_a_version_joined_is_known_without_its_instances_and_after_a_restart(self, place: Place) -> None:
        wind, seen = place.open(), list[tuple[int, int]]()
        began = datetime.now(UTC)
        async with wind:
            first = handler(wind, seen, 1)
            await wind.joined()
            await wind.off(first)
            handler(wind, seen, 2, rollout="hold")
            await wind.joined()
            known = (await wind.statistics()).purposes["T", "p"].version_joined
            assert known[0] is not None
            assert known[1] is not None
            assert began - timedelta(seconds=1) <= known[0] <= known[1] <= datetime.now(UTC) + timedelta(seconds=1)
        async with place.restart() as wind:
            handler(wind, seen, 1, retry=Retry(attempts=3))
            await wind.joined()
            assert (await wind.statistics()).purposes["T", "p"].version_joined == known

    @on_loop
    async def test_a_share_is_exact_and_each_event_is_handled_once(self, place: Place) -> None:
        """Within a hundredth of it, over 10,000 events that have neither keys nor ids of their own."""
        wind, count = place.open(), Counter[int]()

        def on(version: int) -> None:
            @wind.on("T", purpose="p", version=version)
            async def handle(payloads: list[int], events: list[Event]) -> None:
                count[version] += len(payloads)

        on(1)
        async with wind:
            await wind.joined()
            on(2)
            await wind.joined()
            await wind.share("T", "p", 2, 0.1)
            for _ in range(5):
                await wind.fire_many("T", range(2_000))
            await wind.settled(60)
            found = await wind.rollout("T", "p")
        assert count.total() == 10_000
        assert abs(count[2] - 1_000) <= 10
        assert [(each.pending, each.in_flight, each.instances) for each in found.versions] == [(0, 0, 1)] * 2

    @on_loop
    async def test_of_each_event_the_version_that_handled_it_is_said_however_finely_they_are_divided(
        self, place: Place
    ) -> None:
        """By keys, and without: what versions report is then in many pieces."""
        wind, by = place.open(), dict[str, int]()
        wind.topic("T", keep=3600)

        def on(version: int, **options: Any) -> None:
            @wind.on("T", purpose="p", version=version, **options)
            async def handle(event: Event) -> None:
                by[event.id] = event.version

        on(1)
        async with wind:
            await wind.joined()
            on(2, rollout=Share(0.1))
            on(3, rollout=Share(0.3))
            await wind.joined()
            keys = [f"k{number % 100}" if number % 2 else None for number in range(1_500)]
            ids = [*wind.fire_many("T", range(1_500)).ids, *wind.fire_many("T", range(1_500), keys=keys).ids]
            await wind.settled(60)
            assert Counter(by.values()).keys() == {1, 2, 3}
            await _check_outcomes(wind, ids[::50], by)
        if place.durable:
            async with place.restart() as again:
                await _check_outcomes(again, ids[::50], by)

    @on_loop
    async def test_no_more_events_pend_than_there_are_whatever_the_shares(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)

        async def pends(count: int) -> bool:
            return (await wind.statistics()).purposes["T", "p"].pending == count

        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout=0.5)
            handler(wind, seen, 3, rollout=0.1)
            await wind.joined()
            await wind.pause("T", "p")
            for number in range(3):
                await wind.fire("T", number)
                await until(partial(pends, number + 1))
            await wind.share("T", "p", 2, 0.2)
            await wind.fire("T", 3)
            await until(partial(pends, 4))
            await wind.resume("T", "p")
            await wind.settled(60)
            assert len(seen) == 4
            assert await pends(0)

    @on_loop
    async def test_a_version_without_an_instance_has_nobody_up_only_for_its_own_events(self, place: Place) -> None:
        wind, seen = place.open(), Seen()

        async def facts() -> tuple[int, str, int]:
            found = (await wind.statistics()).purposes["T", "p"]
            assert (found.oldest is None) == (not found.pending)
            return found.pending, found.state, len(await wind.attention())

        async with wind:
            first = handler(wind, seen, 1)
            await wind.joined()
            handler(wind, seen, 2, rollout=0.5)
            await wind.joined()
            keys = [f"k{number}" for number in range(40)]
            await handled(wind, seen, range(40), keys=keys)
            theirs = {version: keys[number] for version, number in seen}
            await wind.off(first)
            await handled(wind, seen, range(100), key=theirs[2])
            assert await facts() == (0, "running", 0)
            await wind.fire("T", 100, key=theirs[1])
            await wind.fire_many("T", range(101, 103), key=theirs[2])
            await until(lambda: len(seen) == 102)
            assert (await facts())[1:] == ("nobody up", 1)
            handler(wind, seen, 1)
            await wind.joined()
            await wind.settled(60)
            assert await facts() == (0, "running", 0)
            assert sorted(number for _, number in seen) == list(range(103))

    @on_loop
    async def test_a_key_goes_to_one_version_in_order_also_while_its_share_grows(self, place: Place) -> None:
        """From a tenth to a half and to all, under load: nothing is lost, or handled twice."""
        wind, keys = place.open(), [f"k{number}" for number in range(20)]
        order: dict[str | None, list[tuple[int, int]]] = {}

        def on(version: int) -> None:
            @wind.on("T", purpose="p", version=version, exchange="keyed", rollout=Share(0.1))
            async def handle(number: int, event: Event) -> None:
                order.setdefault(event.key, []).append((number, version))

        on(1)
        async with wind:
            await wind.joined()
            on(2)
            await wind.joined()
            for step, share in enumerate((0.1, 0.5, 0.9)):
                await wind.share("T", "p", 2, share)
                for number in range(10):
                    await wind.fire_many("T", [10 * step + number] * len(keys), keys=keys)
            await wind.settled(60)
        assert order.keys() == {*keys}
        moved = Counter[bool]()
        for found in order.values():
            assert [number for number, _ in found] == list(range(30))
            versions = [version for _, version in found]
            assert versions == sorted(versions), "who has got a key keeps it while its share grows"
            moved[versions[0] != versions[-1]] += 1
        assert moved[True]
        assert moved[False]

    @on_loop
    async def test_a_version_is_promoted_and_rolled_back_while_events_come(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout="hold")
            await wind.joined()
            found = await wind.promote("T", "p", 2)
            assert states(found) == {1: "drained", 2: "current"}
            assert await handled(wind, seen, range(10)) == {2: 10}
            assert states(await wind.promote("T", "p", 2)) == states(found), "it is so already"
            found = await wind.rollback("T", "p")
            assert states(found) == {1: "current", 2: "drained"}
            assert await handled(wind, seen, range(10)) == {1: 10}

    @on_loop
    async def test_what_has_no_meaning_is_refused_and_changes_nothing(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            await refused(wind.rollback("T", "p"), ConflictError, "current before version 1, got none")
            await refused(wind.share("T", "p", 1, 0.5), ConflictError, "another version of purpose 'p'")
            handler(wind, seen, 2, rollout=Share(0.25))
            handler(wind, seen, 3, exchange="fanout", rollout="hold")
            await wind.joined()
            before = await wind.rollout("T", "p")
            for share in (-0.1, 1.1, float("nan"), "half", None, True):
                await refused(wind.share("T", "p", 2, share), BadArgument, "share from 0 to 1")  # type: ignore[arg-type]
            await refused(wind.share("T", "p", 3, 0.1), NotAllowed, "'fanout'")
            for work in (wind.promote("T", "p", 9), wind.share("T", "p", 9, 0.1)):
                await refused(work, NotFound, "one of 1, 2, 3, got 9, which never joined")
            await refused(wind.rollback("T", "p"), ConflictError, "got version 2", "share 0 takes it away")
            for verb in (wind.rollout, wind.rollback):
                await refused(verb("T", "q"), NotFound, "'q'")
                await refused(verb("T", ""), BadName)
            await refused(wind.promote("T", "p", 0), BadArgument, "version to be an integer from 1")
            assert await wind.rollout("T", "p") == before
            late = handler(wind, seen, 4, rollout=Share(0.8))
            await refused(wind.joined(), ConflictError, "a share of 0 to 0.75", "got 0.8 for version 4")
            await wind.off(late)
            assert await wind.rollout("T", "p") == before
        odd: list[Any] = ["shadows", "oldest", 2, [], Share]
        for rollout in odd:
            with pytest.raises(BadArgument, match="rollout"):
                wind.on("T", rollout=rollout)
        with pytest.raises(BadArgument, match="expected no share with exchange 'fanout'"):
            wind.on("T", exchange="fanout", rollout=Share(0.1))
        with pytest.raises(BadArgument, match="expected no shadow with exchange 'fanout'"):
            wind.on("T", exchange="fanout", rollout="shadow")
        with pytest.raises(BadArgument, match="expected a Share from 0 to 1"):
            Share(1.5)

    @on_loop
    async def test_a_fanout_becomes_current_only_once_no_version_has_a_share_or_is_a_shadow(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout=Share(0.5))
            handler(wind, seen, 3, exchange="fanout", rollout="hold")
            await wind.joined()
            newest = handler(wind, seen, 4, exchange="fanout")
            await refused(wind.joined(), ConflictError, "version 2 beside version 4 with exchange 'fanout'")
            await wind.off(newest)
            for _ in ("while version 2 has a share", "while it is a shadow"):
                before = await wind.rollout("T", "p")
                await refused(wind.promote("T", "p", 3), ConflictError, "version 2 beside version 3", "a share of 0")
                assert await wind.rollout("T", "p") == before
                await wind.shadow("T", "p", 2)
            await wind.share("T", "p", 2, 0)
            await wind.promote("T", "p", 3)
            await refused(wind.share("T", "p", 2, 0.5), ConflictError, "version 2 beside version 3")
            assert states(await wind.rollout("T", "p")) == {1: "drained", 2: "held", 3: "current"}
            await wind.fire_many("T", range(10))
            await until(lambda: sorted(seen) == [(3, number) for number in range(10)])

    @on_loop
    async def test_a_rolling_deployment_loses_and_doubles_nothing(self, place: Place) -> None:
        """Instances of the old version go one by one while those of the new one come, and events go on coming."""
        wind, seen = place.open(), Seen()
        old = [handler(wind, seen, 1) for _ in range(3)]
        fired = 0
        async with wind:
            for function in old:
                await wind.fire_many("T", range(fired, fired + 40))
                handler(wind, seen, 2)
                await wind.joined()
                await wind.fire_many("T", range(fired + 40, fired + 80))
                await wind.off(function)
                fired += 80
            await wind.settled(60)
            assert states(await wind.rollout("T", "p")) == {1: "drained", 2: "current"}
        assert sorted(number for _, number in seen) == list(range(fired))

    @on_loop
    async def test_the_older_version_goes_on_when_the_instances_of_the_newer_are_gone(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            newer = handler(wind, seen, 2)
            await wind.joined()
            assert await handled(wind, seen, range(10)) == {2: 10}
            await wind.off(newer)
            found = await wind.rollout("T", "p")
            assert (found.current, found.intended) == (1, 2)
            assert states(found) == {1: "current", 2: "drained"}
            assert await handled(wind, seen, range(10)) == {1: 10}

    @on_loop
    async def test_a_share_whose_instances_are_gone_is_the_current_version_s_after_their_lease(
        self, place: Place
    ) -> None:
        """In the middle of a ramp; it is theirs again when one is back."""
        clock = place.clock()
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            newer = handler(wind, seen, 2, rollout=Share(0.5))
            await wind.joined()
            assert (await handled(wind, seen, range(10))).keys() == {1, 2}
            await wind.off(newer)
            await wind.fire_many("T", range(10, 20))
            await until(lambda: len(seen) > 10, "version 1 to handle its part")
            await all_reported(wind)
            seen.clear()
            clock.advance(31)
            await wind.settled(60)
            assert {version for version, _ in seen} == {1}
            assert await handled(wind, seen, range(10)) == {1: 10}
            found = await wind.rollout("T", "p")
            assert states(found) == {1: "current", 2: "ramping 50 %"}
            assert [(each.instances, each.share) for each in found.versions] == [(1, 1.0), (0, 0.0)]
            handler(wind, seen, 2)
            await wind.joined()
            assert (await handled(wind, seen, range(10))).keys() == {1, 2}

    @on_loop
    async def test_a_rollout_outlives_a_restart(self, place: Place) -> None:
        wind, seen = place.open(), Seen()
        handler(wind, seen, 1)
        async with wind:
            await wind.joined()
            stated: tuple[tuple[int, str | Share], ...] = (2, "hold"), (3, Share(0.5)), (4, "hold")
            for version, rollout in stated:
                handler(wind, seen, version, rollout=rollout)
                await wind.joined()
            await wind.promote("T", "p", 2)
            await wind.share("T", "p", 4, 0.25)
            before = states(await wind.rollout("T", "p"))
        wind = place.restart()
        for version in (4, 3, 2, 1):  # what they state now counts no more
            handler(wind, seen, version)
        async with wind:
            await wind.joined()
            found = await wind.rollout("T", "p")
            assert states(found) == before == {1: "drained", 2: "current", 3: "ramping 50 %", 4: "ramping 25 %"}
            assert about(await handled(wind, seen, range(100)), {2: 25, 3: 50, 4: 25})
            await wind.share("T", "p", 3, 0)
            await wind.share("T", "p", 4, 0)
            await wind.rollback("T", "p")
            assert await handled(wind, seen, range(10)) == {1: 10}

    @on_loop
    async def test_a_dead_letter_says_which_version_gave_it_up_also_after_a_restart(self, place: Place) -> None:
        """Also one that no handler had: a version may reject what has no key."""
        wind = place.open()

        async def reject(number: int) -> None:
            raise Reject("no")

        async def versions(wind: SolarWind) -> list[int]:
            return [each.version for each in await wind.dead("T", "p")]

        async with wind:
            for number, exchange, kept in ((1, "direct", "handle"), (2, "direct", "handle"), (3, "keyed", "reject")):
                wind.on("T", purpose="p", version=number, exchange=exchange, key_missing=kept)(partial(reject))
                await wind.joined()
                ids = wind.fire_many("T", [number]).ids
                await wind.settled(60)
            assert await versions(wind) == [1, 2, 3]
            assert (await wind.event("T", ids[0])).outcomes[0].version == 3
        if place.durable:
            async with place.restart() as again:
                assert await versions(again) == [1, 2, 3]

    @on_loop
    async def test_dead_letters_of_a_version_are_redriven_into_another_alone(self, place: Place) -> None:
        """Also where that one is held; the others go to the version that gets the events now."""
        wind, seen = place.open(), Seen()

        @wind.on("T", purpose="p")
        async def reject(number: int) -> None:
            raise Reject("not here")

        async with wind:
            await wind.joined()
            handler(wind, seen, 2, rollout="hold")
            await wind.joined()
            ids = wind.fire_many("T", range(4)).ids
            await wind.settled(60)
            await refused(wind.redrive("T", "p", ids, version=3), NotFound, "got 3, which never joined")
            assert await wind.redrive("T", "p", ids[:2], version=2) == 2
            await wind.settled(60)
            assert sorted(seen) == [(2, 0), (2, 1)]
            assert [each.event.id for each in await wind.dead("T", "p")] == ids[2:]
            await wind.promote("T", "p", 2)
            assert await wind.redrive("T", "p") == 2
            await wind.settled(60)
            assert sorted(seen) == [(2, number) for number in range(4)]
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.dead, counts.pending, counts.settled) == (0, 0, 4)
