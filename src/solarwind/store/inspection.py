"""Finds loss and damage in a store, describes it in sentences, and can go on without it.

Opening a store checks what takes a moment, `check` everything; both use the same rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

import apsw

from ..core import state
from ..core.log import Stored
from ..core.spans import Spans
from ..errors import StoreError
from ..text import time_text
from . import delayed, journal
from .commits import Rows
from .database import (
    LETTER,
    NOTED,
    CommitRow,
    TopicLog,
    buckets_of,
    forget_events,
    has_its_schema,
    has_log,
    in_one_line,
    is_closed,
    last_commit,
    meta,
    read_batch,
    read_definition,
    read_letter,
    read_life,
    read_notes,
    read_topics,
    refuse_noted,
    row_sum,
    save_topic,
    select,
    set_meta,
    store_id,
    value,
)
from .files import Mark, Reach
from .journal import Pending
from .lock import identity

_SUSPICIOUS = """
SELECT start, count, reached, previous IS above AS linked FROM (
    SELECT start, count, previous,
        lag(start + count) OVER upwards AS reached, lag(sum) OVER upwards AS above
    FROM (SELECT start, count, previous, sum FROM batches INDEXED BY links
        WHERE topic = ?1 ORDER BY start DESC LIMIT ?2)
    WINDOW upwards AS (ORDER BY start))
WHERE start IS NOT reached OR NOT linked ORDER BY start
"""


_DELAYED = 1_000  # batches of the due-log that a start looks at
_SMALL_BYTES = 16 << 20  # what SQLite checks in a moment

_NOT_FOUND_GIVEN = """
SELECT topic, position FROM (SELECT * FROM ids INDEXED BY given ORDER BY topic DESC, position DESC LIMIT ?) AS noted
WHERE NOT EXISTS (SELECT 1 FROM ids
    WHERE ids.id = noted.id AND +ids.topic = noted.topic AND +ids.position = noted.position)
"""
_NOT_FOUND_MADE = """
SELECT topic, start
FROM (SELECT row, topic, start, producer, author, first FROM batches ORDER BY row DESC LIMIT ?) AS noted
WHERE producer IS NOT NULL AND NOT EXISTS (SELECT 1 FROM batches INDEXED BY made
    WHERE batches.producer = noted.producer AND batches.topic = noted.topic AND batches.author = noted.author
    AND batches.first = noted.first AND batches.row = noted.row)
"""
_THERE = (
    "EXISTS (SELECT 1 FROM batches INDEXED BY links WHERE topic = {topic} AND start = "
    "(SELECT max(start) FROM batches WHERE topic = {topic} AND start <= position) AND start + count > position)"
)


class Finding(NamedTuple):
    """Something damaged or lost, and a function that accepts it in a transaction."""

    text: str
    accept: Callable[[apsw.Connection], object]


def inspect_log(path: str, vfs: str | None) -> Iterator[Finding]:
    """Check that SQLite's log was written to this very file, before SQLite reads it into the file."""

    def accept(_: apsw.Connection) -> None:
        """Do nothing: the caller has moved the log aside."""

    if has_log(path) and (identity(path) is None or not os.path.getsize(path)):
        yield Finding(
            f"{path} is not there, but {path}-wal holds commits to it: put it back, or restore a backup with "
            f"`solarwind restore BACKUP --url sqlite:///{path}`",
            accept,
        )
        return
    for _ in range(3):  # another process may begin a new life, or close it, meanwhile
        if not has_log(path) or _is_own_log(path, vfs):
            return
    yield Finding(
        f"{path}-wal does not belong to {path}, which was put in its place since: restore a backup with `solarwind "
        f"restore BACKUP --url sqlite:///{path}`, or put {path}-wal aside and go on with {path} as it is with "
        f"`solarwind check --accept-loss --url sqlite:///{path}`",
        accept,
    )


def _is_own_log(path: str, vfs: str | None) -> bool:
    """Return whether the log beside the file goes on from it, as far as its mark tells: see `Mark`."""
    life, mark, after = read_life(path, vfs), Mark.read(path, vfs), read_life(path, vfs)
    if mark is None:  # it is there before a log is: so this is a copy, or its mark was removed
        return not is_closed(path, vfs)
    return not mark.emptied and life == after and life in (mark.life, mark.former)


