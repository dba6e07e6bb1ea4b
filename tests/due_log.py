"""The rules of the due-log, which are the same over every store.

A module of tests has a class that inherits `DueLogRules`, and a fixture `run`, which calls what it is given with a
`DelayingPlace` on an open store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import pairwise
from random import Random
from time import time_ns
from typing import Any

import pytest

from solarwind.batch import Batch, seal
from solarwind.core.log import Stored
from solarwind.errors import BadArgument
from solarwind.store.base import Store
from solarwind.store.delays import BEGINNING, Delayed, Entry


def events(
    topic: str, *numbers: int, producer: int = 1, first: int | None = None, time: int = 1, **more: list[str | None]
) -> Batch:
    return seal(
        topic,
        [b"%d" % number for number in numbers],
        [time] * len(numbers),
        producer=producer,
        first=numbers[0] if first is None else first,
        machine="box",
        process="app",
        **more,
    )


class DelayingPlace:
    """A store, and how events come to be in it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def fire(self, batch: Batch) -> None:
        """Put a batch into the history of its topic."""
        await self.store.commit([batch], [], [], 1)

    async def delay(self, due: int, *batches: Batch) -> None:
        await self.store.commit([], [], [], 1, [Delayed(due, batch) for batch in batches])

    async def release(self, now: int) -> None:
        """Release once, and wait until it is in the history."""
        await self.store.delays.release(now)
        await self.store.forwarded()

    async def in_topic(self, topic: str = "T") -> list[int]:
        """Return what is in its history, in order, and check that positions follow each other."""
        found: list[Stored] = []
        while page := await self.store.read(topic, found[-1].stop if found else 0, 1 << 30):
            found += page
        assert [each.start for each in found[1:]] == [each.stop for each in found[:-1]]
        return [int(each.batch.payload(index)) for each in found for index in range(len(each.batch))]

    async def reopen(self) -> None:
        """End the store, and go on with what is opened next, where it outlives that."""

    async def listed(self) -> list[tuple[int, int]]:
        """Return what is delayed: when it is due, and its payload."""
        found: list[tuple[int, int]] = []
        after = (-1, -1)
        delays = self.store.delays
        while page := await delays.page(after, max_bytes=100):
            after = page[-1].place
            found += [(each.due, int(each.batch.payload(index))) for each in page for index in range(len(each.batch))]
        assert await delays.count() == len(found)
        assert await delays.next_due() == (found[0][0] if found else None)
        of_topics = [await self.listed_of(topic) for topic in await delays.topics()]
        assert sorted(found) == sorted(each for some in of_topics for each in some)
        return found

    async def listed_of(self, topic: str) -> list[tuple[int, int]]:
        """Return what is delayed of a topic, and check that what is counted and found of it is the same."""
        found: list[tuple[int, int]] = []
        after = (-1, -1)
        delays = self.store.delays
        while page := await delays.page(after, 100, topic):
            after = page[-1].place
            for each in page:
                ids = [each.batch.id(index) for index in range(len(each.batch))]
                places = [there.place for id in ids[:2] if (there := await delays.find(topic, id)) is not None]
                assert places == [each.place] * len(ids[:2])
                found += [(each.due, int(each.batch.payload(index))) for index in range(len(ids))]
        assert (await delays.topics())[topic] == (len(found), found[0][0])
        assert await delays.find(topic, "no such id") is None
        return found


class Model:
    """What a due-log and two topics have to have, by topic and id."""

    def __init__(self) -> None:
        self.delayed: dict[tuple[str, str], tuple[int, int, int]] = {}  # when it is due, its place, its payload
        self.history: dict[tuple[str, str], int] = {}
        self._place = 0

    def delay(self, due: int, batch: Batch) -> None:
        self._place += 1
        for index in range(len(batch)):
            name = batch.topic, batch.id(index)
            if name not in self.history:
                self.delayed.setdefault(name, (due, self._place, int(batch.payload(index))))

    def fire(self, batch: Batch) -> None:
        for index in range(len(batch)):
            self.history.setdefault((batch.topic, batch.id(index)), int(batch.payload(index)))

    def move(self, name: tuple[str, str], due: int) -> None:
        self._place += 1
        self.delayed[name] = due, self._place, self.delayed[name][2]

    def release(self, now: int) -> None:
        for name, (due, _, payload) in sorted(self.delayed.items(), key=lambda each: each[1][:2]):
            if due <= now:
                del self.delayed[name]
                self.history.setdefault(name, payload)

    def listed(self) -> list[tuple[int, int]]:
        return [(due, payload) for due, _, payload in sorted(self.delayed.values(), key=lambda each: each[:2])]

    def in_topic(self, topic: str) -> list[int]:
        return [payload for (name, _), payload in self.history.items() if name == topic]


