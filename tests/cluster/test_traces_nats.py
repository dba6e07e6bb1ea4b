"""What an event caused, and an event by its id, on NATS: found with few messages, and by one owner after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from solarwind import NotFound, SolarWind
from solarwind.batch import make_id, read_id
from solarwind.cluster import id_index, log, noted, positions, store, tracing
from solarwind.cluster.copying import NatsEnd
from solarwind.cluster.session import Session
from solarwind.copying import copy
from solarwind.event import Cause
from solarwind.records import Trace
from solarwind.store.offline import OfflineStore
from solarwind.testing.contract import on_loop, until
from solarwind.testing.rules.place import refused

from .place import NatsPlace
from .processes import one_of_each
from .servers import NatsServer
from .test_history import messages


@pytest.fixture
def place(server: NatsServer) -> Iterator[NatsPlace]:
    made = NatsPlace(server, streams=1)
    yield made
    made.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is written down all the time, in windows of a ms, what was noted for few events
    together; few messages lie between two notes."""
    monkeypatch.setattr(id_index, "WINDOW_BITS", 0)
    monkeypatch.setattr(log, "PURGE_AFTER", 3)
    monkeypatch.setattr(noted, "NOTES_OF", 8)
    monkeypatch.setattr(positions, "NOTE_MESSAGES", 4)
    monkeypatch.setattr(positions, "READ_MESSAGES", 4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams of all messages that were asked for."""
    found: list[str] = []
    get, one = Session.get, Session._from_leader

    async def counted(self: Session, stream: str, request: dict[str, Any]) -> list[Any]:
        page = await get(self, stream, request)
        found.extend([stream] * max(1, len(page)))
        return page

    async def counted_one(self: Session, stream: str, request: dict[str, Any]) -> Any:
        found.append(stream)
        return await one(self, stream, request)

    monkeypatch.setattr(Session, "get", counted)
    monkeypatch.setattr(Session, "_from_leader", counted_one)
    return found


def chain(wind: SolarWind) -> None:
    """Have each event of a cause two of b, and each of those one of c."""
    for topic in ("a", "b", "c"):
        wind.topic(topic, keep=3600)

    @wind.on("a", purpose="p")
    async def first(number: int) -> None:
        wind.fire_many("b", [number, -number])

    @wind.on("b", purpose="q")
    async def second(number: int) -> None:
        wind.fire("c", number)


def payloads(trace: Trace) -> list[Any]:
    return [trace.event.payload, sorted(map(payloads, trace.caused))]


def tree(number: int) -> list[Any]:
    return [number, sorted([[number, [[number, []]]], [-number, [[-number, []]]]])]


async def cost(asked: list[str], ask: Callable[[], Awaitable[object]]) -> int:
    """Return how many messages a question takes: the least of several, for what goes on besides is counted, too."""
    counts = []
    for _ in range(5):
        asked.clear()
        await ask()
        counts.append(len(asked))
    return min(counts)


@on_loop
async def test_many_unrelated_events_do_not_make_a_trace_dearer(
    place: NatsPlace, often: None, asked: list[str]
) -> None:
    wind = place.open()
    chain(wind)

    async def trace(number: int, root: str) -> None:
        assert payloads(await wind.trace(root)) == tree(number)

    async with wind:
        roots = [await wind.fire("a", 1), await wind.fire("a", 2, id="given")]
        await wind.settled(60)
        costs: list[list[int]] = []
        for _ in range(3):
            costs.append([await cost(asked, partial(trace, *each)) for each in enumerate(roots, 1)])
            for number in range(10, 70):
                await wind.fire("a", number)
            await wind.settled(60)
        for before, after in zip(*costs[1:], strict=True):
            assert after <= before + 10


@on_loop
async def test_an_event_is_found_by_its_id_in_few_messages_and_one_that_is_nowhere_too(
    place: NatsPlace, often: None, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_NEAR", {"batch": 1})
    async with place.open() as wind:

        async def find(number: int) -> None:
            assert (await wind.event("T", ids[number])).event.payload == number

        wind.topic("T", keep=3600)
        ids = [await wind.fire("T", number) for number in range(150)]
        made = [read_id(id) for id in ids]
        await wind.topics()
        for at in (0, 1, 70, 148, 149):
            assert await cost(asked, partial(find, at)) <= 60
        for at in (0, 70, 149):
            its = made[at]
            assert its is not None
            for time, number in ((its.time_ns + 10**15, its.sequence), (its.time_ns, its.sequence + 10_000)):
                nowhere = make_id(time, its.producer, number)
                assert await cost(asked, lambda id=nowhere: refused(wind.trace(id), NotFound)) <= 30


@on_loop
async def test_an_event_is_found_whatever_its_producer_s_clock_says(place: NatsPlace, often: None) -> None:
    """The time in an id only says where to look first."""
    clock = place.clock()
    async with place.open() as wind:
        wind.topic("T", keep=10**6)
        ids = []
        for number in range(40):
            ids.append(await wind.fire("T", number))
            clock.advance(30)
        assert [(await wind.event("T", id)).event.payload for id in ids] == list(range(40))


@on_loop
async def test_the_index_is_complete_after_owners_that_wrote_nothing_at_the_end(
    place: NatsPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived is in no commit yet, or only in commits, when they are gone."""
    monkeypatch.setattr(store.JetStreamStore, "close", store.JetStreamStore.abandon)
    for turn in range(3):
        wind = place.open()
        chain(wind)
        async with wind:
            if not turn:
                root = await wind.fire("a", 1, id="root")
                await wind.settled(60)
            await wind.fire("c", turn, cause=Cause("event", root))  # nothing is committed for it
            await wind.topics()
            found = await wind.trace(root)
            assert sorted(each.event.payload for each in found.caused) == sorted([1, -1, *range(turn + 1)])
    async with place.open() as wind:
        found = await wind.trace(root)
        assert sorted(each.event.payload for each in found.caused) == [-1, 0, 1, 1, 2]
        assert sorted(payloads(each)[0] for top in found.caused for each in top.caused) == [-1, 1]
        for child in found.caused:
            assert (await wind.trace(child.event.id)).event.payload == child.event.payload


@on_loop
async def test_the_index_goes_with_the_history(place: NatsPlace, often: None, server: NatsServer) -> None:
    subject = f"solarwind.{place.namespace}.state.0.kept.ids.>"
    stream = f"SOLARWIND_{place.namespace}_state"
    wind = place.open()
    chain(wind)
    async with wind:
        for number in range(20):
            await wind.fire("a", number)
            await wind.settled(60)

        async def is_written() -> bool:
            await wind.fire("a", 0)
            return bool(await messages(server, stream, subject))

        await until(is_written)
        await wind.settled(60)
        for topic in ("a", "b", "c"):
            wind.topic(topic, keep=0)

        async def is_gone() -> bool:
            await wind.fire("c", 0)  # without a cause: of it the index has nothing
            return await messages(server, stream, subject) <= 8  # what was committed just now

        await until(is_gone)


@on_loop
async def test_a_trace_over_partitions_comes_in_pages_each_event_once(server: NatsServer, namespace: str) -> None:
    topics = one_of_each(3)
    wind = SolarWind(server.url(namespace, streams=3))
    for topic in ("a", *topics):
        wind.topic(topic, keep=3600)

    @wind.on("a", purpose="p")
    async def spread() -> None:
        for number in range(30):
            wind.fire(topics[number % 3], number)

    async with wind:
        root = await wind.fire("a")
        await wind.settled(60)
        whole = await wind.trace(root)
        pages = [await wind.trace(root, limit=5)]
        while pages[-1].more:
            pages.append(await wind.trace(root, pages[-1].caused[-1].event.id, limit=5))
    ids = [each.event.id for page in pages for each in page.caused]
    assert ids == [each.event.id for each in whole.caused]
    assert sorted(each.event.payload for each in whole.caused) == list(range(30))
    assert len(pages) >= 8


@on_loop
async def test_a_copy_has_the_index_and_numbers_in_any_order(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    url, path = server.url(namespace, streams=2), tmp_path / "wind.db"
    wind = SolarWind(f"sqlite:///{path}")
    chain(wind)
    async with wind:
        roots = [await wind.fire("a", number, id="given" if number == 3 else None) for number in range(1, 5)]
        await wind.settled(60)
        before = [await wind.trace(root) for root in roots]
    await copy(OfflineStore(str(path), writes=False), NatsEnd(url, writes=True))
    async with SolarWind(url) as wind:
        for number, (root, was) in enumerate(zip(roots, before, strict=True), 1):
            found = await wind.trace(root)
            assert payloads(found) == payloads(was) == tree(number)
            for each in (*found.caused, *(leaf for top in found.caused for leaf in top.caused)):
                assert (await wind.event(each.event.topic, each.event.id)).event.payload == each.event.payload
