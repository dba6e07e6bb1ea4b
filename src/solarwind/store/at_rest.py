"""A store's file that nobody works on, while it is copied from or to.

How its last writer left it says what may have been in a handler. So a copier, however it ends, leaves the original's
word on that as it was, and gives the copy the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from .delays import Delayed, Entry
from .sqlite import SqliteStore

T = TypeVar("T")


class RestingStore(SqliteStore):
    """The store at `path`. Unless it `writes`, its file holds afterwards what it held before."""

    def __init__(self, path: str, *, writes: bool) -> None:
        super().__init__(path)
        self.place = os.path.realpath(path)
        self._writes = writes

    def store_of(self, topic: str) -> RestingStore:
        return self

    def _transaction(self, work: Callable[[], T]) -> T:
        """Unless it writes, that somebody has it open is all that there is to note: that is taken back at once."""
        if self._writes:
            return super()._transaction(work)
        self._writer.execute("BEGIN")
        try:
            return work()
        finally:
            self._writer.execute("ROLLBACK")

    async def delay(self, entries: Sequence[Entry]) -> None:
        await self.commit([], [], [], 0, [Delayed(each.due, each.batch) for each in entries])

    async def leave(self, clean: bool) -> None:
        """Close it. Unless `clean`, whoever opens it next is told that it was cut off."""
        if not clean and self._closed is None:
            self._closed = f"{self.path} is not open"
        await self.close()
