"""The tables, and every statement on them, for both databases.

A statement has `?` for its parameters. A table's columns are its interface: what another program writes into
`solarwind_outbox` is fired like what `Outbox` writes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

Dialect = Literal["postgresql", "sqlite"]

ONCE, OUTBOX = "solarwind_once", "solarwind_outbox"
BUCKETS = 64  # keys are spread over so many, and one relay at a time fires what is in a bucket
CHUNK = 10_000  # rows that are pruned in one transaction

_REFUSED_INDEX = (
    "CREATE INDEX IF NOT EXISTS solarwind_outbox_refused ON solarwind_outbox (place) WHERE refused IS NOT NULL"
)
COUNT_REFUSED = "SELECT count(*) FROM solarwind_outbox WHERE refused IS NOT NULL"

# When a transaction commits, its rows get new places. So whoever waited for one of its locks has later places, and
# rows of a key are in the order of commit, also where they were written before the lock was acquired.
_POSTGRESQL = (
    """CREATE TABLE IF NOT EXISTS solarwind_once (
    topic text NOT NULL,
    purpose text NOT NULL,
    event text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, purpose, event)
)""",
    "CREATE INDEX IF NOT EXISTS solarwind_once_at ON solarwind_once (at)",
    """CREATE TABLE IF NOT EXISTS solarwind_outbox (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket smallint NOT NULL DEFAULT 0 CHECK (bucket BETWEEN 0 AND 63),
    id text NOT NULL,
    topic text NOT NULL,
    content text NOT NULL DEFAULT 'application/json',
    payload bytea NOT NULL,
    attributes text NOT NULL DEFAULT '{}',
    refused text,
    at timestamptz NOT NULL DEFAULT now()
)""",
    "CREATE INDEX IF NOT EXISTS solarwind_outbox_next ON solarwind_outbox (bucket, place) WHERE refused IS NULL",
    _REFUSED_INDEX,
    """CREATE OR REPLACE FUNCTION solarwind_outbox_committing() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE solarwind_outbox SET place = DEFAULT WHERE place = NEW.place;
    RETURN NULL;
END $$""",
    """CREATE OR REPLACE FUNCTION solarwind_outbox_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('solarwind_outbox', '');
    RETURN NULL;
END $$""",
    "DROP TRIGGER IF EXISTS solarwind_outbox_committing ON solarwind_outbox",
    """CREATE CONSTRAINT TRIGGER solarwind_outbox_committing AFTER INSERT ON solarwind_outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION solarwind_outbox_committing()""",
    "DROP TRIGGER IF EXISTS solarwind_outbox_wake ON solarwind_outbox",
    """CREATE TRIGGER solarwind_outbox_wake AFTER INSERT ON solarwind_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION solarwind_outbox_wake()""",
)

# With AUTOINCREMENT no place is used twice: a relay that comes late must not delete another row. One transaction at a
# time writes, so places are in the order of commit.
_SQLITE = (
    """CREATE TABLE IF NOT EXISTS solarwind_once (
    topic TEXT NOT NULL,
    purpose TEXT NOT NULL,
    event TEXT NOT NULL,
    at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    PRIMARY KEY (topic, purpose, event)
)""",
    "CREATE INDEX IF NOT EXISTS solarwind_once_at ON solarwind_once (at)",
    """CREATE TABLE IF NOT EXISTS solarwind_outbox (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket INTEGER NOT NULL DEFAULT 0 CHECK (bucket BETWEEN 0 AND 63),
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    content TEXT NOT NULL DEFAULT 'application/json',
    payload BLOB NOT NULL,
    attributes TEXT NOT NULL DEFAULT '{}',
    refused TEXT,
    at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
)""",
    _REFUSED_INDEX,
)

SCHEMA: dict[Dialect, tuple[str, ...]] = {"postgresql": _POSTGRESQL, "sqlite": _SQLITE}


class Statement(NamedTuple):
    """A statement in each dialect, and its parameters."""

    text: dict[Dialect, str]
    parameters: tuple[Any, ...] = ()


def same(text: str, *parameters: Any) -> Statement:
    """Return a statement that is the same in both dialects."""
    return Statement({"postgresql": text, "sqlite": text}, parameters)


@lru_cache(512)
def styled(text: str, style: str) -> str:
    """Return a statement with a driver's own placeholders: `?`, `%s`, or `$1`, `$2`, …"""
    first, *rest = text.split("?")
    if style == "$1":
        return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
    return style.join((first, *rest))


