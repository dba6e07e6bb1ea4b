"""What pends, what is kept, and what can be replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec import UNSET

from ...engine.base import Since
from ...errors import BadArgument, BadName, NotAllowed, NotFound
from ...event import Event
from ...failure import Reject
from ...operations import Internal
from ...wind import SolarWind
from .place import Place, a_while, on_loop, refused, until


def collect(wind: SolarWind, topic: str, purpose: str, since: Since = "now", exchange: str = "direct") -> list[int]:
    """Join, and return the list that grows with the events that come."""
    seen: list[int] = []

    @wind.on(topic, purpose=purpose, since=since, exchange=exchange)
    async def handle(number: int) -> None:
        seen.append(number)

    return seen


class HistoryRules:
    """The rules of the life of an event, joining a purpose and history."""

    @on_loop
    async def test_a_purpose_outlives_its_instances(self, place: Place) -> None:
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            seen.append(number)

        async with wind:
            await wind.off(handle)
            await wind.fire_many("T", range(100))
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.instances, counts.pending) == (0, 100)
            wind.on("T", purpose="p")(handle)
            await wind.settled(60)
        assert seen == list(range(100))

    @on_loop
    async def test_a_purpose_outlives_restarts(self, place: Place) -> None:
        """Its events pend while no instance is up, also those fired by a process that does not know it."""
        wind = place.open()
        first = collect(wind, "T", "p")
        async with wind:
            await wind.fire("T", 0)
            await wind.settled(60)
        assert first == [0]
        async with place.restart() as wind:
            await wind.fire_many("T", range(1, 6))
        async with place.restart() as wind:
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.exchange, counts.versions, counts.pending, counts.settled) == ("direct", (1,), 5, 1)
        wind = place.restart()
        second = collect(wind, "T", "p")
        async with wind:
            await wind.settled(60)
        wind = place.restart()
        third = collect(wind, "T", "p", since="beginning")
        async with wind:
            await wind.settled(60)
        assert second == [1, 2, 3, 4, 5]
        assert third == [], "what was settled does not come again"

    @on_loop
    async def test_many_events_pend_across_a_restart(self, place: Place) -> None:
        wind = place.open()
        collect(wind, "T", "p")
        async with wind:
            pass
        async with place.restart() as wind:
            await wind.fire_many("T", range(20_000))
        wind = place.restart()
        seen = collect(wind, "T", "p")
        async with wind:
            await wind.settled(60)
        assert sorted(seen) == list(range(20_000))

    @on_loop
    async def test_a_fanout_across_a_restart_gets_what_comes_then(self, place: Place) -> None:
        wind = place.open()
        collect(wind, "T", "p", exchange="fanout")
        async with wind:
            await wind.settled(60)
        async with place.restart() as wind:
            await wind.fire("T", 1)
        wind = place.restart()
        seen = collect(wind, "T", "p", exchange="fanout")
        async with wind:
            await wind.fire("T", 2)
            await wind.settled(60)
        assert seen == [2]

    @on_loop
    async def test_since_says_where_a_new_purpose_begins(self, place: Place) -> None:
        """A new purpose begins now, at the beginning, at a time, or so long ago."""
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            await wind.fire_many("T", [1, 2])
            between = datetime.now(UTC)
            await wind.fire_many("T", [3, 4])
            wanted: dict[str, tuple[Since, list[int]]] = {
                "default": ("now", []),
                "all": ("beginning", [1, 2, 3, 4]),
                "from a time": (between, [3, 4]),
                "from a time elsewhere": (between.astimezone(), [3, 4]),
                "from long ago": (datetime(2001, 1, 1, tzinfo=UTC), [1, 2, 3, 4]),
                "an hour ago": (timedelta(hours=1), [1, 2, 3, 4]),
                "longer ago than there is time": (timedelta.max, [1, 2, 3, 4]),
                "the first of times": (datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), [1, 2, 3, 4]),
            }
            seen = {name: collect(wind, "T", name, since) for name, (since, _) in wanted.items()}
            await wind.settled(60)
            assert seen == {name: numbers for name, (_, numbers) in wanted.items()}
            await wind.fire("T", 5)
            await wind.settled(60)
        assert seen == {name: [*numbers, 5] for name, (_, numbers) in wanted.items()}

    @on_loop
    async def test_since_counts_only_when_the_purpose_is_created(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            await wind.fire_many("T", [1, 2])
            first = collect(wind, "T", "p", "now")
            await wind.joined()
            second = collect(wind, "T", "p", "beginning")
            await wind.settled(60)
            await wind.fire_many("T", [3, 4])
            await wind.settled(60)
        assert sorted(first + second) == [3, 4]

    @on_loop
    async def test_an_event_is_found_by_its_id_though_others_of_its_batch_were_fired_before(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            await wind.fire("T", 0, id="known")
            fired = wind.fire_many("T", [1, 2, 3], ids=[None, "known", None])
            await fired
            assert [(await wind.trace(id)).event.payload for id in fired.ids] == [1, 0, 3]

    @on_loop
    async def test_history_is_read_in_pages_from_a_time_and_by_key(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            await wind.fire_many("T", range(5), key="early")
            between = datetime.now(UTC)
            for number in range(5, 8):
                await wind.fire("T", number, key=f"k{number % 2}", id=f"event {number}")
            pages = [await wind.events("T", limit=3)]
            while pages[-1].next is not None:
                pages.append(await wind.events("T", after=pages[-1].next, limit=3))
            assert [[event.payload for event in page] for page in pages] == [[0, 1, 2], [3, 4, 5], [6, 7]]
            assert [event.id for event in pages[2]] == ["event 6", "event 7"]
            assert (pages[0][0].topic, pages[0][0].key, pages[0][0].cause.kind) == ("T", "early", "application")
            for since, numbers in ((between, [5, 6, 7]), ("now", []), (timedelta(hours=1), list(range(8)))):
                assert [event.payload for event in await wind.events("T", since)] == numbers
            assert [event.payload for event in await wind.events("T", key="k1")] == [5, 7]
            (last,) = await wind.events("T", after=pages[0].next, key="k0")
            assert last.payload == 6
            assert (await wind.events("T", key="none"), await wind.events("T", after="7")) == ([], [])
            await refused(wind.events("U"), NotFound, "'U'")
            await refused(wind.events("T", after="x"), BadArgument, "after as the `next`", "'x'")

    @on_loop
    async def test_the_tail_of_a_history_says_where_what_comes_later_begins(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        wind.topic("empty", keep=3600)
        async with wind:
            none = await wind.events("empty", tail=True)
            assert (none, none.next is None) == ([], False)
            await wind.fire_many("T", range(5))
            assert (await wind.events("T")).next is None
            page = await wind.events("T", limit=3, tail=True)
            assert [event.payload for event in page] == [0, 1, 2]
            page = await wind.events("T", after=page.next, limit=2, tail=True)
            assert [event.payload for event in page] == [3, 4]
            now = await wind.events("T", "now", tail=True)
            assert (now, now.next) == ([], page.next)
            none_of_key = await wind.events("T", key="k", tail=True)
            assert (none_of_key, none_of_key.next) == ([], page.next)
            again = await wind.events("T", after=page.next, tail=True)
            assert (again, again.next) == ([], page.next)
            await wind.fire("T", 5)
            await wind.fire("empty", 0)
            assert [event.payload for event in await wind.events("T", after=again.next, tail=True)] == [5]
            assert [event.payload for event in await wind.events("empty", after=none.next)] == [0]

    @on_loop
    async def test_a_page_behind_what_was_trimmed_is_refused_and_says_how_to_go_on(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        wind.topic("T", keep=10)

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            if number == 3:
                raise Reject("no")

        async with wind:
            for number in range(5):  # each in a batch of its own
                await wind.fire("T", number)
                await wind.settled(60)
            page = await wind.events("T", limit=1)
            clock.advance(60)
            await until(lambda: self._is_kept(wind, 1), "all but one to be trimmed", meanwhile=lambda: clock.advance(5))
            words = "position 1 on", "trimmed meanwhile", "after=2"
            await refused(wind.events("T", after=page.next), NotFound, *words)
            assert [event.payload for event in await wind.events("T", after="2")] == [3]
            (left,) = await wind.events("T")
            assert left.payload == 3
            await wind.discard("T", "p", [left.id])
            await until(lambda: self._is_kept(wind, 0), "all to be trimmed", meanwhile=lambda: clock.advance(5))
            await refused(wind.events("T", after="2"), NotFound, "position 3 on", "trimmed meanwhile", "after=4")
            assert (await wind.events("T", after="4"), await wind.events("T")) == ([], [])

    @on_loop
    async def test_replay_makes_history_pending_again(self, place: Place) -> None:
        """History pends again, all of it or from one time to another; the number of events is returned."""
        wind = place.open()
        wind.topic("T", keep=3600)
        seen = collect(wind, "T", "p")
        other = collect(wind, "T", "other")
        async with wind:
            await wind.fire_many("T", [1, 2])
            start = datetime.now(UTC)
            await wind.fire_many("T", [3, 4])
            stop = datetime.now(UTC)
            await wind.fire_many("T", [5])
            await wind.settled(60)
            assert await wind.replay("T", "p") == 5
            await wind.settled(60)
            assert seen == [1, 2, 3, 4, 5] * 2
            assert await wind.replay("T", "p", since=start, until=stop) == 2
            await wind.settled(60)
            assert seen[10:] == [3, 4]
            assert await wind.replay("T", "p", since="now") == 0
            assert await wind.replay("T", "p", since=timedelta(hours=1), until=datetime.max.replace(tzinfo=UTC)) == 5
            assert await wind.replay("T", "p", since=timedelta.max, until=timedelta.max) == 0
            await wind.settled(60)
        assert seen[12:] == other == [1, 2, 3, 4, 5]

    @on_loop
    async def test_replay_is_refused_for_a_fanout(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        seen = collect(wind, "T", "page", exchange="fanout")
        async with wind:
            await wind.fire("T", 1)
            await wind.settled(60)
            await refused(wind.replay("T", "page"), NotAllowed, "'page'", "fanout")
            await refused(wind.replay("T", "nobody"), NotFound, "'nobody'", "'T'", "'page'")
            await refused(wind.replay("U", "page"), NotFound, "'U'")
            await wind.settled(60)
        assert seen == [1]

    @on_loop
    async def test_replay_does_not_touch_what_pends_or_is_in_hand(self, place: Place) -> None:
        """No event is handed out twice at a time; by key they go in order again."""
        wind = place.open()
        wind.topic("T", keep=3600)
        gate = asyncio.Event()
        seen: list[int] = []
        at_work: set[int] = set()

        @wind.on("T", purpose="p", exchange="keyed")
        async def handle(number: int) -> None:
            assert number not in at_work
            at_work.add(number)
            if number == 5:
                await gate.wait()
            await asyncio.sleep(0)
            at_work.remove(number)
            seen.append(number)

        async with wind:
            for number in range(10):
                wind.fire("T", number, key="k")
            await until(lambda: seen == [0, 1, 2, 3, 4])
            await until(lambda: self._settled(wind, 5))
            assert await wind.replay("T", "p") == 5
            gate.set()
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert sorted(seen) == sorted([0, 1, 2, 3, 4] * 2 + [5, 6, 7, 8, 9])
        again = seen[5:]
        assert [number for number in again if number < 5] == [0, 1, 2, 3, 4]
        assert [number for number in again if number >= 5] == [5, 6, 7, 8, 9]
        assert counts.settled == 15

    @on_loop
    async def test_replay_survives_a_restart(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        collect(wind, "T", "p")
        async with wind:
            await wind.fire_many("T", range(10))
            await wind.settled(60)
        async with place.restart() as wind:
            assert await wind.replay("T", "p") == 10
        wind = place.restart()
        seen = collect(wind, "T", "p")
        async with wind:
            await wind.settled(60)
        assert seen == list(range(10))

    @on_loop
    async def test_a_topic_without_purposes_keeps_events_only_with_history(self, place: Place) -> None:
        wind = place.open()
        wind.topic("kept", keep=3600)
        wind.topic("forgotten", keep=0)
        async with wind:
            for topic in ("kept", "forgotten"):
                await wind.fire_many(topic, [1, 2, 3])
            fired = (await wind.statistics()).topics
            assert {topic: fired[topic].fired for topic in ("kept", "forgotten")} == {"kept": 3, "forgotten": 3}
            kept = {info.topic: info.kept for info in await wind.topics()}
            assert kept == {"kept": 3, "forgotten": 0}
            seen = {topic: collect(wind, topic, "p", "beginning") for topic in ("kept", "forgotten")}
            await wind.settled(60)
        assert seen == {"kept": [1, 2, 3], "forgotten": []}

    @on_loop
    async def test_keep_trims_without_touching_what_pends_or_is_dead(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        wind.topic("T", keep=10)

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            if number == 1:
                raise Reject("no")

        async with wind:
            for number in range(5):  # each in a batch of its own
                await wind.fire("T", number)
                await wind.settled(60)
            await wind.off(handle)
            for number in range(5, 8):
                await wind.fire("T", number)
            assert await self._kept(wind) == 8
            clock.advance(60)
            await until(
                lambda: self._is_kept(wind, 4),
                "all but the dead one and those that pend to be trimmed",
                meanwhile=lambda: clock.advance(5),
            )
            clock.advance(1_000_000)
            await a_while()
            assert await self._kept(wind) == 4
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == [1]
            seen = collect(wind, "T", "p")
            await wind.redrive("T", "p")
            await wind.settled(60)
            assert sorted(seen) == [1, 5, 6, 7]
            await until(lambda: self._is_kept(wind, 0), "everything to be trimmed", meanwhile=lambda: clock.advance(5))

    @on_loop
    async def test_keep_bytes_trims_the_oldest(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        wind.topic("T", keep=3600, keep_bytes=50_000)

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None: ...

        async with wind:
            await wind.fire("T", "first")
            await wind.settled(60)
            await wind.off(handle)
            await wind.fire("T", "pends")
            for _ in range(20):
                await wind.fire("T", "x" * 10_000)
            clock.advance(5)
            assert await self._kept(wind) >= 21, "all of it pends"
            wind.on("T", purpose="p")(handle)
            await wind.settled(60)
            clock.advance(5)
            await until(
                lambda: self._is_kept(wind, 4), "the youngest that fit to be left", meanwhile=lambda: clock.advance(5)
            )
            info = (await wind.topics())[0]
            assert info.kept_bytes <= 50_000
            assert (info.fired, info.keep, info.keep_bytes) == (22, 3600, 50_000)
            assert await wind.replay("T", "p") == 4
            await wind.settled(60)

    @on_loop
    async def test_settings_of_a_topic_outlive_a_restart(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=123, keep_bytes=4567)
        async with wind:
            await wind.fire("T")
        async with place.restart() as wind:
            info = (await wind.topics())[0]
        assert (info.topic, info.keep, info.keep_bytes, info.fired, info.kept) == ("T", 123, 4567, 1, 1)

    @on_loop
    async def test_settings_of_a_topic_can_be_taken_back_each_by_itself(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=123)
        wind.topic("T", keep_bytes=4567)
        collect(wind, "T", "p")
        async with wind:
            await Internal.keep(wind.engine, "other")
            default = next(info.keep for info in await wind.topics() if info.topic == "other")
            for keep, keep_bytes, becomes in (
                (UNSET, UNSET, (123.0, 4567)),
                (UNSET, None, (123.0, None)),
                (UNSET, 89, (123.0, 89)),
                (None, UNSET, (default, 89)),
                (60, None, (60.0, None)),
            ):
                wind.topic("T", keep=keep, keep_bytes=keep_bytes)
                await until(lambda becomes=becomes: self._keeps(wind, becomes), f"{becomes}")  # type: ignore[misc]
        async with place.restart() as wind:
            assert await self._keeps(wind, (60.0, None))

    @staticmethod
    async def _keeps(wind: SolarWind, expected: tuple[float, int | None]) -> bool:
        return any((info.keep, info.keep_bytes) == expected for info in await wind.topics() if info.topic == "T")

    @on_loop
    async def test_history_is_kept_for_seven_days_by_default_where_it_is_durable(self, place: Place) -> None:
        """It is 7 days where events are durable, else none."""
        wind = place.open()
        collect(wind, "T", "p")
        async with wind:
            info = (await wind.topics())[0]
        assert info.keep == (7 * 24 * 3600 if place.durable else 0)
        assert info.keep_bytes is None
        assert info.purposes == ("p",)

    @on_loop
    async def test_an_invalid_call_of_an_operator_is_refused_in_words(self, place: Place) -> None:
        """The sentence is the same everywhere, and nothing is done."""
        soon, wind = datetime.now(UTC) + timedelta(days=1), place.open()
        collect(wind, "T", "p")
        async with wind:
            await wind.fire("T", 1)
            await wind.settled(60)
            refusals: list[tuple[Awaitable[object], type[Exception], str]] = [
                (wind.replay("T", "p", 5), BadArgument, "since 'now', 'beginning', a datetime"),  # type: ignore[arg-type]
                (wind.replay("T", "p", -5), BadArgument, "got -5"),  # type: ignore[arg-type]
                (wind.replay("T", "p", True), BadArgument, "got True"),  # type: ignore[arg-type]
                (wind.replay("T", "p", timedelta(-1)), BadArgument, "lies ahead"),
                (wind.replay("T", "p", timedelta(minutes=1), timedelta(hours=1)), BadArgument, "since to lie before"),
                (wind.replay("T", "p", "now", "beginning"), BadArgument, "since now and until beginning"),
                (wind.replay("T", "p", soon - timedelta(2), datetime.min), BadArgument, "since to lie before"),
                (wind.replay("T", "p", soon), BadArgument, "lies ahead"),
                (wind.replay("T", "p", "yesterday"), BadArgument, "'yesterday'"),
                (wind.replay("T", "p", until=5), BadArgument, "until 'now'"),  # type: ignore[arg-type]
                (wind.replay("T ", "p"), BadName, "a topic"),
                (wind.redrive("T", "p", 5), BadArgument, "ids"),  # type: ignore[arg-type]
                (wind.redrive("T", "p", b"abc"), BadArgument, "ids"),  # type: ignore[arg-type]
                (wind.redrive("T", "p", [5]), BadName, "an event id"),  # type: ignore[list-item]
                (wind.redrive("T", " p"), BadName, "a purpose"),
                (wind.discard("T", "p", {"a": 1}), BadArgument, "ids"),
                (wind.discard("a b", "p", None), BadName, "a topic"),
                (wind.dead("T", 5), BadName, "a purpose"),  # type: ignore[arg-type]
                (wind.retire("T", "p", "yes"), BadArgument, "force"),  # type: ignore[arg-type]
                (wind.retire("T", ""), BadName, "a purpose"),
                (wind.purposes("a b"), BadName, "a topic"),
                (wind.trace(5), BadName, "an event id"),  # type: ignore[arg-type]
                (wind.backup(5), BadArgument, "the path of a file"),  # type: ignore[arg-type]
                (wind.settled(-1), BadArgument, "a timeout"),
                (wind.stop(-1), BadArgument, "grace"),
                (wind.stop(True), BadArgument, "grace"),
                (wind.settled("1"), BadArgument, "a timeout"),  # type: ignore[arg-type]
            ]
            for call, error, words in refusals:
                await refused(call, error, "expected ", words)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert (counts.settled, counts.pending) == (1, 0)

    @on_loop
    async def test_an_unknown_topic_or_purpose_is_refused_in_the_same_words_everywhere(self, place: Place) -> None:
        """This goes for a topic that was never used, and a purpose that a topic does not have."""
        wind = place.open()
        collect(wind, "T", "p")
        async with wind:
            for topic, has in (("T", "'p'"), ("nobody.knows", "no purposes")):
                words = f"expected a purpose of topic {topic!r}, got 'none', which does not exist: it has {has}"
                calls: list[Awaitable[object]] = [
                    wind.dead(topic, "none"),
                    wind.redrive(topic, "none"),
                    wind.discard(topic, "none", None),
                    wind.replay(topic, "none"),
                    wind.retire(topic, "none"),
                ]
                for call in calls:
                    assert str(await refused(call, NotFound)) == words
                assert [info.purpose for info in await wind.purposes(topic)] == (["p"] if topic == "T" else [])
            await refused(wind.trace("none"), NotFound, "expected the id of an event in the history, got 'none'")

    @on_loop
    async def test_since_of_a_fan_out_is_refused_in_words(self, place: Place) -> None:
        """Its instances get only what comes while they are up."""
        async with place.open() as wind:
            for since in ("beginning", timedelta(hours=1), datetime(2026, 1, 1, tzinfo=UTC)):
                with pytest.raises(BadArgument, match="no since with exchange 'fanout'"):
                    collect(wind, "T", "p", since=since, exchange="fanout")
                with pytest.raises(BadArgument, match="no since with exchange 'fanout'"):
                    wind.listen("T", "p", exchange="fanout", since=since)
            assert await wind.purposes() == []

    @staticmethod
    async def _settled(wind: SolarWind, count: int) -> bool:
        return (await wind.statistics()).purposes["T", "p"].settled == count

    @staticmethod
    async def _kept(wind: SolarWind) -> int:
        return sum(info.kept for info in await wind.topics())

    async def _is_kept(self, wind: SolarWind, count: int) -> bool:
        return await self._kept(wind) == count

    @on_loop
    async def test_a_large_trace_comes_in_parts_that_say_where_more_is(self, place: Place) -> None:
        wind = place.open()
        for topic in ("a", "b", "c"):
            wind.topic(topic, keep=3600)

        @wind.on("a", purpose="p")
        async def first() -> None:
            wind.fire_many("b", range(3))

        @wind.on("b", purpose="q")
        async def second(number: int) -> None:
            wind.fire("c", number)

        async with wind:
            id = await wind.fire("a")
            await wind.settled(60)
            part = await wind.trace(id, limit=3)
            rest = await wind.trace(id, part.caused[-1].event.id)
            leaf = await wind.trace(part.caused[0].event.id)
            await refused(wind.trace(id, "none"), NotFound, "caused as after", "'none'")
        assert [(each.event.payload, each.caused, each.more) for each in part.caused] == [(0, (), True), (1, (), True)]
        assert (part.more, rest.more, leaf.more) == (True, False, False)
        assert [each.event.payload for each in rest.caused] == [2]
        assert [each.event.payload for each in (*rest.caused[0].caused, *leaf.caused)] == [2, 0]
