"""A cache of the recent part of the log, so that new events are not read back from the store, and of what is read ahead
of a backlog."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import cast

from ..core.log import Stored

MAX_BYTES = 24 << 20
_FEW = 64  # batches that were dropped and still have their places
_start = attrgetter("start")
_NOTHING = cast(Stored, None)


class _Known:
    """The batches of one topic that are in memory, in order. The oldest, which goes first, only leaves its place empty:
    it would cost much to move up all others for each event."""

    __slots__ = ("first", "places")

    def __init__(self) -> None:
        self.places: list[Stored] = []  # those before the first are gone
        self.first = 0

    def at(self, position: int) -> int:
        """Return the index of the last batch that starts at or before `position`; below `first` where there is none."""
        return bisect_right(self.places, position, lo=self.first, key=_start) - 1

    def find(self, position: int) -> Stored | None:
        """Return the batch that has the position."""
        last = self.places[-1]
        if last.start <= position:  # the live end, or nothing
            return last if position < last.stop else None
        index = self.at(position)
        return self.places[index] if index >= self.first and position < self.places[index].stop else None

    def drop(self, stored: Stored) -> bool:
        """Drop a batch. Return whether it was the last."""
        index = self.at(stored.start)
        if index != self.first:
            del self.places[index]
            return False
        self.places[index] = _NOTHING
        self.first += 1
        if self.first == len(self.places):
            return True
        if self.first > _FEW and 2 * self.first > len(self.places):
            del self.places[: self.first]
            self.first = 0
        return False


class LogCache:
    """Holds at most `max_bytes` of batches of all topics, and drops the oldest first."""

    def __init__(self, read_ahead: Callable[[str, int], None], max_bytes: int = MAX_BYTES) -> None:
        """`read_ahead` is called with a topic and position when the last batch that was read before it is used."""
        self._read_ahead = read_ahead
        self.max_bytes = max_bytes
        self._topics: dict[str, _Known] = {}  # those with any
        self._arrived: deque[tuple[Stored, int]] = deque()  # with what they weighed then: folded it is less
        self._bytes = 0
        self._ahead: dict[tuple[str, int], int] = {}

    def find(self, topic: str, position: int) -> Stored | None:
        stored = self.peek(topic, position)
        if stored is not None and self._ahead:
            following = self._ahead.pop((topic, stored.start), None)
            if following is not None:
                self._read_ahead(topic, following)
        return stored

    def peek(self, topic: str, position: int) -> Stored | None:
        """Return the batch that has the position, if it is here. Nothing is read ahead for that."""
        known = self._topics.get(topic)
        return None if known is None else known.find(position)

    def add(self, stored: Stored) -> None:
        known = self._topics.get(stored.batch.topic)
        if known is None:
            known = self._topics[stored.batch.topic] = _Known()
            known.places.append(stored)
        elif known.places[-1].start < stored.start:
            known.places.append(stored)
        elif known.find(stored.start) is None:
            insort(known.places, stored, lo=known.first, key=_start)
        else:
            return
        weight = stored.batch.weight
        self._arrived.append((stored, weight))
        self._bytes += weight
        while self._bytes > self.max_bytes and len(self._arrived) > 1:
            oldest, weight = self._arrived.popleft()
            self._bytes -= weight
            self._forget(oldest)

    def add_read(self, found: Sequence[Stored]) -> None:
        """Add batches read from the store; using the first of them triggers the read ahead. It adds only as many as
        fit, because the first of them are needed first."""
        room = self.max_bytes // 2
        for stored in found:
            room -= stored.batch.weight
            if room < 0 and stored is not found[0]:
                break
            self.add(stored)
            self._ahead[found[0].batch.topic, found[0].start] = stored.stop

    def _forget(self, stored: Stored) -> None:
        topic = stored.batch.topic
        if self._topics[topic].drop(stored):
            del self._topics[topic]
        self._ahead.pop((topic, stored.start), None)
