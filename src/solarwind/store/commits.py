"""One commit to a database: what it writes, what it leaves out, and what memory knows afterwards.

A `Plan` looks up what it has to within a transaction and changes nothing in memory, so that a transaction that is
rolled back leaves no trace. What it adds are `Rows`: most commits are nothing else and need no look-up, so these may be
written to a journal first. `CommitCache.apply` updates memory once the commit is durable.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import apsw
import msgspec

from ..batch import Batch, read_id
from ..core import state
from ..core.facts import Note, divided
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Snapshot
from . import database
from .database import CommitRow, TopicLog, select
from .database import value as value_of
from .definitions import Definition, check_before, check_count
from .delays import Delayed

_COMMITS_KEPT = 256  # superseded commits that pile up before they are deleted together
_NOTES_BYTES = 1_024  # of a commit's notes that are kept in its row until then; more is sorted at once
_MAX_PRODUCERS = 100_000
_FEW = 64  # batches and changes of a commit that goes into the journal

_INSERT_BATCH = (
    "INSERT INTO batches(topic, start, count, producer, author, first, last_time, caused, size, "
    "total, previous, sum, accepted, whole, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# Of an author's batches under a producer in a topic, the last that begins at or before a number.
_TRACK = "topic = ? AND purpose = ? AND track = ?"
_MADE = (
    "SELECT row, first, first + count FROM batches WHERE producer = ? AND topic = ? AND author = ? AND first <= ? "
    "ORDER BY first DESC LIMIT ?"
)
_OVERLAPS = 4  # batches of one author with overlapping numbers to look through: a correct author has none

_encode_json = msgspec.json.Encoder().encode


NOTHING = CommitRow(number=0, time=0, events=0)


class Content(NamedTuple):
    """What a commit writes: see `Store.commit`."""

    batches: Sequence[Batch]
    changes: Sequence[Change]
    snapshots: Sequence[Snapshot]
    now: int
    delayed: Sequence[Delayed]
    notes: Sequence[Note]
    accepted_at: int | None

    def is_small(self, max_bytes: int) -> bool:
        """Return whether it may go into the journal."""
        if self.snapshots or self.delayed or len(self.batches) + len(self.changes) > _FEW:
            return False
        return sum([len(batch.data) for batch in self.batches]) < max_bytes


class AlreadyWritten(Exception):
    """The commit's number is in use: two processes have written at the same time."""


class NeedsDatabase(Exception):
    """A commit looks something up, or changes more than it adds: it has to be a transaction of its own."""


class Rows(msgspec.Struct, array_like=True):
    """What commits add to the database, in its order."""

    batches: list[tuple[Any, ...]] = []
    effects: list[tuple[str, int]] = []  # buckets, and which of `batches`
    ids: list[tuple[str, int, int]] = []
    commits: list[tuple[Any, ...]] = []

    def add(self, others: Rows) -> None:
        before = len(self.batches)
        self.batches += others.batches
        self.effects += [(bucket, before + row) for bucket, row in others.effects]
        self.ids += others.ids
        self.commits += others.commits

    def insert(self, connection: apsw.Connection) -> None:
        """Insert them, in a transaction. Raise `AlreadyWritten`."""
        if self.batches:
            connection.executemany(_INSERT_BATCH, self.batches)
            first = connection.last_insert_rowid() - len(self.batches) + 1
            if self.effects:
                rows = [(bucket, first + row) for bucket, row in self.effects]
                connection.executemany("INSERT INTO effects VALUES (?, ?)", rows)
        if self.ids:
            connection.executemany("INSERT INTO ids VALUES (?, ?, ?)", self.ids)
        if self.commits:
            try:
                connection.executemany("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)", self.commits)
            except apsw.ConstraintError as error:
                raise AlreadyWritten(f"commit {self.commits[0][0]} is there already") from error


