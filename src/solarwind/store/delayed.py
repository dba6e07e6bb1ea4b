"""The due-log in a database: rows by due time, and the ids of their events.

A `Plan` writes it within a commit; queries run on the read thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar
from zlib import crc32

import apsw
import msgspec

from ..batch import Batch
from ..core.log import Stored
from ..errors import ProtocolError, StoreError
from . import database
from .commits import Plan
from .database import select, value
from .delays import (
    BEGINNING,
    PAGE_BYTES,
    RELEASE_BYTES,
    RELEASE_ROWS,
    Delayed,
    DelayedCount,
    Entry,
    check_due,
    in_parts,
    only,
    runs,
    together,
    without,
)

T = TypeVar("T")
Accept = Callable[[apsw.Connection], object]

RELEASE_S = 0.02  # for which other commits may be held up
_ROW = "due, row, topic, count, whole, data"
_OF_ID = f"SELECT {_ROW} FROM delayed WHERE row = (SELECT row FROM delayed_ids WHERE id = ? AND topic = ?)"
_encode_json = msgspec.json.Encoder().encode


class CommitDueLog(Protocol):
    """Runs a commit: see `StoredDueLog`."""

    async def __call__(self, work: Callable[[Plan], T], /) -> T: ...


class Database(Protocol):
    """A database file that is open, or will be."""

    path: str

    @property
    def delayed_events(self) -> Mapping[str, int]:
        """How many events the due-log has of each topic."""
        ...

    async def ask(self, question: Callable[[apsw.Connection], T]) -> T:
        """Run a query on the read thread."""
        ...


class StoredDueLog:
    """The due-log of a database: see `DueLog`. `commit` runs a commit of its own on the write thread of the
    `database`."""

    def __init__(self, database: Database, commit: CommitDueLog) -> None:
        self._database = database
        self._commit = commit

    async def release(self, now: int) -> list[Stored]:
        return await self._commit(lambda plan: release(self._database.path, plan, now))

    async def next_due(self) -> int | None:
        found: int | None = await self._database.ask(lambda reader: value(reader, "SELECT min(due) FROM delayed"))
        return found

    async def count(self) -> int:
        return int(await self._database.ask(lambda reader: value(reader, "SELECT count(*) FROM delayed_ids")))

    async def topics(self) -> dict[str, DelayedCount]:
        query = "SELECT value, (SELECT min(due) FROM delayed WHERE topic = value) FROM json_each(?)"
        counts = dict(self._database.delayed_events)
        topics = _encode_json(list(counts))
        found = await self._database.ask(lambda reader: list(select(reader, query, (topics,)))) if counts else ()
        return {topic: DelayedCount(counts[topic], due) for topic, due in found if due is not None}

    async def find(self, topic: str, id: str) -> Entry | None:
        path = self._database.path
        return await self._database.ask(
            lambda reader: next((read_entry(path, *row) for row in select(reader, _OF_ID, (id, topic))), None)
        )

    async def cancel(self, events: Sequence[tuple[str, str]], now: int = -1) -> list[bool]:
        def work(plan: Plan) -> list[bool]:
            found = [cut_out(self._database.path, plan, topic, id, now) is not None for topic, id in events]
            if any(found):
                plan.finish()
            return found

        return await self._commit(work)

    async def move(self, topic: str, id: str, due: int) -> bool:
        check_due(due)

        def work(plan: Plan) -> bool:
            batch = cut_out(self._database.path, plan, topic, id)
            if batch is not None:
                insert(plan, [Delayed(due, batch)])
                plan.finish()
            return batch is not None

        return await self._commit(work)

    async def page(
        self, after: tuple[int, int] = BEGINNING, max_bytes: int = PAGE_BYTES, topic: str | None = None
    ) -> list[Entry]:
        of_topic, topics = ("", ()) if topic is None else ("topic = ? AND ", (topic,))
        query = f"SELECT {_ROW} FROM delayed WHERE {of_topic}(due, row) > (?, ?) ORDER BY due, row"
        path = self._database.path
        return await self._database.ask(lambda reader: list(_some(path, reader, query, (*topics, *after), max_bytes)))


def counted(connection: apsw.Connection) -> Counter[str]:
    """Return how many events there are of each topic."""
    return Counter(dict(select(connection, "SELECT topic, sum(count) FROM delayed GROUP BY topic")))


def add(plan: Plan, delayed: Sequence[Delayed]) -> None:
    """Add delayed batches, without events whose ids are there already, or in their topic's history."""
    ids: dict[str, list[str]] = {}
    for _, batch in delayed:
        ids.setdefault(batch.topic, []).extend(batch.id(index) for index in range(len(batch)))
    known = {topic: _known(plan, topic, some) for topic, some in ids.items()}
    fresh = []
    for due, batch in delayed:
        taken = known[batch.topic]
        new = []
        for index in range(len(batch)):
            id = batch.id(index)
            if id not in taken:
                taken.add(id)
                new.append(index)
        if new:
            fresh.append(Delayed(due, batch if len(new) == len(batch) else batch.select(new)))
    insert(plan, fresh)


