"""Copies to a namespace and from one: they say what the original says, whatever happens on the way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampling import some
from solarwind import SolarWind
from solarwind.batch import Batch, seal
from solarwind.cluster.copying import NatsEnd
from solarwind.cluster.session import Session
from solarwind.copying import Copied, CopyStore, copy
from solarwind.core.log import Stored
from solarwind.core.state import Change, Creation, Letter, Statement
from solarwind.errors import ConflictError, StoreError
from solarwind.store.delays import Delayed, Entry
from solarwind.store.offline import OfflineStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import until
from store.test_copying import NOW, batch, dump, fire_more, furnish, on, said, say, settle
from store.test_sqlite import kill

from .servers import NatsServer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    on(tmp_path / "wind.db", furnish)
    return tmp_path / "wind.db"


@pytest.fixture
def url(server: NatsServer, namespace: str) -> str:
    """Of a namespace that is not there yet."""
    return server.url(namespace, streams=3)


def file(path: Path, *, writes: bool = False) -> OfflineStore:
    return OfflineStore(str(path), writes=writes)


def up(source: Path, url: str) -> Copied:
    return asyncio.run(copy(file(source), NatsEnd(url, writes=True)))


def down(url: str, target: Path) -> Copied:
    return asyncio.run(copy(NatsEnd(url, writes=False), file(target, writes=True)))


def told(url: str) -> dict[str, Any]:
    return asyncio.run(say(NatsEnd(url, writes=False)))


# --- there and back -----------------------------------------------------------------------------------------


def test_a_copy_in_a_namespace_says_what_the_original_says(source: Path, url: str) -> None:
    expected = said(source)
    for before in (0, 23):
        counts = up(source, url)
        assert counts == Copied(topics=5, events=23, before=before, delayed=6, purposes=4, dead_letters=2)
        assert told(url) == expected


def test_a_copy_into_a_namespace_and_back_is_the_same_store(source: Path, url: str, tmp_path: Path) -> None:
    up(source, url)
    for before in (0, 23):
        assert down(url, tmp_path / "back.db").before == before
    asyncio.run(copy(file(source), file(tmp_path / "copy.db", writes=True)))
    assert said(tmp_path / "back.db") == said(source)
    found, expected = dump(tmp_path / "back.db"), dump(tmp_path / "copy.db")
    assert [len(rows) for rows in found] == [2 + len(rows) if rows is expected[1] else len(rows) for rows in expected]
    assert found[2:] == expected[2:], "but for events whose ids were given, which are messages of their own"


def test_from_one_namespace_to_another_that_is_spread_otherwise(source: Path, url: str, server: NatsServer) -> None:
    up(source, url)
    other = url.replace("?streams=3", "x?streams=5&words=1")
    asyncio.run(copy(NatsEnd(url, writes=False), NatsEnd(other, writes=True)))
    assert told(other) == said(source)


def test_events_that_were_in_a_handler_are_suspect_after_a_copy_to_a_namespace(url: str, tmp_path: Path) -> None:
    kill(tmp_path / "wind.db", furnish, tmp_path / "killed")
    killed = tmp_path / "killed" / "wind.db"
    for _ in range(2):
        up(killed, url)
        assert told(url) == said(killed)
        assert told(url)["clean"] is False
    down(url, tmp_path / "back.db")
    assert said(tmp_path / "back.db") == said(killed)


def test_what_is_too_large_for_a_message_is_cut_and_put_together(
    own: Callable[..., NatsServer], tmp_path: Path
) -> None:
    async def fill(store: SqliteStore) -> None:
        await store.commit([batch("t", 4, 0), large(3, 100_000), large(200, 5_000), batch("t", 1, 900)], [], [], NOW)

    def large(count: int, size: int) -> Batch:
        payloads = [bytes([index]) * size for index in range(count)]
        times = [NOW] * count
        return seal("t", payloads, times, producer=size, first=0, machine="box", process="app 7")

    on(tmp_path / "wind.db", fill)
    server = own(NatsServer, max_payload=1 << 16)
    asyncio.run(server.start())
    up(tmp_path / "wind.db", server.url())
    assert told(server.url()) == said(tmp_path / "wind.db")
    down(server.url(), tmp_path / "back.db")
    assert said(tmp_path / "back.db") == said(tmp_path / "wind.db")


def test_a_service_goes_on_where_the_file_left_it(url: str, tmp_path: Path) -> None:
    handled: list[int] = []

    def service(where: str) -> SolarWind:
        wind = SolarWind(where)

        @wind.on("orders", purpose="Ship it")
        def ship(order: int) -> None:
            handled.append(order)

        return wind

    async def live(where: str, *orders: int) -> None:
        async with service(where) as wind:
            for order in orders:
                await wind.fire("orders", order)
            await wind.settled(timeout=60)

    async def fire(where: str, order: int) -> None:
        async with SolarWind(where) as wind:
            await wind.fire("orders", order)

    path = tmp_path / "wind.db"
    asyncio.run(live(f"sqlite:///{path}", 1))
    asyncio.run(fire(f"sqlite:///{path}", 2))
    up(path, url)
    asyncio.run(live(url, 3))
    assert handled == [1, 2, 3]
    asyncio.run(fire(url, 4))
    down(url, tmp_path / "back.db")
    asyncio.run(live(f"sqlite:///{tmp_path}/back.db", 5))
    assert handled == [1, 2, 3, 4, 5]


# --- cut off, and repeated ----------------------------------------------------------------------------------


class Cut(Exception):
    """The copier was cut off here."""


class CutEnd(NatsEnd):
    """Its nth write is the last, be it done or not."""

    def __init__(self, url: str, left: int, how: str) -> None:
        super().__init__(url, writes=True)
        self.left = left
        self.how = how

    def store_of(self, topic: str) -> Any:
        return CutPart(super().store_of(topic), self)

    async def delay(self, entries: Sequence[Entry]) -> None:
        await self.write(super().delay(entries))

    async def write(self, work: Coroutine[Any, Any, Any]) -> Any:
        self.left -= 1
        if self.left == 0 and self.how == "before":
            work.close()
            raise Cut
        result = await work
        if self.left == 0:
            raise Cut
        return result


class CutPart:
    def __init__(self, part: CopyStore, end: CutEnd) -> None:
        self._part = part
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    async def commit(self, *what: Any, **more: Any) -> list[Stored | None]:
        found: list[Stored | None] = await self._end.write(self._part.commit(*what, **more))
        return found

    async def topic(self, name: str, keep_ns: int | None, keep_bytes: int | None) -> None:
        await self._end.write(self._part.topic(name, keep_ns, keep_bytes))


@pytest.mark.parametrize("how", some(["after"], ["before", "after"]))
def test_cut_off_at_any_write_and_repeated_it_is_the_same_copy(
    source: Path, url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, one write further each time, into the same namespace."""
    monkeypatch.setattr("solarwind.copying.PAGE_BYTES", 1)
    monkeypatch.setattr("solarwind.copying.PORTION_BYTES", 1)
    cuts = 0
    while True:
        try:
            asyncio.run(copy(file(source), CutEnd(url, 2, how)))
            break
        except Cut:
            cuts += 1
    assert cuts > 5
    assert told(url) == said(source)