async def walk(place: DelayingPlace, random: Random, steps: int) -> None:
    """Do the same random changes to a due-log and to its model, and compare them after each."""
    weights = {"delay": 6, "fire": 2, "again": 1, "cancel": 2, "move": 2, "release": 3, "reopen": 1}
    model, number, delayed = Model(), 0, list[Batch]()
    for _ in range(steps):
        names, due = sorted(model.delayed), random.randrange(1, 60)
        [what] = random.choices(list(weights), weights.values())
        if what in ("delay", "fire"):
            numbers = range(number, number + (150 if random.random() < 0.1 else random.randrange(1, 9)))
            number = numbers.stop
            ids = [random.choice([None, None, f"given-{random.randrange(60)}"]) for _ in numbers]
            given = {"ids": ids} if any(ids) else {}
            batch = events(random.choice("TTU"), *numbers, time=time_ns(), **given)
            if what == "fire":
                await place.fire(batch)
                model.fire(batch)
            else:
                delayed.append(batch)
        if what in ("delay", "again") and delayed:  # again, as a producer does that had no answer
            batch = delayed[-1] if what == "delay" else random.choice(delayed)
            await place.delay(due, batch)
            model.delay(due, batch)
        elif what == "release":
            while (nearest := await place.store.delays.next_due()) is not None and nearest <= due:
                await place.release(due)
            model.release(due)
        elif what == "reopen":
            await place.reopen()
        elif what in ("cancel", "move") and names:
            topic, id = name = random.choice(names)
            if what == "move":
                assert await place.store.delays.move(topic, id, due)
                model.move(name, due)
            else:
                assert await place.store.delays.cancel([(topic, id)]) == [True]
                assert await place.store.delays.cancel([(topic, id)]) == [False]
                del model.delayed[name]
        assert await place.listed() == model.listed(), what
    for topic in "TU":
        assert await place.in_topic(topic) == model.in_topic(topic)


Rule = Callable[[Any, DelayingPlace], Awaitable[None]]
Run = Callable[[Callable[[DelayingPlace], Awaitable[None]]], None]


def rule(test: Rule) -> Callable[[Any, Run], None]:
    def method(self: Any, run: Run) -> None:
        run(partial(test, self))

    method.__doc__ = test.__doc__
    return method


async def _entries(place: DelayingPlace) -> AsyncIterator[Entry]:
    after = BEGINNING
    while page := await place.store.delays.page(after):
        after = page[-1].place
        for entry in page:
            yield entry


