"""What a copy of a store promises: it says what the original says, however often it was cut off. Real files."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import hypothesis
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from sampling import some
from solarwind import Event, Later, Reject, Retry, SolarWind
from solarwind.batch import Batch, seal
from solarwind.copying import Copied, End, PositionMap, copy, open_end
from solarwind.core import state
from solarwind.core.dispatcher import Dispatcher
from solarwind.core.log import Stored
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Creation, Letter, State, Statement, Waiting
from solarwind.errors import BadArgument, ConflictError, NotAllowed, SolarWindError, StoreError
from solarwind.event import Cause
from solarwind.store.base import Full, Recovered, Store
from solarwind.store.delays import BEGINNING, Delayed, Entry
from solarwind.store.offline import OfflineStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import until

from .test_sqlite import kill

NOW = 1_000_000_000
DUE = 1 << 62


def batch(topic: str, count: int, first: int, *, producer: int = 1, **more: Any) -> Batch:
    payloads = [b'{"n":%d}' % (first + index) for index in range(count)]
    times = [NOW + first + index for index in range(count)]
    return seal(topic, payloads, times, producer=producer, first=first, machine="box", process="app 7", **more)


def on(path: Path, work: Callable[[SqliteStore], Coroutine[Any, Any, None]]) -> None:
    """Do something with the store at `path`, and close it in order."""

    async def do() -> None:
        store = SqliteStore(str(path))
        await store.open(NOW)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(do())


async def furnish(store: SqliteStore) -> None:
    """Fill topics of every kind. Of "orders" the positions 4 to 9 and 13 to 15 were trimmed; 30 events were
    accepted."""
    named = batch("orders", 3, 10, ids=["one", None, "three"], causes=[None, Cause("event", "x", "P", 1), None])
    await store.commit([batch("orders", 4, 0), batch("orders", 6, 4)], [], [], NOW)
    await store.commit([named, batch("orders", 3, 13), batch("orders", 14, 16, producer=2)], [], [], NOW)
    await store.commit([batch("bygone", 5, 0), batch("plain", 2, 0)], [], [], NOW)
    key = ("orders", "Ship it")
    history = [
        Change(*key, created=Creation(0), stated=[Statement(1, "direct"), Statement(2, "keyed", "$.n")], reach=24),
        Change(*key, started=[(2, 1), (17, 2)], waiting=[Waiting(10, 1, DUE), Waiting(18, 3, DUE + 1)], retried=4),
        Change(*key, settled=Spans([0, 1, 3, 10, 13, 16, 19, 22]), skipped=Spans([23, 24])),
        Change(*key, dead=[Letter(1, 5, NOW, "first\nline", 1), Letter(12, 1, NOW + 1, "é" * 4000, 2)]),
        Change("orders", "Look", created=Creation(30), stated=[Statement(1, "fanout")]),
        Change(
            "bygone", "Done", created=Creation(0), stated=[Statement(1, "direct")], reach=2000, settled=Spans([0, 5])
        ),
        Change("quiet", "Waits", created=Creation(0), stated=[Statement(7, "direct:least-busy")]),
    ]
    await store.commit([], history[:3], [], NOW)
    told = State("orders", "Ship it")
    for change in history[:3]:
        told.apply(change)
    await store.commit([], history[3:], [told.snapshot()], NOW)
    await store.commit([], [history[3]], [], NOW)  # after its snapshot: as in any store that was at work
    pinned = Spans([0, 4, 10, 13, 16, 30])
    assert await store.trim("orders", pinned, 1 << 62, None) == 9
    assert await store.trim("bygone", Spans(), 1 << 62, None) == 5
    await store.topic("orders", 3600, None)
    await store.topic("empty", 0, 1 << 20)
    await store.definitions.put("webhook", "shop", b"one")
    await store.definitions.put("schedule", "nightly", b"two")
    delayed = [(20, batch("later", 3, 0)), (10, batch("orders", 2, 40)), (10, batch("plain", 1, 40, ids=["mine"]))]
    await store.commit([], [], [], NOW, [Delayed(NOW + due, each) for due, each in delayed])


# --- what a store says --------------------------------------------------------------------------------------


async def delayed_events(end: End) -> AsyncIterator[tuple[Entry, str]]:
    after = BEGINNING
    while page := await end.delayed(after, 1):
        for entry in page:
            for index in range(len(entry.batch)):
                yield entry, entry.batch.id(index)
        after = page[-1].place


async def say(end: End) -> dict[str, Any]:
    """Return all that a store says, with events by their ids, since positions may differ."""
    recovered = await end.open(NOW)
    try:
        defined = [(each.kind, each.name, each.value) for each in await end.definitions.list()]
        said: dict[str, Any] = {"clean": recovered.clean, "definitions": defined}
        ids: dict[str, dict[int, str]] = {}
        for record in recovered.topics:
            events = await events_of(end.store_of(record.name), record.name)
            ids[record.name] = {position: told[0] for position, told in events.items()}
            said[record.name] = (record.keep_ns, record.keep_bytes, list(events.values()))
        dispatcher = recover(recovered)
        for each in state.recovered(recovered.snapshots, recovered.changes):
            letters = await end.store_of(each.topic).dead(each.topic, each.purpose, each.track, each.dead)
            purpose = dispatcher.purpose(each.topic, each.purpose)
            here = ids.get(each.topic, {})
            said[f"{each.topic}: {each.purpose}"] = {
                "statements": each.statements,
                "pending": [id for position, id in here.items() if position in each.pending(1 << 40)],
                "dead": [id for position, id in here.items() if position in each.dead],
                "letters": [(here[each.position], each.tried, each.time, each.error) for each in letters],
                "due": {here[position]: due for position, due in each.due.items() if position in here},
                "tried": {here[position]: tried for position, tried in each.tried.items() if position in here},
                "reach": [id for position, id in here.items() if position < each.reach],
                "beyond": max(0, each.reach - dispatcher.topics[each.topic].end),
                "suspects": [id for position, id in here.items() if position in purpose.main.suspects],
                "counts": (each.settled, each.retried),
            }
        said["delayed"] = [(each.due, event_id) async for each, event_id in delayed_events(end)]
        return said
    finally:
        await end.leave(recovered.clean)


async def events_of(store: Store, topic: str) -> dict[int, tuple[Any, ...]]:
    found: dict[int, tuple[Any, ...]] = {}
    page = await store.read(topic, 0, 1 << 20)
    while page:
        for start, batch, _ in page:
            for at in range(len(batch)):
                found[start + at] = (batch.id(at), batch.payload(at), batch.time(at), batch.key(at), batch.cause(at))
        page = await store.read(topic, page[-1].stop, 1 << 20)
    return found


def recover(recovered: Recovered) -> Dispatcher:
    dispatcher = Dispatcher(_NoLog(), lambda: 0.5, keep_ns=1, durable=True)
    for record in recovered.topics:
        dispatcher.topic(record.name).end = record.end
    dispatcher.recover(recovered.snapshots, recovered.changes, clean=recovered.clean, now=recovered.now)
    return dispatcher


class _NoLog:
    def find(self, topic: str, position: int) -> Stored | None:
        return None


def said(path: Path) -> dict[str, Any]:
    return asyncio.run(say(OfflineStore(str(path), writes=False)))


def dump(path: Path) -> list[Any]:
    """Return all rows but those that differ between any two stores."""
    connection = apsw.Connection(str(path))
    try:
        events = "SELECT name, start, data FROM batches JOIN topics ON topic = topics.id ORDER BY name, start"
        queries = [
            "SELECT name, keep_ns, keep_bytes, trimmed FROM topics ORDER BY name",
            events,
            "SELECT ids.id, name, position FROM ids JOIN topics ON topic = topics.id ORDER BY ids.id, name",
            "SELECT topic, purpose, state FROM snapshots ORDER BY topic, purpose",
            "SELECT * FROM dead ORDER BY topic, purpose, position",
            "SELECT value FROM meta WHERE name = 'clean'",
        ]
        return [connection.execute(query).fetchall() for query in queries]
    finally:
        connection.close()


def copied(source: Path, target: Path) -> Copied:
    return asyncio.run(copy(OfflineStore(str(source), writes=False), OfflineStore(str(target), writes=True)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    on(tmp_path / "wind.db", furnish)
    return tmp_path / "wind.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A store that is not there yet."""
    return tmp_path / "copy.db"


