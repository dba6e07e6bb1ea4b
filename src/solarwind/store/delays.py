"""The due-log: accepted events that enter their topic later, ordered by due time.

They are durable, and their ids are in use. No purpose sees them, and nothing waits for them. The owner of the clock
calls `release` when some are due: they move into their topics in one commit, which gives them positions as if they had
just been fired. The due-log takes no memory for each event.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import NamedTuple, Protocol

from ..batch import Batch, join
from ..columns import Header
from ..core.log import Stored
from ..errors import BadArgument

MAX_DUE = (1 << 62) - 1  # ns since 1970
PAGE_BYTES = 64 << 10
RELEASE_BYTES = 1 << 20  # of events moved in one commit, so that it is short
RELEASE_ROWS = 500
ENTRY_EVENTS = 64  # so that taking one back does not read and write many others
CANCEL_TOGETHER = 128  # events, so that the commit is short
BEGINNING = (-1, -1)


class Delayed(NamedTuple):
    """A batch whose events are all due at the same time, in ns since 1970 by the wall clock."""

    due: int
    batch: Batch


class Entry(NamedTuple):
    """A batch in the due-log. Those due at the same time are ordered by number: in the order accepted."""

    due: int
    number: int
    batch: Batch

    @property
    def place(self) -> tuple[int, int]:
        """The place after which the next page begins."""
        return self.due, self.number


class DelayedCount(NamedTuple):
    """How many events of a topic are delayed, and when the next of them is due, in ns since 1970."""

    events: int
    next: int


class DueLog(Protocol):
    """The due-log of a store; `Store.commit` adds to it. Methods raise `StoreError` where they fail."""

    async def release(self, now: int) -> list[Stored]:
        """Move what is due at `now` (ns since 1970, by the wall clock) into its topics, in one commit: the nearest
        first, and a limited number, so that the commit is short. Return it with its positions, without what gets one
        only when it arrives: see `Store.follow`. Events that the topic's history holds already are left out. Raise
        `Full`, with nothing moved, where there is no room."""
        ...

    async def next_due(self) -> int | None:
        """Return when the nearest is due, in ns since 1970; None where there is none."""
        ...

    async def count(self) -> int:
        """Return the number of events."""
        ...

    async def topics(self) -> dict[str, DelayedCount]:
        """Return how many events of each topic there are. Topics without any are left out."""
        ...

    async def find(self, topic: str, id: str) -> Entry | None:
        """Return the entry that has an event; None where it is not there (any more)."""
        ...

    async def cancel(self, events: Sequence[tuple[str, str]], now: int = -1) -> list[bool]:
        """Remove events, by topic and id, durably and in one commit: `CANCEL_TOGETHER` at most. Return for each False
        where it is not there (any more), or due at `now`."""
        ...

    async def move(self, topic: str, id: str, due: int) -> bool:
        """Change an event's due time, durably. Return False where it is not there (any more)."""
        ...

    async def page(
        self, after: tuple[int, int] = BEGINNING, max_bytes: int = PAGE_BYTES, topic: str | None = None
    ) -> list[Entry]:
        """Return the next entries after that place, of one topic or of all: at least one if there is any, then up to
        `max_bytes`."""
        ...


def check_due(due: int) -> None:
    """Raise `BadArgument` for an invalid due time."""
    if not 0 <= due <= MAX_DUE:
        raise BadArgument(f"expected a time between 1970 and 2116, got {due} ns since 1970")


def check_delayed(delayed: Sequence[Delayed | Entry]) -> None:
    """Raise `BadArgument` for an invalid due time."""
    for each in delayed:
        check_due(each.due)


def in_parts(delayed: Iterable[Delayed]) -> Iterator[Delayed]:
    """Divide large batches into what is an entry each."""
    for due, batch in delayed:
        if len(batch) <= ENTRY_EVENTS:
            yield Delayed(due, batch)
            continue
        for start in range(0, len(batch), ENTRY_EVENTS):
            yield Delayed(due, batch.part(start, min(start + ENTRY_EVENTS, len(batch))))