class CommitCache:
    """A cache of the database's state, so that a commit need not query it."""

    def __init__(
        self,
        topics: dict[str, TopicLog] | None = None,
        since: dict[database.Track, int] | None = None,
        last: CommitRow = NOTHING,
        delayed: Counter[str] | None = None,
    ) -> None:
        self.topics = topics or {}
        self.last = last
        self.since = since or {}  # track -> its first commit since its snapshot; ascending
        self.producers: dict[tuple[int, int, bytes], int] = {}  # (topic, producer, author) -> the number after its last
        self.delayed = delayed or Counter()  # events in the due-log, by topic

    def apply(self, plan: Plan, changes: Sequence[Change], snapshots: Sequence[Snapshot]) -> None:
        """Bring memory up to date with the database."""
        self.last = plan.commit
        for name, topic in plan.new_topics.items():
            self.topics[name] = TopicLog(topic, name)
        for name, (_, *end) in plan.ends.items():
            log = self.topics[name]
            log.next, log.sum, log.total = end
        if len(self.producers) > _MAX_PRODUCERS:
            self.producers.clear()  # what is missing is looked up
        self.producers.update(plan.producers)
        for name, count in plan.delayed.items():
            self.delayed[name] += count
            if not self.delayed[name]:
                del self.delayed[name]
        for change in changes:
            key = change.topic, change.purpose, change.track
            if change.retired:
                self.since.pop(key, None)
            else:
                self.since.setdefault(key, self.last.number)
        for snapshot in snapshots:
            self.since.pop((snapshot.topic, snapshot.purpose, snapshot.track), None)


def rows_of_made(connection: apsw.Connection, topic: int, producer: int, sequences: Sequence[int]) -> set[int]:
    """Return the batches in a topic that may have events with these numbers of a producer, of any author."""
    rows: set[int] = set()
    author: bytes | None = b""
    query = "SELECT min(author) FROM batches WHERE producer = ? AND topic = ? AND author >= ?"
    while (author := value_of(connection, query, (producer, topic, author))) is not None:
        low: int | None = None  # of the numbers that the last row found has
        for sequence in sorted(sequences, reverse=True):
            if low is not None and low <= sequence:
                continue
            for row, first, stop in select(connection, _MADE, (producer, topic, author, sequence, _OVERLAPS)):
                if stop > sequence:
                    rows.add(row)
                    low = first if low is None else min(low, first)
        author += b"\0"
    return rows