# --- the copy -----------------------------------------------------------------------------------------------


def test_a_copy_says_what_the_original_says(source: Path, target: Path) -> None:
    counts = copied(source, target)
    assert counts == Copied(topics=5, events=23, before=0, delayed=6, purposes=4, dead_letters=2)
    expected = said(source)
    assert len(expected["orders"][2]) == 21, "there are holes in the original"
    assert len(expected["orders: Ship it"]["letters"]) == 2
    assert expected["orders: Ship it"]["suspects"]
    assert said(target) == expected


def test_the_copy_counts_events_from_0_and_has_the_very_batches(source: Path, target: Path) -> None:
    copied(source, target)

    async def look(store: SqliteStore) -> None:
        found = await store.read("orders", 0, 1 << 20)
        assert [(stored.start, stored.batch.header.first) for stored in found] == [(0, 0), (4, 10), (7, 16)]
        assert await store.find("three") == ("orders", 6)

    on(target, look)


def test_back_and_forth_it_stays_the_same(source: Path, target: Path, tmp_path: Path) -> None:
    copied(source, target)
    copied(target, tmp_path / "back.db")
    assert dump(tmp_path / "back.db") == dump(target)
    assert said(tmp_path / "back.db") == said(source)


def test_the_original_is_left_as_it_was(source: Path, target: Path) -> None:
    before = dump(source)
    copied(source, target)
    assert dump(source) == before


