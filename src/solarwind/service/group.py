"""What is fired together: a group of events that becomes one batch, numbered, and in order by time."""

from __future__ import annotations

import asyncio
import secrets
from time import time_ns

import msgspec

from ..batch import MOST_NUMBERS, MOST_PRODUCERS, SLOT_NS, Batch, make_id, seal
from ..event import Cause
from ..origin import MACHINE, process_name
from ..payload import JSON

MAX_WORDS = 512 << 10  # characters of keys, ids and causes that travel together
MAX_LIFT_NS = 10_000_000_000  # that a clock may be behind; a larger step back is believed


class Numbers:
    """The numbers that ids are made of: a random producer for each topic of this process, and a count from a random
    number on. Both are random, since a producer alone has too few bits for the many processes that fire one event.
    `author` is the engine's, which proves to a server that they are this process's own."""

    def __init__(self, author: bytes = b"") -> None:
        self.author = author
        self._next: dict[str, tuple[int, int]] = {}

    def take(self, topic: str, count: int) -> tuple[int, int]:
        """The producer, and the first of `count` numbers."""
        producer, first = self._next.get(topic) or (0, MOST_NUMBERS)
        if first + count >= MOST_NUMBERS:
            producer, first = secrets.randbelow(MOST_PRODUCERS), secrets.randbelow(MOST_NUMBERS // 2)
        self._next[topic] = (producer, first + count)
        return producer, first


class Order:
    """The time of what this process fires never goes back, so that its ids sort as it was fired: while the clock is
    behind, by `MAX_LIFT_NS` at most, it stands still."""

    def __init__(self) -> None:
        self.latest = 0

    def now(self, after: int = 0) -> int:
        """When an event is fired, ns since 1970: later than all before, and than `after`, when its cause was."""
        time = time_ns()
        latest = max(self.latest, after) if after - time < MAX_LIFT_NS else self.latest
        if time < latest + SLOT_NS and latest - time < MAX_LIFT_NS:
            time = latest + SLOT_NS
        self.latest = time
        return time

    def note(self, time: int) -> None:
        """An event was fired then; a clock that was set far back is believed."""
        if time > self.latest or self.latest - time >= MAX_LIFT_NS:
            self.latest = time

    def straighten(self, times: list[int], start: int, latest: int) -> None:
        """Times from the index `start` on, after `latest`."""
        rest = times[start:] if start else times
        if not rest or (rest[0] >= latest and rest == sorted(rest)):
            return
        for index in range(start, len(times)):
            if 0 < latest - times[index] < MAX_LIFT_NS:
                times[index] = latest
            latest = times[index]


ORDER = Order()  # of this process


class Group(msgspec.Struct, eq=False):
    """What becomes one batch. The columns but `payloads` and `times` are kept only once an event needs one of them."""

    topic: str
    author: bytes
    producer: int
    first: int
    accepted: asyncio.Future[None]
    after: int = 0  # when the last event before it was fired
    straight: int = 0  # of `times`, so many are in order for good
    content: str = JSON
    waiters: list[asyncio.Future[None]] = msgspec.field(default_factory=list)
    payloads: list[bytes] = msgspec.field(default_factory=list)
    times: list[int] = msgspec.field(default_factory=list)
    count: int = 0  # of its events, once it is closed
    large: int = 0  # bytes of payload, of the large ones so far
    words: int = 0  # characters of keys, ids and causes
    room: int = 0  # so many events before the outbox looks at it again
    weighed: int = 0  # of its events, so many are in `weight`
    weighed_words: int = 0  # the same, of `words`
    weight: int = 0  # about how much memory it takes, in bytes
    # The content type while all events are nothing but payloads of it; then the columns below are kept.
    plain: str | None = JSON
    contents: list[str] = msgspec.field(default_factory=list)
    keys: list[str | None] = msgspec.field(default_factory=list)
    ids: list[str | None] = msgspec.field(default_factory=list)
    causes: list[Cause | None] = msgspec.field(default_factory=list)

    def begin_columns(self, count: int) -> None:
        """From here on keep all columns; for the `count` events so far they are filled in."""
        self.plain = None
        self.contents = [self.content] * count
        self.keys, self.ids, self.causes = [None] * count, [None] * count, [None] * count

    def note(self, content: str) -> None:
        """An event was appended that is not like the ones before, or comes after such a one."""
        if self.plain is not None:
            self.begin_columns(len(self.payloads) - 1)
        self.contents.append(content)
        self.keys.append(None)
        self.ids.append(None)
        self.causes.append(None)

    def id(self, index: int) -> str:
        given = self.ids[index] if self.plain is None else None
        if given is not None:
            return given
        if index >= self.straight:
            self.straighten()
        return make_id(self.times[index], self.producer, self.first + index)

    def straighten(self) -> None:
        """Once somebody asks for an id, it stays."""
        start, count = self.straight, len(self.times)
        ORDER.straighten(self.times, start, self.times[start - 1] if start else self.after)
        self.straight = count

    def seal(self) -> Batch:
        content: str | list[str] = self.content
        if self.plain is None and any(each != self.content for each in self.contents):
            content = self.contents
        payloads, self.payloads = self.payloads, []  # from here on they are the batch's alone
        return seal(
            self.topic,
            payloads,
            self.times,
            author=self.author,
            producer=self.producer,
            first=self.first,
            machine=MACHINE,
            process=process_name(),
            content=content,
            keys=self.keys or None,
            ids=self.ids or None,
            causes=self.causes or None,
        )