def test_many_events_that_are_delayed_to_one_time_keep_their_order_in_copies(url: str, tmp_path: Path) -> None:
    """Of several topics, and more in a batch than a namespace sorts at once."""

    async def delay(store: SqliteStore) -> None:
        ids: list[str | None] = [f"id-{number}" for number in range(300)]
        mixed = [batch(topic, 1, 400 + at, producer=at) for at, topic in enumerate(["one", "two", "three"] * 3)]
        delayed = [batch("one", 300, 0, ids=ids), *mixed]
        await store.commit([], [], [], NOW, [Delayed(NOW, each) for each in delayed])

    on(tmp_path / "wind.db", delay)
    for _ in range(2):
        up(tmp_path / "wind.db", url)
    down(url, tmp_path / "back.db")
    assert told(url) == said(tmp_path / "back.db") == said(tmp_path / "wind.db")


EVENTS = 12_000


@pytest.fixture
def large(source: Path) -> Path:
    """With enough in it that copying takes a while."""

    async def fill(store: SqliteStore) -> None:
        await store.commit([batch("many", 1, first, producer=7) for first in range(EVENTS)], [], [], NOW)
        history = [
            Change("many", "P", created=Creation(0), stated=[Statement(1, "direct")], reach=500),
            *(Change("many", "P", dead=[Letter(at, 1, NOW, f"error {at}", 1)]) for at in range(0, EVENTS, 50)),
        ]
        await store.commit([], history, [], NOW)

    on(source, fill)
    return source


@pytest.mark.long
def test_killed_and_repeated_it_is_the_same_copy(large: Path, url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "solarwind", "copy", "--from", f"sqlite:///{large}", "--to", url]
    for _ in range(2):
        copier = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(progress(url))
        finally:
            copier.kill()
        assert copier.wait() == -signal.SIGKILL
    counts = up(large, url)
    assert 0 < counts.before < EVENTS
    assert said(large)["clean"] is True
    assert told(url) == said(large)
    down(url, tmp_path / "back.db")
    assert said(tmp_path / "back.db") == said(large)


async def stored(url: str) -> int:
    """Return how many messages the namespace's event streams hold."""
    import nats

    namespace = url.rpartition("/")[2].partition("?")[0]
    client = await nats.connect(url.rpartition("/")[0], allow_reconnect=False)
    try:
        found = msgspec.json.decode((await client.request("$JS.API.STREAM.LIST", b"{}")).data)["streams"] or []
    finally:
        await client.close()
    names = {f"SOLARWIND_{namespace}_{number}" for number in range(3)}
    return sum(each["state"]["messages"] for each in found if each["config"]["name"] in names)


