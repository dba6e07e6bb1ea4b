"""A group of events that are fired together and become one batch, with numbers, and ordered by time."""

from __future__ import annotations

import asyncio
import secrets
from time import time_ns
from typing import Any

import msgspec

from ..batch import MAX_NUMBERS, MAX_PRODUCERS, SLOT_NS, Batch, make_id, seal
from ..origin import MACHINE, process_name
from ..payload import JSON

MAX_WORDS = 512 << 10  # characters of keys, ids, causes and the like that travel together
MAX_LIFT_NS = 10_000_000_000  # that a clock may be behind; a larger step back is believed


class IdNumbers:
    """The numbers that ids are made of: a random producer for each topic of this process, and a count from a random
    number on. Both are random, since a producer alone has too few bits for the many processes that fire one event.
    `author` is the engine's, which proves to a server that the numbers are this process's own."""

    def __init__(self, author: bytes = b"") -> None:
        self.author = author
        self._next: dict[tuple[str, bool], tuple[int, int]] = {}

    def allocate(self, topic: str, count: int, *, later: bool = False) -> tuple[int, int]:
        """Return the producer, and the first of `count` numbers. What enters its topic `later` has a producer of its
        own, so that the numbers of the others arrive in their order."""
        producer, first = self._next.get((topic, later)) or (0, MAX_NUMBERS)
        if first + count >= MAX_NUMBERS:
            producer, first = secrets.randbelow(MAX_PRODUCERS), secrets.randbelow(MAX_NUMBERS // 2)
        self._next[topic, later] = (producer, first + count)
        return producer, first


class FiringTimes:
    """The times of what this process fires. They never go back, so that ids sort in the order fired: while the clock is
    behind, by `MAX_LIFT_NS` at most, the time stays the same."""

    def __init__(self) -> None:
        self.latest = 0

    def now(self, after: int = 0) -> int:
        """Return the time for an event, in ns since 1970: later than all before, and than `after`, the time of its
        cause."""
        time = time_ns()
        latest = max(self.latest, after) if after - time < MAX_LIFT_NS else self.latest
        if time < latest + SLOT_NS and latest - time < MAX_LIFT_NS:
            time = latest + SLOT_NS
        self.latest = time
        return time

    def note(self, time: int) -> None:
        """Note the time of an event. A clock that was set far back is followed."""
        if time > self.latest or self.latest - time >= MAX_LIFT_NS:
            self.latest = time

    def straighten(self, times: list[int], start: int, latest: int) -> None:
        """Make the times from the index `start` on ascend, after `latest`."""
        rest = times[start:] if start else times
        if not rest or (rest[0] >= latest and rest == sorted(rest)):
            return
        for index in range(start, len(times)):
            if 0 < latest - times[index] < MAX_LIFT_NS:
                times[index] = latest
            latest = times[index]


ORDER = FiringTimes()  # of this process


class Group(msgspec.Struct, eq=False):
    """The events of a future batch. `columns` are created only once an event needs one of them."""

    topic: str
    author: bytes
    producer: int
    first: int
    accepted: asyncio.Future[None]
    after: int = 0  # when the last event before it was fired
    straight: int = 0  # the number of `times` that are in order for good
    content: str = JSON  # of all events that `columns` has no other of
    waiters: list[asyncio.Future[None]] = msgspec.field(default_factory=list)
    payloads: list[bytes] = msgspec.field(default_factory=list)
    times: list[int] = msgspec.field(default_factory=list)
    count: int = 0  # of its events, once it is closed
    large: int = 0  # bytes of payload, of the large ones so far
    words: int = 0  # characters of keys, ids, causes and the like
    room: int = 0  # the number of events before the buffer looks at it again
    weighed: int = 0  # the number of its events that are in `weight`
    weighed_words: int = 0  # the same, of `words`
    weight: int = 0  # about how much memory it needs, in bytes
    # By field, up to the last event that has one; see `batch.COLUMNS`.
    columns: dict[str, list[Any]] = msgspec.field(default_factory=dict)

    def column(self, field: str, count: int) -> list[Any]:
        """Return a column, filled for the first `count` events."""
        column = self.columns.setdefault(field, [])
        column += [self._common(field)] * (count - len(column))
        return column

    def _common(self, field: str) -> str | None:
        return self.content if field == "content" else None

    def id(self, index: int) -> str:
        given = self.columns.get("ids", ())[index : index + 1]
        if given and given[0] is not None:
            return str(given[0])
        if index >= self.straight:
            self.straighten()
        return make_id(self.times[index], self.producer, self.first + index)

    def straighten(self) -> None:
        """Make the times ascend, permanently: an id that was read must not change."""
        start, count = self.straight, len(self.times)
        if start == count:
            return
        ORDER.straighten(self.times, start, self.times[start - 1] if start else self.after)
        self.straight = count

    def seal(self) -> Batch:
        payloads, self.payloads = self.payloads, []  # from here on they are the batch's alone
        for field in self.columns:
            self.column(field, len(payloads))
        return seal(
            self.topic,
            payloads,
            self.times,
            author=self.author,
            producer=self.producer,
            first=self.first,
            machine=MACHINE,
            process=process_name(),
            **{"content": self.content, **self.columns},
        )
