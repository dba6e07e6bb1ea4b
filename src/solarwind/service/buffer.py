"""From `fire` to batches: what is fired in one turn of the loop travels together, one batch per topic.

Firing an event costs two appends and a receipt. No id, no task, no encoding of a header: ids are numbers until they are
read, and a header is written once per batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import time_ns

from ..batch import SLOT_NS
from ..columns import SIZE, Attributes
from ..engine.base import Engine
from ..errors import Busy, SolarWindError, TooLarge, Unavailable
from ..limits import Limits
from ..names import check_fired
from .group import MAX_WORDS, ORDER, Group, IdNumbers
from .observing import Observer
from .receipts import LEFT_BEHIND, SentPart, SentReceipt

log = logging.getLogger("solarwind")

# About how much memory they take until they are accepted: what is counted of each besides its bytes.
GROUP_BYTES = 2_048
EVENT_BYTES = 128
WITH_BYTES = 256  # of an event with a key, an id, a cause or the like
FIRST_ROOM = 8  # events of a group that are not counted one by one; then as many as there are


class ProducerBuffer:
    """Collects events until they are sent. One thread at a time adds; only the loop's thread sends.

    Before `open` and after `close` it refuses events."""

    observer: Observer | None = None

    def __init__(self, limits: Limits, *, to_start: str, later: bool = False) -> None:
        """`to_start` ends the sentence on one that does not run. What enters its topic `later` is in a buffer of its
        own: it goes another way than the rest."""
        self._later = later
        self.open_groups: dict[str, Group] = {}  # by topic
        # Only payloads above `small` are counted as they come: as many small ones as fit into a batch are half a batch.
        self.small = limits.batch_bytes // limits.batch_events // 2
        self._max_payload = limits.payload_bytes
        self._max_events = limits.batch_events
        self._most_large = limits.batch_bytes // 2
        self._most_bytes = limits.unaccepted_bytes
        self._full: list[Group] = []
        self._recent: Group | None = None  # that was begun last, while it is open
        self._sent: dict[asyncio.Future[None], Group] = {}
        self._whole = False
        # About how much memory what was added needs, and what of it was accepted or refused, in bytes. Each has one
        # writer: the adding thread, and the loop.
        self._added = 0
        self._gone = 0
        self._to_start = to_start
        self._closed: str | None = not_running("not started", to_start)

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        flush_soon: Callable[[], object],
    ) -> None:
        """Accept events from now on. `flush_soon` is called when the first event after a flush is added."""
        self._numbers = IdNumbers(engine.author)
        self._loop = loop
        self._engine = engine
        self._flush_soon = flush_soon
        self._closed = None

    def close(self) -> None:
        """Refuse further events; those that were added may still be popped and sent."""
        self._closed = not_running("stopped", self._to_start)

    def leave_behind(self, why: str) -> None:
        """Refuse events in a forked child, and send none of those that were added."""
        self._closed = why
        self.open_groups.clear()
        self._full, self._sent = [], {}
        if hasattr(self, "_loop"):
            LEFT_BEHIND[self._loop] = why

    def add(self, topic: str, data: bytes, content: str) -> SentReceipt:
        """Add an event that is only a payload. Raise `BadName`, `Busy`, `Unavailable`."""
        try:
            group = self.open_groups[topic]
        except (KeyError, TypeError):
            self.check_size(topic, data)
            self.check_open(topic)
            group = self._new(topic, content)
        payloads = group.payloads
        index = len(payloads)
        if index >= group.room or len(data) > self.small:
            self.check_size(topic, data)
            group = self._look_at(group, content, len(data))
            payloads = group.payloads
            index = len(payloads)
        payloads.append(data)
        group.times.append(time_ns())
        if content is not group.content:
            group.column("content", index).append(content)
        return SentReceipt(group, index)

    def _look_at(self, group: Group, content: str, size: int) -> Group:
        """Return the group for another event of `size` bytes: this one, or a new one if it is full. Raise what `add`
        raises."""
        large = size if size > self.small else 0
        if self._is_full(group, large):
            self._full.append(self._close(group.topic))
            self.check_open(group.topic)
            group = self._new(group.topic, content)
        elif group.payloads:
            self._weigh(group)
            self._check_room()
        if large:
            group.large += large
            self._weigh(group, large)
        group.room = min(self._max_events, max(FIRST_ROOM, 2 * len(group.payloads)))
        if group.large > self._most_large:
            group.room = 0
        return group

    def _is_full(self, group: Group, large: int = 0) -> bool:
        """Return whether a group is full, or too full for one large payload."""
        count = len(group.payloads)
        too_large = group.large + large > self._most_large and count > 0
        return too_large or count >= self._max_events or group.words > MAX_WORDS

    def add_many(self, topic: str, payloads: list[bytes], content: str) -> list[SentPart]:
        """Add events that are only small payloads, at one time: all of them, or none. Raise what `add` raises."""
        parts: list[SentPart] = []
        at = 0
        self.check_open(topic)
        while at < len(payloads):
            group = self.open_groups.get(topic)
            if group is None or group.content is not content or self._is_full(group):
                self._end(topic)
                group = self._new(topic, content)
            start = len(group.payloads)
            some = payloads[at : at + self._max_events - start]
            group.payloads += some
            group.times += [time_ns()] * len(some)
            group.room = len(group.payloads)
            self._weigh(group)
            parts.append(SentPart(group, start, start + len(some)))
            at += len(some)
        return parts

    @contextmanager
    def whole(self, topic: str, *, apart: bool) -> Iterator[None]:
        """Add what is added in the block as a whole, or refuse it at once. With `apart`, it travels with nothing else.
        Raise what `add` raises."""
        self.check_open(topic)
        self._whole = True
        try:
            if apart:
                self._end(topic)
            yield
        finally:
            self._whole = False
            if apart:
                self._end(topic)

    def _end(self, topic: str) -> None:
        if topic in self.open_groups:
            self._full.append(self._close(topic))

    def add_with(self, topic: str, data: bytes, content: str, attributes: Attributes, after: int) -> SentReceipt:
        """Add an event with these attributes, which have been checked, that is fired later than `after`."""
        receipt = self.add(topic, data, content)
        group, index = receipt.group, receipt.index
        if after:
            group.times[index] = ORDER.now(after)
        for field, value in attributes.items():
            column = group.columns.get(field)
            if column is None or len(column) < index:
                column = group.column(field, index)
            column.append(value)
            group.words += SIZE[field](value)
        if group.words > MAX_WORDS:
            group.room = 0
        return receipt

    def _weigh(self, group: Group, following: int = 0) -> None:
        """Count what is not counted yet of a group, and an event of so many bytes that follows."""
        fresh = group.payloads[group.weighed :] if group.weighed else group.payloads
        count = len(fresh) + (following > 0)
        weight = EVENT_BYTES * count + sum(map(len, fresh)) + following
        if group.columns:
            weight += WITH_BYTES * count + 2 * (group.words - group.weighed_words)
            group.weighed_words = group.words
        group.weighed += count
        group.weight += weight
        self._added += weight

    def _check_room(self) -> None:
        """Raise `Busy` where too much waits to be accepted."""
        if not self._whole and self._added - self._gone > self._most_bytes:
            raise Busy(
                f"expected at most {self._most_bytes:,} bytes fired and not yet accepted, got more: "
                "await what you fire now and then, so that the store keeps up"
            )

    def check_size(self, topic: str, data: bytes) -> None:
        """Raise `TooLarge` for a payload that is too large."""
        if len(data) > self._max_payload:
            raise TooLarge(
                f"expected a payload of at most {self._max_payload:,} bytes, got {len(data):,} on topic {topic!a}: "
                "store it elsewhere and fire where it is"
            )

    def check_open(self, topic: str) -> None:
        """Raise what keeps an event from being added: `BadName`, `Unavailable`, `Busy`."""
        check_fired(topic)
        if self._closed is not None:
            raise Unavailable(self._closed)
        self._check_room()

    def _new(self, topic: str, content: str) -> Group:
        if not self.open_groups and not self._full:
            self._flush_soon()
        producer, first = self._numbers.allocate(topic, 0, later=self._later)
        if self._recent is not None:
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
            room=min(self._max_events, FIRST_ROOM),
            weight=GROUP_BYTES,
        )
        self._added += GROUP_BYTES
        self._recent = group
        return group

    def _close(self, topic: str) -> Group:
        group = self.open_groups[topic]
        self._numbers.allocate(topic, len(group.payloads), later=self._later)
        group.straighten()
        ORDER.note(group.times[-1])
        if self._recent is group:
            self._recent = None
        group.count = len(group.payloads)
        self._weigh(group)
        del self.open_groups[topic]
        return group

    def pop_groups(self) -> list[Group]:
        """Remove and return everything that was added since the last time."""
        for topic in list(self.open_groups):
            self._full.append(self._close(topic))
        groups, self._full = self._full, []
        return groups

    def refuse_all(self, error: Exception) -> None:
        """Refuse everything that was added since the last time."""
        groups = [*self._full, *self.open_groups.values()]
        self._full, self._recent = [], None
        self.open_groups.clear()
        for group in groups:
            self._refused(group, error)

    def send(self, groups: Sequence[Group]) -> None:
        """Submit the groups, on the loop."""
        for group in groups:
            try:
                batch = group.seal()
                submitted = self._engine.submit(batch)
            except Exception as error:  # an unexpected one too: whoever waits for acceptance would wait for ever
                self._refused(group, error)
                continue
            self._sent[submitted] = group
            submitted.add_done_callback(partial(self._settled, group))
            if self.observer is not None:
                self.observer.sent(batch, submitted)

    def _settled(self, group: Group, submitted: asyncio.Future[None]) -> None:
        self._sent.pop(submitted, None)
        error = (
            submitted.exception() if not submitted.cancelled() else Unavailable("expected a dispatcher, but it stopped")
        )
        if error is not None:
            self._refused(group, error)
            return
        self._gone += group.weight
        if not group.accepted.done():
            group.accepted.set_result(None)
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def give_up(self, group: Group, within: float) -> None:
        """Refuse a group that was not accepted in time, on the loop, for those who wait for it."""
        what = f"expected event {group.id(0)}" if group.count == 1 else f"expected {group.count:,} events"
        what = f"{what} on topic {group.topic!r} to be accepted within {within:g} s, it was not: "
        if self._withdraw(group):
            self._refused(group, Unavailable(f"{what}it was not sent, and is taken back"))
        else:
            error = Unavailable(
                f"{what}it was sent, and may be accepted later: fired again with the same id, it is stored once"
            )
            log.warning("%s", error)
            self._tell(group, error)

    def _withdraw(self, group: Group) -> bool:
        """Withdraw a group. Return whether it is certain that it is never sent."""
        if group in self._full:
            self._full.remove(group)
            return True
        submitted = next((future for future, each in self._sent.items() if each is group), None)
        if submitted is None or not self._engine.withdraw(submitted):
            return False
        del self._sent[submitted]
        return True

    def give_up_all(self) -> int:
        """Give up everything that was sent, because there is no time left. Return how many events that is."""
        error = Unavailable("expected it to be accepted before this process stopped, got no answer in time")
        sent, self._sent = self._sent, {}
        for group in sent.values():
            self._tell(group, error)
        return sum(group.count for group in sent.values())

    def _refused(self, group: Group, error: BaseException) -> None:
        self._gone += group.weight
        if not group.accepted.done():
            what = "1 event" if group.count == 1 else f"{group.count:,} events"
            unexpected = None if isinstance(error, SolarWindError) else error
            log.error("not accepted: %s on topic %r: %s", what, group.topic, error, exc_info=unexpected)
        self._tell(group, error)

    def _tell(self, group: Group, error: BaseException) -> None:
        if not group.accepted.done():
            group.accepted.set_exception(error)
            group.accepted.exception()  # the log says it, and so does awaiting it
        for waiter in group.waiters:
            if not waiter.done():
                waiter.set_exception(error)

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be sent or accepted."""
        return not (self.open_groups or self._full or self._sent)

    async def drain(self) -> None:
        """Wait until everything sent is accepted or refused."""
        while self._sent:
            await asyncio.wait(self._sent)


def not_running(state: str, to_start: str) -> str:
    """Return the sentence for one that does not run; `to_start` is what to do."""
    return f"expected a SolarWind that runs, got one that is {state}: {to_start}"
