"""A store's database file: its format, how it is opened, and what its rows mean.

The checksum of each batch is chained to that of the batch before it in its topic; each commit and each snapshot has its
own. Where history was trimmed, the topic records which positions were deleted, so that any other gap is a loss.

The number that SQLite keeps for its users, in the first sector of the file, holds the format and the file's *life*:
drawn at random whenever a store that was closed in order is opened again. The mark beside it records it too. So a log
left by another file, or by an earlier or later state of this one, is noticed before SQLite reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

import apsw
import msgspec

from ..batch import Batch
from ..core import state
from ..core.facts import Note, decode_notes
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Letter, Snapshot
from ..errors import ProtocolError, StoreError
from ..names import check_path
from .definitions import Definition
from .faults import note_cause
from .files import read_start
from .paths import refuse_name

FORMAT = 14  # in the lowest bits of SQLite's `user_version`; above them is the file's life
_FORMAT_BITS = 0xFF

Track = tuple[str, str, int]  # topic, purpose and the number of the track
APPLICATION = 0x53574E44  # "SWND"
PAGE_BYTES = 16 << 10
NOTES_OF = 1024  # positions
INCREMENTAL = 2  # free space in the file can be returned to the disk piece by piece
_HEADER = b"SQLite format 3\0"
_LOG_HEADER_BYTES = 32

_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE topics(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, keep_ns INTEGER, keep_bytes INTEGER,
    -- the end, the last sum and all bytes of what was trimmed; where batches are left, they say it themselves
    next INTEGER NOT NULL, sum INTEGER NOT NULL, total INTEGER NOT NULL,
    trimmed BLOB NOT NULL, gone INTEGER NOT NULL, -- which events went, and how many bytes
    whole INTEGER NOT NULL); -- the sum of the row
CREATE TABLE batches(
    row INTEGER PRIMARY KEY, topic INTEGER NOT NULL, start INTEGER NOT NULL, count INTEGER NOT NULL,
    producer INTEGER, author BLOB NOT NULL, first INTEGER NOT NULL, last_time INTEGER NOT NULL, caused INTEGER NOT NULL,
    size INTEGER NOT NULL, total INTEGER NOT NULL, -- the bytes of its topic up to its end
    previous INTEGER NOT NULL, sum INTEGER NOT NULL,
    accepted INTEGER NOT NULL, -- when, by the clock of who dispatches
    whole INTEGER NOT NULL, -- the sum of all that stands before it
    data BLOB NOT NULL);
-- Holds all that links, trimming and seeking ask for, so that they never touch the bodies.
CREATE UNIQUE INDEX links ON batches(topic, start, count, previous, sum, size, total, last_time, accepted);
CREATE INDEX made ON batches(producer, topic, author, first) WHERE producer IS NOT NULL;
-- Which batches have events that were caused by others: by `bucket_of` the id of the cause.
CREATE TABLE effects(bucket TEXT, row INTEGER, PRIMARY KEY(bucket, row)) WITHOUT ROWID;
CREATE TABLE ids(id TEXT, topic INTEGER, position INTEGER NOT NULL, PRIMARY KEY(id, topic)) WITHOUT ROWID;
CREATE INDEX given ON ids(topic, position);
CREATE TABLE commits(
    number INTEGER PRIMARY KEY, time INTEGER NOT NULL, events INTEGER NOT NULL, changes BLOB NOT NULL,
    notes BLOB NOT NULL, -- what instances made of events, until it is in `notes`; empty where that is nothing
    sum INTEGER NOT NULL);
CREATE TABLE snapshots(
    topic TEXT, purpose TEXT, track INTEGER, number INTEGER NOT NULL, state BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY(topic, purpose, track)) WITHOUT ROWID;
CREATE TABLE dead(
    topic TEXT, purpose TEXT, track INTEGER, position INTEGER, tried INTEGER NOT NULL, time INTEGER NOT NULL,
    version INTEGER NOT NULL, error TEXT NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY(topic, purpose, track, position)) WITHOUT ROWID;
-- What instances made of the events at some positions, up to a commit: for `NOTES_OF` positions together.
CREATE TABLE notes(
    topic INTEGER, part INTEGER, number INTEGER, data BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY(topic, part, number)) WITHOUT ROWID;
CREATE TABLE definitions(
    kind TEXT, name TEXT, number INTEGER NOT NULL, value BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY(kind, name)) WITHOUT ROWID;
CREATE TABLE delayed(
    row INTEGER PRIMARY KEY, due INTEGER NOT NULL, topic TEXT NOT NULL, count INTEGER NOT NULL,
    whole INTEGER NOT NULL, -- the sum of the row
    data BLOB NOT NULL);
CREATE INDEX nearest ON delayed(due);
-- In the order of a topic's page, and with what counting asks for, so that it never touches the bodies.
CREATE INDEX nearest_of ON delayed(topic, due, row, count);
CREATE TABLE delayed_ids(id TEXT, topic TEXT, row INTEGER NOT NULL, PRIMARY KEY(id, topic)) WITHOUT ROWID;
CREATE INDEX of_delayed ON delayed_ids(row);
"""


