"""Firing: an event's fields, what a handler fires, payloads as values, and each id accepted once."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from ...errors import BadArgument, BadName
from ...event import Cause, Event
from ...failure import Reject, Retry
from ...wind import SolarWind
from .place import Place, on_loop, until


class FiringRules:
    """The rules of an event's fields, the life of an event, and only once."""

    @on_loop
    async def test_a_handler_sees_all_fields_of_an_event(self, place: Place) -> None:
        wind = place.open()
        seen: list[Event] = []

        @wind.on("T", purpose="See it", version=3)
        async def handle(event: Event) -> None:
            seen.append(event)

        before = time.time_ns()
        async with wind:
            id = await wind.fire("T", {"a": [1, None]}, key="k")
            await wind.fire("T", b"\x00\xff", id="mine", cause=Cause.user("alice"))
            await wind.settled(60)
        first, second = seen
        assert (first.id, first.topic, first.payload, first.key) == (id, "T", {"a": [1, None]}, "k")
        assert before <= first.time_ns <= time.time_ns()
        assert int(first.time.timestamp() * 1e6) == pytest.approx(first.time_ns // 1000, abs=1)
        assert first.time.utcoffset() is not None
        assert first.machine
        assert first.process
        assert (first.attempt, first.purpose, first.version) == (1, "See it", 3)
        assert first.cause.kind == "application"
        assert first.root == first.id
        assert (second.id, second.payload, second.key) == ("mine", b"\x00\xff", None)
        assert second.cause == Cause.user("alice")

    @on_loop
    async def test_ids_are_unique_and_sort_by_time(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            ids = (await wind.fire_many("T", range(5_000))).ids
            ids += [wind.fire("U").id for _ in range(10)]
        assert len(set(ids)) == 5_010
        assert ids[:5_000] == sorted(ids[:5_000])

    @on_loop
    async def test_ids_sort_in_the_order_of_firing_on_all_topics(self, place: Place) -> None:
        """They sort below the millisecond too, however the events are fired."""
        wind = place.open()
        async with wind:
            receipts: list[Any] = []
            for number in range(200):
                receipts += [wind.fire("T", number), wind.fire("U", number, key="k"), wind.fire_many("V", range(3))]
                receipts += [wind.fire("U", number), wind.fire("T", number, cause=Cause.user("u"))]
                if number % 10 == 0:
                    await receipts[-1]
            ids = [id for each in receipts for id in getattr(each, "ids", None) or [each.id]]
            await receipts[-1]
        assert len(ids) == 1_400
        assert ids == sorted(ids)

    @on_loop
    async def test_a_caused_event_sorts_after_its_cause(self, place: Place) -> None:
        wind = place.open()
        pairs: list[tuple[str, str]] = []

        @wind.on("T", purpose="p")
        async def cause(event: Event) -> None:
            wind.fire("U")
            wind.fire("U", now=True)

        @wind.on("U", purpose="q")
        async def effect(event: Event) -> None:
            pairs.append((event.cause.id, event.id))

        async with wind:
            await wind.fire_many("T", range(100))
            await wind.settled(60)
        assert len(pairs) == 200
        assert all(cause < effect for cause, effect in pairs)

    @on_loop
    async def test_fire_returns_the_id_at_once(self, place: Place) -> None:
        wind = place.open()
        seen: list[str] = []

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            seen.append(event.id)

        async with wind:
            receipt = wind.fire("T")
            id = receipt.id
            assert await receipt == id
            assert await receipt == id, "awaited again, it is the same"
            await wind.settled(60)
        assert seen == [id]

    @on_loop
    async def test_fire_many_fires_all_in_order(self, place: Place) -> None:
        """All are fired in order, with one key or each with its own."""
        wind = place.open()
        seen: list[tuple[int, str | None, str]] = []

        @wind.on("T", purpose="p")
        async def handle(number: int, event: Event) -> None:
            seen.append((number, event.key, event.id))

        async with wind:
            ids = (await wind.fire_many("T", range(3), key="k")).ids
            ids += (await wind.fire_many("T", (n for n in range(3, 5)), key=lambda number: f"k{number}")).ids
            assert (await wind.fire_many("T", [])).ids == []
            await wind.settled(60)
        assert seen == list(zip(range(5), ["k", "k", "k", "k3", "k4"], ids, strict=True))

    @on_loop
    async def test_fire_many_with_ids_and_keys_for_each(self, place: Place) -> None:
        """The same ids again are acknowledged one by one, and not stored again."""
        wind = place.open()
        seen: list[tuple[int, str | None, str]] = []

        @wind.on("T", purpose="p")
        async def handle(number: int, event: Event) -> None:
            seen.append((number, event.key, event.id))

        async with wind:
            receipts = await wind.fire_many("T", range(3), keys=["k", None, "l"], ids=["a", None, "c"])
            assert (receipts.ids[0], receipts.ids[2]) == ("a", "c")
            again = await wind.fire_many("T", range(10, 14), ids=["c", receipts.ids[1], "a", "d"])
            assert again.ids == ["c", receipts.ids[1], "a", "d"]
            wrongs: list[dict[str, Any]] = [
                {"ids": ["x"]},
                {"keys": "ab"},
                {"key": "k", "keys": ["k", "l"]},
                {"ids": 7},
            ]
            for wrong in wrongs:
                with pytest.raises(BadArgument):
                    wind.fire_many("T", range(2), **wrong)
            bads: list[dict[str, Any]] = [{"ids": ["x", ""]}, {"keys": ["x", 7]}]
            for bad in bads:
                with pytest.raises(BadName):
                    wind.fire_many("T", range(2), **bad)
            await wind.settled(60)
        assert seen == [(0, "k", "a"), (1, None, receipts.ids[1]), (2, "l", "c"), (13, None, "d")]

    @on_loop
    async def test_within_changes_nothing_for_an_event_accepted_in_time(self, place: Place) -> None:
        wind = place.open()
        seen: list[Any] = []

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            seen.append(event.payload)
            if event.payload == 0:
                wind.fire("T", 10, within=0.001)
                await wind.fire("T", 11, now=True, within=30)

        async with wind:
            wind.fire("T", 0)
            await wind.fire("T", 1, within=30.0)
            await wind.fire_many("T", [2, 3], within=timedelta(seconds=30), key="k")
            wind.fire("T", 4, within=30)
            for wrong in (0, -1, True, "2"):
                with pytest.raises(BadArgument):
                    wind.fire("T", within=wrong)  # type: ignore[arg-type]
            await wind.settled(60)
        assert sorted(seen) == [0, 1, 2, 3, 4, 10, 11]

    @on_loop
    async def test_an_event_fired_by_a_handler_has_its_cause_and_root(self, place: Place) -> None:
        """Events of a handler name the event that caused them, its purpose and version, and the head of the chain."""
        wind = place.open()
        seen: dict[str, Event] = {}

        @wind.on("a", purpose="First", version=2)
        async def first(event: Event) -> None:
            seen["a"] = event
            wind.fire("b")

        @wind.on("b", purpose="Second")
        async def second(event: Event) -> None:
            seen["b"] = event
            wind.fire("c")
            wind.fire("d", cause=Cause.machine("lathe"))

        for topic in ("c", "d"):

            @wind.on(topic, purpose="Third")
            async def third(event: Event) -> None:
                seen[event.topic] = event

        async with wind:
            await wind.fire("a", cause=Cause.schedule("nightly"))
            await until(lambda: len(seen) == 4)
            await wind.settled(60)
        a, b, c, d = (seen[topic] for topic in "abcd")
        assert a.cause == Cause.schedule("nightly")
        assert b.cause == Cause("event", a.id, "First", 2, a.id, 1, "a")
        assert c.cause == Cause("event", b.id, "Second", 1, a.id, 2, "b")
        assert (a.root, b.root, c.root) == (a.id, a.id, a.id)
        assert (a.depth, b.depth, c.depth) == (0, 1, 2)
        assert d.cause == Cause.machine("lathe")

    @on_loop
    async def test_an_event_may_be_given_as_cause(self, place: Place) -> None:
        wind = place.open()
        seen: list[Event] = []

        @wind.on("child", purpose="p")
        async def handle(event: Event) -> None:
            seen.append(event)

        async with wind:
            async with wind.listen("T", "q") as stream:
                await wind.fire("T")
                parent = await anext(stream)
                await wind.fire("child", cause=parent)
                stream.settle()
                await wind.settled(60)
        assert seen[0].cause == Cause("event", parent.id, "q", 1, parent.id, 1, "T")

    @on_loop
    async def test_what_a_handler_fires_is_committed_with_its_settle_or_not_at_all(self, place: Place) -> None:
        wind = place.open()
        children: list[tuple[str, int]] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=0))
        async def handle(what: str, event: Event) -> None:
            wind.fire("child", [what, event.attempt])
            await wind.fire("child", [what, event.attempt])
            if what == "in the end" and event.attempt < 3:
                raise RuntimeError("not yet")
            if what == "never":
                raise Reject("no")

        @wind.on("child", purpose="q")
        async def child(pair: tuple[str, int]) -> None:
            children.append(pair)

        async with wind:
            await wind.fire_many("T", ["at once", "in the end", "never"])
            await wind.settled(60)
            fired = (await wind.statistics()).topics["child"].fired
        assert sorted(children) == [("at once", 1)] * 2 + [("in the end", 3)] * 2
        assert fired == 4

    @on_loop
    async def test_a_batch_handler_fires_and_settles_as_one(self, place: Place) -> None:
        wind = place.open()
        children: list[int] = []
        attempts: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(wait=0))
        async def handle(numbers: list[int], events: list[Event]) -> None:
            attempts.append(events[0].attempt)
            for number in numbers:
                wind.fire("child", number)
            if events[0].attempt == 1:
                raise RuntimeError("not yet")

        @wind.on("child", purpose="q")
        async def child(number: int, event: Event) -> None:
            children.append(number)
            assert event.cause.purpose == "p"

        async with wind:
            await wind.fire_many("T", range(20))
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert sorted(children) == list(range(20))
        assert (counts.settled, counts.retried) == (20, 20)
        assert set(attempts) == {1, 2}

    @on_loop
    async def test_a_handler_fires_more_than_a_batch_holds(self, place: Place) -> None:
        """All of it is still committed together with the settle."""
        wind = place.open()
        children: list[int] = []
        sizes: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(wait=0))
        async def handle(event: Event) -> None:
            wind.fire_many("child", range(10_000))
            for _ in range(5):
                wind.fire("large", b"x" * 1_000_000)
            if event.attempt == 1:
                raise RuntimeError("not yet")

        @wind.on("child", purpose="q")
        async def child(number: int) -> None:
            children.append(number)

        @wind.on("large", purpose="q")
        async def large(data: bytes) -> None:
            sizes.append(len(data))

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
        assert sorted(children) == list(range(10_000))
        assert sizes == [1_000_000] * 5

    @on_loop
    async def test_large_and_small_payloads_of_one_turn_keep_their_order(self, place: Place) -> None:
        """Payloads of up to 1 MiB arrive in the order fired."""
        wind = place.open()
        seen: list[object] = []

        @wind.on("T", purpose="p", concurrency=1)
        async def handle(event: Event) -> None:
            seen.append(event.payload)

        payloads: list[object] = [b"x" * 2**20, "small", b"", "y" * (2**20 - 2), None, b"z" * 700_000, b"z" * 700_000]
        async with wind:
            await wind.fire_many("T", payloads)
            await wind.settled(60)
        assert seen == payloads

    @on_loop
    async def test_what_a_handler_fires_is_held_until_it_returns(self, place: Place) -> None:
        """Awaiting such a fire returns the id at once, without waiting for the acceptance."""
        wind = place.open()
        gate = asyncio.Event()
        fired: list[str] = []
        children: list[str] = []

        @wind.on("T", purpose="p")
        async def handle() -> None:
            receipt = wind.fire("child")
            fired.append(receipt.id)
            fired.append(await receipt)
            fired.append(await wind.fire("child", now=True))
            await gate.wait()

        @wind.on("child", purpose="q")
        async def child(event: Event) -> None:
            children.append(event.id)

        async with wind:
            await wind.fire("T")
            await until(lambda: children and len(fired) == 3)
            assert fired[0] == fired[1]
            assert children == [fired[2]], "only what was fired with now=True"
            gate.set()
            await wind.settled(60)
        assert children == [fired[2], fired[0]]

    @on_loop
    async def test_an_event_fired_with_now_stays_fired_if_the_handler_raises(self, place: Place) -> None:
        wind = place.open()
        children: list[Event] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0))
        async def handle(event: Event) -> None:
            await wind.fire("child", event.attempt, now=True)
            raise RuntimeError("no")

        @wind.on("child", purpose="q")
        async def child(event: Event) -> None:
            children.append(event)

        async with wind:
            id = await wind.fire("T")
            await wind.settled(60)
        assert [event.payload for event in children] == [1, 2]
        assert {event.cause.id for event in children} == {id}

    @on_loop
    async def test_a_task_of_a_handler_fires_after_it_returned(self, place: Place) -> None:
        """It is too late to be held: it is fired by itself, and still has its cause."""
        wind = place.open()
        gate = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []
        children: list[Event] = []

        async def background() -> None:
            await gate.wait()
            await wind.fire("child")

        @wind.on("T", purpose="p")
        async def handle() -> None:
            tasks.append(asyncio.create_task(background()))

        @wind.on("child", purpose="q")
        async def child(event: Event) -> None:
            children.append(event)

        async with wind:
            id = await wind.fire("T")
            await wind.settled(60)
            gate.set()
            await tasks[0]
            await wind.settled(60)
        assert [event.cause.id for event in children] == [id]

    @on_loop
    async def test_a_def_handler_fires_like_any_other(self, place: Place) -> None:
        wind = place.open()
        children: list[tuple[str, int]] = []

        @wind.on("T", purpose="p", retry=Retry(wait=0))
        def handle(event: Event) -> None:
            assert wind.fire("child", event.attempt).wait(1)
            if event.attempt == 1:
                raise RuntimeError("not yet")

        @wind.on("child", purpose="q")
        def child(number: int, event: Event) -> None:
            children.append((event.cause.id, number))

        async with wind:
            id = await wind.fire("T")
            await wind.settled(60)
        assert children == [(id, 2)]

    @on_loop
    async def test_trace_returns_the_tree_of_what_an_event_caused(self, place: Place) -> None:
        """The tree of what an event caused comes from the history."""
        wind = place.open()
        for topic in ("a", "b", "c"):
            wind.topic(topic, keep=3600)

        @wind.on("a", purpose="p")
        async def first(event: Event) -> None:
            wind.fire("b", 1)
            wind.fire("b", 2)

        @wind.on("b", purpose="q")
        async def second(number: int) -> None:
            if number == 2:
                wind.fire("c", 3)

        async with wind:
            await wind.fire("a")
            id = await wind.fire("a")
            await wind.settled(60)
            trace = await wind.trace(id)
            leaf = await wind.trace(trace.caused[1].caused[0].event.id)
        assert trace.event.id == id
        assert [(child.event.topic, child.event.payload) for child in trace.caused] == [("b", 1), ("b", 2)]
        assert trace.caused[0].caused == ()
        assert [child.event.payload for child in trace.caused[1].caused] == [3]
        assert (leaf.event.root, leaf.caused) == (id, ())

    @on_loop
    async def test_nobody_sees_what_another_does_to_its_payload(self, place: Place) -> None:
        """A change is visible neither to other handlers, nor to the next attempt, nor to the producer, on memory://
        too."""
        wind = place.open()
        seen: list[Any] = []

        def service(purpose: str, exchange: str) -> None:
            @wind.on("T", purpose=purpose, exchange=exchange, retry=Retry(wait=0))
            async def handle(payload: dict[str, Any], event: Event) -> None:
                seen.append((purpose, event.attempt, str(payload), str(event.payload)))
                payload["list"].append(purpose)
                event.payload["list"].append(purpose)
                payload.clear()
                if event.attempt == 1:
                    raise RuntimeError("again")

        for purpose, exchange in (("a", "direct"), ("b", "direct"), ("c", "fanout"), ("c", "fanout")):
            service(purpose, exchange)
        payload: dict[str, Any] = {"list": [1], "text": "x"}
        as_fired = str(payload)
        async with wind:
            receipt = wind.fire("T", payload)
            payload["list"].append("the producer")
            await receipt
            await wind.settled(60)
        assert sorted(seen) == [
            ("a", 1, as_fired, as_fired),
            ("a", 2, as_fired, as_fired),
            ("b", 1, as_fired, as_fired),
            ("b", 2, as_fired, as_fired),
            ("c", 1, as_fired, as_fired),
            ("c", 1, as_fired, as_fired),
        ]

    @on_loop
    async def test_a_buffer_may_be_used_again_after_it_was_fired(self, place: Place) -> None:
        wind = place.open()
        seen: list[bytes] = []

        @wind.on("T", purpose="p")
        async def handle(data: bytes) -> None:
            seen.append(data)

        buffer = bytearray(b"first")
        async with wind:
            receipt = wind.fire("T", buffer)
            buffer[:] = b"other"
            wind.fire("T", memoryview(buffer))
            await receipt
            await wind.settled(60)
        assert seen == [b"first", b"other"]

    @on_loop
    async def test_the_same_id_again_is_acknowledged_and_not_stored(self, place: Place) -> None:
        """It may come in another batch, in the same one, or from a handler; it may be an id that Solar Wind made."""
        wind = place.open()
        wind.topic("T", keep=3600)
        seen = _collect(wind)

        @wind.on("again", purpose="q")
        async def again() -> None:
            wind.fire("T", "in a handler", id="x")

        async with wind:
            assert await wind.fire("T", 1, id="x") == "x"
            assert await wind.fire("T", 2, id="x") == "x"
            receipts = [wind.fire("T", number, id="y") for number in (3, 4, 5)] + [wind.fire("T", 6, id="z")]
            assert [await receipt for receipt in receipts] == ["y", "y", "y", "z"]
            made = await wind.fire("T", 7)
            assert await wind.fire("T", 8, id=made) == made
            assert await wind.fire("U", 9, id="x") == "x", "another topic"
            await wind.fire("again")
            await wind.settled(60)
            statistics = await wind.statistics()
        assert seen == [(1, "x"), (3, "y"), (6, "z"), (7, made)]
        assert statistics.topics["T"].fired == 4
        assert statistics.purposes["T", "p"].settled == 4

    @on_loop
    async def test_the_same_id_is_not_stored_again_after_its_event_was_handled(self, place: Place) -> None:
        """The event may be gone: ids are known within the history where that is kept, else the last 100,000."""
        clock = place.clock()
        wind = place.open()
        seen = _collect(wind)
        async with wind:
            made = await wind.fire("T", 1)
            await wind.fire("T", 2, id="x")
            await wind.settled(60)
            clock.advance(10)
            if not place.durable:
                await until(
                    lambda: _forgotten(wind), "what is settled to be forgotten", meanwhile=lambda: clock.advance(1)
                )
            await wind.fire("T", 3, id="x")
            await wind.fire("T", 4, id=made)
            await wind.settled(60)
        assert seen == [(1, made), (2, "x")]

    @on_loop
    async def test_the_same_id_is_not_stored_again_after_a_restart(self, place: Place) -> None:
        wind = place.open()
        seen = _collect(wind)
        async with wind:
            made = await wind.fire("T", 1)
            await wind.fire("T", 2, id="x")
            await wind.settled(60)
        wind = place.restart()
        later = _collect(wind)
        async with wind:
            assert await wind.fire("T", 3, id="x") == "x"
            assert await wind.fire("T", 4, id=made) == made
            await wind.fire("T", 5, id="y")
            await wind.settled(60)
        assert seen == [(1, made), (2, "x")]
        assert later == [(5, "y")]


def _collect(wind: SolarWind) -> list[tuple[Any, str]]:
    seen: list[tuple[Any, str]] = []

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        seen.append((event.payload, event.id))

    return seen


async def _forgotten(wind: SolarWind) -> bool:
    return sum(info.kept for info in await wind.topics()) == 0
