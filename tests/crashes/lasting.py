"""A store in memory that outlives its engine, as a file does."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from solarwind.core.log import Stored
from solarwind.core.state import decode_changes, encode
from solarwind.store.base import Keep, Meanwhile, Recovered, TopicRecord
from solarwind.store.memory import MemoryStore


class LastingStore(MemoryStore):
    """An engine that is aborted leaves it to the next."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self._now = 0
        self._keep: dict[str, list[int | None]] = {}  # by topic: for how long, and how much
        self._changes: list[bytes] = []

    async def open(self, now: int) -> Recovered:
        topics = [TopicRecord(name, log.end, *self._keep.get(name, ())) for name, log in self._topics.items()]
        changes = [change for each in self._changes for change in decode_changes(each)]
        return Recovered(not changes, max(now, self._now), topics, [], changes)

    async def topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        kept = self._keep.setdefault(name, [None, None])
        for at, keep in enumerate((keep_ns, keep_bytes)):
            if keep is not UNSET:
                kept[at] = keep

    async def commit(
        self,
        batches: Any,
        changes: Any,
        snapshots: Any,
        now: int,
        delayed: Any = (),
        notes: Any = (),
        accepted_at: int | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> list[Stored | None]:
        stored = await super().commit(batches, changes, snapshots, now, delayed, notes, accepted_at)
        self._now = now
        self._changes.append(encode(list(changes)))
        if meanwhile is not None:
            meanwhile(stored)
        return stored
