"""The due-log on JetStream: the rules of all stores, and what owners promise besides."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import time_ns
from types import FunctionType, ModuleType
from typing import Any, NoReturn

import pytest

from due_log import DelayingPlace, DueLogRules, Run, events
from solarwind import Event, SolarWind
from solarwind.batch import Batch
from solarwind.cluster.address import read_address
from solarwind.cluster.definitions import DefinitionKeys
from solarwind.cluster.delayed import StreamDueLog
from solarwind.cluster.engine import NatsEngine
from solarwind.cluster.namespace import open_namespace
from solarwind.cluster.publish import Publisher
from solarwind.cluster.session import Raw, Session
from solarwind.cluster.store import JetStreamStore
from solarwind.engine.local import LocalEngine
from solarwind.errors import NotFound, StoreError
from solarwind.limits import Limits
from solarwind.store.delays import Delayed
from solarwind.testing import FakeClock
from solarwind.testing.contract import on_loop, until

from .processes import one_of_each, process
from .servers import NatsCluster, NatsServer

SECOND = 1_000_000_000
PARTITION = 0  # of the namespace's only one


class NatsDelays(DelayingPlace):
    """The store of a namespace's only partition."""

    def __init__(self, make: Callable[[], JetStreamStore], publisher: Publisher) -> None:
        self.owner = make()
        super().__init__(self.owner)
        self._make = make
        self._publisher = publisher

    async def reopen(self) -> None:
        """Go on with another owner, after one that is killed."""
        await self.owner.abandon()
        self.store = self.owner = self._make()
        await self.owner.open(1)

    async def fire(self, batch: Batch) -> None:
        await self._publisher.submit(batch)
        await self.owner.synced()


@asynccontextmanager
async def owning(server: NatsServer | NatsCluster, namespace: str, *, opened: bool = True) -> AsyncIterator[NatsDelays]:
    """Yield a process that owns it, and has it open; it ends as it is, like one that is killed."""
    session = Session(read_address(server.url(namespace, streams=1)))
    await session.open()
    try:
        layout = await session.until_answered(lambda: open_namespace(session), "open a namespace")
        publisher = Publisher(session, layout, Limits())
        definitions = DefinitionKeys(session, layout).definitions
        place = NatsDelays(lambda: JetStreamStore(session, layout, PARTITION, publisher, definitions), publisher)
        if opened:
            await place.owner.open(1)
        try:
            yield place
        finally:
            await place.owner.abandon()
            await publisher.stop()
    finally:
        await session.close()


@pytest.fixture
def run(server: NatsServer, namespace: str) -> Run:
    def run(test: Callable[[DelayingPlace], Awaitable[None]]) -> None:
        async def work() -> None:
            async with owning(server, namespace) as place:
                await test(place)
                await place.store.close()

        asyncio.run(work())

    return run


@on_loop
async def test_an_owner_hands_out_a_delayed_event_when_it_is_due_and_so_does_the_next_owner(
    server: NatsServer, namespace: str
) -> None:
    now = 1_800_000_000 * SECOND
    clock, seen = FakeClock(now), list[int]()
    for life in range(2):
        async with owning(server, namespace, opened=False) as place:
            engine = LocalEngine(place.store, clock=clock)
            wind = SolarWind(engine=engine)

            @wind.on("T", purpose="p")
            async def handle(number: int) -> None:
                seen.append(number)

            async with wind:
                if not life:
                    for seconds in (1, 5):
                        later = events("T", seconds, first=seconds, due=[now + seconds * SECOND])
                        await engine.submit(later)
                    await clock.advance(2)
                else:
                    await clock.advance(10)
                await wind.settled(60)
                assert seen == [1, 5][: life + 1]