async def progress(url: str) -> None:
    """Wait until something more is copied."""
    before = await stored(url)

    async def has_more() -> bool:
        return await stored(url) > before

    await until(has_more, "something is copied")


@pytest.mark.long
def test_a_server_that_is_killed_on_the_way_changes_nothing(
    large: Path, own: Callable[..., NatsServer], tmp_path: Path
) -> None:
    server = own(NatsServer)

    async def work() -> Copied:
        await server.start()
        url = server.url("here", streams=3)
        copying = asyncio.create_task(copy(file(large), NatsEnd(url, writes=True)))
        for _ in range(2):
            await progress(url)
            server.kill()
            await server.start()
        return await copying

    assert asyncio.run(work()).events == EVENTS + 23
    assert told(server.url("here")) == said(large)


def test_what_is_torn_on_the_way_is_sent_again(source: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another server leads the stream from the middle of it on."""
    whole = Session.publish_together
    torn: list[str] = []

    async def tear(self: Session, messages: list[tuple[str, bytes, dict[str, str]]]) -> int:
        subject, data, headers = messages[-1]
        if len(torn) < 3 and ".state." not in subject:
            torn.append(f"torn{len(torn)}")
            batch = {"Nats-Batch-Id": torn[-1], "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"}
            return await self.publish(subject, data, headers | batch)
        return await whole(self, messages)

    monkeypatch.setattr(Session, "publish_together", tear)
    up(source, url)
    assert len(torn) == 3
    assert told(url) == said(source)


@pytest.mark.long
def test_a_copier_that_is_killed_leaves_the_namespace_it_reads_as_it_was(large: Path, url: str, tmp_path: Path) -> None:
    up(large, url)
    target = tmp_path / "back.db"
    command = [sys.executable, "-m", "solarwind", "copy", "--from", url, "--to", f"sqlite:///{target}"]
    copier = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    log = tmp_path / "back.db-wal"
    try:
        asyncio.run(until(lambda: log.exists() and log.stat().st_size > 1 << 20, "copying has begun"))
    finally:
        copier.kill()
    assert copier.wait() == -signal.SIGKILL
    assert told(url) == said(large)
    assert 0 < down(url, target).before < EVENTS
    assert said(target) == said(large)


# --- refused ------------------------------------------------------------------------------------------------


def test_a_copy_that_was_used_since_is_left_alone(source: Path, url: str) -> None:
    up(source, url)
    for use, words in (
        (fire_more, "purposes, but not all events of topic 'orders'"),
        (settle, "purpose 'Ship it' on topic 'orders' in another state"),
    ):
        on(source, use)
        before = told(url)
        with pytest.raises(ConflictError, match=words if use is fire_more else "purposes, but not all"):
            up(source, url)
        assert told(url) == before


def test_events_that_are_not_of_the_copy_are_refused(source: Path, url: str) -> None:
    async def fire() -> None:
        async with SolarWind(url) as wind:
            await wind.fire("elsewhere", 1)

    asyncio.run(fire())
    with pytest.raises(ConflictError, match="topic 'elsewhere', which the source does not have"):
        up(source, url)


def test_who_is_at_work_is_named_before_anything_is_copied(source: Path, url: str, tmp_path: Path) -> None:
    async def work() -> None:
        wind = SolarWind(url)

        @wind.on("orders", purpose="Ship it")
        def ship(order: int) -> None:
            """Do nothing: no copy comes."""

        async with wind:
            with pytest.raises(ConflictError, match=r"expected nobody to be at work on .*, got process .*: stop it"):
                await copy(file(source), NatsEnd(url, writes=True))
            with pytest.raises(ConflictError, match="expected nobody to be at work"):
                await copy(NatsEnd(url, writes=False), file(tmp_path / "copy.db", writes=True))
            assert (await wind.statistics()).topics["orders"].fired == 0

    asyncio.run(work())


def test_a_copy_notices_events_fired_meanwhile(source: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.copying.PAGE_BYTES", 1)

    async def work() -> None:
        end = CutEnd(url, 2, "before")
        with pytest.raises(Cut):
            await copy(file(source), end)
        async with SolarWind(url) as wind:

            class Meanwhile(CutEnd):
                async def write(self, work: Coroutine[Any, Any, Any]) -> Any:
                    await wind.fire("orders", "mine")
                    return await work

            with pytest.raises(ConflictError, match=r"expected nobody to fire on .* while it is copied to"):
                await copy(file(source), Meanwhile(url, 0, ""))

    asyncio.run(work())


def test_a_namespace_that_is_not_there_is_refused_rather_than_made(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a namespace, but there is none at nats://"):
        down(url, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
    assert asyncio.run(stored(url)) == 0
