"""What is asked of a dispatcher and its store: a method for each operation, the same wherever the two are together.

How each is asked, and by whom, is a row of the table in `solarwind/operations.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET, UnsetType

from ..core.dispatcher import Dispatcher
from ..core.log import Stored
from ..core.purpose import Purpose as LivePurpose
from ..core.registry import no_topic
from ..core.spans import Spans
from ..errors import BadArgument, NotAllowed, NotFound
from ..event import Event, HandOut
from ..records import (
    DeadLetter,
    OwnerInfo,
    PurposeInfo,
    PurposeStatistics,
    Statistics,
    TopicInfo,
    TopicStatistics,
    Trace,
    listed,
)
from ..store.base import Store
from ..store.definitions import Definitions
from .answers import Page
from .arguments import (
    After,
    EventId,
    Ids,
    Keep,
    KeepBytes,
    Limit,
    NewFile,
    Purpose,
    Purposes,
    Since,
    Topic,
    Until,
)
from .base import Since as When
from .clock import Clock
from .running import Running

if TYPE_CHECKING:
    from .history import Trimmer
    from .request import Request

R = TypeVar("R")

FOREVER = (1 << 63) - 1  # ns since 1970
_TOGETHER_BYTES = 64 << 10  # of history that is read together, for dead letters
_TOGETHER = 250  # purposes that are counted, and dead letters that are read, in one turn of the loop
MAX_PAGE_BYTES = 8 << 20  # of payload, in one answer


class Operations(Running):
    """The part of an engine that answers and serves operators. Arguments come checked."""

    store: Store
    _dispatcher: Dispatcher
    _clock: Clock
    _trimmer: Trimmer

    @property
    def definitions(self) -> Definitions:
        return self.store.definitions

    async def ask(self, request: Request[R]) -> R:
        """See `Engine`."""
        self._check_running()
        answer: R = await getattr(self, request.operation.function.__name__)(**request.arguments)
        return answer

    def _carry_out(self) -> None:
        """Carry out what the dispatcher wants done."""
        raise NotImplementedError

    async def _committed(self) -> None:
        """Wait until what has changed so far is durable."""
        raise NotImplementedError

    async def _caught_up(self, topics: Collection[str] = ()) -> None:
        """Wait until everything accepted has arrived, and what is not kept of these topics is deleted."""
        raise NotImplementedError

    async def _position(self, topic: str, since: When) -> int:
        """Return where in the topic's log `since` is."""
        end = self._dispatcher.topics[topic].end if topic in self._dispatcher.topics else 0
        if since == "now":
            return end
        if since == "beginning":
            first = await self.store.read(topic, 0, 1)
            return first[0].start if first else end
        if isinstance(since, timedelta):
            time = self._clock.wall() - int(since / timedelta(microseconds=1)) * 1000
            return await self.store.seek(topic, min(max(0, time), FOREVER))
        if isinstance(since, datetime):
            time = int(since.timestamp() * 1_000_000) * 1000
            return await self.store.seek(topic, min(max(0, time), FOREVER))
        raise BadArgument(f"expected 'now', 'beginning', a datetime or a timedelta ago, got {since!a}")

    def _count(self, purpose: LivePurpose) -> PurposeStatistics:
        return PurposeStatistics(
            exchange=purpose.active.exchange,
            versions=tuple(sorted(purpose.statements)),
            instances=len(purpose.instances),
            pending=purpose.pending(self._dispatcher.topics[purpose.topic].end),
            in_flight=purpose.flying,
            settled=purpose.settled,
            retried=purpose.retried,
            dead=len(purpose.dead),
            dropped=purpose.dropped,
            key_missing=purpose.key_missing,
        )

    async def statistics(self) -> Statistics:
        """Return a frozen record of all topics and purposes, with their numbers."""
        await self._caught_up()
        topics: dict[str, TopicStatistics] = {}
        purposes: dict[tuple[str, str], PurposeStatistics] = {}
        for name, topic in list(self._dispatcher.topics.items()):
            topics[name] = TopicStatistics(topic.end + topic.unkept)
            for purpose in list(topic.purposes.values()):
                purposes[name, purpose.name] = self._count(purpose)
                if not len(purposes) % _TOGETHER:
                    await asyncio.sleep(0)  # there may be very many
        return Statistics(topics, purposes)

    async def purposes(self, topic: Topic | None = None) -> list[PurposeInfo]:
        """Return the purposes, of one topic or of all."""
        return listed(await self.statistics(), topic)

    async def purpose(self, topic: Topic, purpose: Purpose) -> PurposeInfo:
        """Return a purpose and its numbers. Raise `NotFound`."""
        await self._caught_up()
        return PurposeInfo(topic, purpose, self._count(self._dispatcher.purpose(topic, purpose)))

    async def topics(self) -> list[TopicInfo]:
        """Return the topics, and how much history each has."""
        await self._caught_up(list(self._dispatcher.topics))
        return [await self._topic_info(name) for name in sorted(self._dispatcher.topics)]

    async def _topic_info(self, name: str) -> TopicInfo:
        topic = self._dispatcher.topics[name]
        events, size = await self.store.history(name)
        fired, purposes = topic.end + topic.unkept, tuple(sorted(topic.purposes))
        return TopicInfo(name, fired, purposes, events, size, topic.keep_ns / 1e9, topic.keep_bytes)

    async def _event(self, topic: str, position: int) -> Event:
        found = await self.store.read(topic, position, 1)
        if not found or found[0].start > position:
            raise _no_event_at(topic, position)
        return Event(HandOut(found[0].batch, found[0].start), position - found[0].start)

    async def _dead(self, topic: str, purpose: str, after: int = -1) -> AsyncIterator[tuple[int, DeadLetter]]:
        """Yield the dead letters behind a position, each with its own, one by one: there may be very many."""
        self._dispatcher.purpose(topic, purpose)
        await self._committed()
        letters = [each for each in await self.store.dead(topic, purpose) if each.position > after]
        page, hand_out = deque[Stored](), None
        for number, each in enumerate(letters, 1):
            if not page or page[0].stop <= each.position:
                while page and page[0].stop <= each.position:
                    page.popleft()
                page = page or deque(await self.store.read(topic, each.position, _TOGETHER_BYTES))
                hand_out = HandOut(page[0].batch, page[0].start) if page else None
            if hand_out is None or page[0].start > each.position:
                raise _no_event_at(topic, each.position)
            event = Event(hand_out, each.position - page[0].start)
            time = datetime.fromtimestamp(each.time / 1e9, UTC)
            yield each.position, DeadLetter(event, each.error, each.tried, time)
            if not number % _TOGETHER:
                await asyncio.sleep(0)

    async def dead(self, topic: Topic, purpose: Purpose, after: After = None, limit: Limit = 1_000) -> Page[DeadLetter]:
        """Return a page of the purpose's dead letters, in the order accepted: `limit` of them, or fewer if they are
        large. Its `next` is the `after` of the page behind it. Raise `NotFound`."""
        page, size, last = Page[DeadLetter](), 0, 0
        async for position, letter in self._dead(topic, purpose, -1 if after is None else int(after)):
            size += len(letter.event.data)
            if len(page) == limit or (page and size > MAX_PAGE_BYTES):
                page.next = str(last)
                break
            page.append(letter)
            last = position
        return page

    async def letter(self, topic: Topic, purpose: Purpose, id: EventId) -> DeadLetter:
        """Return the purpose's dead letter of the event with that id. Raise `NotFound`."""
        async for _, letter in self._dead(topic, purpose):
            if letter.event.id == id:
                return letter
        raise _no_letter(topic, purpose, id)

    async def _dead_positions(self, topic: str, purpose: str, ids: Collection[str] | None) -> Spans:
        found = self._dispatcher.purpose(topic, purpose)
        if ids is None:
            return found.dead
        position_of = {letter.event.id: position async for position, letter in self._dead(topic, purpose)}
        unknown = [id for id in ids if id not in position_of]
        if unknown:
            raise _no_letter(topic, purpose, unknown[0])
        return Spans.of(position_of[id] for id in ids)

    async def redrive(self, topic: Topic, purpose: Purpose, ids: Ids = None) -> int:
        """Hand dead letters out again as if never tried, these or all. Return how many. Raise `NotFound`."""
        positions = await self._dead_positions(topic, purpose, ids)
        count = self._dispatcher.redrive(topic, purpose, positions, self._clock.now())
        return await self._carried_out(count)

    async def discard(self, topic: Topic, purpose: Purpose, ids: Ids) -> int:
        """Forget dead letters, these, or with None all. Return how many. Raise `NotFound`."""
        positions = await self._dead_positions(topic, purpose, ids)
        return await self._carried_out(self._dispatcher.discard(topic, purpose, positions))

    async def replay(self, topic: Topic, purpose: Purpose, since: Since = "beginning", until: Until = "now") -> int:
        """Make the history fired from `since` up to `until` pend again. Return how many events.

        Raise `NotFound`, and `NotAllowed` for a purpose whose events do not pend."""
        await self._caught_up()
        self._dispatcher.purpose(topic, purpose)
        async with self._trimmer.guard:
            start, stop = await self._position(topic, since), await self._position(topic, until)
            first = await self._position(topic, "beginning")
            count = self._dispatcher.replay(topic, purpose, max(start, first), stop, self._clock.now())
        return await self._carried_out(count)

    async def retire(self, topic: Topic, purpose: Purpose, force: bool = False) -> None:
        """Forget a purpose. Raise `ConflictError` while it has events, dead letters or instances, unless `force`."""
        await self._caught_up()
        self._dispatcher.retire(topic, purpose, self._clock.now(), force=force)
        await self._carried_out(0)

    async def _carried_out(self, count: int) -> int:
        """Return `count` once what an operator changed is durable."""
        self._carry_out()
        await self._committed()
        return count

    async def trace(self, id: EventId, after: EventId | None = None, limit: Limit = 1_000) -> Trace:
        """Return the event with that id and the tree of what it caused, from the history: at most `limit` events, the
        nearest first. Where an event has `more`, ask for its own, `after` the last one there. Raise `NotFound`."""
        await self._committed()
        found = await self.store.find(id)
        if found is None:
            raise no_event(id)
        event = await self._event(*found)
        caused: dict[str, list[Event]] = {}
        async for stored in self.store.caused(event.time_ns):
            for index in range(len(stored.batch)):
                cause = stored.batch.cause(index)
                if cause.kind == "event":
                    caused.setdefault(cause.id, []).append(Event(HandOut(stored.batch, stored.start), index))
        return trace_tree(event, caused, after, limit)

    async def backup(self, path: NewFile) -> None:
        """Copy the store to a new file while it is in use. Raise `NotAllowed` where there is none, `StoreError`."""
        await self.store.backup(path)

    async def owners(self) -> list[OwnerInfo]:
        """Return which process owns which partition, and its topics. Raise `NotAllowed` where one process has all."""
        raise NotAllowed(
            "expected a dispatcher on nats://, where processes share the topics, got one process that has all of them"
        )

    async def topic(self, topic: Topic) -> TopicInfo:
        """Return a topic, and how much history it has. Raise `NotFound`."""
        await self._caught_up([topic])
        if topic not in self._dispatcher.topics:
            raise no_topic(topic)
        return await self._topic_info(topic)

    async def keep(self, topic: Topic, keep: Keep = UNSET, keep_bytes: KeepBytes = UNSET) -> TopicInfo:
        """Set how much history a topic keeps, `keep` in seconds: None is the default, `UNSET` leaves it as it is."""
        found = self._dispatcher.topic(topic)
        keep_ns = keep if keep is None or isinstance(keep, UnsetType) else int(keep * 1e9)
        await self.store.topic(topic, keep_ns, keep_bytes)
        if not isinstance(keep_ns, UnsetType):
            found.keep_ns = self.store.keep_ns if keep_ns is None else keep_ns
        if not isinstance(keep_bytes, UnsetType):
            found.keep_bytes = keep_bytes
        self._trimmer.look_at(found, at_once=True)
        return await self._topic_info(topic)

    async def idle(self, purposes: Purposes) -> None:
        """Wait until all that was submitted is accepted, and these purposes have nothing left to do."""
        raise NotImplementedError

    async def left(self, purposes: Purposes) -> str:
        """Return in words what `idle` still waits for, or `NOTHING`."""
        raise NotImplementedError


