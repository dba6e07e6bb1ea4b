"""Queries of a database while commits go on: on the read thread, of a consistent past."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NamedTuple

import apsw
import msgspec

from ..batch import read_id
from ..core.facts import Note, about
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Letter
from ..errors import StoreError
from . import database
from .base import BatchPlace, was_caused
from .commits import CommitCache, rows_of_made
from .database import TopicLog, select
from .definitions import Definition

_READ_ROWS = 1000
_BATCH_BYTES = 40  # fewer than any batch has
_TRIM_BYTES = 16 << 20  # deleted in one transaction, which holds up commits
_TRIM_ROWS = 500
_TRIM_S = 0.02
_TRIM_SEARCH = 20_000  # batches
_LONG_RUN = 10_000  # events
_encode_json = msgspec.json.Encoder().encode

_BATCH = f"SELECT {database.BATCH} FROM batches "


class Row(NamedTuple):
    """A batch that may be deleted."""

    row: int
    start: int
    events: int
    size: int
    accepted: int
    before: int  # bytes of the rows found before it


class TrimSearch:
    """The search for batches of a topic that may be deleted. `position` is where it goes on; None once it is over."""

    def __init__(self, log: TopicLog, pinned: Spans) -> None:
        self.log = log
        self.pinned = pinned
        self.position: int | None = 0
        self.ahead: int | None = None  # from where on all were accepted in the future
        self.until = 0  # before it, all may go


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

    def read_at(self, topic: str, positions: Spans, max_bytes: int) -> list[Stored]:
        log = self._known.topics.get(topic)
        found: list[Stored] = []
        if log is None:
            return found
        for position in positions.positions():
            if found and position < found[-1].stop:
                continue
            stored = database.read_at(self.connection, self._path, log.id, topic, position)
            if stored is None or position >= stored.stop:
                continue
            max_bytes -= len(stored.batch.data)
            if found and max_bytes < 0:
                break
            found.append(stored)
        return found

    def seek(self, topic: str, fired: int) -> int:
        log = self._known.topics.get(topic)
        if log is None:
            return 0
        end = log.next
        query = f"{_BATCH} WHERE topic = ? AND last_time >= ? ORDER BY start LIMIT 1"
        for row in list(select(self.connection, query, (log.id, fired))):
            start, batch, _ = database.read_batch(self._path, topic, *row)
            index = next(index for index in range(len(batch)) if batch.time(index) >= fired)
            return start + index
        return end

    def find(self, id: str, only: str | None) -> tuple[str, int] | None:
        """See `Store.find`; with `only`, on that topic."""
        query = "SELECT topic, name, position FROM ids JOIN topics ON topics.id = topic WHERE ids.id = ?"
        for topic, name, position in list(select(self.connection, query, (id,))):
            if only not in (None, name):
                continue
            there = database.read_at(self.connection, self._path, topic, name, position)
            database.check_given(self._path, id, name, position, there)
            return name, position
        made = read_id(id)
        if made is None:
            return None
        query = "SELECT id, name FROM topics WHERE EXISTS (SELECT 1 FROM batches WHERE producer = ? AND topic = id)"
        for topic, name in list(select(self.connection, query, (made.producer,))):
            if only not in (None, name):
                continue
            for row in rows_of_made(self.connection, topic, made.producer, [made.sequence]):
                for found in list(select(self.connection, f"{_BATCH} WHERE row = ?", (row,))):
                    start, batch, _ = database.read_batch(self._path, name, *found)
                    index = made.sequence - batch.header.first
                    if batch.id(index) == id:
                        return name, start + index
        return None

    def caused(
        self, ids: Collection[str], since: BatchPlace | None, max_bytes: int, max_batches: int
    ) -> tuple[list[Stored], bool]:
        rows, more = self._rows_of_effects(ids, since)
        name = "(SELECT name FROM topics WHERE id = topic)"
        query = f"SELECT {name}, {database.BATCH} FROM batches WHERE row = ?"
        found: list[Stored] = []
        for row in rows:
            for name, *columns in list(select(self.connection, query, (row,))):
                if max_bytes < 0 or len(found) == max_batches:
                    return found, True
                stored = database.read_batch(self._path, name, *columns)
                max_bytes -= len(stored.batch.data)
                if was_caused(stored.batch, ids):
                    found.append(stored)
        return found, more

    def _rows_of_effects(self, ids: Collection[str], place: BatchPlace | None) -> tuple[list[int], bool]:
        """Return the batches that may have what these events caused, in order, and whether there are more: those from
        the one at `place` on."""
        since, up_to, rows = 0, None, set[int]()
        if place is not None:
            query = (
                "SELECT row FROM batches JOIN topics ON id = topic "
                "WHERE name = ? AND start <= ? ORDER BY start DESC LIMIT 1"
            )
            since = database.value(self.connection, query, (place.topic, place.start)) or 0
        query = "SELECT row FROM effects WHERE bucket = ? AND row >= ? ORDER BY row LIMIT ?"
        for bucket in set(map(database.bucket_of, ids)):
            some = [row for (row,) in select(self.connection, query, (bucket, since, _READ_ROWS))]
            rows.update(some)
            if len(some) == _READ_ROWS:
                up_to = some[-1] if up_to is None else min(up_to, some[-1])
        return sorted(row for row in rows if up_to is None or row <= up_to), up_to is not None

    def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        if not positions:
            return []
        query = (
            f"SELECT {database.LETTER} FROM dead WHERE topic = ? AND purpose = ? AND track = ? "
            "AND position >= ? AND position < ? ORDER BY position"
        )
        rows = select(self.connection, query, (topic, purpose, track, positions.edges[0], positions.edges[-1]))
        letters = (database.read_letter(self._path, topic, purpose, *row) for row in rows)
        return [letter for letter in letters if letter.position in positions]

    def notes(self, topic: str, positions: Spans) -> list[Note]:
        log, found = self._known.topics.get(topic), list[Note]()
        parts = {position // database.NOTES_OF for position in positions.positions()} if log is not None else ()
        for part in sorted(parts):
            query = "SELECT * FROM notes WHERE topic = ? AND part = ? ORDER BY number"
            for row in select(self.connection, query, (log.id if log is not None else 0, part)):
                found += about(database.read_notes(self._path, *row), positions)
        recent = [note for note in database.read_recent_notes(self.connection) if note.topic == topic]
        return found + about(recent, positions)

    def defined(self, kind: str | None) -> list[Definition]:
        return database.read_definitions(self.connection, self._path, kind)

    def old(self, search: TrimSearch, before: int, now: int) -> list[Row]:
        """Return the next batches to delete, since they were accepted before `before`: as many as one transaction
        deletes without holding up commits. The reader finds them, so that no commit waits. The first that is younger
        ends the search."""
        return self._check(search.log, _piece(self._old(search, before, now)))

    def oldest(self, search: TrimSearch, max_bytes: int) -> list[Row]:
        """Return the next batches to delete, since the others come to `max_bytes`."""
        excess = search.log.bytes - max_bytes
        if excess <= 0:
            search.position = None
            return []
        return self._check(search.log, _piece(takewhile(lambda row: excess > row.before, self._unpinned(search))))

    def _check(self, log: TopicLog, rows: list[Row]) -> list[Row]:
        """Return the batches that are to be deleted. Raise `StoreError` where the index does not agree with them."""
        query = f"SELECT row, whole, {database.NOTED} FROM batches WHERE row IN (SELECT value FROM json_each(?))"
        found = {
            row: tuple(noted) if database.row_sum(*noted) == whole else ()
            for row, whole, *noted in select(self.connection, query, (_encode_json([row.row for row in rows]),))
        }
        for row in rows:
            noted = found.get(row.row, ())
            if not noted or (*noted[:3], noted[12], noted[8]) != (log.id, *row[1:3], row.accepted, row.size):
                raise database.refuse_noted(self._path, log.name, row.start, row.events)
        return rows

    def _old(self, search: TrimSearch, before: int, now: int) -> Iterator[Row]:
        for row in self._unpinned(search):
            if row.start < search.until or (row.accepted < before and search.ahead is None):
                yield row
            elif row.accepted < before:  # what was accepted before it is as old
                search.position, search.ahead, search.until = search.ahead, None, row.start + row.events
                return
            elif row.accepted > now:  # by a clock that was wrong
                search.ahead = row.start if search.ahead is None else search.ahead
            else:
                search.position = None
                return

    def _unpinned(self, search: TrimSearch) -> Iterator[Row]:
        """Yield the batches without a pinned event, oldest first, from where the search is: it looks at a number of
        batches, and leaves out long pinned runs."""
        query = (
            "SELECT row, start, count, size, accepted FROM batches INDEXED BY links "
            "WHERE topic = ? AND start >= ? ORDER BY start"
        )
        pinned, total, left = search.pinned, 0, _TRIM_SEARCH
        while search.position is not None:
            low = pinned.gap(search.position)[0]
            search.position = None
            for row, start, count, size, accepted in select(self.connection, query, (search.log.id, low)):
                stop = start + count
                if left == 0:
                    search.position = start
                    return
                left -= 1
                free, high = pinned.gap(start)
                if free == start and (high is None or high >= stop):
                    yield Row(row, start, count, size, accepted, total)
                    total += size
                elif pinned.gap(stop)[0] > stop + _LONG_RUN:
                    search.position = stop
                    break


def trim(connection: apsw.Connection, log: TopicLog, rows: Sequence[Row]) -> TopicLog:
    """Delete as many of them as fit into a transaction as short as a commit. Return the topic afterwards."""
    after, end = msgspec.structs.replace(log, trimmed=log.trimmed.copy()), time.monotonic() + _TRIM_S
    for row in rows:
        start, stop = row.start, row.start + row.events
        _forget_effects(connection, log.name, row.row)
        connection.execute("DELETE FROM batches WHERE row = ?", (row.row,))
        database.forget_events(connection, log.id, start, stop)
        after.trimmed.add(start, stop)
        database.forget_notes(connection, log.id, start, stop, after.trimmed)
        after.gone += row.size
        if time.monotonic() >= end:
            break
    database.save_topic(connection, after)
    return after


def _forget_effects(connection: apsw.Connection, topic: str, row: int) -> None:
    query = f"SELECT {database.BATCH} FROM batches WHERE row = ? AND caused"
    for columns in list(select(connection, query, (row,))):
        with suppress(StoreError):  # what is noted of a damaged one stays: it leads nowhere
            batch = database.read_batch(connection.filename, topic, *columns).batch
            noted = [(bucket, row) for bucket in database.buckets_of(batch)]
            connection.executemany("DELETE FROM effects WHERE bucket = ? AND row = ?", noted)


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