# No room: SQLite has rolled back, or can. (The log's index is a file that grows, too.)
NO_ROOM = {apsw.SQLITE_FULL, apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP}
# The kernel may have dropped what it could not sync, and says so only once.
UNKNOWN = {apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC}
# What reading damaged rows may raise before a checksum is compared.
UNREADABLE = (apsw.Error, msgspec.MsgspecError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def in_one_line(error: BaseException | str) -> str:
    """Return the error's text on one line: SQLite quotes its schema, which has several."""
    return " ".join(str(error).split())


class TopicLog(msgspec.Struct):
    """What memory holds of a topic's log besides its batches."""

    id: int
    name: str
    next: int = 0
    sum: int = 0
    total: int = 0
    keep_ns: int | None = None
    keep_bytes: int | None = None
    trimmed: Spans = msgspec.field(default_factory=Spans)
    gone: int = 0

    @property
    def events(self) -> int:
        return self.next - len(self.trimmed)

    @property
    def bytes(self) -> int:
        return self.total - self.gone


class CommitRow(NamedTuple):
    number: int
    time: int
    events: int


# --- opening ------------------------------------------------------------------------------------------------


def resolve(path: str) -> str:
    """Return the file that `path` leads to through links. Raise `StoreError` where that cannot be a store."""
    real = os.path.realpath(check_path(path))
    refuse_name(path)
    refuse_name(real)
    if os.path.lexists(path) and not os.path.exists(real):
        raise StoreError(
            f"expected a store's file, but {path} is a link to {real}, which is not there: remove the link, or put "
            "the store there"
        )
    if os.path.exists(real) and not os.path.isfile(real) and not os.path.isdir(real):
        raise StoreError(f"expected a store's file, but {path} is not a regular file: name another")
    return real


def exists(path: str, vfs: str | None) -> bool:
    """Return whether a store is at `path`. Raise `StoreError` where something else is."""
    if os.path.isdir(path):
        raise StoreError(f"expected a store's file, but {path} is a folder: name a file in it, such as {path}/wind.db")
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return False
    if os.path.exists(f"{path}-journal"):
        return False  # interrupted while it was created: SQLite rolls that back first
    head = read_start(path, vfs, 100)
    if not head.startswith(_HEADER):
        raise StoreError(f"expected a store of Solar Wind, but {path} is not an SQLite database: name another file")
    _refuse_format(path, int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big"))
    return True


def new_life() -> int:
    return int.from_bytes(os.urandom(4), "big") >> 1 & ~_FORMAT_BITS | FORMAT


def read_life(path: str, vfs: str | None) -> int:
    """Return the life in the file itself, whatever its log has; 0 where there is none yet."""
    return int.from_bytes(read_start(path, vfs, 100)[60:64], "big")


def is_closed(path: str, vfs: str | None) -> bool:
    """Return whether the file itself, whatever its log has, says that it was closed in order."""
    try:
        with closing(_connect_to_file(path, vfs)) as connection:
            return bool(meta(connection, "clean"))
    except UNREADABLE:
        return False


def has_log(path: str) -> bool:
    """Return whether SQLite's log beside the file holds anything."""
    try:
        return os.path.getsize(f"{path}-wal") > _LOG_HEADER_BYTES
    except OSError:
        return False


def _refuse_format(path: str, application: int, number: int) -> None:
    version = number & _FORMAT_BITS
    if application != APPLICATION:
        raise StoreError(f"expected a store of Solar Wind, but {path} is some other SQLite database: name another file")
    if version < FORMAT:
        raise StoreError(
            f"{path} was written in an earlier format than {FORMAT}, by a Solar Wind that was not released: "
            "begin with a new file"
        )
    if version > FORMAT:
        raise StoreError(
            f"{path} was written in format {version} by a newer Solar Wind, this one reads format {FORMAT}: "
            "upgrade Solar Wind"
        )


def connect(path: str, vfs: str | None, *, write: bool = True, create: bool = False) -> apsw.Connection:
    """Return a connection to a database. It keeps the log when it closes, until `keep_tidy`."""
    flags = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    return _prepare(path, apsw.Connection(path, flags | (apsw.SQLITE_OPEN_CREATE if create else 0), vfs), create)


def connect_to_look(path: str, vfs: str | None) -> apsw.Connection:
    """Return a connection that changes nothing and works on a read-only mount, too."""
    if os.access(path, os.W_OK) and os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        return connect(path, vfs)
    if has_log(path):
        raise StoreError(
            f"{path} was not closed in order, and cannot be read to its end where nothing can be written: copy it with "
            "all that lies beside it to where it can be written to, and look there"
        )
    return _prepare(path, _connect_to_file(path, vfs), False)


def _connect_to_file(path: str, vfs: str | None) -> apsw.Connection:
    """Return a connection to the file alone: it looks at no log, and takes no lock."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{quote(path)}?immutable=1", flags, vfs)


def _prepare(path: str, connection: apsw.Connection, create: bool) -> apsw.Connection:
    try:
        keep_tidy(connection, False)
        connection.wal_autocheckpoint(0)
        connection.pragma("synchronous", "FULL")
        connection.pragma("cache_size", -4096)
        if create:
            _create(connection)
        version = connection.pragma("user_version")
        _refuse_format(path, connection.pragma("application_id"), version)
    except BaseException as error:
        note_cause(error, connection)
        connection.close()
        raise
    return connection


def keep_tidy(connection: apsw.Connection, tidy: bool) -> None:
    """Set whether the last connection to close empties the log into the database and removes it.

    Evidence of a loss, or of an unknown outcome, must be kept.
    """
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not tidy))


def _create(connection: apsw.Connection) -> None:
    if connection.pragma("page_count") == 0:
        connection.pragma("page_size", PAGE_BYTES)
        with connection:
            connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")  # creates the file, in one transaction
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {new_life()}")
            values = [("store", os.urandom(16)), ("clean", 1), ("oldest", 1)]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", values)
    connection.pragma("journal_mode", "WAL")


def has_its_schema(connection: apsw.Connection) -> bool:
    """Return whether tables and indices are exactly those of `_SCHEMA`."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY name"
    model = apsw.Connection(":memory:")
    try:
        model.execute(_SCHEMA)
        return model.execute(query).fetchall() == connection.execute(query).fetchall()
    finally:
        model.close()


def select(connection: apsw.Connection, query: str, values: tuple[apsw.SQLiteValue, ...] = ()) -> Iterable[Any]:
    """Return the rows of a query. The schema says which types its columns hold."""
    return connection.execute(query, values)


def value(connection: apsw.Connection, query: str, values: tuple[apsw.SQLiteValue, ...] = ()) -> Any:
    """Return the only value of a query, or None."""
    return connection.execute(query, values).get


def result_code(error: apsw.Error) -> int:
    """Return SQLite's most specific error code."""
    return int(getattr(error, "extendedresult", apsw.SQLITE_ERROR))


# --- what is in it ------------------------------------------------------------------------------------------


def meta(connection: apsw.Connection, name: str) -> Any:
    return value(connection, "SELECT value FROM meta WHERE name = ?", (name,))


def set_meta(connection: apsw.Connection, name: str, value: apsw.SQLiteValue) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def store_id(connection: apsw.Connection) -> bytes:
    return bytes(meta(connection, "store") or b"")


def last_commit(connection: apsw.Connection) -> CommitRow:
    query = "SELECT number, time, events FROM commits ORDER BY number DESC LIMIT 1"
    return next((CommitRow(*row) for row in select(connection, query)), CommitRow(0, 0, 0))


def read_topics(connection: apsw.Connection) -> list[TopicLog]:
    """Return all topics, each with its end and last checksum from its last batch."""
    query = """
    SELECT id, name, max(next, coalesce(start + count, 0)), iif(start + count >= next, batches.sum, topics.sum),
        iif(start + count >= next, batches.total, topics.total), keep_ns, keep_bytes, trimmed, gone
    FROM topics LEFT JOIN batches INDEXED BY links
        ON topic = id AND start = (SELECT max(start) FROM batches WHERE topic = id)
    """
    found = []
    for id, name, next, sum, total, keep_ns, keep_bytes, trimmed, gone in select(connection, query):
        found.append(TopicLog(id, name, next, sum, total, keep_ns, keep_bytes, _read_spans(trimmed), gone))
    return found


def _read_spans(encoded: Any) -> Spans:
    """Return the spans, or none where they cannot be decoded: the row's checksum reports that."""
    try:
        return Spans(msgspec.msgpack.decode(encoded, type=list[int]))
    except (msgspec.MsgspecError, TypeError, ValueError):
        return Spans()


def forget_events(connection: apsw.Connection, topic: int, start: int, stop: int) -> None:
    connection.execute("DELETE FROM ids WHERE topic = ? AND position >= ? AND position < ?", (topic, start, stop))


def forget_notes(connection: apsw.Connection, topic: int, start: int, stop: int, trimmed: Spans) -> None:
    """Delete what was noted about these events, in parts of the log of which all is trimmed."""
    for part in range(start // NOTES_OF, (stop - 1) // NOTES_OF + 1):
        if is_trimmed(part, trimmed):
            connection.execute("DELETE FROM notes WHERE topic = ? AND part = ?", (topic, part))


def is_trimmed(part: int, trimmed: Spans) -> bool:
    """Return whether all of a part of a topic's log, for which there are notes together, is trimmed."""
    return not trimmed.outside(part * NOTES_OF, (part + 1) * NOTES_OF)


def save_topic(connection: apsw.Connection, log: TopicLog) -> None:
    trimmed = state.encode(log.trimmed.edges)
    row = (log.id, log.name, log.keep_ns, log.keep_bytes, log.next, log.sum, log.total, trimmed, log.gone)
    connection.execute("INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, row_sum(*row)))


def row_sum(*columns: object) -> int:
    """Return the checksum of a row, whatever values damage has made of it."""
    return crc32(state.encode(columns))


# The columns of a batch's row besides its body, in the order of `whole`.
NOTED = "topic, start, count, producer, author, first, last_time, caused, size, total, previous, sum, accepted"
BATCH = "start, count, previous, sum, data, accepted"
LETTER = "track, position, tried, time, version, CAST(error AS BLOB), sum"  # damaged text may not be UTF-8


def read_letter(path: str, topic: str, purpose: str, *row: Any) -> Letter:
    """Return the dead letter in a row. Raise `StoreError` where it is damaged."""
    *columns, sum = row
    if row_sum(topic, purpose, *columns) != sum:
        raise StoreError(
            f"{path} is damaged: the dead letter at position {columns[1]} of purpose {purpose!r} on topic {topic!r} is "
            "not what was written: restore a backup, or go on without its error with `solarwind check --accept-loss "
            f"--url sqlite:///{path}`"
        )
    _, position, tried, time, version, error = columns
    return Letter(position, tried, time, str(error, "utf-8"), version)


def read_notes(path: str, topic: int, part: int, number: int, data: bytes, sum: int) -> list[Note]:
    """Return what is in a row of notes. Raise `StoreError` where it is damaged."""
    if row_sum(topic, part, number, data) != sum:
        raise StoreError(
            f"{path} is damaged: what commit {number} noted about events of topic {topic} is not what was written: "
            f"restore a backup, or go on without it with `solarwind check --accept-loss --url sqlite:///{path}`"
        )
    return decode_notes(data)


def read_recent_notes(connection: apsw.Connection) -> list[Note]:
    """Return the notes that are nowhere but in commits, in their order."""
    query = "SELECT notes FROM commits WHERE number > ? AND notes <> x'' ORDER BY number"
    rows = select(connection, query, (int(meta(connection, "noted") or 0),))
    return [note for (data,) in list(rows) for note in decode_notes(data)]


def read_definitions(connection: apsw.Connection, path: str, kind: str | None) -> list[Definition]:
    """Return all definitions, or those of a kind. Raise `StoreError` where one is damaged."""
    rows = select(connection, "SELECT * FROM definitions WHERE ?1 IS NULL OR kind = ?1", (kind,))
    return [read_definition(path, *row) for row in rows]


def read_definition(path: str, kind: str, name: str, number: int, value: bytes, sum: int) -> Definition:
    """Return the definition in a row. Raise `StoreError` where it is damaged."""
    if row_sum(kind, name, number, value) != sum:
        raise StoreError(
            f"{path} is damaged: {kind} {name!r} is not what was defined: restore a backup, or go on without it with "
            f"`solarwind check --accept-loss --url sqlite:///{path}`"
        )
    return Definition(kind, name, value, number)


def read_batch(
    path: str, topic: str, start: int, count: int, previous: int, sum: int, data: bytes, accepted: int = 0
) -> Stored:
    """Return the batch in a row. Raise `StoreError` where it is damaged."""
    last = start + count - 1 if isinstance(count, int) else "?"
    fault = f"{path} is damaged: the events {start} to {last} of topic {topic!r} are not what was written"
    way_out = f"restore a backup, or go on without them with `solarwind check --accept-loss --url sqlite:///{path}`"
    if not isinstance(data, bytes) or not isinstance(previous, int) or crc32(data, previous & 0xFFFFFFFF) != sum:
        raise StoreError(f"{fault} (they have another sum): {way_out}")
    try:
        batch = Batch.read(data)
    except ProtocolError as error:
        raise StoreError(f"{fault} ({error}): {way_out}") from error
    if batch.header.topic != topic or batch.header.count != count:
        raise StoreError(f"{fault} (got {batch.header.count} events of topic {batch.header.topic!r}): {way_out}")
    return Stored(start, batch, accepted if isinstance(accepted, int) else 0)


def refuse_noted(path: str, topic: str, start: Any, count: Any) -> StoreError:
    last = start + count - 1 if isinstance(start, int) and isinstance(count, int) else "?"
    return StoreError(
        f"{path} is damaged: what is noted of the events {start} to {last} of topic {topic!r} is not what was written: "
        f"restore a backup, or go on without them with `solarwind check --accept-loss --url sqlite:///{path}`"
    )


def bucket_of(id: str) -> str:
    """Return under which name it is noted what the event with that id caused: that of the 16 ms in which Solar Wind
    made the id, so that a batch of many effects has few of them, or the id itself, if it was given."""
    return id[:12] if len(id) == 36 and id[8] == "-" and id[14] == "7" else id


def buckets_of(batch: Batch) -> set[str]:
    """Return under which names the effects in a batch are noted."""
    return {bucket_of(cause.id) for cause in batch.header.causes or () if cause.kind == "event"}


def read_at(connection: apsw.Connection, path: str, topic: int, name: str, position: Any) -> Stored | None:
    """Return the last batch that begins at or before a position."""
    query = f"SELECT {BATCH} FROM batches WHERE topic = ? AND start <= ? ORDER BY start DESC LIMIT 1"
    for row in list(select(connection, query, (topic, position))):
        return read_batch(path, name, *row)
    return None


def check_given(path: str, id: str, topic: str, position: Any, found: Stored | None) -> None:
    """Raise `StoreError` unless the event that the index names for an id, in `found`, has it."""
    if found is None or position >= found.stop or found.batch.id(position - found.start) != id:
        raise StoreError(
            f"{path} is damaged: the id {id!r} is noted of event {position} of topic {topic!r}, which has another or "
            "is not there: restore a backup, or have the ids noted anew with `solarwind check --accept-loss "
            f"--url sqlite:///{path}`"
        )


def read_purposes(connection: apsw.Connection) -> tuple[list[Snapshot], list[Change], dict[Track, int]]:
    """Return all snapshots, the changes after them, and each purpose's first commit since its snapshot."""
    numbers: dict[Track, int] = {}
    snapshots: list[Snapshot] = []
    query = "SELECT topic, purpose, track, number, state FROM snapshots"
    for topic, purpose, track, number, encoded in select(connection, query):
        numbers[topic, purpose, track] = number
        snapshots.append(state.decode_snapshot(encoded))
    changes: list[Change | None] = []
    places: dict[Track, list[int]] = {}
    since: dict[Track, int] = {}
    for number, encoded in select(connection, "SELECT number, changes FROM commits ORDER BY number"):
        for change in state.decode_changes(encoded):
            key = change.topic, change.purpose, change.track
            if number <= numbers.get(key, -1):
                continue
            if change.retired:  # deleted, with everything before
                for place in places.pop(key, ()):
                    changes[place] = None
                since.pop(key, None)
                continue
            places.setdefault(key, []).append(len(changes))
            since.setdefault(key, number)
            changes.append(change)
    return snapshots, [change for change in changes if change is not None], since