@on_loop
async def test_what_arrives_while_a_new_owner_looks_at_what_is_delayed_is_handed_out(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the events that the former owner had released, and was copying when it died."""
    next_due, seen = StreamDueLog.next_due, list[int]()
    async with owning(server, namespace, opened=False) as place:

        async def looking_late(due_log: StreamDueLog) -> int | None:
            await place.fire(events("T", 1))
            return await next_due(due_log)

        monkeypatch.setattr(StreamDueLog, "next_due", looking_late)
        wind = SolarWind(engine=LocalEngine(place.store))

        @wind.on("T", purpose="p", since="beginning")
        async def handle(number: int) -> None:
            seen.append(number)

        async with wind:
            await wind.settled(60)
            assert seen == [1]


@on_loop
async def test_an_owner_that_cannot_release_goes_on_and_its_process_is_not_ready(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(due_log: StreamDueLog, now: int) -> NoReturn:
        raise StoreError("no answer")

    def is_refused() -> bool:
        try:
            wind.engine.check()
        except StoreError as error:
            return "expected delayed events to enter" in str(error)
        return False

    release = StreamDueLog.release
    monkeypatch.setattr(StreamDueLog, "release", fail)
    seen: list[int] = []
    wind = SolarWind(server.url(namespace, streams=1))

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        seen.append(number)

    async with wind:
        assert isinstance(wind.engine, NatsEngine)
        (owner,) = wind.engine._owners.mine.values()
        await owner.engine.submit(events("T", 1, due=[1]))
        await until(is_refused)
        await wind.fire("T", 2)
        await until(lambda: seen == [2])
        monkeypatch.setattr(StreamDueLog, "release", release)
        await until(lambda: seen == [2, 1] and not is_refused())


@on_loop
async def test_an_event_that_a_producer_delays_is_in_the_due_log_of_its_owner_and_in_no_stream_before_it_is_due(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as wind, SolarWind(url) as producer:

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            seen.append(number)

        await wind.settled(60)
        await producer.engine.submit(events("T", 1, due=[1 << 61]))
        assert (await wind.statistics()).topics["T"].fired == 0
        await producer.engine.submit(events("T", 2, due=[1]))
        await until(lambda: seen == [2])
        assert isinstance(wind.engine, NatsEngine)
        (owner,) = wind.engine._owners.mine.values()
        assert await owner.engine.store.delays.count() == 1


@on_loop
async def test_what_a_handler_delays_on_a_topic_of_another_partition_is_counted_listed_and_taken_back(
    server: NatsServer, namespace: str
) -> None:
    here, there = one_of_each(2)
    async with SolarWind(server.url(namespace, streams=2)) as wind:

        @wind.on(here, purpose="p")
        async def handle(number: int) -> None:
            wind.fire_many(there, [number, number + 1], ids=[f"{number} a", f"{number} b"], after="1h")

        await wind.joined()
        await wind.fire(there, 10, id="own", after="1h")
        for number in (20, 30):
            await wind.fire(here, number)
        await wind.settled(60)
        assert (await wind.statistics()).topics[there].delayed == 5
        assert {each.topic: each.delayed for each in await wind.topics()}[there] == 5
        assert (await wind.delayed_event(there, "20 b")).event.payload == 21
        assert await wind.cancel(there, "20 b")
        assert not await wind.cancel(there, "20 b")
        listed: list[str] = []
        after = None
        while page := await wind.delayed(there, after=after, limit=1):
            listed += [each.event.id for each in page]
            after = page.next
            if after is None:
                break
        assert sorted(listed) == ["20 a", "30 a", "30 b", "own"]
        with pytest.raises(NotFound, match="solarwind delayed list"):
            await wind.delayed_event(there, "20 b")


@on_loop
async def test_a_producer_delays_events_where_no_process_takes_part(server: NatsServer, namespace: str) -> None:
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as producer:
        await producer.fire("T", 1, after="1h")
        assert [each.event.payload for each in await producer.delayed()] == [1]
    async with SolarWind(url) as other:
        (left,) = await other.delayed("T")
        assert await other.cancel("T", left.event.id)


@pytest.mark.long
@on_loop
async def test_an_owner_that_is_killed_while_events_are_delayed_and_due_leaves_each_once(
    server: NatsServer, namespace: str
) -> None:
    """By the public surface: processes that own the partition are killed one after the other."""
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as firing:
        receipts = []
        for number in range(6):
            async with process(url, topics=["T"]) as owner:
                for _ in range(20):
                    receipts.append(firing.fire("T", len(receipts), after=0.05 * (len(receipts) % 10)))
                receipts.append(firing.fire("T", len(receipts), after="1h"))
                await receipts[10 * number]
                await owner.kill()
        seen: list[int] = []

        @firing.on("T", purpose="p")
        async def note(event: Event) -> None:
            assert event.due is not None
            assert event.due <= datetime.now(UTC)
            seen.append(event.payload)

        await firing.joined()
        ids = [await receipt for receipt in receipts]

        async def only_those_of_later_are_left() -> bool:
            await firing.settled(60)
            return [each.event.id for each in await firing.delayed()] == ids[20::21]

        await until(only_those_of_later_are_left)
        entered = [event.id for event in await firing.events("T", limit=1_000)]
    assert sorted(entered) == sorted(id for at, id in enumerate(ids) if at % 21 != 20)


@pytest.mark.long
@on_loop
async def test_an_owner_that_is_killed_while_events_wait_for_a_delay_makes_none_early_and_loses_none(
    server: NatsServer, namespace: str
) -> None:
    """The next owner goes on, in order; a fan-out's copies come at most once."""
    url, delay_s, waited, copied = server.url(namespace, streams=1), 3.0, dict[int, float](), Counter[int]()
    async with process(url, topics=["T"]) as owner, SolarWind(url) as wind:

        @wind.on("T", purpose="late", delay=delay_s, concurrency=1)
        async def late(event: Event) -> None:
            waited.setdefault(event.payload, (time_ns() - event.time_ns) / 1e9)

        @wind.on("T", purpose="copies", exchange="fanout", delay=delay_s)
        async def copies(event: Event) -> None:
            copied[event.payload] += 1

        await wind.joined()
        for number in range(40):
            await wind.fire("T", number)
            if number == 20:
                await owner.kill()
        await until(lambda: len(waited) == 40)
        await wind.settled(120)
    assert list(waited) == list(range(40))
    assert min(waited.values()) >= delay_s
    assert set(copied.values()) <= {1}


class TestRules(DueLogRules):
    """Over JetStream."""


CALLS = [*range(1, 18)]  # of JetStream that store something, in the work below


async def work(place: NatsDelays, said: list[str]) -> None:
    """Delay events and release those that are due; `said` gets what was confirmed."""
    await place.delay(10, events("T", 1, 2, 3), events("T", 4, ids=["four"]))
    said.append("delayed")
    await place.fire(events("T", 0))
    await place.delay(30, events("T", 5, producer=2), events("U", 6))
    said.append("more")
    if (await place.store.delays.cancel([("T", "four")]))[0]:
        said.append("cancelled")
    if await place.store.delays.move("T", events("T", 2).id(0), 40):
        said.append("moved")
    await place.release(10)
    await place.release(30)
    await place.delay(50, events("T", 7, producer=3))
    said.append("last")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    "call", [call if call % 4 == 1 else pytest.param(call, marks=pytest.mark.long) for call in CALLS]
)
def test_an_owner_that_is_killed_at_any_call_leaves_each_delayed_event_once_and_none_is_early(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, call: int, stored: bool
) -> None:
    """Before it is stored, or right after."""
    left, dead, publish = call, asyncio.Event(), Session.publish

    async def killed(self: Session, *what: Any) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            if stored:
                await publish(self, *what)
            dead.set()
        if left <= 0:
            await asyncio.Event().wait()
        return await publish(self, *what)

    async def live(said: list[str]) -> None:
        async with owning(server, namespace) as place:
            monkeypatch.setattr(Session, "publish", killed)  # all that is stored goes through it
            at_work = asyncio.create_task(work(place, said))
            await asyncio.wait([at_work, asyncio.create_task(dead.wait())], return_when=asyncio.FIRST_COMPLETED)
            if at_work.done():
                at_work.result()
            at_work.cancel()
            await asyncio.wait([at_work])
        monkeypatch.undo()

    async def test() -> None:
        said: list[str] = []
        await live(said)
        async with owning(server, namespace) as place:
            await place.store.forwarded()
            await place.release(39)
            assert not {7, *([2] if "moved" in said else [])} & set(await place.in_topic())
            await place.release(100)
            there = sorted(await place.in_topic() + await place.in_topic("U"))
            assert await place.listed() == []
        assert there == sorted(set(there))
        confirmed = {"delayed": {1, 2, 3}, "more": {5, 6}, "last": {7}}
        assert set().union(*(confirmed[each] for each in said if each in confirmed)) <= set(there)
        assert 4 not in there or "cancelled" not in said

    asyncio.run(test())