def _known(plan: Plan, topic: str, ids: list[str]) -> set[str]:
    query = "SELECT value FROM json_each(?2) CROSS JOIN delayed_ids ON delayed_ids.id = value AND topic = ?1"
    return plan.held(topic, ids) | {id for (id,) in select(plan.connection, query, (topic, _encode_json(ids)))}


def insert(plan: Plan, delayed: Sequence[Delayed]) -> None:
    if not delayed:
        return
    rows, ids = [], []
    last = int(value(plan.connection, "SELECT max(row) FROM delayed") or 0)
    for number, (due, batch) in enumerate(in_parts(delayed), last + 1):
        whole = _sum(due, batch.topic, len(batch), batch.data)
        rows.append((number, due, batch.topic, len(batch), whole, batch.data))
        ids += [(batch.id(index), batch.topic, number) for index in range(len(batch))]
        plan.delayed[batch.topic] += len(batch)
    plan.connection.executemany("INSERT INTO delayed VALUES (?, ?, ?, ?, ?, ?)", rows)
    plan.connection.executemany("INSERT INTO delayed_ids VALUES (?, ?, ?)", ids)


def release(path: str, plan: Plan, now: int) -> list[Stored]:
    query = f"SELECT {_ROW} FROM delayed WHERE due <= ? ORDER BY due, row LIMIT {RELEASE_ROWS}"
    due = list(_some(path, plan.connection, query, (now,), RELEASE_BYTES))
    plan.accepted_at = now
    stored, end = [], time.monotonic() + RELEASE_S
    for run in runs(due):
        stored.append(plan.place(together(run)))
        _forget(plan, *run)
        if time.monotonic() >= end:
            break
    if due:
        plan.finish()
    return [each for each in stored if each is not None]


def cut_out(path: str, plan: Plan, topic: str, id: str, now: int = -1) -> Batch | None:
    """Remove the event and return it as a batch; None where it was not there, or is due at `now`."""
    for row in list(select(plan.connection, _OF_ID, (id, topic))):
        entry = read_entry(path, *row)
        if entry.due <= now:
            return None
        rest = without(entry.batch, id)
        if rest is None:
            _forget(plan, entry)
        else:
            query = "UPDATE delayed SET count = ?, whole = ?, data = ? WHERE row = ?"
            columns = len(rest), _sum(entry.due, topic, len(rest), rest.data), rest.data
            plan.connection.execute(query, (*columns, entry.number))
            plan.connection.execute("DELETE FROM delayed_ids WHERE id = ? AND topic = ?", (id, topic))
            plan.delayed[topic] -= 1
        return only(entry.batch, id)
    return None