def inspect_mark(path: str, connection: apsw.Connection, mark: Reach | None, pending: Pending) -> Iterator[Finding]:
    """Check that the database and its journal hold all commits that the mark records as durable, and that the journal
    has none that follow on nothing."""
    last = pending.last
    way_out = f"restore a backup, or go on without them with `solarwind check --accept-loss --url sqlite:///{path}`"

    def accept(_: apsw.Connection) -> None:
        """Do nothing: the caller writes the mark anew, and removes the journal."""

    own = mark if mark is not None and mark.store == store_id(connection) else None
    if own is None and not meta(connection, "clean"):
        yield Finding(
            f"{path}-mark is missing, and {path} was not closed in order (or was copied while it was in use, which "
            f"`solarwind backup` does), so whether commits were lost after number {last.number} is not known: "
            f"put it back, {way_out}",
            accept,
        )
    elif own is not None and own.commit > last.number:
        commits, events = own.commit - last.number, own.events - last.events
        yield Finding(
            f"{path} has lost its last {commits} commits with {events} events since "
            f"{time_text(last.time) if last.number else 'its beginning'}: it ends at commit {last.number}, but "
            f"{own.commit} were durable at {time_text(own.time)}: {way_out}",
            accept,
        )
    elif pending.lost:
        yield Finding(
            f"{path} has lost commits after number {last.number}: {journal.path_of(path)} holds commit {pending.lost}, "
            f"and not those between them as they were written: {way_out}",
            accept,
        )