def test_what_may_have_been_in_a_handler_is_suspect_in_the_copy_too(tmp_path: Path, target: Path) -> None:
    kill(tmp_path / "wind.db", furnish, tmp_path / "killed")
    killed = tmp_path / "killed" / "wind.db"
    copied(killed, target)
    assert said(killed)["clean"] is False, "the original, too, is left as it was"
    assert said(target) == said(killed)
    assert len(said(target)["orders: Ship it"]["suspects"]) == 7


changes = st.lists(
    st.tuples(st.sampled_from(["settled", "skipped", "dead", "waiting", "started"]), st.integers(0, 39)), max_size=60
)


@settings(max_examples=settings().max_examples // 5, deadline=None)
@hypothesis.given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    happened=changes,
    gone=st.sets(st.integers(0, 11)),
    created=st.integers(0, 20),
    reach=st.integers(0, 60),
)
def test_a_copy_equals_its_source_after_any_history(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    happened: list[tuple[str, int]],
    gone: set[int],
    created: int,
    reach: int,
) -> None:
    """Whatever is done with, and whatever of it was trimmed."""
    folder = tmp_path_factory.mktemp("any")
    end = sum(sizes)

    async def make(store: SqliteStore) -> None:
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        await store.commit([batch("t", size, start) for start, size in zip(starts, sizes, strict=True)], [], [], NOW)
        told = State("t", "P")
        first = Change("t", "P", created=Creation(min(created, end)), stated=[Statement(1, "direct")], reach=reach)
        changes = [first, *(_change(told, what, position) for what, position in happened if position < end)]
        for change in changes:
            told.apply(change)
        pinned = told.pending(end)
        pinned.update(told.dead)
        for index in range(len(sizes)):
            if index not in gone:
                pinned.add(starts[index], starts[index] + sizes[index])
        await store.commit([], changes, [], NOW)
        await store.trim("t", pinned, 1 << 62, None)

    on(folder / "wind.db", make)
    copied(folder / "wind.db", folder / "copy.db")
    assert said(folder / "copy.db") == said(folder / "wind.db")
    assert copied(folder / "wind.db", folder / "copy.db").before == end - len(_trimmed(folder / "wind.db"))
    shutil.rmtree(folder)


