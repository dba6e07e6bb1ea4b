"""From `fire` to batches: what is fired in one turn of the loop travels together, one batch a topic.

Firing an event costs two appends and a receipt. No id, no task, no encoding of a header: ids are numbers until
somebody asks, and a header is written once a batch.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from time import monotonic, time_ns
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from ..batch import MOST_NUMBERS, MOST_PRODUCERS, SLOT_NS, Batch, make_id, seal
from ..engine.base import Engine
from ..errors import Busy, SolarWindError, Unavailable
from ..event import Cause
from ..limits import Limits
from ..names import check_topic
from ..origin import MACHINE, process_name
from ..payload import JSON

log = logging.getLogger("solarwind")

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
        rest = times[start:]
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
    size: int = 0  # in bytes of payload, once it is closed
    large: int = 0  # the same, of the large ones so far
    # The content type while all events are nothing but payloads of it; then the columns below are kept.
    plain: str | None = JSON
    contents: list[str] = msgspec.field(default_factory=list)
    keys: list[str | None] = msgspec.field(default_factory=list)
    ids: list[str | None] = msgspec.field(default_factory=list)
    causes: list[Cause | None] = msgspec.field(default_factory=list)

    def begin_columns(self, count: int) -> None:
        """From here on keep all columns; for the `count` events so far they are filled in."""
        if self.plain is not None:
            self.plain = None
            self.contents = [self.content] * count
            self.keys, self.ids, self.causes = [None] * count, [None] * count, [None] * count

    def note(self, content: str) -> None:
        """An event was appended that is not like the ones before, or comes after such a one."""
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
        return seal(
            self.topic,
            self.payloads,
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


class Receipt:
    """What `fire` gives. Forget it, or await it: then the event is accepted, and you have its id.

    Awaiting raises the error why it was not accepted, such as `StoreError`. What was fired inside a handler is accepted
    together with the settle, after the handler has returned; awaiting it there gives the id at once.
    """

    __slots__ = ()

    @property
    def id(self) -> str:
        """The event's id, known at once."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, str]:
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> str:
        """From a thread: wait until the event is accepted, and give its id. Raises `TimeoutError`."""
        raise NotImplementedError

    @property
    def _state(self) -> str:
        """What became of it, in words."""
        return "pending"

    def __repr__(self) -> str:
        return f"<Receipt id={self.id}, {self._state}>"


class SentReceipt(msgspec.Struct, Receipt, eq=False, gc=False):
    """Of an event that is on its way."""

    group: Group
    index: int

    @property
    def id(self) -> str:
        return self.group.id(self.index)

    def __await__(self) -> Generator[Any, None, str]:
        yield from _accepted(self.group)
        return self.id

    def wait(self, timeout: float | None = None) -> str:
        _wait_in_thread(self.group.accepted, timeout)
        return self.id

    @property
    def _state(self) -> str:
        accepted = self.group.accepted
        if not accepted.done():
            return "pending"
        error = accepted.exception()
        return "accepted" if error is None else f"failed: {error}"

    __repr__ = Receipt.__repr__


class SentPart(NamedTuple):
    """Events that were added together to one group."""

    group: Group
    start: int
    stop: int

    def ids(self) -> list[str]:
        return [self.group.id(index) for index in range(self.start, self.stop)]


class Fired(msgspec.Struct):
    """An event that a handler fired, until the handler returns."""

    topic: str
    data: bytes
    content: str
    time: int
    key: str | None
    id: str | None
    cause: Cause


class Held(list[Fired]):
    """What one handler has fired so far, in order; `size` in bytes of payload."""

    size = 0

    def add(self, fired: Fired) -> None:
        self.append(fired)
        self.size += len(fired.data)


class HeldReceipt(Receipt):
    """Of an event that is held until the handler returns."""

    __slots__ = ("_fired", "_numbers")

    def __init__(self, fired: Fired, numbers: Numbers) -> None:
        self._fired = fired
        self._numbers = numbers

    @property
    def id(self) -> str:
        if self._fired.id is None:
            producer, number = self._numbers.take(self._fired.topic, 1)
            self._fired.id = make_id(self._fired.time, producer, number)
        return self._fired.id

    def __await__(self) -> Generator[Any, None, str]:
        yield from ()
        return self.id

    def wait(self, timeout: float | None = None) -> str:
        return self.id


