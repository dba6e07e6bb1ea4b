"""When an event is handed out: `at` and `after`, `expires`, and what is taken back before it is due.

Engines whose clock no test moves go by the real time: there, what is to be due soon is due within a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...errors import BadArgument, NotFound
from ...event import Event
from ...failure import Retry
from ...wind import SolarWind
from .place import Place, on_loop, refused, until

BAD: list[tuple[dict[str, Any], str]] = [
    ({"at": datetime.now(UTC), "after": 1}, "got both"),
    ({"at": datetime(2026, 1, 31)}, "with a time zone"),
    ({"at": 5}, "a delay from now on is after"),
    ({"at": datetime(1969, 1, 1, tzinfo=UTC)}, "between 1970 and ten years from now"),
    ({"at": datetime.max.replace(tzinfo=UTC)}, "between 1970 and ten years from now"),
    ({"after": -1}, "from 0 to ten years"),
    ({"after": timedelta(days=4_000)}, "from 0 to ten years"),
    ({"after": float("nan")}, "from 0 to ten years"),
    ({"after": True}, "from 0 to ten years"),
    ({"after": "soon"}, "such as '5m'"),
    ({"after": "1h", "expires": "5m"}, "expires after it is due"),
    ({"expires": 0}, "more than 0 seconds"),
    ({"expires": datetime(2026, 1, 31)}, "with a time zone"),
    ({"expires": "never"}, "or a datetime"),
]


def noting(wind: SolarWind, topic: str = "T", purpose: str = "p", **more: Any) -> list[Any]:
    """Register a purpose, and return what it gets, as it comes."""
    seen: list[Any] = []

    @wind.on(topic, purpose=purpose, **more)
    async def note(event: Event) -> None:
        seen.append(event.payload)

    return seen


async def count_of(wind: SolarWind, topic: str = "T") -> tuple[int, int]:
    """Return how many events of a topic were fired, and how many are delayed."""
    counts = (await wind.statistics()).topics[topic]
    assert (counts.next_due is None) == (counts.delayed == 0)
    return counts.fired, counts.delayed


class TimingRules:
    """The rules of delayed events, and of those that expire."""

    @on_loop
    async def test_a_delayed_event_is_handed_out_once_it_is_due(self, place: Place) -> None:
        wind = place.open()
        seen: list[Event] = []

        @wind.on("T", purpose="p")
        async def note(event: Event) -> None:
            seen.append(event)

        begun = datetime.now(UTC)
        async with wind:
            id = await wind.fire("T", "far", after="7d")
            await wind.fire("T", "now")
            assert await count_of(wind) == (1, 1)
            await until(lambda: seen)
            await wind.fire("T", "at", at=datetime.now(UTC) + timedelta(seconds=0.2), key="k")
            await wind.fire("T", "later", after=timedelta(seconds=0.3))
            await until(lambda: len(seen) == 3)
            await wind.settled(60)
            assert [event.payload for event in seen] == ["now", "at", "later"]
            assert await count_of(wind) == (3, 1)
            (left,) = await wind.delayed()
            assert (left.event.id, left.event.payload, left.event.topic) == (id, "far", "T")
        assert seen[0].due is None
        for event, seconds in ((seen[1], 0.2), (seen[2], 0.3)):
            assert event.due is not None
            assert begun + timedelta(seconds=seconds) <= event.due <= datetime.now(UTC)
            assert event.time < event.due

    @on_loop
    async def test_what_is_due_already_enters_its_topic_at_once(self, place: Place) -> None:
        wind = place.open()
        seen = noting(wind)
        async with wind:
            await wind.fire("T", 1, after=0)
            await wind.fire_many("T", [2, 3], at=datetime(2020, 1, 31, tzinfo=UTC))
            await wind.settled(60)
        assert seen == [1, 2, 3]

    @on_loop
    async def test_a_purpose_that_joins_before_an_event_is_due_gets_it(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            await wind.fire("T", 1, after=1)
            seen = noting(wind)
            await wind.joined()
            await until(lambda: seen == [1])

    @on_loop
    async def test_many_are_delayed_together_and_enter_in_their_order(self, place: Place) -> None:
        wind = place.open()
        seen = noting(wind)
        async with wind:
            receipts = await wind.fire_many("T", range(300), key=lambda number: f"k{number % 3}", after=0.2)
            assert len(set(receipts.ids)) == 300
            await until(lambda: len(seen) == 300)
        assert seen == list(range(300))

    @on_loop
    async def test_an_id_is_accepted_once_while_it_is_delayed_and_after_it_entered(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        seen = noting(wind)
        async with wind:
            both = wind.fire("T", "first", id="a", after=0.5), wind.fire("T", "second", id="a", after=0.1)
            for receipt in both:
                assert await receipt == "a"
            assert await wind.fire("T", "third", id="a", after="1h") == "a"
            assert sum(await count_of(wind)) == 1
            await until(lambda: seen == ["first"])
            assert await wind.fire("T", "fourth", id="a", after=0) == "a"
            assert await wind.fire("T", "fifth", id="a") == "a"
            await wind.settled(60)
            assert await count_of(wind) == (1, 0)
        assert seen == ["first"]

    @on_loop
    async def test_what_a_handler_delays_counts_only_if_it_returns(self, place: Place) -> None:
        wind = place.open()
        seen, tried = noting(wind, "later", "q"), list[int]()

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.01))
        async def handle(event: Event) -> None:
            tried.append(event.attempt)
            receipt = wind.fire("later", event.attempt, after=0.2)
            assert await receipt == receipt.id
            wind.fire("later", 10 + event.attempt, after="1d", expires="2d")
            await wind.fire("later", 20 + event.attempt, after="1d", now=True)
            if event.attempt == 1:
                raise ValueError

        async with wind:
            await wind.fire("T")
            await until(lambda: seen == [2])
            await wind.settled(60)
            assert sorted(each.event.payload for each in await wind.delayed("later")) == [12, 21, 22]
            by_payload = {each.event.payload: each.event for each in await wind.delayed("later")}
            assert by_payload[12].expires is not None
            assert by_payload[12].cause.purpose == by_payload[21].cause.purpose == "p"
            assert (await wind.statistics()).topics["later"].delayed == 3
            assert await wind.cancel("later", by_payload[12].id)
        assert tried == [1, 2]

    @pytest.mark.parametrize(("options", "words"), BAD, ids=[str(number) for number in range(len(BAD))])
    @on_loop
    async def test_what_cannot_be_is_refused_at_once_and_nothing_is_fired(
        self, place: Place, options: dict[str, Any], words: str
    ) -> None:
        wind = place.open()
        async with wind:
            fires: list[Callable[[], object]] = [
                lambda: wind.fire("T", 1, **options),
                lambda: wind.fire_many("T", [1, 2], **options),
            ]
            for fire in fires:
                with pytest.raises(BadArgument, match=r"^expected [^\n]*$") as caught:
                    fire()
                assert words in str(caught.value)
            assert "T" not in (await wind.statistics()).topics

    @on_loop
    async def test_a_delayed_event_is_taken_back_once_and_only_before_it_is_due(self, place: Place) -> None:
        wind = place.open()
        seen = noting(wind)
        async with wind:
            ids = (await wind.fire_many("T", range(3), ids=["a", "b", "c"], after="1h")).ids
            gone = await wind.fire("T", 9)
            await wind.settled(60)
            assert [await wind.cancel("T", id) for id in ("b", "b", gone, "no such event")] == [True, *[False] * 3]
            assert not await wind.cancel("other", ids[0])
            assert [each.event.id for each in await wind.delayed("T")] == ["a", "c"]
            await refused(wind.delayed_event("T", "b"), NotFound, "solarwind delayed list")
            await refused(wind.event("T", "c"), NotFound, "it is delayed until", "solarwind delayed show T c")
            assert (await wind.delayed_event("T", "c")).event.payload == 2
            assert await wind.fire("T", 7, id="b", after=0.1) == "b", "it may be fired again"
            await until(lambda: seen == [9, 7])
            assert not await wind.cancel("T", "b")
            assert [each.verb for each in await wind.audit() if each.topic == "T"] == ["cancel"], "what did something"

    @on_loop
    async def test_of_many_delayed_events_that_are_taken_back_at_a_time_each_is_once(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            ids = list((await wind.fire_many("T", range(90), after="1h")).ids)
            asked = [*ids[:80], *ids[70:80], "no such event"]
            found = await asyncio.gather(*(wind.cancel("T", id) for id in asked))
            assert (sum(found), found[-1]) == (80, False)
            assert all(found[index] + found[index + 10] == 1 for index in range(70, 80))
            assert [each.event.id for each in await wind.delayed("T")] == ids[80:]
            noted = [each for each in await wind.audit() if each.topic == "T"]
            assert ({each.verb for each in noted}, sum(each.events or 0 for each in noted)) == ({"cancel"}, 80)

    @on_loop
    async def test_what_was_fired_again_without_a_delay_is_not_taken_back(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3_600)
        seen = noting(wind)
        async with wind:
            await wind.fire("T", 1, id="kicked", after="1h")
            await until(lambda: _is_delayed(wind, "T"))
            await wind.fire("T", 1, id="kicked")
            await until(lambda: seen == [1])
            await wind.settled(60)
            assert not await wind.cancel("T", "kicked")
            assert await wind.delayed("T") == [], "it is forgotten all the same"

    @on_loop
    async def test_delayed_events_are_listed_in_pages_and_counted_by_topic(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            now = datetime.now(UTC)
            for number, topic in enumerate(("T", "U", "T", "V", "T")):
                payloads = [10 * number + each for each in range(3)]
                await wind.fire_many(topic, payloads, at=now + timedelta(hours=10 - number // 2))
            due = [20, 21, 22, 30, 31, 32, 40, 41, 42]
            listed: list[int] = []
            after = None
            while page := await wind.delayed(after=after, limit=4):
                assert [each.due for each in page] == sorted(each.due for each in page)
                listed += [each.event.payload for each in page]
                after = page.next
                if after is None:
                    break
            assert sorted(listed) == sorted([*due, 0, 1, 2, 10, 11, 12])
            assert set(listed[:3]) == {40, 41, 42}
            of_topic = await wind.delayed("T", limit=2)
            assert [each.event.payload for each in of_topic] == [40, 41]
            for each in of_topic:  # and looked on from there
                assert await wind.cancel("T", each.event.id)
            following = await wind.delayed("T", after=of_topic.next)
            assert [each.event.payload for each in following] == [42, 20, 21, 22, 0, 1, 2]
            topics = (await wind.statistics()).topics
            assert {name: each.delayed for name, each in topics.items()} == {"T": 7, "U": 3, "V": 3}
            assert topics["T"].next_due == following[0].due
            assert {each.topic: each.delayed for each in await wind.topics()} == {"T": 7, "U": 3, "V": 3}
            assert await wind.delayed("W") == []
            bad: Any
            for bad in ("x", "1.2", 7):
                await refused(wind.delayed(after=bad), BadArgument, "as the `next` of an earlier page")

    @on_loop
    async def test_delayed_events_outlive_a_restart(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            await wind.fire("T", 1, after="1h")
            await wind.fire("T", 2, after=0.2)
        wind = place.restart()
        async with wind:
            seen = noting(wind, since="beginning")
            await until(lambda: seen == [2])
            assert await count_of(wind) == (1, 1)
            (left,) = await wind.delayed("T")
            assert await wind.cancel("T", left.event.id)

    @on_loop
    async def test_an_expired_event_is_not_handed_out_and_is_no_dead_letter(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        seen = noting(wind)
        keyed = noting(wind, purpose="keyed", exchange="keyed")
        async with wind:
            await wind.settled(60)
            for purpose in ("p", "keyed"):
                await wind.pause("T", purpose)
            old = await wind.fire("T", "old", key="k", expires=datetime(2020, 1, 31, tzinfo=UTC))
            await wind.fire_many("T", ["short", "short"], key="k", expires=0.05)
            await wind.fire("T", "long", key="k", expires="1h")
            await wind.fire("T", "plain", key="k")
            over = datetime.now(UTC) + timedelta(seconds=0.1)
            await until(lambda: datetime.now(UTC) > over, "the events to expire")
            assert (await wind.statistics()).purposes["T", "p"].pending == 5, "they pend until it is their turn"
            for purpose in ("p", "keyed"):
                await wind.resume("T", purpose)
            await wind.settled(60)
            assert seen == keyed == ["long", "plain"]
            for purpose in ("p", "keyed"):
                counts = (await wind.statistics()).purposes["T", purpose]
                assert (counts.expired, counts.settled, counts.dead, counts.pending) == (3, 2, 0, 0)
            for became in (await wind.event("T", old)).outcomes:
                assert (became.state, became.attempts, became.error) == ("expired", 0, None)
                assert became.ended is not None

    @on_loop
    async def test_an_event_that_expires_while_it_waits_for_a_retry_is_not_tried_again(self, place: Place) -> None:
        wind = place.open()
        tried: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=9, wait=0.3, factor=1.0))
        async def fail(event: Event) -> None:
            tried.append(event.attempt)
            raise ValueError

        async with wind:
            await wind.fire("T", expires=0.05)
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert len(tried) < 9, "it was given up before"
        assert (counts.expired, counts.dead, counts.retried) == (1, 0, len(tried))

    @on_loop
    async def test_a_fan_outs_copies_expire_too(self, place: Place) -> None:
        wind = place.open()
        seen = noting(wind, exchange="fanout")
        async with wind:
            await wind.fire("T", 1, expires=datetime(2020, 1, 31, tzinfo=UTC))
            await wind.fire("T", 2, expires="1h")
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert (seen, counts.expired, counts.dropped) == ([2], 1, 0)

    @on_loop
    async def test_very_many_expired_events_are_left_out_and_those_between_them_are_handed_out(
        self, place: Place
    ) -> None:
        wind = place.open()
        seen = noting(wind, since="beginning")
        async with wind:
            await wind.settled(60)
            await wind.pause("T", "p")
            past = datetime(2020, 1, 31, tzinfo=UTC)
            for number in range(3):
                await wind.fire_many("T", range(3_000), expires=past)
                await wind.fire("T", number)
            await wind.resume("T", "p")
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert seen == [0, 1, 2]
        assert (counts.expired, counts.settled, counts.pending) == (9_000, 3, 0)


async def _is_delayed(wind: SolarWind, topic: str) -> bool:
    return bool(await wind.delayed(topic))