def _no_event_at(topic: str, position: int) -> NotFound:
    return NotFound(f"expected an event at position {position} of topic {topic!r}, got none: it was lost or trimmed")


def no_event(id: str) -> NotFound:
    """Return the refusal for an id that the history does not have."""
    return NotFound(f"expected the id of an event in the history, got {id!a}: there is none, or it was trimmed")


def _no_letter(topic: str, purpose: str, id: str) -> NotFound:
    return NotFound(
        f"expected the id of a dead letter of {purpose!r} on {topic!r}, got {id!a}, which is none: see its dead letters"
    )


def trace_tree(event: Event, caused: dict[str, list[Event]], after: str | None, limit: int) -> Trace:
    """Return the event and what it caused, but for what it caused up to the event `after`: at most `limit` events, the
    nearest first, or fewer if they are large. `caused` has the events by the ids of their causes. Raise `NotFound`."""
    order, size = [event], len(event.data)
    children: list[list[int]] = []
    cut: set[int] = set()
    while len(children) < len(order):  # without recursion, since a chain of causes can be long
        at = len(children)
        # Removed as it is used, so that it ends also where events were said to cause each other.
        found = sorted(caused.pop(order[at].id, ()), key=lambda child: child.time_ns)
        if at == 0 and after is not None:
            found = _behind(event, found, after)
        start = len(order)
        for child in found:
            size += len(child.data)
            if cut or len(order) == limit or (len(order) > 1 and size > MAX_PAGE_BYTES):
                cut.add(at)
                break
            order.append(child)
        children.append(list(range(start, len(order))))
    traces: dict[int, Trace] = {}
    for index in reversed(range(len(order))):
        below = tuple(traces.pop(child) for child in children[index])
        traces[index] = Trace(order[index], below, index in cut)
    return traces[0]


def _behind(event: Event, caused: list[Event], after: str) -> list[Event]:
    for at, child in enumerate(caused, 1):
        if child.id == after:
            return caused[at:]
    raise NotFound(f"expected the id of an event that {event.id!a} caused as after, got {after!a}, which is none")