class Receipts:
    """What `fire_many` gives. Forget it, or await it: then all of the events are accepted, and you have it again.

    Awaiting raises the error why one was not accepted.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Receipt | SentPart]) -> None:
        self._parts = parts

    @property
    def ids(self) -> list[str]:
        """The events' ids in their order, known at once, and made when they are asked for."""
        return [id for part in self._parts for id in ([part.id] if isinstance(part, Receipt) else part.ids())]

    def _of_each_group(self) -> Iterator[Receipt]:
        """One receipt for all that are accepted together."""
        group: Group | None = None
        for part in self._parts:
            if isinstance(part, SentReceipt | SentPart):
                if part.group is not group:
                    group = part.group
                    yield SentReceipt(group, 0)
            else:
                yield part

    def __repr__(self) -> str:
        states = {receipt._state for receipt in self._of_each_group()}
        failed = sorted(state for state in states if state.startswith("failed"))
        state = failed[0] if failed else "pending" if "pending" in states else "accepted"
        count = sum(1 if isinstance(part, Receipt) else part.stop - part.start for part in self._parts)
        return f"<Receipts of {count:,} event{'' if count == 1 else 's'}, {state}>"

    def __await__(self) -> Generator[Any, None, Receipts]:
        for receipt in self._of_each_group():
            yield from receipt.__await__()
        return self

    def wait(self, timeout: float | None = None) -> Receipts:
        """From a thread: wait until all are accepted. Raises `TimeoutError`."""
        until = None if timeout is None else monotonic() + timeout
        for receipt in self._of_each_group():
            receipt.wait(None if until is None else max(0.0, until - monotonic()))
        return self


_LEFT_BEHIND: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()  # a parent's, and why


def _not_running(state: str) -> str:
    return f"expected a SolarWind that runs, got one that is {state}: use `async with wind:`"


def _check_here(accepted: asyncio.Future[None]) -> None:
    """Whoever waits for a loop that is another process's waits for ever. Raises `Unavailable`."""
    why = _LEFT_BEHIND.get(accepted.get_loop())
    if why is not None:
        raise Unavailable(why)


def _accepted(group: Group) -> Generator[Any, None, None]:
    accepted = group.accepted
    if accepted.done():
        accepted.result()
    else:
        _check_here(accepted)
        # Each with a future of his own: whoever gives up waiting must not take the others with him
        waiter = accepted.get_loop().create_future()
        group.waiters.append(waiter)
        yield from waiter.__await__()


def _wait_in_thread(accepted: asyncio.Future[None], timeout: float | None) -> None:
    loop = accepted.get_loop()
    if not accepted.done():
        _check_here(accepted)
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        raise Unavailable(
            "expected wait() in a thread, got it on the event loop, which it would block: await it instead"
        )

    async def wait() -> None:
        await asyncio.shield(accepted)

    if loop.is_closed():
        accepted.result()
    else:
        asyncio.run_coroutine_threadsafe(wait(), loop).result(timeout)


