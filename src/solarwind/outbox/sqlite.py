"""SQLite: the source of a relay that looks now and then.

Where several relays work on one file, each fires all that it sees, in order; the dispatcher keeps the first.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..threads import Pool
from ..urls import sqlite_path
from .database import open_sqlite
from .rows import OutboxRow
from .sql import COUNT_REFUSED

T = TypeVar("T")

FAILURES: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
POLL_S = 0.05
# A value of any type may be in any column: what another program wrote is read as the type that is expected.
_CLAIM = """
SELECT place, CAST(id AS TEXT), CAST(topic AS TEXT), CAST(content AS TEXT), CAST(payload AS BLOB),
    CAST(attributes AS TEXT), max(0, min(CAST(at AS INTEGER), 4000000000)) * 1000000000 FROM (
    SELECT *, sum(size) OVER (ORDER BY place) AS total FROM (
        SELECT *, length(payload) + length(attributes) AS size FROM solarwind_outbox
        WHERE refused IS NULL ORDER BY place LIMIT ?
    )
) WHERE total <= ? OR total = size ORDER BY place
"""


class SqliteLane:
    """The connection of a relay, on a thread of its own. See `Lane`."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._thread = Pool("solarwind relay", 1)
        self._version = -1  # of the file, when nothing was found in it

    async def open(self) -> None:
        self._connection = await self._on_thread(lambda: open_sqlite(self._database, check_same_thread=False))
        self._file = await self._on_thread(self._file_there)
        await self._on_thread(lambda: self._fetch("SELECT 1 FROM solarwind_outbox LIMIT 0"))

    async def _on_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _file_there(self) -> tuple[int, int]:
        """Return which file has the name."""
        found = os.stat(sqlite_path(self._database))
        return found.st_dev, found.st_ino

    def _fetch(self, text: str, *parameters: Any) -> list[Any]:
        return self._connection.execute(text, parameters).fetchall()

    async def claim(self, rows: int, size: int) -> list[OutboxRow]:
        return await self._on_thread(lambda: self._claim(rows, size))

    def _claim(self, rows: int, size: int) -> list[OutboxRow]:
        if self._file_there() != self._file:
            raise OSError("another file has the name of the one that was open: it is opened")
        version = self._fetch("PRAGMA data_version")[0][0]  # of what others have committed
        if version == self._version:
            return []
        found = [OutboxRow(*row) for row in self._fetch(_CLAIM, rows, size)]
        self._version = -1 if found else version
        return found

    async def done(self, accepted: Sequence[int], refused: Mapping[int, str]) -> None:
        await self._on_thread(lambda: self._done(accepted, refused))

    def _done(self, accepted: Sequence[int], refused: Mapping[int, str]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            one = [(place,) for place in accepted]
            self._connection.executemany("DELETE FROM solarwind_outbox WHERE place = ?", one)
            errors = [(error, place) for place, error in refused.items()]
            self._connection.executemany("UPDATE solarwind_outbox SET refused = ? WHERE place = ?", errors)
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    async def release(self) -> None:
        """See `Lane`: nothing is claimed."""

    async def refused(self) -> int:
        return int((await self._on_thread(lambda: self._fetch(COUNT_REFUSED)))[0][0])

    async def wait(self) -> None:
        await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        if hasattr(self, "_connection"):
            self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=False)