def _change(told: State, what: str, position: int) -> Change:
    """Return what can happen to an event: what is done with it stays so."""
    key = ("t", "P")
    if position < told.floor or position in told.done:
        return Change(*key)
    if what in ("settled", "skipped"):
        return Change(*key, **{what: Spans([position, position + 1])})  # type: ignore[arg-type]
    if what == "dead":
        return Change(*key, dead=[Letter(position, 3, NOW, f"error {position}", 1)])
    if what == "waiting":
        return Change(*key, waiting=[Waiting(position, position % 3, DUE + position)], retried=1)
    return Change(*key, started=[(position, 1 + position % 2)])


def _trimmed(path: Path) -> Spans:
    connection = apsw.Connection(str(path))
    try:
        [(trimmed,)] = connection.execute("SELECT trimmed FROM topics").fetchall()
    finally:
        connection.close()
    return Spans(msgspec.msgpack.decode(trimmed))


def test_positions_beyond_the_end_stay_as_far_beyond_it() -> None:
    positions = PositionMap(10)
    positions.add(Stored(2, batch("t", 3, 0)))
    positions.add(Stored(7, batch("t", 1, 3)))
    found = [positions.below(position) for position in range(13)]
    assert found == [0, 0, 0, 1, 2, 3, 3, 3, 4, 4, 4, 5, 6]
    assert [position for position in range(10) if position in positions] == [2, 3, 4, 7]


def test_a_service_goes_on_with_the_copy_where_it_was(tmp_path: Path, target: Path) -> None:
    """With what pends, the attempts that were counted, and the dead letters, which can be redriven."""
    handled: list[tuple[int, int]] = []
    failed: list[int] = []
    failing = True

    def service(path: Path) -> SolarWind:
        wind = SolarWind(f"sqlite:///{path}")

        @wind.on("orders", purpose="Ship it", retry=Retry(wait=0.2))
        async def ship(order: int, event: Event) -> None:
            if failing and order == 1:
                raise Reject("no such address")
            if failing and order == 2:
                raise Later(0.2)
            if failing and order == 3:
                failed.append(order)
                raise RuntimeError("for now")
            handled.append((order, event.attempt))

        return wind

    async def before() -> None:
        async with service(tmp_path / "wind.db") as wind:
            for order in range(4):
                await wind.fire("orders", order)
            await until(lambda: _retried(wind, 1))
        async with SolarWind(f"sqlite:///{tmp_path}/wind.db") as wind:
            await wind.fire("orders", 4)

    async def after() -> None:
        async with service(target) as wind:
            await wind.settled(timeout=60)
            assert sorted(handled) == [(0, 1), (2, 1), (3, len(failed) + 1), (4, 1)]
            [letter] = await wind.dead("orders", "Ship it")
            assert (letter.error, letter.event.payload) == ("no such address", 1)
            await wind.redrive("orders", "Ship it", [letter.event.id])
            await wind.settled(timeout=60)
            assert handled[-1] == (1, 1)

    asyncio.run(before())
    failing = False
    copied(tmp_path / "wind.db", target)
    asyncio.run(after())


async def _retried(wind: SolarWind, times: int) -> bool:
    return (await wind.statistics()).purposes["orders", "Ship it"].retried >= times


# --- cut off, and repeated ----------------------------------------------------------------------------------


class Cut(Exception):
    """The copier was cut off here."""


class _CutStore:
    """A store whose nth write is the last, be it done or not."""

    def __init__(self, store: Store, cut: _CutEnd) -> None:
        self._store = store
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, *what: Any, **more: Any) -> list[Stored | None]:
        return await self._cut.write(self._store.commit(*what, **more))

    async def topic(self, name: str, keep_ns: int | None, keep_bytes: int | None) -> None:
        await self._cut.write(self._store.topic(name, keep_ns, keep_bytes))


class _CutEnd(OfflineStore):
    def __init__(self, path: Path, left: int, how: str) -> None:
        super().__init__(str(path), writes=True)
        self.left = left
        self._how = how

    def store_of(self, topic: str) -> Any:
        return _CutStore(self, self)

    async def write(self, work: Coroutine[Any, Any, Any]) -> Any:
        self.left -= 1
        if self.left == 0 and self._how == "before":
            work.close()
            raise Cut
        if self.left == 0 and self._how == "cancelled":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # while the disk is at it
        result = await work
        if self.left == 0:
            raise Cut
        return result


