"""What a store in a database is asked from the loop: each query runs on its read thread, and finds all that is
accepted, also what is in the journal and not in the database yet."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import TypeVar

import apsw

from ..core.facts import Note
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Letter
from ..errors import StoreError
from ..threads import Pool
from . import database
from .base import BatchPlace, Full, SingleWriter
from .commits import CommitCache
from .definitions import Definition
from .faults import note_cause
from .journal import Journal
from .reading import Reading
from .threads import on_thread

T = TypeVar("T")

_ROOM_S = 0.25  # between two looks whether there is room again


class Queries(SingleWriter, ABC):
    """The queries of a store. See `Store` for its methods."""

    _known: CommitCache
    _journal: Journal
    _reading: Reading
    _read_thread: Pool
    _write_thread: Pool

    @abstractmethod
    def _usable(self) -> None:
        """Raise `StoreError` unless the store is open and sound."""

    @abstractmethod
    def _refused(self, what: str, error: BaseException) -> StoreError:
        """Return an error that says why something cannot be done with the store."""

    @abstractmethod
    def _insert_pending(self) -> None:
        """Insert what is pending in the journal, on the write thread. Raise `Full`."""

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        self._usable()
        pending = self._journal.pending
        if pending:
            await self._insert_if_room()
        found = await self._ask(self._questions.read, topic, position, max_bytes)
        return found if found or not pending else await self._ask_all(self._questions.read, topic, position, max_bytes)

    async def read_at(self, topic: str, positions: Spans, max_bytes: int) -> list[Stored]:
        return await self._ask_all(self._questions.read_at, topic, positions, max_bytes)

    async def history(self, topic: str) -> tuple[int, int]:
        self._usable()
        log = self._known.topics.get(topic)
        return (log.events, log.bytes) if log is not None else (0, 0)

    async def seek(self, topic: str, time: int) -> int:
        return await self._ask_all(self._questions.seek, topic, time)

    async def find(self, id: str, topic: str | None = None) -> tuple[str, int] | None:
        return await self._ask_all(self._questions.find, id, topic)

    async def caused(
        self, ids: Collection[str], since: BatchPlace | None, max_bytes: int, max_batches: int = 1_000
    ) -> tuple[list[Stored], bool]:
        return await self._ask_all(self._questions.caused, ids, since, max_bytes, max_batches)

    async def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        return await self._ask(self._questions.dead, topic, purpose, track, positions)  # none are in the journal

    async def notes(self, topic: str, positions: Spans) -> list[Note]:
        return await self._ask_all(self._questions.notes, topic, positions)

    async def _defined(self, kind: str | None) -> list[Definition]:
        return await self._ask(self._questions.defined, kind)

    async def ask(self, question: Callable[[apsw.Connection], T]) -> T:
        """Run a query on the reader's connection, about what is never in the journal."""
        return await self._ask(question, self._questions.connection)

    @property
    def _questions(self) -> Reading:
        self._usable()
        return self._reading

    async def _ask(self, question: Callable[..., T], *arguments: object) -> T:
        """Run a query on the read thread."""
        self._usable()
        try:
            return await on_thread(self._read_thread, question, *arguments)
        except database.UNREADABLE as error:
            note_cause(error, self._reading.connection)
            raise self._refused("read", error) from error

    async def _ask_all(self, question: Callable[..., T], *arguments: object) -> T:
        """Run a query once what is pending is inserted, which waits until there is room."""
        while self._journal.pending and not await self._insert_if_room():  # noqa: ASYNC110
            await asyncio.sleep(_ROOM_S)
        return await self._ask(question, *arguments)

    async def _insert_if_room(self) -> bool:
        self._usable()
        try:
            await on_thread(self._write_thread, self._insert_pending)
        except Full:
            return False
        return True