def runs(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Divide entries into those that may enter their topic as one batch: small ones that follow each other, as events
    that were fired one after the other for times of their own."""
    found: list[list[Entry]] = []
    size = 0
    for entry in entries:
        size += len(entry.batch.data)
        if not found or size > PAGE_BYTES or not _follows(entry.batch.header, found[-1][-1].batch.header):
            found.append([])
            size = len(entry.batch.data)
        found[-1].append(entry)
    return found


def _follows(header: Header, before: Header) -> bool:
    return (
        header.first == before.first + before.count
        and header.producer == before.producer
        and header.topic == before.topic
        and header.author == before.author
        and (header.machine, header.process) == (before.machine, before.process)
    )


def together(run: Sequence[Entry]) -> Batch:
    """Return one batch of the events of a run."""
    return join([entry.batch for entry in run])


def without(batch: Batch, id: str) -> Batch | None:
    """Return the batch without the event of that id; None where nothing is left."""
    rest = [index for index in range(len(batch)) if batch.id(index) != id]
    return batch.select(rest) if rest else None


def only(batch: Batch, id: str) -> Batch:
    """Return a batch of only the event of that id."""
    return batch.select([index for index in range(len(batch)) if batch.id(index) == id])


def _place(entry: Entry) -> tuple[int, int]:
    return entry.place


class MemoryDueLog:
    """A due-log in memory. `is_known` returns whether a topic's history holds an id, and `append` adds a batch to
    it, with when it is accepted."""

    def __init__(self, is_known: Callable[[str, str], bool], append: Callable[[Batch, int], Stored | None]) -> None:
        self._is_known = is_known
        self._append = append
        self._entries: list[Entry] = []
        self._places: dict[tuple[str, str], tuple[int, int]] = {}  # by topic and id
        self._of_topics: dict[str, list[tuple[int, int]]] = {}  # the places of each topic's entries, in order
        self._events: Counter[str] = Counter()  # by topic
        self._number = 0
        self.bytes = 0  # about how much memory it needs

    def add(self, delayed: Sequence[Delayed]) -> None:
        for due, batch in delayed:
            new: dict[str, int] = {}
            for index in range(len(batch)):
                id = batch.id(index)
                if (batch.topic, id) not in self._places and id not in new and not self._is_known(batch.topic, id):
                    new[id] = index
            if new:
                self._insert(due, batch if len(new) == len(batch) else batch.select(list(new.values())))

    def _insert(self, due: int, batch: Batch) -> None:
        for each in in_parts([Delayed(due, batch)]):
            self._number += 1
            self._put(Entry(due, self._number, each.batch))

    def _put(self, entry: Entry) -> None:
        insort(self._entries, entry, key=_place)
        insort(self._of_topics.setdefault(entry.batch.topic, []), entry.place)
        self._events[entry.batch.topic] += len(entry.batch)
        self.bytes += entry.batch.weight
        for index in range(len(entry.batch)):
            self._places[entry.batch.topic, entry.batch.id(index)] = entry.place

    def _drop(self, entry: Entry) -> None:
        del self._entries[self._at(entry.place)]
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        topic = entry.batch.topic
        places = self._of_topics[topic]
        del places[bisect_left(places, entry.place)]
        self._events[topic] -= len(entry.batch)
        if not places:
            del self._of_topics[topic], self._events[topic]
        self.bytes -= entry.batch.weight
        for index in range(len(entry.batch)):
            del self._places[entry.batch.topic, entry.batch.id(index)]

    async def release(self, now: int) -> list[Stored]:
        due = list(takewhile(lambda entry: entry.due <= now, self._entries[:RELEASE_ROWS]))
        del self._entries[: len(due)]
        for entry in due:
            self._forget(entry)
        stored = [self._append(together(run), now) for run in runs(due)]
        return [each for each in stored if each is not None]

    async def next_due(self) -> int | None:
        return self._entries[0].due if self._entries else None

    async def count(self) -> int:
        return len(self._places)

    async def topics(self) -> dict[str, DelayedCount]:
        return {topic: DelayedCount(self._events[topic], places[0][0]) for topic, places in self._of_topics.items()}

    async def find(self, topic: str, id: str) -> Entry | None:
        place = self._places.get((topic, id))
        return None if place is None else self._entries[self._at(place)]

    async def cancel(self, events: Sequence[tuple[str, str]], now: int = -1) -> list[bool]:
        return [self._cut_out(topic, id, now) is not None for topic, id in events]

    async def move(self, topic: str, id: str, due: int) -> bool:
        check_due(due)
        batch = self._cut_out(topic, id)
        if batch is not None:
            self._insert(due, batch)
        return batch is not None

    def _cut_out(self, topic: str, id: str, now: int = -1) -> Batch | None:
        place = self._places.get((topic, id))
        if place is None or place[0] <= now:
            return None
        entry = self._entries[self._at(place)]
        self._drop(entry)
        rest = without(entry.batch, id)
        if rest is not None:
            self._put(entry._replace(batch=rest))
        return only(entry.batch, id)

    async def page(
        self, after: tuple[int, int] = BEGINNING, max_bytes: int = PAGE_BYTES, topic: str | None = None
    ) -> list[Entry]:
        found: list[Entry] = []
        entries: Iterable[Entry]
        if topic is None:
            entries = islice(self._entries, bisect_right(self._entries, after, key=_place), None)
        else:
            places = self._of_topics.get(topic, [])
            entries = (self._entries[self._at(place)] for place in islice(places, bisect_right(places, after), None))
        for entry in entries:
            max_bytes -= len(entry.batch.data)
            if found and max_bytes < 0:
                break
            found.append(entry)
        return found

    def _at(self, place: tuple[int, int]) -> int:
        return bisect_left(self._entries, place, key=_place)
