"""A cache of the recent part of the log, so that new events are not read back from the store, and of what is read ahead
of a backlog."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter

from ..core.log import Stored

MAX_BYTES = 24 << 20
_start = attrgetter("start")


class LogCache:
    """Holds at most `max_bytes` of batches of all topics, and drops the oldest first."""

    def __init__(self, read_ahead: Callable[[str, int], None], max_bytes: int = MAX_BYTES) -> None:
        """`read_ahead` is called with a topic and position when the last batch that was read before it is used."""
        self._read_ahead = read_ahead
        self.max_bytes = max_bytes
        self._topics: dict[str, list[Stored]] = {}
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
        if not known:
            return None
        last = known[-1]
        if last.start <= position:  # the live end, or nothing
            return last if position < last.stop else None
        index = bisect_right(known, position, key=_start) - 1
        return known[index] if index >= 0 and position < known[index].stop else None

    def add(self, stored: Stored) -> None:
        known = self._topics.setdefault(stored.batch.topic, [])
        if not known or known[-1].start < stored.start:
            known.append(stored)
        elif self.peek(stored.batch.topic, stored.start) is None:
            insort(known, stored, key=_start)
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
        known = self._topics[topic]
        index = bisect_right(known, stored.start, key=_start) - 1
        del known[index]
        if not known:
            del self._topics[topic]
        self._ahead.pop((topic, stored.start), None)