def _forget(plan: Plan, *entries: Entry) -> None:
    rows = [(entry.number,) for entry in entries]
    plan.connection.executemany("DELETE FROM delayed WHERE row = ?", rows)
    plan.connection.executemany("DELETE FROM delayed_ids WHERE row = ?", rows)
    for entry in entries:
        plan.delayed[entry.batch.topic] -= len(entry.batch)


def _some(
    path: str, connection: apsw.Connection, query: str, values: tuple[int | str, ...], max_bytes: int
) -> Iterator[Entry]:
    """Yield the first rows of a query: at least one, then up to `max_bytes`."""
    found = 0
    for row in select(connection, query, values):
        entry = read_entry(path, *row)
        found += len(entry.batch.data)
        if found > max_bytes and found > len(entry.batch.data):
            return
        yield entry


def read_entry(path: str, due: int, row: int, topic: str, count: int, whole: int, data: bytes) -> Entry:
    """Return the entry in a row. Raise `StoreError` where it is damaged."""
    try:
        if _sum(due, topic, count, data) == whole:
            batch = Batch.read(data)
            if (batch.topic, len(batch)) == (topic, count):
                return Entry(due, row, batch)
    except (ProtocolError, TypeError):
        pass
    raise StoreError(
        f"{path} is damaged: delayed events of topic {topic!r} are not what was written: restore a backup, or go on "
        f"without them with `solarwind check --accept-loss --url sqlite:///{path}`"
    )


def inspect(path: str, connection: apsw.Connection, max_rows: int) -> Iterator[tuple[str, Accept]]:
    """Yield what is damaged in the nearest `max_rows` rows, and how to go on without it."""
    for row in select(connection, f"SELECT row FROM delayed INDEXED BY nearest ORDER BY due, row LIMIT {max_rows}"):
        for columns in list(select(connection, f"SELECT {_ROW} FROM delayed WHERE row = ?", row)):
            ids = [id for (id,) in select(connection, "SELECT CAST(id AS BLOB) FROM delayed_ids WHERE row = ?", row)]
            try:
                batch = read_entry(path, *columns).batch
            except StoreError as error:
                yield str(error), _lose(row)
                continue
            if sorted(ids) != sorted(batch.id(index).encode() for index in range(len(batch))):
                yield (
                    f"{path} is damaged: the ids noted of delayed events of topic {batch.topic!r} are not theirs: "
                    "restore a backup, or have them noted anew with `solarwind check --accept-loss --url "
                    f"sqlite:///{path}`",
                    _note_ids(row, batch),
                )


def inspect_ids(path: str, connection: apsw.Connection) -> Iterator[tuple[str, Accept]]:
    """Yield the ids that belong to no row, and how to go on without them."""
    gone = "delayed_ids WHERE NOT EXISTS (SELECT 1 FROM delayed WHERE delayed.row = delayed_ids.row)"
    count = value(connection, f"SELECT count(*) FROM {gone}")
    if count:
        yield (
            f"{path} has lost {count:,} delayed events: restore a backup, or go on without them with `solarwind check "
            f"--accept-loss --url sqlite:///{path}`",
            lambda accepting: accepting.execute(f"DELETE FROM {gone}"),
        )


def _lose(row: tuple[int]) -> Callable[[apsw.Connection], None]:
    def accept(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM delayed WHERE row = ?", row)
        connection.execute("DELETE FROM delayed_ids WHERE row = ?", row)

    return accept


def _note_ids(row: tuple[int], batch: Batch) -> Callable[[apsw.Connection], None]:
    def accept(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM delayed_ids WHERE row = ?", row)
        ids = [(batch.id(index), batch.topic, *row) for index in range(len(batch))]
        connection.executemany("INSERT OR REPLACE INTO delayed_ids VALUES (?, ?, ?)", ids)

    return accept


def _sum(due: object, topic: object, count: object, data: bytes) -> int:
    return database.row_sum(due, topic, count, crc32(data))