class Plan:
    """One commit, while its transaction is open; or before there is one, as long as it needs none."""

    def __init__(self, connection: apsw.Connection | None, known: CommitCache, now: int) -> None:
        """See `Store.commit`. A `now` of 0 is that of the commit before. Without a connection there is no transaction,
        and what needs one raises `NeedsDatabase`."""
        self._connection = connection
        self._known = known
        self.rows = Rows()  # to be inserted at its end
        self.commit = CommitRow(known.last.number + 1, now or known.last.time, known.last.events)
        self.accepted_at: int | None = None
        self.is_written = False
        self.new_topics: dict[str, int] = {}
        self.ends: dict[str, tuple[int, int, int, int]] = {}  # topic -> its id, end, last sum and bytes
        self.producers: dict[tuple[int, int, bytes], int] = {}
        self.delayed: defaultdict[str, int] = defaultdict(int)  # by topic, how many events more the due-log has

    @property
    def connection(self) -> apsw.Connection:
        if self._connection is None:
            raise NeedsDatabase
        return self._connection

    def write(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        notes: Sequence[Note] = (),
    ) -> list[Stored | None]:
        stored = [self.place(batch) for batch in batches]
        self._write_dead(changes)
        self._write_snapshots(snapshots)
        self._write_commit(changes, notes)
        return stored

    def place(self, batch: Batch) -> Stored | None:
        """Give a batch its position and queue it to be inserted, without events that its topic's history holds
        already."""
        name = batch.header.topic
        topic, start, previous, total = self.ends.get(name) or self._end(name)
        fresh = self._fresh(topic, batch)
        if fresh is None:
            return None
        header = fresh.header
        sum, total = crc32(fresh.data, previous), total + len(fresh.data)
        last_time = header.time + max(header.times)
        producer: int | None = header.producer
        if header.ids is not None:
            given = [(id, topic, start + index) for index, id in enumerate(header.ids) if id is not None]
            self.rows.ids += given
            if len(given) == header.count:  # all of its ids were given
                producer = None
        buckets = database.buckets_of(fresh) if header.causes is not None else ()
        if buckets:
            self.rows.effects += [(bucket, len(self.rows.batches)) for bucket in buckets]
        about = topic, start, header.count, producer, header.author, header.first, last_time, int(bool(buckets))
        accepted = last_time if self.accepted_at is None else self.accepted_at
        noted = *about, len(fresh.data), total, previous, sum, accepted
        self.rows.batches.append((*noted, database.row_sum(*noted), fresh.data))
        self.ends[name] = topic, start + header.count, sum, total
        number, time, events = self.commit
        self.commit = CommitRow(number, time, events + header.count)
        if producer is not None:
            key = topic, producer, header.author
            self.producers[key] = max(header.first + header.count, self._reached(key))
        return Stored(start, fresh, accepted)

    def _end(self, name: str) -> tuple[int, int, int, int]:
        log = self._known.topics.get(name)
        if log is not None:
            return log.id, log.next, log.sum, log.total
        topic = self.new_topics.get(name)
        if topic is None:
            topic = self.new_topics[name] = len(self._known.topics) + len(self.new_topics) + 1
            database.save_topic(self.connection, TopicLog(topic, name))
        return topic, 0, 0, 0

    def define(self, kind: str, name: str, value: bytes | None, before: int | None) -> Definition | None:
        """Change a definition, or remove it where `value` is None, as a commit of its own. Return None, with nothing
        written, where there is nothing to remove."""
        key = kind, name
        found = value_of(self.connection, "SELECT number FROM definitions WHERE kind = ? AND name = ?", key)
        check_before(kind, name, found or 0, before)
        if value is None and found is None:
            return None
        number = self.commit.number
        self.connection.pragma("secure_delete", True)  # the replaced value may contain secrets
        try:
            if value is None:
                self.connection.execute("DELETE FROM definitions WHERE kind = ? AND name = ?", key)
            else:
                check_count(value_of(self.connection, "SELECT count(*) FROM definitions") + (found is None))
                row = (*key, number, value, database.row_sum(*key, number, value))
                self.connection.execute("INSERT OR REPLACE INTO definitions VALUES (?, ?, ?, ?, ?)", row)
        finally:
            self.connection.pragma("secure_delete", False)
        self.finish()
        return Definition(kind, name, value, number)

    def finish(self) -> None:
        """End a commit without changes of purposes."""
        self._write_commit([])

    # --- deduplication --------------------------------------------------------------------------------------

    def _fresh(self, topic: int, batch: Batch) -> Batch | None:
        """Return the batch without events whose ids the topic's history holds, or that it has twice.

        A made id is looked up only where its number does not follow the author's last: no other process can make it.
        """
        header = batch.header
        follows = header.first >= self._reached((topic, header.producer, header.author))
        if header.ids is None and follows:
            return batch
        self.insert()  # so that the look-up sees this commit's own events
        ids = [batch.id(index) for index in range(header.count)]
        held = self._held(
            topic, batch.topic, ids if header.ids is None or not follows else [id for id in header.ids if id]
        )
        indices = []
        for index, id in enumerate(ids):
            if id not in held:
                held.add(id)
                indices.append(index)
        if len(indices) == header.count:
            return batch
        return batch.select(indices) if indices else None

    def _reached(self, key: tuple[int, int, bytes]) -> int:
        """Return the number after the last event of a producer in a topic. Numbers from there on need no look-up."""
        reached = self.producers.get(key, self._known.producers.get(key))
        if reached is None:
            topic, producer, author = key
            query = (
                "SELECT first + count FROM batches WHERE producer = ? AND topic = ? AND author = ? "
                "ORDER BY first DESC LIMIT 1"
            )
            reached = self.producers[key] = int(value_of(self.connection, query, (producer, topic, author)) or 0)
        return reached

    def held(self, name: str, ids: list[str]) -> set[str]:
        """Return those of the ids that events in a topic's history have, this commit's included."""
        log = self._known.topics.get(name)
        topic = log.id if log is not None else self.new_topics.get(name)
        self.insert()
        return self._held(topic, name, ids) if topic is not None else set()

    def _held(self, topic: int, name: str, ids: list[str]) -> set[str]:
        """Return the ids that events in the topic's history have. The index only finds candidates; the batches
        decide."""
        # CROSS: looks up each id, instead of comparing all ids of the topic with them.
        query = "SELECT value, position FROM json_each(?2) CROSS JOIN ids ON ids.id = value AND ids.topic = ?1"
        held = set()
        found: Stored | None = None
        for id, position in list(select(self.connection, query, (topic, _encode_json(ids)))):
            if found is None or not found.start <= position < found.stop:
                found = database.read_at(self.connection, self.connection.filename, topic, name, position)
            database.check_given(self.connection.filename, id, name, position, found)
            held.add(id)
        by_producer: dict[int, list[int]] = {}
        for id in ids:
            made = read_id(id)
            if made is not None:
                by_producer.setdefault(made.producer, []).append(made.sequence)
        if by_producer:
            query = (
                "SELECT value FROM json_each(?2) WHERE EXISTS "
                "(SELECT 1 FROM batches WHERE producer = value AND topic = ?1)"
            )
            known = list(select(self.connection, query, (topic, _encode_json(list(by_producer)))))
            rows = {
                row
                for (producer,) in known
                for row in rows_of_made(self.connection, topic, producer, by_producer[producer])
            }
            for row in rows:
                query = f"SELECT {database.BATCH} FROM batches WHERE row = ?"
                for columns in list(select(self.connection, query, (row,))):
                    earlier = database.read_batch(self.connection.filename, name, *columns).batch
                    held.update(earlier.id(index) for index in range(len(earlier)))
        return held

    # --- what is written ------------------------------------------------------------------------------------

    def insert(self) -> None:
        """Insert what it has added so far."""
        connection, rows, self.rows = self.connection, self.rows, Rows()
        rows.insert(connection)

    def _write_dead(self, changes: Sequence[Change]) -> None:
        """Update the rows of dead letters, in the order in which a change is applied."""
        for change in changes:
            key = change.topic, change.purpose, change.track
            if change.retired:
                self.connection.execute(f"DELETE FROM dead WHERE {_TRACK}", key)
                self.connection.execute(f"DELETE FROM snapshots WHERE {_TRACK}", key)
            for edges in filter(None, (change.reopened, change.redriven, change.discarded)):
                for start, stop in Spans(edges):
                    query = f"DELETE FROM dead WHERE {_TRACK} AND position >= ? AND position < ?"
                    self.connection.execute(query, (*key, start, stop))
            if change.dead:
                rows = [(*key, each.position, each.tried, each.time, each.version, each.error) for each in change.dead]
                summed = ((*row, database.row_sum(*row[:-1], row[-1].encode())) for row in rows)
                self.connection.executemany("INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", summed)

    def _write_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        if snapshots:
            number = self.commit.number
            encoded = ((each.topic, each.purpose, each.track, state.encode(each)) for each in snapshots)
            rows = [(*key, number, data, database.row_sum(*key, number, data)) for *key, data in encoded]
            self.connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _sort_notes(self, notes: Iterable[Note]) -> None:
        """Write notes to the parts of the log that they are about."""
        rows = []
        for (name, part), some in divided(notes, database.NOTES_OF).items():
            log = self._known.topics.get(name)
            if log is not None and database.is_trimmed(part, log.trimmed):  # meanwhile
                continue
            row = self._end(name)[0], part, self.commit.number, state.encode(some)
            rows.append((*row, database.row_sum(*row)))
        self.connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)

    def _write_commit(self, changes: Sequence[Change], notes: Sequence[Note] = ()) -> None:
        encoded, clears = state.encode(list(notes)) if notes else b"", self.commit.number % _COMMITS_KEPT == 0
        if len(encoded) > _NOTES_BYTES and not clears:  # else a question would have to read very many
            self._sort_notes(notes)
            encoded = b""
        content = *self.commit, state.encode(list(changes)), encoded
        self.rows.commits.append((*content, database.row_sum(*content)))
        self.is_written = True
        if clears:
            self.insert()
            self._sort_notes(database.read_recent_notes(self.connection))
            database.set_meta(self.connection, "noted", self.commit.number)
            oldest = max(1, next(iter(self._known.since.values()), self._known.last.number))
            self.connection.execute("DELETE FROM commits WHERE number < ?", (oldest,))
            database.set_meta(self.connection, "oldest", oldest)