@pytest.mark.parametrize("how", some(["after"], ["before", "after", "cancelled"]))
def test_cut_off_anywhere_and_repeated_it_is_the_same_copy(
    source: Path, target: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.copying.PAGE_BYTES", 1)  # a batch a commit
    monkeypatch.setattr("solarwind.copying.PORTION_BYTES", 1)  # and a letter
    copied(source, target)
    whole = dump(target)
    writes = 0
    while True:
        writes += 1
        part = tmp_path / f"part-{writes}.db"
        end = _CutEnd(part, writes, how)
        try:
            asyncio.run(copy(OfflineStore(str(source), writes=False), end))
        except (Cut, asyncio.CancelledError):
            copied(source, part)
            assert dump(part) == whole, f"cut off {how} write {writes}"
        else:
            break
    assert writes > 10


def test_cut_off_again_and_again_it_comes_to_its_end(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.copying.PAGE_BYTES", 1)
    copied(source, tmp_path / "whole.db")
    for _ in range(100):
        try:
            asyncio.run(copy(OfflineStore(str(source), writes=False), _CutEnd(target, 2, "before")))
            break
        except Cut:
            pass
    assert dump(target) == dump(tmp_path / "whole.db")


def test_a_batch_that_was_cut_in_two_is_completed(source: Path, target: Path) -> None:
    """As a store may do that has no room for it in one message."""

    async def begin(store: SqliteStore) -> None:
        await store.commit([batch("orders", 4, 0).part(0, 2), batch("orders", 4, 0).part(2, 3)], [], [], NOW)

    on(target, begin)
    counts = copied(source, target)
    assert (counts.before, counts.events) == (3, 23)
    assert said(target) == said(source)


def test_a_copy_that_is_whole_is_not_written_again(source: Path, target: Path) -> None:
    copied(source, target)
    before = dump(target)
    end = _CutEnd(target, 1, "before")
    counts = asyncio.run(copy(OfflineStore(str(source), writes=False), end))
    assert counts == Copied(topics=5, events=23, before=23, delayed=6, purposes=4, dead_letters=2)
    assert end.left == 1, "no write"
    assert dump(target) == before


def test_a_copier_without_room_says_so(source: Path, target: Path) -> None:
    class Small(_CutEnd):
        async def write(self, work: Coroutine[Any, Any, Any]) -> Any:
            work.close()
            raise Full("the disk is full")

    with pytest.raises(StoreError, match="the disk is full: make room, and copy again to go on"):
        asyncio.run(copy(OfflineStore(str(source), writes=False), Small(target, 0, "before")))


# --- refused ------------------------------------------------------------------------------------------------


async def fire_more(store: SqliteStore) -> None:
    await store.commit([batch("orders", 1, 0, producer=9)], [], [], NOW)


async def fire_elsewhere(store: SqliteStore) -> None:
    await store.commit([batch("elsewhere", 1, 0)], [], [], NOW)


async def settle(store: SqliteStore) -> None:
    await store.commit([], [Change("orders", "Ship it", settled=Spans([4, 5]))], [], NOW)


async def redrive(store: SqliteStore) -> None:
    await store.commit([], [Change("orders", "Ship it", redriven=[1, 2])], [], NOW)


async def join(store: SqliteStore) -> None:
    await store.commit([], [Change("orders", "New", created=Creation(0), stated=[Statement(1, "direct")])], [], NOW)


async def keep_more(store: SqliteStore) -> None:
    await store.topic("orders", 7200, None)


USED = {
    fire_more: "22 events of topic 'orders', where the source has 21",
    fire_elsewhere: "topic 'elsewhere', which the source does not have",
    settle: "purpose 'Ship it' on topic 'orders' in another state",
    redrive: "purpose 'Ship it' on topic 'orders' in another state",
    join: "purpose 'New' on topic 'orders', which the source does not have",
    keep_more: "another history to keep of topic 'orders'",
}


@pytest.mark.parametrize("use", USED, ids=lambda use: use.__name__)
def test_a_copy_that_was_used_since_is_left_alone(source: Path, target: Path, use: Any) -> None:
    copied(source, target)
    on(target, use)
    refused(source, target, USED[use])


def refused(source: Path, target: Path, words: str) -> None:
    """Check that it is refused in a sentence, before anything is written."""
    before = dump(target)
    with pytest.raises(ConflictError) as caught:
        copied(source, target)
    assert words in str(caught.value)
    assert str(target) in str(caught.value)
    assert str(source) in str(caught.value)
    assert dump(target) == before


def test_a_copy_that_was_cut_off_at_work_stays_so_when_it_is_refused(
    source: Path, target: Path, tmp_path: Path
) -> None:
    copied(source, target)
    kill(target, settle, tmp_path / "killed")
    killed = tmp_path / "killed" / "copy.db"
    refused(source, killed, "in another state")
    assert said(killed)["clean"] is False


def test_another_store_is_left_alone(source: Path, target: Path) -> None:
    async def other(store: SqliteStore) -> None:
        await store.commit([batch("orders", 2, 0, producer=9)], [], [], NOW)

    on(target, other)
    refused(source, target, "other events of topic 'orders'")


def test_a_part_of_a_copy_that_was_put_to_use_is_left_alone(source: Path, target: Path) -> None:
    async def part(store: SqliteStore) -> None:
        await store.commit([batch("orders", 4, 0)], [], [], NOW)
        await join(store)

    on(target, part)
    refused(source, target, "purposes, but not all events of topic 'orders'")


def test_a_copy_goes_on_though_its_source_was_used_as_long_as_it_has_no_purposes(source: Path, target: Path) -> None:
    end = _CutEnd(target, 2, "before")
    with pytest.raises(Cut):
        asyncio.run(copy(OfflineStore(str(source), writes=False), end))
    for use in (fire_more, redrive, keep_more):
        on(source, use)
    copied(source, target)
    assert said(target) == said(source)
    on(source, settle)
    refused(source, target, "purpose 'Ship it' on topic 'orders' in another state")


def test_a_copy_from_which_events_are_missing_in_the_source_by_now_is_left_alone(source: Path, target: Path) -> None:
    end = _CutEnd(target, 2, "before")
    with pytest.raises(Cut):
        asyncio.run(copy(OfflineStore(str(source), writes=False), end))

    async def trim(store: SqliteStore) -> None:
        assert await store.trim("orders", Spans([10, 40]), 1 << 62, None) == 4

    on(source, trim)
    refused(source, target, "21 events of topic 'orders', where the source has 17")


def test_a_store_is_not_copied_to_itself(source: Path) -> None:
    with pytest.raises(BadArgument, match="expected two stores"):
        copied(source, source.parent / "." / "wind.db")


def test_a_store_that_somebody_has_open_is_refused(source: Path, target: Path) -> None:
    async def hold(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match="in use by this very process"):
            await copy(OfflineStore(str(source), writes=False), OfflineStore(str(target), writes=True))

    on(source, hold)
    assert not target.exists()


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("memory://", NotAllowed, "name a store that lasts"),
        ("ws://127.0.0.1:7400", NotAllowed, "got the server ws://127.0.0.1:7400: stop it"),
        ("sqlite:///", BadArgument, "expected sqlite:///wind.db"),
        ("wind.db", BadArgument, "got 'wind.db'"),
        ("redis://me:secret@here", BadArgument, "got 'redis://...@here'"),
        ("nats://me:secret@[", BadArgument, "got 'nats://...@['"),
    ],
)
def test_what_cannot_be_copied_is_refused_with_a_way_out(url: str, kind: type[SolarWindError], words: str) -> None:
    with pytest.raises(kind) as caught:
        open_end(url, writes=True)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