class DueLogRules:
    @pytest.mark.parametrize("seed", range(2))
    def test_a_random_walk_agrees_with_a_model(self, run: Run, seed: int) -> None:
        run(lambda place: walk(place, Random(seed), 40))

    @rule
    async def test_what_is_due_enters_its_topic_in_the_order_of_the_times_then_of_acceptance(
        self, place: DelayingPlace
    ) -> None:
        for due, batch in ((30, events("T", 3)), (10, events("T", 1, 2)), (30, events("U", 5)), (30, events("T", 4))):
            await place.delay(due, batch)
        await place.fire(events("T", 0))
        assert await place.listed() == [(10, 1), (10, 2), (30, 3), (30, 5), (30, 4)]
        await place.release(9)
        assert await place.in_topic() == [0]
        await place.release(29)
        assert (await place.in_topic(), await place.in_topic("U")) == ([0, 1, 2], [])
        await place.release(30)
        assert (await place.in_topic(), await place.in_topic("U")) == ([0, 1, 2, 3, 4], [5])
        assert await place.listed() == []
        await place.release(1 << 62)
        assert (await place.in_topic(), await place.store.delays.next_due()) == ([0, 1, 2, 3, 4], None)

    @rule
    async def test_what_was_released_is_found_by_its_id(self, place: DelayingPlace) -> None:
        batch = events("T", 1, 2, ids=["one", None])
        await place.delay(10, batch)
        assert [await place.store.find(batch.id(index)) for index in (0, 1)] == [None, None]
        await place.release(10)
        assert [await place.store.find(batch.id(index)) for index in (0, 1)] == [("T", 0), ("T", 1)]

    @rule
    async def test_an_id_that_is_delayed_or_in_the_history_is_not_delayed_again(self, place: DelayingPlace) -> None:
        made, given = events("T", 1, 2), events("T", 3, 4, 5, ids=["a", "b", "a"])
        await place.fire(events("T", 0, ids=["known"]))
        for _ in range(2):
            await place.delay(20, made, given)
            await place.delay(10, events("T", 6, 7, ids=["known", "b"]))
        await place.delay(10, events("T", 8, first=90, ids=[made.id(0)]))
        await place.delay(30, events("U", 9, ids=["a"]))  # of another topic
        assert await place.listed() == [(20, 1), (20, 2), (20, 3), (20, 4), (30, 9)]
        await place.release(20)
        for batch in (made, given):
            await place.delay(40, batch)
        assert (await place.in_topic(), await place.listed()) == ([0, 1, 2, 3, 4], [(30, 9)])

    @rule
    async def test_a_batch_of_made_and_given_ids_that_was_released_is_not_delayed_again(
        self, place: DelayingPlace
    ) -> None:
        """As a producer sends it again that had no answer."""
        batch = events("T", 1, 2, 3, ids=[None, "given", None], time=time_ns())
        await place.delay(10, batch)
        await place.release(10)
        await place.delay(20, batch)
        assert (await place.listed(), await place.in_topic()) == ([], [1, 2, 3])

    @rule
    async def test_what_came_into_the_history_meanwhile_is_not_there_twice_once_it_is_due(
        self, place: DelayingPlace
    ) -> None:
        await place.delay(10, events("T", 1, 2, ids=["a", "b"]))
        await place.delay(20, events("T", 3, ids=["c"]))
        await place.fire(events("T", 7, 8, ids=["b", "c"]))
        await place.release(10)
        await place.release(20)
        assert (await place.in_topic(), await place.listed()) == ([7, 8, 1], [])

    @rule
    async def test_events_that_follow_a_delayed_one_are_no_reason_to_take_it_for_known(
        self, place: DelayingPlace
    ) -> None:
        """The numbers of a producer go on while it waits."""
        await place.delay(10, events("T", 1))
        await place.fire(events("T", 2, 3))
        await place.release(10)
        assert await place.in_topic() == [2, 3, 1]
        await place.delay(20, events("T", 1, 2, 3, 4))
        assert await place.listed() == [(20, 4)]
        await place.fire(events("T", 3, 5, first=3))
        assert await place.in_topic() == [2, 3, 1, 5]

    @rule
    async def test_one_event_of_a_batch_is_cancelled_and_the_others_keep_their_ids(self, place: DelayingPlace) -> None:
        delays, batch = place.store.delays, events("T", 1, 2, 3)
        await place.delay(10, batch)
        assert await delays.cancel([("T", batch.id(1))]) == [True]
        assert await delays.cancel([("T", batch.id(1))]) == [False]
        assert await delays.cancel([("U", batch.id(0))]) == [False]
        assert await delays.cancel([("T", batch.id(0))], now=10) == [False], "it is due"
        assert await place.listed() == [(10, 1), (10, 3)]
        await place.release(10)
        assert await delays.cancel([("T", batch.id(0))]) == [False]
        assert [await place.store.find(batch.id(index)) for index in range(3)] == [("T", 0), None, ("T", 1)]
        await place.delay(20, batch)  # what was cancelled may be fired again
        assert await place.listed() == [(20, 2)]
        assert await delays.cancel([("T", batch.id(1))]) == [True]
        assert await place.listed() == []

    @rule
    async def test_many_events_are_cancelled_together_each_once(self, place: DelayingPlace) -> None:
        """Of one entry and of several, also where an entry or a topic is empty then."""
        delays, first, other = place.store.delays, events("T", 1, 2, 3), events("U", 4)
        await place.delay(10, first, other)
        await place.delay(5, events("T", 5, 6, ids=["due", "late"]))
        asked = [("T", first.id(0)), ("T", first.id(2)), ("T", first.id(0)), ("U", other.id(0)), ("U", first.id(1))]
        assert await delays.cancel([*asked, ("T", "due")], now=5) == [True, True, False, True, False, False]
        assert (await place.listed(), await delays.count()) == ([(5, 5), (5, 6), (10, 2)], 3)
        assert {topic: each.events for topic, each in (await delays.topics()).items()} == {"T": 3}
        assert await delays.cancel([("T", "late"), ("T", first.id(1)), ("T", "due")]) == [True] * 3
        assert (await place.listed(), await delays.topics(), await delays.next_due()) == ([], {}, None)
        assert await delays.cancel([("T", "due")]) == [False]

    @rule
    async def test_one_event_of_a_batch_is_moved_to_another_time(self, place: DelayingPlace) -> None:
        delays, batch = place.store.delays, events("T", 1, 2, 3)
        await place.delay(10, batch)
        assert await delays.move("T", batch.id(0), 30)
        assert await delays.move("T", batch.id(2), 5)
        assert not await delays.move("T", "other", 5)
        assert await place.listed() == [(5, 3), (10, 2), (30, 1)]
        for now in (5, 10, 30):
            await place.release(now)
        assert await place.in_topic() == [3, 2, 1]
        assert [await place.store.find(batch.id(index)) for index in range(3)] == [("T", 2), ("T", 1), ("T", 0)]
        with pytest.raises(BadArgument, match="expected a time between 1970 and 2116, got -1"):
            await delays.move("T", batch.id(0), -1)

    @rule
    async def test_a_wall_clock_that_is_set_back_makes_it_late_and_never_early(self, place: DelayingPlace) -> None:
        await place.delay(100, events("T", 1))
        for now in (99, 5, 0):
            await place.release(now)
        assert await place.in_topic() == []
        await place.delay(3, events("T", 2))
        await place.release(5)
        await place.release(100)
        assert await place.in_topic() == [2, 1]

    @rule
    async def test_very_many_that_are_due_at_once_enter_in_pieces(self, place: DelayingPlace) -> None:
        await place.delay(10, *(events("T", number) for number in range(1200)))
        left = [1200]
        while await place.store.delays.next_due() is not None:
            await place.store.delays.release(10)
            left.append(await place.store.delays.count())
        assert all(0 < before - after <= 500 for before, after in pairwise(left))
        await place.store.forwarded()
        assert await place.in_topic() == list(range(1200))

    @rule
    async def test_of_a_large_batch_each_event_is_taken_back_without_reading_many_others(
        self, place: DelayingPlace
    ) -> None:
        delays, batch = place.store.delays, events("T", *range(600))
        await place.delay(10, batch)
        entries = [entry async for entry in _entries(place)]
        assert max(len(entry.batch) for entry in entries) <= 192
        for index in range(0, 600, 40):
            assert await delays.cancel([("T", batch.id(index))]) == [True]
            assert await delays.cancel([("T", batch.id(index))]) == [False]
        left = [number for number in range(600) if number % 40]
        assert await place.listed() == [(10, number) for number in left]
        while await delays.next_due() is not None:
            await place.release(10)
        assert await place.in_topic() == left
        assert await place.store.find(batch.id(599)) == ("T", len(left) - 1)

    @rule
    async def test_one_time_of_many_events_is_theirs_in_the_order_accepted(self, place: DelayingPlace) -> None:
        """Also where they are more than one step takes, with ids of their own."""
        many = range(700)
        await place.delay(10, events("T", *many, ids=[f"id-{number}" for number in many]), events("T", 900))
        await place.delay(10, events("T", 901))
        assert await place.store.delays.cancel([("T", "id-500")]) == [True]
        rest = [number for number in many if number != 500] + [900, 901]
        assert [number for _, number in await place.listed()] == rest
        while await place.store.delays.next_due() is not None:
            await place.store.delays.release(10)
        await place.store.forwarded()
        assert await place.in_topic() == rest

    @rule
    async def test_a_time_that_is_none_is_refused_and_the_store_goes_on(self, place: DelayingPlace) -> None:
        with pytest.raises(BadArgument, match="expected a time between 1970 and 2116, got -1"):
            await place.delay(-1, events("T", 1))
        await place.delay(10, events("T", 2))
        assert await place.listed() == [(10, 2)]
