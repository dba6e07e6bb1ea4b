"""PostgreSQL, by psycopg: connections of the commands, and the source of a relay.

Keys are spread over `BUCKETS`. A relay claims rows of those buckets whose advisory lock it gets, which PostgreSQL
releases with the transaction, whatever becomes of the relay. So several relays share the work, and one at a time has
the rows of a key. It claims what it sees, never what is after the last place that it saw: places are not in the order
in which rows become visible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from .rows import OutboxRow
from .sql import BUCKETS, COUNT_REFUSED

FAILURES: tuple[type[Exception], ...] = (psycopg.Error, OSError)
LANES = 2  # connections: one reads while the other waits for the dispatcher
POLL_S = 1.0  # between two looks where nothing is notified, as when another relay has died
CONNECT_S = 10
_STUCK_S = 90  # after which the server ends the transaction of a relay that stands still, so that another goes on
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": CONNECT_S,
    "application_name": "solarwind relay",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
# The plan must not depend on statistics, which are wrong for a table that is empty at one time and full at another:
# rows are read in the order of the index, and no more of them than are claimed, however many there are.
_PLAN = "; ".join(f"SET enable_{way} = off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"))
_SESSION = f"SET idle_in_transaction_session_timeout = '{_STUCK_S}s'; {_PLAN}; LISTEN solarwind_outbox"
_LOCK = f"""
WITH full_ones AS MATERIALIZED (
    SELECT b FROM generate_series(0, {BUCKETS - 1}) AS b
    WHERE EXISTS (SELECT FROM solarwind_outbox WHERE bucket = b AND refused IS NULL)
    ORDER BY (b + %s) %% {BUCKETS}
)
SELECT b FROM full_ones
WHERE pg_try_advisory_xact_lock('solarwind_outbox'::regclass::oid::int, b) LIMIT {BUCKETS // LANES}
"""
CLAIM = """
WITH sized AS MATERIALIZED (
    SELECT place, size, sum(size) OVER (ORDER BY place) AS total
    FROM unnest(%s::smallint[]) AS locked CROSS JOIN LATERAL (
        SELECT place, octet_length(payload) + octet_length(attributes) AS size FROM solarwind_outbox
        WHERE bucket = locked AND refused IS NULL ORDER BY place LIMIT %s
    ) AS first_ones ORDER BY place LIMIT %s
)
SELECT place, id, topic, content, payload, attributes,
    (greatest(0, least(extract(epoch FROM at), 4000000000)) * 1000000000)::int8
FROM sized JOIN solarwind_outbox USING (place) WHERE total <= %s OR total = size
ORDER BY place FOR UPDATE OF solarwind_outbox SKIP LOCKED
"""


def connect(database: str) -> psycopg.Connection[Any]:
    """Return a connection that commits each statement. Raise `Unavailable`."""
    from .database import fault

    try:
        options = {**_OPTIONS, "application_name": "solarwind outbox"}
        return psycopg.connect(database, **options)
    except FAILURES as error:
        raise fault(database, error) from error


class PostgresLane:
    """One connection of a relay. See `Lane`."""

    def __init__(self, database: str, number: int) -> None:
        self._database = database
        self._first = number * BUCKETS // LANES  # the bucket that it looks at first
        self._closed = False

    async def open(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(self._database, **_OPTIONS)
        await self._connection.execute("SELECT FROM solarwind_outbox LIMIT 0")
        for statement in _SESSION.split("; "):
            await self._connection.execute(statement)
        self._cursor = self._connection.cursor(binary=True)

    async def claim(self, rows: int, size: int) -> list[OutboxRow]:
        cursor = self._cursor
        await cursor.execute("BEGIN")
        await cursor.execute(_LOCK, (self._first,), prepare=True)
        locked = [bucket for (bucket,) in await cursor.fetchall()]
        if not locked:
            await cursor.execute("COMMIT")
            return []
        self._first = (locked[-1] + 1) % BUCKETS
        await cursor.execute(CLAIM, (locked, -(-rows // len(locked)), rows, size), prepare=True)
        claimed = [OutboxRow(*row) for row in await cursor.fetchall()]
        if not claimed:  # another relay was faster
            await cursor.execute("COMMIT")
        return claimed

    async def done(self, accepted: Sequence[int], refused: Mapping[int, str]) -> None:
        await self._cursor.execute("DELETE FROM solarwind_outbox WHERE place = ANY(%s::bigint[])", (list(accepted),))
        for place, error in refused.items():
            await self._cursor.execute("UPDATE solarwind_outbox SET refused = %s WHERE place = %s", (error, place))
        await self._cursor.execute("COMMIT")

    async def release(self) -> None:
        await self._cursor.execute("ROLLBACK")

    async def refused(self) -> int:
        await self._cursor.execute(COUNT_REFUSED)
        ((count,),) = await self._cursor.fetchall()
        return int(count)

    async def wait(self) -> None:
        async for _ in self._connection.notifies(timeout=POLL_S, stop_after=1):
            pass

    async def close(self) -> None:
        if hasattr(self, "_connection"):
            await asyncio.shield(self._connection.close())