# --- several stores -----------------------------------------------------------------------------------------


async def delay(store: SqliteStore) -> None:
    for due in (20, 10, 30):
        await store.commit([], [], [], NOW, [Delayed(due, batch("later", 2, due))])


async def delayed(store: SqliteStore) -> list[tuple[int, bytes]]:
    return [(each.due, each.batch.data) for each in await store.delays.page()]


def test_what_is_delayed_is_copied_once_however_often_the_copy_is_repeated(tmp_path: Path) -> None:
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    on(source, delay)
    found: list[list[tuple[int, bytes]]] = []

    async def look(store: SqliteStore) -> None:
        found.append(await delayed(store))

    async def begin(store: SqliteStore) -> None:  # as a copier that was cut off
        await store.commit([], [], [], NOW, [Delayed(10, batch("later", 2, 10))])

    on(target, begin)
    counts = []
    for _ in range(2):
        counts.append(copied(source, target).delayed)
        on(target, look)
    on(source, look)
    assert found[0] == found[1] == found[2] != []
    assert counts == [sum(len(Batch.read(data)) for _, data in found[2])] * 2

    async def use(store: SqliteStore) -> None:
        await store.delays.cancel([("later", batch("later", 2, 10).id(0))])

    on(target, use)
    with pytest.raises(ConflictError, match="got other delayed events"):
        copied(source, target)


