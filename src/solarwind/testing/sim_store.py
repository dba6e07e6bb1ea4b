"""The simulator's disk and log at hand: what a store promises (see `store.base`), without waiting.

Everything is kept as bytes, so that nothing that is changed in memory later changes what was written, and recovery
reads what a real store would have read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import itemgetter

from ..batch import Batch
from ..core.log import Stored
from ..core.state import Change, Snapshot, decode_changes, decode_snapshot, encode
from ..store.delays import Delayed

Name = tuple[str, str]  # topic, purpose
TrackName = tuple[str, str, int]  # and the number of one of its tracks


class Disk:
    """What outlives the process. `forgets`: a retired purpose's changes are deleted at once, otherwise they are
    kept."""

    def __init__(self, *, forgets: bool) -> None:
        self.logs: dict[str, list[Stored]] = {}
        self.ends: dict[str, int] = {}
        self.now = 0  # the engine's time at the last commit
        self.clean = True
        self._forgets = forgets
        self._snapshots: dict[TrackName, bytes] = {}
        self._changes: list[tuple[TrackName, bytes]] = []
        self._delayed: list[tuple[int, bytes]] = []  # by the time when it is due

    def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        delayed: Sequence[Delayed] = (),
        wall: int = 0,
    ) -> list[Stored]:
        """Store all of it, in one step."""
        stored = [self._append(batch, wall) for batch in batches]
        for change in changes:
            name = (change.topic, change.purpose, change.track)
            if change.retired and self._forgets:
                self._forget(name)
            else:
                self._changes.append((name, encode([change])))
        for snapshot in snapshots:
            name = (snapshot.topic, snapshot.purpose, snapshot.track)
            self._forget(name)
            self._snapshots[name] = encode(snapshot)
        self._delayed += [(due, batch.data) for due, batch in delayed]
        self._delayed.sort(key=itemgetter(0))
        self.now = now
        return stored

    def next_due(self) -> int | None:
        return self._delayed[0][0] if self._delayed else None

    def release(self, wall: int, max_count: int) -> list[Stored]:
        """Release up to `max_count` batches of what is due, in one step."""
        due = [data for when, data in self._delayed if when <= wall][:max_count]
        del self._delayed[: len(due)]
        return [self._append(Batch.read(data), wall) for data in due]

    def _append(self, batch: Batch, wall: int) -> Stored:
        topic = batch.header.topic
        start = self.ends.get(topic, 0)
        stored = Stored(start, Batch.read(batch.data), wall)
        self.logs.setdefault(topic, []).append(stored)
        self.ends[topic] = stored.stop
        return stored

    def _forget(self, name: TrackName) -> None:
        self._snapshots.pop(name, None)
        self._changes = [(each, data) for each, data in self._changes if each != name]

    def read(self, topic: str, position: int, max_count: int) -> list[Stored]:
        """Return up to `max_count` batches from the one that holds `position`, or else from the first after it on."""
        return [stored for stored in self.logs.get(topic, ()) if stored.stop > position][:max_count]

    def first(self, topic: str) -> int:
        log = self.logs.get(topic)
        return log[0].start if log else self.ends.get(topic, 0)

    def trim(self, topic: str, stored: Stored) -> None:
        self.logs[topic].remove(stored)

    def snapshots(self) -> list[Snapshot]:
        return [decode_snapshot(data) for data in self._snapshots.values()]

    def changes(self) -> list[Change]:
        return [change for _, data in self._changes for change in decode_changes(data)]


class RecentLog:
    """The part of the log in memory: the last `max_count` batches that came in or were read."""

    def __init__(self, max_count: int) -> None:
        self._max = max_count
        self._kept: deque[Stored] = deque()

    def add(self, stored: Stored) -> None:
        self._kept.append(stored)
        while len(self._kept) > self._max:
            self._kept.popleft()

    def find(self, topic: str, position: int) -> Stored | None:
        for stored in self._kept:
            if stored.batch.topic == topic and stored.start <= position < stored.stop:
                return stored
        return None
