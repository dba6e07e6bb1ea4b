"""Queries of a database while commits go on: on the read thread, of a consistent past."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

import apsw
import msgspec

from ..batch import read_id
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Letter
from . import database
from .commits import CommitCache, rows_of_made
from .database import TopicLog, select
from .definitions import Definition

_READ_ROWS = 1000
_BATCH_BYTES = 40  # fewer than any batch has
_PAGE_ROWS = 16
_TRIM_BYTES = 16 << 20  # deleted in one transaction, which holds up commits
_TRIM_ROWS = 500
_TRIM_S = 0.02
_TRIM_SEARCH = 20_000  # batches
_encode_json = msgspec.json.Encoder().encode

_BATCH = f"SELECT {database.BATCH} FROM batches "


class Row(NamedTuple):
    """A batch that may be deleted."""

    row: int
    start: int
    events: int
    size: int
    last_time: int
    before: int  # bytes of the rows found before it


class Reading:
    """The queries of a store, each on the thread of `connection`."""

    def __init__(self, path: str, connection: apsw.Connection, known: CommitCache) -> None:
        self._path = path
        self.connection = connection
        self._known = known

    def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        log = self._known.topics.get(topic)
        if log is None:
            return []
        query = """
        SELECT start, sum(size) OVER (ORDER BY start) FROM (
            SELECT start, size FROM batches INDEXED BY links WHERE topic = ?1 AND start >= coalesce(
                (SELECT max(start) FROM batches WHERE topic = ?1 AND start <= ?2), 0) AND start + count > ?2
            ORDER BY start LIMIT ?3)
        """
        count = min(_READ_ROWS, 1 + max_bytes // _BATCH_BYTES)
        rows = list(select(self.connection, query, (log.id, position, count)))
        if not rows:
            return []
        last = max((start for start, total in rows if total <= max_bytes), default=rows[0][0])
        query = f"{_BATCH} WHERE topic = ? AND start >= ? AND start <= ? ORDER BY start"
        found = list(select(self.connection, query, (log.id, rows[0][0], last)))
        return [database.read_batch(self._path, topic, *row) for row in found]

    def seek(self, topic: str, fired: int) -> int:
        log = self._known.topics.get(topic)
        if log is None:
            return 0
        end = log.next
        query = f"{_BATCH} WHERE topic = ? AND last_time >= ? ORDER BY start LIMIT 1"
        for row in list(select(self.connection, query, (log.id, fired))):
            start, batch = database.read_batch(self._path, topic, *row)
            index = next(index for index in range(len(batch)) if batch.time(index) >= fired)
            return start + index
        return end

    def find(self, id: str) -> tuple[str, int] | None:
        query = "SELECT topic, name, position FROM ids JOIN topics ON topics.id = topic WHERE ids.id = ?"
        for topic, name, position in list(select(self.connection, query, (id,))):
            there = database.read_at(self.connection, self._path, topic, name, position)
            database.check_given(self._path, id, name, position, there)
            return name, position
        made = read_id(id)
        if made is None:
            return None
        query = "SELECT id, name FROM topics WHERE EXISTS (SELECT 1 FROM batches WHERE producer = ? AND topic = id)"
        for topic, name in list(select(self.connection, query, (made.producer,))):
            for row in rows_of_made(self.connection, topic, made.producer, [made.sequence]):
                for found in list(select(self.connection, f"{_BATCH} WHERE row = ?", (row,))):
                    start, batch = database.read_batch(self._path, name, *found)
                    index = made.sequence - batch.header.first
                    if batch.id(index) == id:
                        return name, start + index
        return None

    def caused(self, topic: TopicLog, position: int, since: int) -> list[Stored]:
        query = f"{_BATCH} WHERE caused AND topic = ? AND start >= ? AND last_time >= ? ORDER BY start LIMIT ?"
        rows = list(select(self.connection, query, (topic.id, position, since, _PAGE_ROWS)))
        return [database.read_batch(self._path, topic.name, *row) for row in rows]

    def dead(self, topic: str, purpose: str) -> list[Letter]:
        query = f"SELECT {database.LETTER} FROM dead WHERE topic = ? AND purpose = ? ORDER BY position"
        rows = select(self.connection, query, (topic, purpose))
        return [database.read_letter(self._path, topic, purpose, *row) for row in rows]

    def defined(self, kind: str | None) -> list[Definition]:
        return database.read_definitions(self.connection, self._path, kind)

    def trimmable(self, log: TopicLog, pinned: Spans, before: int | None, max_bytes: int | None) -> list[Row]:
        """Return the next batches to delete: as many as one transaction deletes without holding up commits. The reader
        finds them, so that no commit waits."""
        rows = [] if before is None else _piece(self._old(log, pinned, before))
        if not rows and max_bytes is not None:
            excess = log.bytes - max_bytes
            rows = _piece(takewhile(lambda row: excess > row.before, self._unpinned(log, pinned)))
        self._check(log, rows)
        return rows

    def _check(self, log: TopicLog, rows: list[Row]) -> None:
        """Check that the index agrees with the batches that are to be deleted."""
        query = f"SELECT row, whole, {database.NOTED} FROM batches WHERE row IN (SELECT value FROM json_each(?))"
        found = {
            row: tuple(noted) if database.row_sum(*noted) == whole else ()
            for row, whole, *noted in select(self.connection, query, (_encode_json([row.row for row in rows]),))
        }
        for row in rows:
            noted = found.get(row.row, ())
            if not noted or (*noted[:3], noted[6], noted[8]) != (log.id, *row[1:3], row.last_time, row.size):
                raise database.refuse_noted(self._path, log.name, row.start, row.events)

    def _old(self, log: TopicLog, pinned: Spans, before: int) -> Iterator[Row]:
        """Yield the old batches. They are near the beginning: a long run of younger ones ends the search."""
        younger = 0
        for row in self._unpinned(log, pinned):
            if row.last_time < before:
                younger = 0
                yield row
            elif (younger := younger + 1) > _TRIM_SEARCH:
                return

    def _unpinned(self, log: TopicLog, pinned: Spans) -> Iterator[Row]:
        """Yield the batches between pinned ones, oldest first. Skipping pinned ones costs nothing."""
        query = (
            "SELECT row, start, count, size, last_time FROM batches INDEXED BY links "
            "WHERE topic = ? AND start >= ? AND start < ? ORDER BY start"
        )
        low, high = pinned.gap(0)
        total = 0
        while low < log.next:
            stop = log.next if high is None else high
            for row, start, count, size, last_time in select(self.connection, query, (log.id, low, stop)):
                if start + count <= stop:
                    yield Row(row, start, count, size, last_time, total)
                    total += size
            low, high = pinned.gap(stop)


def trim(connection: apsw.Connection, log: TopicLog, rows: Sequence[Row]) -> TopicLog:
    """Delete as many of them as fit into a transaction as short as a commit. Return the topic afterwards."""
    after, end = msgspec.structs.replace(log, trimmed=log.trimmed.copy()), time.monotonic() + _TRIM_S
    for row in rows:
        start, stop = row.start, row.start + row.events
        connection.execute("DELETE FROM batches WHERE row = ?", (row.row,))
        database.forget_events(connection, log.id, start, stop)
        after.trimmed.add(start, stop)
        after.gone += row.size
        if time.monotonic() >= end:
            break
    database.save_topic(connection, after)
    return after


def _piece(rows: Iterable[Row]) -> list[Row]:
    """Return as many of them as one transaction may delete."""
    found: list[Row] = []
    size = 0
    for row in rows:
        found.append(row)
        size += row.size
        if size >= _TRIM_BYTES or len(found) >= _TRIM_ROWS:
            break
    return found