class Several:
    """An end whose topics are spread over several stores, which do not say where they put events."""

    def __init__(self, folder: Path, *, writes: bool, number: int = 3) -> None:
        folder.mkdir(exist_ok=True)
        self.place = str(folder)
        self._stores = [_Silent(str(folder / f"{index}.db"), writes=writes) for index in range(number)]
        self.definitions = self._stores[0].definitions

    async def open(self, now: int) -> Recovered:
        found = [await store.open(now) for store in self._stores]
        return Recovered(
            all(each.clean for each in found),
            max(each.now for each in found),
            [topic for each in found for topic in each.topics],
            [snapshot for each in found for snapshot in each.snapshots],
            [change for each in found for change in each.changes],
        )

    async def delay(self, entries: Sequence[Entry]) -> None:
        """Delay all in one of them."""
        await self._stores[0].delay(entries)

    async def delayed(self, after: tuple[int, int], max_bytes: int) -> list[Entry]:
        return await self._stores[0].delayed(after, max_bytes)

    def store_of(self, topic: str) -> Store:
        return self._stores[crc32(topic.encode()) % len(self._stores)]

    async def leave(self, clean: bool) -> None:
        for store in self._stores:
            await store.leave(clean)


class _Silent(OfflineStore):
    async def commit(self, batches: Sequence[Batch], *more: Any, **named: Any) -> list[Stored | None]:
        await super().commit(batches, *more, **named)
        return [None] * len(batches)


def test_a_copy_to_several_stores_and_back_is_the_same(source: Path, target: Path, tmp_path: Path) -> None:
    for _ in range(2):
        asyncio.run(copy(OfflineStore(str(source), writes=False), Several(tmp_path / "three", writes=True)))
    expected = said(source)
    assert asyncio.run(say(Several(tmp_path / "three", writes=False))) == expected
    for _ in range(2):
        asyncio.run(copy(Several(tmp_path / "three", writes=False), OfflineStore(str(target), writes=True)))
    assert said(target) == expected


def test_progress_comes_to_all_there_is(source: Path, target: Path) -> None:
    told: list[tuple[int, int]] = []
    ends = OfflineStore(str(source), writes=False), OfflineStore(str(target), writes=True)
    asyncio.run(copy(*ends, lambda done, total: told.append((done, total))))
    assert told == sorted(told)
    assert told[-1] == (23, 23)


def test_time_does_not_go_back_in_the_copy(source: Path, target: Path) -> None:
    """Though the original was on a machine whose clock was ahead."""
    ahead = time.time_ns() + 3600 * 10**9

    async def write(store: SqliteStore) -> None:
        await store.commit([], [Change("orders", "Ship it", settled=Spans([4, 5]))], [], ahead)

    async def look(store: SqliteStore) -> None:
        await store.close()
        assert (await store.open(0)).now >= ahead

    on(source, write)
    copied(source, target)
    on(target, look)