_INTO_ONCE = "INSERT INTO solarwind_once (topic, purpose, event)"
_FIRST_TIME = "ON CONFLICT DO NOTHING RETURNING topic, purpose, event"


def once(topic: str, purpose: str, event: str) -> Statement:
    """Return what gives a row if these three are new."""
    return same(f"{_INTO_ONCE} VALUES (?, ?, ?) {_FIRST_TIME}", topic, purpose, event)


def once_all(triples: str) -> Statement:
    """Return what gives those triples that are new, of a JSON list of them."""
    # The parameter is text first: a connection may have a codec of its own for JSON.
    postgresql = f"{_INTO_ONCE} SELECT e->>0, e->>1, e->>2 FROM json_array_elements(?::text::json) e {_FIRST_TIME}"
    parts = ", ".join(f"json_extract(value, '$[{at}]')" for at in range(3))
    sqlite = f"{_INTO_ONCE} SELECT {parts} FROM json_each(?) WHERE true {_FIRST_TIME}"
    return Statement({"postgresql": postgresql, "sqlite": sqlite}, (triples,))


COLUMNS = ("bucket", "id", "topic", "content", "payload", "attributes")
_ROW = f"({', '.join('?' * len(COLUMNS))})"


def put(rows: list[tuple[Any, ...]]) -> Statement:
    """Return what writes rows of `COLUMNS` into the outbox."""
    values = ", ".join([_ROW] * len(rows))
    parameters = [value for row in rows for value in row]
    return same(f"INSERT INTO solarwind_outbox ({', '.join(COLUMNS)}) VALUES {values}", *parameters)


def prune(older_s: float) -> Statement:
    """Return what deletes at most `CHUNK` rows that are older, and gives a row for each."""
    postgresql = (
        "DELETE FROM solarwind_once WHERE ctid = ANY(ARRAY(SELECT ctid FROM solarwind_once "
        f"WHERE at < now() - ? * interval '1 second' ORDER BY at LIMIT {CHUNK})) RETURNING 1"
    )
    sqlite = (
        "DELETE FROM solarwind_once WHERE rowid IN (SELECT rowid FROM solarwind_once "
        f"WHERE at < CAST(strftime('%s', 'now') AS INTEGER) - ? ORDER BY at LIMIT {CHUNK}) RETURNING 1"
    )
    return Statement({"postgresql": postgresql, "sqlite": sqlite}, (older_s,))


def pending() -> Statement:
    """Return what gives the number of rows to be fired, and the seconds since the oldest was written."""
    text = "SELECT count(*), {} FROM solarwind_outbox WHERE refused IS NULL"
    return Statement(
        {
            "postgresql": text.format("extract(epoch FROM now() - min(at))::float8"),
            "sqlite": text.format("CAST(strftime('%s', 'now') AS INTEGER) - min(at)"),
        }
    )


def refused(limit: int) -> Statement:
    """Return what gives the topic, id and error of rows that were refused, the oldest first."""
    text = "SELECT {} FROM solarwind_outbox WHERE refused IS NOT NULL ORDER BY place LIMIT " + str(limit)
    columns = ("topic", "id", "refused")
    return Statement(
        {
            "postgresql": text.format(", ".join(columns)),
            "sqlite": text.format(", ".join(f"CAST({each} AS TEXT)" for each in columns)),
        }
    )


def redrive() -> Statement:
    """Return what makes refused rows pending again, and gives a row for each."""
    return same("UPDATE solarwind_outbox SET refused = NULL WHERE refused IS NOT NULL RETURNING 1")