class Outbox:
    """Collects what is fired until it is taken and sent. One thread at a time adds; sending is the loop's.

    It takes nothing before `open` and after `close`.
    """

    def __init__(self, limits: Limits) -> None:
        self.open_groups: dict[str, Group] = {}  # by topic
        # Only payloads above `small` are counted as they come: as many small ones as a batch takes are half a batch.
        self.small = limits.batch_bytes // limits.batch_events // 2
        self.last = limits.batch_events - 1
        self._most_large = limits.batch_bytes // 2
        self._most_bytes = limits.unaccepted_bytes
        self._full: list[Group] = []
        self._recent: Group | None = None  # that was begun last
        self._sent: set[asyncio.Future[None]] = set()
        # Bytes that were taken and not yet accepted; each has one writer: whoever takes, and the loop.
        self._taken = 0
        self._gone = 0
        self._closed: str | None = _not_running("not started")

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        flush_soon: Callable[[], object],
    ) -> None:
        """`flush_soon` is called when the first event after a flush is added."""
        self._numbers = Numbers(engine.author)
        self._loop = loop
        self._submit = engine.submit
        self._flush_soon = flush_soon
        self._closed = None

    def close(self) -> None:
        """Take nothing more; what was added may still be taken and sent."""
        self._closed = _not_running("stopped")

    def leave_behind(self, why: str) -> None:
        """In a child of the process that it is of: nothing goes out from here, neither what is added nor what was."""
        self._closed = why
        self.open_groups.clear()
        self._full, self._sent = [], set()
        if hasattr(self, "_loop"):
            _LEFT_BEHIND[self._loop] = why

    def add(self, topic: str, data: bytes, content: str) -> SentReceipt:
        """Add an event that is nothing but its payload. Raises `BadName`, `Busy`, `Unavailable`."""
        try:
            group = self.open_groups[topic]
        except (KeyError, TypeError):
            group = self._begin(topic, content)
        large = len(data) if len(data) > self.small else 0
        if large and group.large + large > self._most_large and group.payloads:
            self._full.append(self._close(topic))
            group = self._begin(topic, content)
        index = len(group.payloads)
        group.payloads.append(data)
        group.times.append(time_ns())
        group.large += large
        if content is not group.plain:
            group.note(content)
        if index >= self.last or group.large > self._most_large:
            self._full.append(self._close(topic))
        return SentReceipt(group, index)

    def add_many(self, topic: str, payloads: list[bytes], content: str) -> list[SentPart]:
        """Add events that are nothing but small payloads, at one time. Raises as `add` does; what was added stays."""
        parts: list[SentPart] = []
        at = 0
        while at < len(payloads):
            group = self.open_groups.get(topic) or self._begin(topic, content)
            if group.plain is not content:
                self._full.append(self._close(topic))
                group = self._begin(topic, content)
            start = len(group.payloads)
            some = payloads[at : at + self.last + 1 - start]
            group.payloads += some
            group.times += [time_ns()] * len(some)
            parts.append(SentPart(group, start, start + len(some)))
            at += len(some)
            if len(group.payloads) > self.last:
                self._full.append(self._close(topic))
        return parts

    def add_with(
        self, topic: str, data: bytes, content: str, key: str | None, id: str | None, cause: Cause | None, after: int
    ) -> SentReceipt:
        """Add an event with any of the rest, all of it checked, that is fired later than `after`."""
        receipt = self.add(topic, data, content)
        group, index = receipt.group, receipt.index
        group.times[index] = ORDER.now(after)
        if group.plain is not None:
            group.begin_columns(index + 1)
        group.keys[index] = key
        group.ids[index] = id
        group.causes[index] = cause
        return receipt

    def _begin(self, topic: str, content: str) -> Group:
        check_topic(topic)
        if self._closed is not None:
            raise Unavailable(self._closed)
        if self._taken - self._gone + sum(group.size for group in self._full) > self._most_bytes:
            raise Busy(
                f"expected at most {self._most_bytes:,} bytes fired and not yet accepted, got more: "
                "await what you fire now and then, so that the store keeps up"
            )
        if not self.open_groups and not self._full:
            self._flush_soon()
        producer, first = self._numbers.take(topic, 0)
        if self._recent is not None and self._recent.times:
            self._recent.straighten()
            ORDER.note(self._recent.times[-1])
        group = self.open_groups[topic] = Group(
            topic,
            self._numbers.author,
            producer,
            first,
            self._loop.create_future(),
            ORDER.latest + SLOT_NS,
            content=content,
            plain=content,
        )
        self._recent = group
        return group

    def _close(self, topic: str) -> Group:
        group = self.open_groups.pop(topic)
        self._numbers.take(topic, len(group.payloads))
        group.straighten()
        ORDER.note(group.times[-1])
        group.size = sum(map(len, group.payloads))
        return group

    def take(self) -> list[Group]:
        """Everything that was added since the last time."""
        groups, self._full = self._full, []
        groups += [self._close(topic) for topic in list(self.open_groups)]
        self._taken += sum(group.size for group in groups)
        return groups

    def send(self, groups: Sequence[Group]) -> None:
        """Submit them, on the loop."""
        for group in groups:
            try:
                submitted = self._submit(group.seal())
            except SolarWindError as error:
                self._refused(group, error)
                continue
            self._sent.add(submitted)
            submitted.add_done_callback(partial(self._settled, group))

    def _settled(self, group: Group, submitted: asyncio.Future[None]) -> None:
        self._sent.discard(submitted)
        error = submitted.exception() if not submitted.cancelled() else Unavailable("expected a dispatcher, it stopped")
        if error is not None:
            self._refused(group, error)
            return
        self._gone += group.size
        if not group.accepted.done():
            group.accepted.set_result(None)
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _refused(self, group: Group, error: BaseException) -> None:
        self._gone += group.size
        log.error("%d events on topic %r were not accepted: %s", len(group.payloads), group.topic, error)
        if not group.accepted.done():
            group.accepted.set_exception(error)
            group.accepted.exception()  # said above; whoever awaits it is told too
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_exception(error)

    @property
    def empty(self) -> bool:
        """Nothing waits to be sent or accepted."""
        return not (self.open_groups or self._full or self._sent)

    async def drain(self) -> None:
        """Wait until everything sent is accepted or refused."""
        while self._sent:
            await asyncio.wait(self._sent)