def inspect_schema(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check that the tables are those that were created. Nothing else can be checked where they are not."""
    if not has_its_schema(connection):
        yield Finding(f"{path} is damaged: what its tables are is not what was written: restore a backup", _rebuild)


def inspect_topics(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check each topic's row. Nothing else can be checked where one is damaged."""
    for *columns, whole in select(connection, "SELECT * FROM topics"):
        if row_sum(*columns) != whole:
            yield Finding(
                f"{path} is damaged: what is noted of topic {columns[1]!r} is not what was written: restore a backup, "
                f"or go on without how much it keeps with `solarwind check --accept-loss --url sqlite:///{path}`",
                _renew_topic(columns[0], columns[1]),
            )


def _renew_topic(topic: int, name: object) -> Callable[[apsw.Connection], None]:
    """Return a function that restores a topic's row from its batches: missing ones count as trimmed."""

    def accept(connection: apsw.Connection) -> None:
        query = "SELECT start, count, sum, total, size FROM batches WHERE topic = ? ORDER BY start"
        log, there, left = TopicLog(topic, str(name)), Spans(), 0
        for start, count, total_sum, total, size in select(connection, query, (topic,)):
            there.add(start, start + count)
            log.next, log.sum, log.total, left = start + count, total_sum, total, left + size
        log.trimmed = Spans.of(())
        for low, high in there.outside(0, log.next):
            log.trimmed.add(low, high)
        log.gone = log.total - left
        save_topic(connection, log)

    return accept


def inspect_letters(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check the rows of dead letters."""
    there = _THERE.format(topic="(SELECT id FROM topics WHERE name = dead.topic)")
    query = f"SELECT topic, purpose, {LETTER} FROM dead WHERE {there}"
    for topic, purpose, *row in select(connection, query):  # letters of no event are found elsewhere
        try:
            read_letter(path, topic, purpose, *row)
        except StoreError as error:
            key = (topic, purpose, row[0], row[1])
            yield Finding(
                str(error), _delete("dead WHERE topic IS ? AND purpose IS ? AND track IS ? AND position IS ?", key)
            )


def inspect_notes(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check what was noted about events."""
    for row in select(connection, "SELECT * FROM notes"):
        try:
            read_notes(path, *row)
        except StoreError as error:
            yield Finding(str(error), _delete("notes WHERE topic IS ? AND part IS ? AND number IS ?", tuple(row[:3])))


def inspect_definitions(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check the definitions."""
    for row in select(connection, "SELECT * FROM definitions"):
        try:
            read_definition(path, *row)
        except StoreError as error:
            yield Finding(str(error), _delete("definitions WHERE kind IS ? AND name IS ?", (row[0], row[1])))


def inspect_delayed(path: str, connection: apsw.Connection, max_batches: int) -> Iterator[Finding]:
    """Check the nearest `max_batches` batches of the due-log."""
    for finding in delayed.inspect(path, connection, max_batches):
        yield Finding(*finding)
    for finding in delayed.inspect_ids(path, connection) if max_batches > _DELAYED else ():
        yield Finding(*finding)


def inspect_commits(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check that the commits since the oldest one kept are complete and undamaged, and the snapshots too."""
    expected = int(meta(connection, "oldest"))
    for number, time, events, changes, notes, sum in select(connection, "SELECT * FROM commits ORDER BY number"):
        if number > expected:
            yield Finding(
                f"{path} has lost the commits {expected} to {number - 1}: the state of its purposes is older there",
                _set_oldest(number),
            )
        if row_sum(number, time, events, changes, notes) != sum:
            yield Finding(
                f"{path} is damaged: commit {number} of {_said(time)} is not what was written: what its purposes did "
                "in it is lost",
                _empty_commit(number, time, events),
            )
        expected = number + 1
    for topic, purpose, track, number, encoded, sum in select(connection, "SELECT * FROM snapshots"):
        if row_sum(topic, purpose, track, number, encoded) != sum:
            yield Finding(
                f"{path} is damaged: the state of purpose {purpose!r} on topic {topic!r} is not what was written: "
                "what it did up to then is lost",
                _delete("snapshots WHERE topic = ? AND purpose = ? AND track = ?", (topic, purpose, track)),
            )


def _said(time: object) -> str:
    return time_text(time) if isinstance(time, int) and 0 <= time < 1 << 62 else "an unreadable time"


def _set_oldest(number: int) -> Callable[[apsw.Connection], None]:
    def accept(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM commits WHERE number < ?", (number,))
        set_meta(connection, "oldest", number)

    return accept


def _empty_commit(number: int, time: int, events: int) -> Callable[[apsw.Connection], None]:
    def accept(connection: apsw.Connection) -> None:
        nothing = state.encode([])
        row = (nothing, b"", row_sum(number, time, events, nothing, b""), number)
        connection.execute("UPDATE commits SET changes = ?, notes = ?, sum = ? WHERE number = ?", row)

    return accept


def _delete(what: str, values: tuple[apsw.SQLiteValue, ...]) -> Callable[[apsw.Connection], None]:
    def accept(connection: apsw.Connection) -> None:
        connection.execute(f"DELETE FROM {what}", values)

    return accept


def lose(topic: int, start: int, stop: int) -> Callable[[apsw.Connection], None]:
    """Return a function that gives up these events of a topic, as if they had been trimmed."""

    def accept(connection: apsw.Connection) -> None:
        forget_events(connection, topic, start, stop)
        [log] = [each for each in read_topics(connection) if each.id == topic]
        log.next = max(log.next, stop)
        log.trimmed.add(start, stop)
        where = "FROM batches WHERE topic = ? AND start >= ? AND start < ?"
        connection.execute(f"DELETE FROM effects WHERE row IN (SELECT row {where})", (topic, start, stop))
        connection.execute(f"DELETE {where}", (topic, start, stop))
        connection.execute(
            "DELETE FROM dead WHERE topic = ? AND position >= ? AND position < ?", (log.name, start, stop)
        )
        save_topic(connection, log)

    return accept


def inspect_links(
    path: str, connection: apsw.Connection, topics: list[TopicLog], events: int, max_batches: int
) -> Iterator[Finding]:
    """Check that each topic's batches follow each other without a gap that was not trimmed: the newest `max_batches` of
    all."""
    each_most = max(16, max_batches // max(1, len(topics)))
    for log in topics:
        first = value(connection, "SELECT min(start) FROM batches WHERE topic = ?", (log.id,))
        for start, count, reached, linked in select(connection, _SUSPICIOUS, (log.id, each_most)):
            if reached is None:
                reached = 0 if start == first else start
            elif reached > start or (reached == start and not linked):
                yield _unlinked(path, log, start, count)
            yield from _gaps(path, log, reached, start)
        end = value(
            connection,
            "SELECT max(start + count) FROM batches WHERE topic = ?1 "
            "AND start = (SELECT max(start) FROM batches WHERE topic = ?1)",
            (log.id,),
        )
        yield from _gaps(path, log, end or 0, log.next)
    total = sum(log.next for log in topics)
    if total != events:
        yield Finding(
            f"{path} has lost the last batches of some topic: {events} events were accepted, but its topics end "
            f"after {total}: restore a backup, or go on without them with `solarwind check --accept-loss --url sqlite:///{path}`",
            recount,
        )


def _gaps(path: str, log: TopicLog, start: int, stop: int) -> Iterator[Finding]:
    for low, high in log.trimmed.outside(start, stop):
        yield Finding(
            f"{path} has lost the events {low} to {high - 1} of topic {log.name!r}: restore a backup, or go on "
            f"without them with `solarwind check --accept-loss --url sqlite:///{path}`",
            lose(log.id, low, high),
        )


def _unlinked(path: str, log: TopicLog, start: int, count: int) -> Finding:
    return Finding(
        f"{path} is damaged: the events {start} to {start + count - 1} of topic {log.name!r} do not follow on "
        "what was written before them: restore a backup, or go on without them with "
        f"`solarwind check --accept-loss --url sqlite:///{path}`",
        lose(log.id, start, start + count),
    )


def recount(connection: apsw.Connection) -> None:
    topics = read_topics(connection)
    for log in topics:
        left = value(connection, "SELECT coalesce(sum(size), 0) FROM batches WHERE topic = ?", (log.id,))
        log.gone = log.total - left
        save_topic(connection, log)
    events = sum(log.next for log in topics)
    query = "SELECT number, time, changes, notes FROM commits ORDER BY number DESC LIMIT 1"
    for number, time, changes, notes in list(select(connection, query)):
        row = (events, row_sum(number, time, events, changes, notes), number)
        connection.execute("UPDATE commits SET events = ?, sum = ? WHERE number = ?", row)


def inspect_bodies(
    path: str,
    connection: apsw.Connection,
    topics: list[TopicLog],
    max_bytes: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Finding]:
    """Check the content of the newest batches, up to `max_bytes`, or of all."""
    names = {log.id: log.name for log in topics}
    done = 0
    query = f"SELECT row, whole, data, {NOTED} FROM batches ORDER BY row DESC"
    for row, whole, data, *noted in select(connection, query):
        topic, start, count, *facts, _, previous, sum, _ = noted
        if topic not in names:
            yield Finding(
                f"{path} is damaged: events of a topic that it does not know",
                _delete("batches WHERE topic = ?", (topic,)),
            )
            continue
        try:
            if row_sum(*noted) != whole:
                raise refuse_noted(path, names[topic], start, count)
            if max_bytes is None:
                stored = read_batch(path, names[topic], start, count, previous, sum, data)
                _compare(path, names[topic], stored, *facts)
                yield from _inspect_given(path, connection, topic, names[topic], stored)
                yield from _inspect_effects(path, connection, row, names[topic], stored)
            elif not isinstance(data, bytes) or crc32(data, previous) != sum:  # at a start a correct checksum is enough
                read_batch(path, names[topic], start, count, previous, sum, data)
        except StoreError as error:
            yield Finding(str(error), lose(topic, start, start + count))
        done += len(data)
        progress(done)
        if max_bytes is not None and done >= max_bytes:
            return


def _inspect_given(path: str, connection: apsw.Connection, topic: int, name: str, stored: Stored) -> Iterator[Finding]:
    """Check that exactly the given ids of its events are in the index."""
    given = enumerate(stored.batch.header.ids or (), stored.start)
    expected = [(id, topic, position) for position, id in given if id is not None]
    where = "topic = ? AND position >= ? AND position < ?"
    query = f"SELECT CAST(id AS BLOB), topic, position FROM ids INDEXED BY given WHERE {where} ORDER BY position"
    rows = list(select(connection, query, (topic, stored.start, stored.stop)))
    if rows == [(id.encode(), topic, position) for id, topic, position in expected]:
        return

    def accept(connection: apsw.Connection) -> None:
        forget_events(connection, topic, stored.start, stored.stop)
        connection.executemany("INSERT OR REPLACE INTO ids VALUES (?, ?, ?)", expected)

    yield Finding(
        f"{path} is damaged: the ids noted of the events {stored.start} to {stored.stop - 1} of topic {name!r} are not "
        f"theirs: restore a backup, or have them noted anew with `solarwind check --accept-loss --url sqlite:///{path}`",
        accept,
    )


def _inspect_effects(path: str, connection: apsw.Connection, row: int, name: str, stored: Stored) -> Iterator[Finding]:
    """Check that it is noted what caused its events."""
    query = "SELECT 1 FROM effects WHERE bucket = ? AND row = ?"
    noted = [(bucket, row) for bucket in buckets_of(stored.batch)]
    if all(value(connection, query, each) for each in noted):
        return

    def accept(connection: apsw.Connection) -> None:
        connection.executemany("INSERT OR REPLACE INTO effects VALUES (?, ?)", noted)

    yield Finding(
        f"{path} is damaged: it is not noted what caused the events {stored.start} to {stored.stop - 1} of topic "
        f"{name!r}: restore a backup, or have it noted anew with `solarwind check --accept-loss --url sqlite:///{path}`",
        accept,
    )


def inspect_newest(
    path: str, connection: apsw.Connection, topics: list[TopicLog], max_batches: int
) -> Iterator[Finding]:
    """Check that the indices find the ends of topics and the newest ids and batches, because a missing one would let a
    duplicate in."""
    for log in topics:
        query = f"SELECT whole, {NOTED} FROM batches WHERE topic = ? ORDER BY start DESC LIMIT 1"
        for whole, *noted in select(connection, query, (log.id,)):
            end, total, sum = noted[1] + noted[2], noted[9], noted[11]
            if row_sum(*noted) != whole or (end == log.next and (total, sum) != (log.total, log.sum)):
                yield Finding(str(refuse_noted(path, log.name, noted[1], noted[2])), _rebuild)
    for query in (_NOT_FOUND_GIVEN, _NOT_FOUND_MADE):
        for topic, position in select(connection, query, (max_batches,)):
            yield Finding(
                f"{path} is damaged: the id of event {position} of topic {topic} is not found where it is looked for: "
                f"see `solarwind check --url sqlite:///{path}`, or restore a backup",
                _rebuild,
            )


def _compare(
    path: str,
    topic: str,
    stored: Stored,
    producer: Any,
    author: Any,
    first: Any,
    last_time: Any,
    caused: Any,
    size: Any,
) -> None:
    """Raise `StoreError` where a batch's row differs from its header."""
    header = stored.batch.header
    expected = (header.author, header.first, header.time + max(header.times), len(stored.batch.data))
    if producer not in (None, header.producer) or (author, first, last_time, size) != expected:
        raise refuse_noted(path, topic, stored.start, stored.batch.count)


def inspect_pages(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Run SQLite's own check of its pages and indices."""
    for (text,) in select(connection, "PRAGMA integrity_check(20)"):
        if text != "ok":
            yield Finding(
                f"{path} is damaged: {in_one_line(text)}: see `solarwind check --url sqlite:///{path}`, or restore a "
                "backup",
                _rebuild,
            )


def _rebuild(connection: apsw.Connection) -> None:
    connection.execute("REINDEX")


def inspect_references(path: str, connection: apsw.Connection) -> Iterator[Finding]:
    """Check that each given id and each dead letter belongs to an existing event."""
    gone = f"topic = ? AND position = ? AND NOT {_THERE.format(topic='ids.topic')}"
    query = f"SELECT id, topic, position FROM ids WHERE NOT {_THERE.format(topic='ids.topic')}"
    for id, topic, position in select(connection, query):
        yield Finding(
            f"{path} is damaged: the id {id!r} is of event {position} of topic {topic}, which is not there",
            _delete(f"ids WHERE {gone}", (topic, position)),
        )
    gone = "effects WHERE row NOT IN (SELECT row FROM batches)"
    if value(connection, f"SELECT 1 FROM {gone} LIMIT 1"):
        yield Finding(f"{path} is damaged: it is noted what caused events that are not there", _delete(gone, ()))
    query = "SELECT topic, purpose, position FROM dead WHERE NOT " + _THERE.format(
        topic="(SELECT id FROM topics WHERE name = dead.topic)"
    )
    for topic, purpose, position in select(connection, query):
        yield Finding(
            f"{path} is damaged: a dead letter of purpose {purpose!r} is event {position} of topic {topic!r}, "
            "which is not there",
            _delete("dead WHERE topic = ? AND purpose = ? AND position = ?", (topic, purpose, position)),
        )


def verify(path: str, vfs: str | None, connection: apsw.Connection) -> tuple[list[TopicLog], CommitRow, Rows]:
    """Check what takes a moment, at every start: enough to notice any loss, but not all damage. Return the topics and
    the last commit of the database, and what is pending in its journal.

    Raise `StoreError` with the first finding.
    """
    for finding in inspect_schema(path, connection):
        raise StoreError(finding.text)
    last, pending = last_commit(connection), journal.read(path, vfs, connection)
    topics = read_topics(connection)

    def findings() -> Iterator[Finding]:
        if connection.pragma("page_count") * connection.pragma("page_size") <= _SMALL_BYTES:
            yield from inspect_pages(path, connection)
        yield from inspect_topics(path, connection)
        yield from inspect_mark(path, connection, Mark.read(path, vfs), pending)
        yield from inspect_commits(path, connection)
        yield from inspect_definitions(path, connection)
        yield from inspect_links(path, connection, topics, last.events, max_batches=100_000)
        yield from inspect_bodies(path, connection, topics, max_bytes=32 << 20)
        yield from inspect_newest(path, connection, topics, max_batches=10_000)
        yield from inspect_delayed(path, connection, max_batches=_DELAYED)

    for finding in findings():
        raise StoreError(finding.text)
    return topics, last, pending.rows
