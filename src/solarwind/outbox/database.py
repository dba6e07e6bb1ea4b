"""A database by its URL: what the commands do to its tables."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..errors import BadArgument, NotFound, StoreError, Unavailable
from ..extras import missing_extra
from ..text import plain, redact
from ..urls import sqlite_path
from . import sql
from .connections import Connection, connection_of, missing_table

EXPECTED = "the URL of a database, such as postgresql://user@host/shop or sqlite:///shop.db"
MAX_REFUSED = 100  # rows that are listed
BUSY_S = 10.0  # that another transaction may keep SQLite's file locked


class RefusedRow(msgspec.Struct):
    """An event that the dispatcher refused."""

    topic: str
    id: str
    error: str


class OutboxStatus(msgspec.Struct):
    """How an outbox stands: rows that are `pending`, the age of the oldest in seconds, and the first of those that the
    dispatcher refused."""

    pending: int
    oldest_s: float | None
    refused: list[RefusedRow]


def dialect_of(database: object) -> sql.Dialect:
    """Return the kind of database that a URL names. Raise `BadArgument`."""
    if not isinstance(database, str):
        raise BadArgument(f"expected {EXPECTED}, got {type(database).__name__}")
    scheme = database.strip().partition(":")[0].lower()
    if scheme == "sqlite":
        sqlite_path(database)
        return "sqlite"
    if scheme in ("postgresql", "postgres"):
        try:
            parts = urlsplit(database.strip())
            sound = "://" in database and parts.port != 0
        except ValueError:
            sound = False
        if sound:
            return "postgresql"
    raise BadArgument(f"expected {EXPECTED}, got {redact(database)!a}")


def open_sqlite(database: str, **options: Any) -> sqlite3.Connection:
    """Return a connection to the file of a URL, which must exist. Raise `Unavailable`."""
    path = os.path.abspath(sqlite_path(database))
    if not os.path.exists(path):
        raise Unavailable(f"expected a database in {plain(path)}, but there is no such file: name the one in use")
    try:
        own: sqlite3.Connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, **options)
    except sqlite3.Error as error:
        raise fault(database, error) from error
    # Text that is not UTF-8 is refused where it is read, by its column, and not by the driver for the whole answer.
    own.text_factory = lambda data: data.decode(errors="surrogateescape")
    return own


@contextmanager
def opened(database: str) -> Iterator[Connection]:
    """Yield a connection that commits each statement. Raise `BadArgument`, `Unavailable`, `NotFound`, `StoreError`."""
    if dialect_of(database) == "sqlite":
        own: Any = open_sqlite(database)
        failures: tuple[type[Exception], ...] = (sqlite3.Error,)
    else:
        try:
            from . import postgres
        except ImportError:
            raise missing_extra("postgres", "a postgresql:// URL") from None
        own, failures = postgres.connect(database), postgres.FAILURES
    with closing(own):
        try:
            yield connection_of(own)
        except failures as error:
            raise fault(database, error) from error


def fault(database: str, error: BaseException) -> NotFound | StoreError | Unavailable:
    """Return what a driver's error means for who works on a whole database."""
    missing = missing_table(error)
    if missing is not None:
        return missing
    said = plain(" ".join(str(error).split())) or type(error).__name__
    known = type(error).__name__ in ("OperationalError", "InterfaceError", "AdminShutdown", "ConnectionTimeout")
    kind = Unavailable if known else StoreError
    return kind(f"expected the database {redact(database)} to answer, got: {said}")


def init(database: str) -> None:
    """Make the tables, where they are not there yet. Raise what `opened` raises."""
    with opened(database) as connection:
        connection.run(sql.same("BEGIN"), len)
        for text in sql.SCHEMA[connection.dialect]:
            connection.run(sql.same(text), len)
        connection.run(sql.same("COMMIT"), len)


def schema(database: str) -> str:
    """Return the SQL that makes the tables."""
    return "".join(f"{text};\n" for text in sql.SCHEMA[dialect_of(database)])


def prune(database: str, older_s: float) -> int:
    """Forget which events were seen so long ago. Return how many. Each transaction deletes a part, so that nobody waits
    for long."""
    gone = 0
    with opened(database) as connection:
        while True:
            some: int = connection.run(sql.prune(older_s), len)
            gone += some
            if some < sql.CHUNK:
                return gone


def status(database: str) -> OutboxStatus:
    """Return how an outbox stands."""
    with opened(database) as connection:
        count, oldest = connection.run(sql.pending(), lambda rows: rows[0])
        refused = connection.run(sql.refused(MAX_REFUSED), list)
    oldest_s = None if oldest is None else round(max(0.0, float(oldest)), 3)
    return OutboxStatus(count, oldest_s, [RefusedRow(*row) for row in refused])


def redrive(database: str) -> int:
    """Make what was refused pending again. Return how many events that is."""
    with opened(database) as connection:
        return int(connection.run(sql.redrive(), len))
