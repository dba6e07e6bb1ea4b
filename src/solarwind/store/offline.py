"""A store's file during a copy, while no dispatcher uses it.

The file records how its last writer left it, and so what may have been in a handler. A copy leaves that record in the
original unchanged, and gives it to the target.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from .delays import Delayed, Entry
from .sqlite import SqliteStore

T = TypeVar("T")


class OfflineStore(SqliteStore):
    """The store at `path`. Unless it `writes`, its file stays unchanged."""

    def __init__(self, path: str, *, writes: bool) -> None:
        super().__init__(path)
        self.place = os.path.realpath(path)
        self._writes = writes

    def store_of(self, topic: str) -> OfflineStore:
        return self

    def _transaction(self, work: Callable[[], T]) -> T:
        """Run `work`, and unless it writes, undo the note that the file is open."""
        if self._writes:
            return super()._transaction(work)
        self._writer.execute("BEGIN")
        try:
            return work()
        finally:
            self._writer.execute("ROLLBACK")

    async def delayed(self, after: tuple[int, int], max_bytes: int) -> list[Entry]:
        return await self.delays.page(after, max_bytes)

    async def delay(self, entries: Sequence[Entry]) -> None:
        await self.commit([], [], [], 0, [Delayed(each.due, each.batch) for each in entries])

    async def leave(self, clean: bool) -> None:
        """Close it. Unless `clean`, the next opening finds it interrupted."""
        if not clean and self._closed is None:
            self._closed = f"{self.path} is not open"
        await self.close()