def test_what_a_former_owner_delays_or_releases_is_refused(server: NatsServer, namespace: str) -> None:
    async def test() -> None:
        async with owning(server, namespace) as former:
            await former.delay(10, events("T", 1), events("T", 2))
            assert await former.listed() == [(10, 1), (10, 2)]
            async with owning(server, namespace) as place:
                refused = "another owner now"
                with pytest.raises(StoreError, match=refused):
                    await former.store.delays.release(10)
                with pytest.raises(StoreError, match=refused):
                    await former.delay(10, events("T", 3))
                with pytest.raises(StoreError, match=refused):
                    await former.store.delays.cancel([("T", events("T", 1).id(0))])
                assert await place.listed() == [(10, 1), (10, 2)]
                await place.release(10)
                assert (await place.in_topic(), await place.listed()) == ([1, 2], [])

    asyncio.run(test())


def test_what_is_delayed_is_not_read_from_a_node_that_is_behind(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, behind = Session.get, [True, True]

    async def sometimes_behind(self: Session, stream: str, request: dict[str, Any]) -> list[Raw]:
        return [] if "multi_last" in request and behind and behind.pop() else await get(self, stream, request)

    async def test() -> None:
        async with owning(server, namespace) as former:
            await former.delay(10, events("T", 1))
            assert await former.listed() == [(10, 1)]
        monkeypatch.setattr(Session, "get", sometimes_behind)
        async with owning(server, namespace) as place:
            assert await place.listed() == [(10, 1)]
            assert not behind

    asyncio.run(test())


def test_an_owner_that_leaves_before_what_came_is_sorted_leaves_it_to_the_next(
    server: NatsServer, namespace: str
) -> None:
    async def test() -> None:
        async with owning(server, namespace) as former:
            failures: list[StoreError] = []
            former.owner.failed = failures.append
            await former.delay(10, *(events("T", number) for number in range(600)))
            await former.store.close()
            assert not failures
        async with owning(server, namespace) as place:
            assert [number for _, number in await place.listed()] == list(range(600))

    asyncio.run(test())


MANY = int(os.environ.get("DELAYED", 100_000))  # DELAYED=1000000 takes minutes
PORTION = 500
MAX_HELD = 8.0  # bytes for each


@pytest.mark.long
def test_an_owner_holds_a_few_bytes_in_memory_for_each_delayed_event(server: NatsServer, namespace: str) -> None:
    """So it is of a million as of a hundred thousand: what it holds are the names of pages."""

    async def test() -> None:
        async with owning(server, namespace) as place:
            held: list[int] = []
            for count in (MANY // 10, MANY):
                for first in range(await place.store.delays.count(), count, PORTION):
                    few = [events("T", number) for number in range(first, first + PORTION)]
                    delayed = [Delayed(1 + number * 7919 % MANY, few[number]) for number in range(PORTION)]
                    await place.store.commit([], [], [], 1, delayed)
                assert await place.store.delays.count() == count
                for pages in (place.store.delays._times, place.store.delays._ids):
                    pages._recent.clear()  # of which there are as many with few events
                held.append(size_of(place.store.delays))
            assert (held[1] - held[0]) / (MANY - MANY // 10) < MAX_HELD
        async with owning(server, namespace) as place:
            assert (await place.store.delays.count(), await place.store.delays.next_due()) == (MANY, 1)

    asyncio.run(test())


def size_of(what: object) -> int:
    """Return how many bytes an object takes, with all that it refers to."""
    found, todo = {id(what)}, [what]
    size = 0
    while todo:
        each = todo.pop()
        size += sys.getsizeof(each)
        for other in gc.get_referents(each):
            if id(other) not in found and not isinstance(other, (type, ModuleType, FunctionType)):
                found.add(id(other))
                todo.append(other)
    return size
