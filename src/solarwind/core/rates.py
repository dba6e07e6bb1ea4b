"""How often what is counted happens: numbers of events in rings of fixed size.

The counters are there anyway. A ring is fed with how much one has grown since it was last looked at, so an event costs
nothing here. See `engine/sampling.py` for who looks, and when.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

RECENT_NS = 10_000_000_000
SPANS = ((1, 300), (10, 360), (60, 1440))  # seconds of a slot, and slots: five minutes, an hour, a day
_MAX = (1 << 32) - 1


class RecentRate:
    """How often something that is counted happened of late: a mean of about ten seconds, of two counts. It costs a
    comparison whenever the count has grown."""

    __slots__ = ("_before", "_count", "_since")

    def __init__(self, now: int) -> None:
        self._since, self._count = now, 0
        self._before: float | None = None  # a second, up to then

    def note(self, count: int, now: int) -> None:
        """Note where the count is, at a time in ns."""
        if now - self._since >= RECENT_NS:
            self._before = self._mean(count, now)
            self._since, self._count = now, count

    def read(self, count: int, now: int) -> float:
        """Return how many a second, where the count is now."""
        part = (now - self._since) / RECENT_NS
        if part >= 1 or self._before is None:
            return self._mean(count, now)
        return self._before * (1 - part) + self._mean(count, now) * part

    def _mean(self, count: int, now: int) -> float:
        return (count - self._count) * 1e9 / max(1_000_000_000, now - self._since)


class Ring:
    """Numbers of events in slots of `step` seconds, the last `size` of them."""

    __slots__ = ("_counts", "_newest", "size", "step")

    def __init__(self, step: int, size: int) -> None:
        self.step, self.size = step, size
        self._counts = array("I", bytes(4 * size))
        self._newest = 0

    def add(self, second: int, count: int) -> None:
        """Add events of a second; those from before all slots are forgotten."""
        slot = second // self.step
        if slot >= self._newest + self.size:  # as at first: at once, because very many rings begin in the same second
            self._counts = array("I", bytes(4 * self.size))
            self._newest = slot
        elif slot > self._newest:
            for passed in range(self._newest + 1, slot + 1):
                self._counts[passed % self.size] = 0
            self._newest = slot
        if slot > self._newest - self.size:
            at = slot % self.size
            self._counts[at] = min(_MAX, self._counts[at] + count)

    def total(self, second: int, slots: int) -> int:
        """Return how many events there were in the last so many slots together."""
        return sum(self.read(second, slots))

    def read(self, second: int, slots: int) -> list[int]:
        """Return the numbers of the last so many slots, the oldest first; the last one is that of `second`."""
        last = second // self.step
        if self._newest == last:  # the common case: in one piece, or in two
            stop = last % self.size + 1
            start = stop - slots
            return [*self._counts[start:], *self._counts[:stop]] if start < 0 else self._counts[start:stop].tolist()
        oldest = self._newest - self.size
        return [
            self._counts[slot % self.size] if oldest < slot <= self._newest else 0
            for slot in range(last - slots + 1, last + 1)
        ]


class Rates:
    """The rings of some counters. They are made when a counter first grows."""

    __slots__ = ("_counts", "_rings")

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = tuple(counts)
        self._rings: dict[int, list[Ring]] = {}

    def look(self, counts: tuple[int, ...], second: int, seconds: int = 1) -> tuple[int, ...]:
        """Note where the counters are at `second`. What they have grown by is spread over so many `seconds` up to then.
        Return how much each has grown, nothing where none has; one that is smaller than before was begun anew."""
        before, self._counts = self._counts, counts
        if counts == before:
            return ()
        grown = tuple(max(0, count - was) for count, was in zip(counts, before, strict=True))
        for index, count in enumerate(grown):
            if count:
                self._add(index, count, second, min(seconds, SPANS[0][1]))
        return grown if any(grown) else ()

    def _add(self, index: int, count: int, second: int, seconds: int) -> None:
        rings = self._rings.get(index)
        if rings is None:
            rings = self._rings[index] = [Ring(*span) for span in SPANS]
        each, rest = divmod(count, seconds)
        for ring in rings:
            for ago in range(seconds - 1, -1, -1) if each else ():
                ring.add(second - ago, each)
            if rest:
                ring.add(second, rest)

    @property
    def is_empty(self) -> bool:
        """Whether there are no rings: nothing has grown."""
        return not self._rings

    def forget(self) -> None:
        """Drop the rings."""
        self._rings.clear()

    def total(self, index: int, span: int, second: int, slots: int) -> int:
        """Return how many events of a counter there were in the last slots of one of `SPANS` together."""
        rings = self._rings.get(index)
        return rings[span].total(second, slots) if rings is not None else 0

    def read(self, index: int, span: int, second: int, slots: int | None = None) -> list[int]:
        """Return the numbers of a counter in the last slots of one of `SPANS`, the oldest first; by default all."""
        wanted = SPANS[span][1] if slots is None else slots
        rings = self._rings.get(index)
        return rings[span].read(second, wanted) if rings is not None else [0] * wanted
