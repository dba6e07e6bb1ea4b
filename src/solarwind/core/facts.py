"""What operators ask of events and versions, noted once per report: who handled which events, and how long it took.

A note is about many events and is written down with the change that settles them, so that it costs nothing per event.
Nothing here decides what is handed out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from .spans import Spans

if TYPE_CHECKING:
    from .instance import Lease

BOUNDS_NS = tuple(count * 10**power for power in range(5, 13) for count in (1, 3))  # 0.1 ms to 50 minutes


class Note(msgspec.Struct, array_like=True, gc=False):
    """What an instance of a purpose made of some events of a topic: the `edges` of spans of their positions.

    `origin` is the machine and the process of the instance. The events were handed out and reported then, in ns since
    1970, and took `took_ns` each, as a mean. `tried` has the attempts of those that took more than one. Of what no
    instance reported the origin is "", and `handed_at` is 0.
    """

    topic: str
    purpose: str
    verdict: Literal["settled", "dead", "expired"]
    edges: list[int]
    version: int
    origin: str
    handed_at: int
    reported_at: int
    took_ns: int
    tried: Sequence[tuple[int, int]] = ()

    def attempts(self, position: int) -> int:
        """Return how many attempts the event at that position took."""
        return next((tried for at, tried in self.tried if at == position), int(self.verdict != "expired"))


def divided(notes: Iterable[Note], size: int) -> dict[tuple[str, int], list[Note]]:
    """Return the notes by their topics, and by parts of the log of so many events each: the numbers of those parts. A
    note of events in several parts is cut, so that one event's notes are in one part."""
    found: dict[tuple[str, int], list[Note]] = {}
    for note in notes:
        first, last = note.edges[0] // size, (note.edges[-1] - 1) // size
        if first == last:
            found.setdefault((note.topic, first), []).append(note)
            continue
        spans = Spans(note.edges)
        for part in range(first, last + 1):
            if within := spans.within(part * size, (part + 1) * size):
                tried = [each for each in note.tried if each[0] in within]
                cut = msgspec.structs.replace(note, edges=within.edges, tried=tried)
                found.setdefault((note.topic, part), []).append(cut)
    return found


def about(notes: Iterable[Note], positions: Spans) -> list[Note]:
    """Return the notes that are about some of these positions."""
    return [note for note in notes if Spans(note.edges).common(positions)]


class Histogram:
    """How many times were at most each of `BOUNDS_NS` and above the one before; the last count is of longer ones."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def add(self, time_ns: int, count: int) -> None:
        self.counts[bisect_left(BOUNDS_NS, time_ns)] += count
        self.sum_ns += time_ns * count


class Times:
    """How long a version's events took since the dispatcher started: in the handler, and from fired to settled."""

    __slots__ = ("handler", "settle")

    def __init__(self) -> None:
        self.handler, self.settle = Histogram(), Histogram()

    def add(self, lease: Lease, handled: int, busy_ns: int, settled: int, ended: int, now: int) -> int:
        """Count a report: `ended` events, of which so many are settled. `handled` is how many of the lease were handled
        so far, in `busy_ns`. Return how long the handler took for each, as a mean. An instance that does not say how
        long it was busy had all of them since they were handed out."""
        if handled:
            room = lease.instance.join.room
            took_ns = busy_ns if handled <= room else busy_ns * room // handled
            ended, lease.handled = handled - lease.handled, handled
        else:
            took_ns = now - lease.handed_at
        if ended > 0:
            self.handler.add(took_ns, ended)
        if settled and lease.shadow is None:
            self.settle.add(max(0, now - lease.fired_at), settled)  # the producer's clock may be ahead
        return took_ns


decode_notes = msgspec.msgpack.Decoder(list[Note]).decode
