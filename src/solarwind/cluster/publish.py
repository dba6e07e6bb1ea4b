"""Batches on their way into the streams: in order, each stored once, whatever happens to the servers meanwhile.

Each producer of a topic has a lane: one message of it is under way at a time, and what comes meanwhile travels together
in the next. So the log has a producer's events in their order, it says itself how far they are, and a lone event leaves
at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from time import monotonic

import msgspec

from ..batch import AutoId, Batch, join, read_id
from ..engine.backoff import Backoff
from ..engine.tasks import Tasks
from ..errors import ProtocolError, SolarWindError, StoreError, TooLarge, Unavailable
from ..limits import Limits
from ..origin import MACHINE, process_name
from .layout import DIRECT, Layout, any_producer_name, id_name, producer_name
from .namespace import open_partition
from .pieces import HEADERS_BYTES, MAX_PIECES, in_pieces, piece_of
from .session import (
    EXPECT,
    NO_STREAM,
    WRONG_SEQUENCE,
    NoAnswer,
    Nobody,
    Raw,
    Refusal,
    Session,
    refused,
)

log = logging.getLogger("solarwind")

NUMBER = "Solarwind-Number"  # the event's, in a piece
_TOGETHER = 256  # messages of events with ids of their own that are under way together
_MAX_LANES = 10_000  # that rest and are remembered

_Group = list[tuple[Batch, asyncio.Future[None]]]


class _Lane(msgspec.Struct, eq=False):
    """The way of one producer into one topic. Of its events, those below number `reached` are in the log; `posted` is
    what is under way."""

    waiting: deque[tuple[Batch, asyncio.Future[None]]]
    reached: int | None  # None: to be asked of the log
    posted: _Group | None = None
    task: asyncio.Task[None] | None = None


class Publisher:
    """Stores what this process fires."""

    def __init__(self, session: Session, layout: Layout, limits: Limits) -> None:
        self._session = session
        self._layout = layout
        self._limits = limits
        self._lanes: OrderedDict[tuple[str, int, bytes], _Lane] = OrderedDict()
        self.unaccepted: set[asyncio.Future[None]] = set()
        self._open: set[int] = set()  # partitions that are known to be there
        self._opening: dict[int, asyncio.Lock] = {}
        self._tasks = Tasks(lambda error: None)  # what was under way is told, and the next begins anew

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        """Return a future that is done when the batch is accepted, or has the error why it is not."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        header = batch.header
        key = (header.topic, header.producer, header.author)
        lane = self._lanes.get(key)
        if lane is None:
            # Only what others made can have come this way before.
            own = (header.machine, header.process) == (MACHINE, process_name())
            lane = self._lanes[key] = _Lane(deque(), header.first if own else None)
            self._forget()
        self.unaccepted.add(future)
        lane.waiting.append((batch, future))
        if lane.task is None and lane.posted is None:
            self._go_on(lane)
        return future

    def withdraw(self, submitted: asyncio.Future[None]) -> bool:
        """See `Engine.withdraw`."""
        for lane in self._lanes.values():
            for each in lane.waiting:
                if each[1] is submitted:
                    lane.waiting.remove(each)
                    self.unaccepted.discard(submitted)
                    return True
        return False

    def _forget(self) -> None:
        while len(self._lanes) > _MAX_LANES:
            key = next(iter(self._lanes))
            lane = self._lanes[key]
            if lane.task is not None or lane.posted is not None:
                self._lanes.move_to_end(key)
                return
            del self._lanes[key]

    async def stop(self) -> None:
        """Give up what still waits."""
        await self._tasks.end()

    # A lane -------------------------------------------------------------------------------------------

    def _go_on(self, lane: _Lane) -> None:
        """Send what waits: in this turn of the loop if it can go as one message."""
        group = self._next_group(lane)
        try:
            batch = join([batch for batch, _ in group])
            if self._is_plain(lane, batch):
                subject, headers = self._message(batch, DIRECT, producer_name(batch.header))
                lane.posted = group
                if self._session.post(subject, batch.data, headers, partial(self._posted, lane, batch)):
                    return
        except Exception:  # it may be sent: the task asks the stream
            log.exception("events cannot be stored at once")
            lane.posted, lane.task = None, self._tasks.spawn(self._empty(lane, group), "the storing of what was fired")
            return
        lane.posted = None
        lane.waiting.extendleft(reversed(group))  # nothing of it was sent
        lane.task = self._tasks.spawn(self._empty(lane, []), "the storing of what was fired")

    def _is_plain(self, lane: _Lane, batch: Batch) -> bool:
        """Return whether a batch goes as one message, as it is, to a stream that is there."""
        header = batch.header
        return (
            header.ids is None
            and lane.reached is not None
            and header.first >= lane.reached
            and len(batch.data) <= self._room()
            and self._layout.partition(header.topic) in self._open
        )

    def _posted(self, lane: _Lane, batch: Batch, seq: int | None) -> None:
        group, lane.posted = lane.posted, None
        assert group is not None
        if seq is None:
            lane.task = self._tasks.spawn(self._empty(lane, group), "the storing of what was fired")
            return
        lane.reached = batch.header.first + batch.header.count
        self._tell(group, None)
        if lane.waiting:
            self._go_on(lane)

    async def _empty(self, lane: _Lane, group: _Group) -> None:
        """Send the group, and then what waits. What may have been stored is sent again as the very message it was."""
        try:
            while True:
                if not group:
                    try:
                        await self._session.ready()
                    except SolarWindError as error:
                        self._tell(lane.waiting, error)
                        lane.waiting.clear()
                    if not lane.waiting:
                        return
                    group = self._next_group(lane)
                refusal = await self._store(lane, join([batch for batch, _ in group]))
                self._tell(group, refusal)
                group = []
        finally:
            lane.task = None
            self._tell(
                [*group, *lane.waiting], Unavailable("expected NATS to accept it, but this process stopped before")
            )
            lane.waiting.clear()

    def _tell(self, group: Iterable[tuple[Batch, asyncio.Future[None]]], error: SolarWindError | None) -> None:
        """Tell those who submitted batches whether they are accepted."""
        for _, future in group:
            self.unaccepted.discard(future)
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
                    future.exception()  # a caller that does not wait for it is told by the log

    def _next_group(self, lane: _Lane) -> _Group:
        """Return what travels together: numbers that follow on each other, within the limits of a batch."""
        group = [lane.waiting.popleft()]
        count, size = len(group[0][0]), len(group[0][0].data)
        max_bytes = min(self._limits.batch_bytes, self._room())
        while lane.waiting:
            batch = lane.waiting[0][0]
            last = group[-1][0].header
            count, size = count + len(batch), size + len(batch.data)
            follows = batch.header.first == last.first + last.count
            if not follows or count > self._limits.batch_events or size > max_bytes:
                break
            group.append(lane.waiting.popleft())
        return group

    def _room(self) -> int:
        return self._session.max_payload - HEADERS_BYTES

    # One batch ----------------------------------------------------------------------------------------

    async def _store(self, lane: _Lane, batch: Batch) -> SolarWindError | None:
        """Store a batch, or what of it is not there yet; return why that cannot be done."""
        try:
            if lane.reached is None:
                lane.reached = await self._reached(batch)
            header = batch.header
            end = header.first + header.count
            if header.first < lane.reached:
                await self._check_same(batch, min(end, lane.reached) - header.first)
                if end <= lane.reached:
                    return None
                batch = batch.part(lane.reached - header.first, header.count)
            for part in self._parts(batch):
                await self._store_part(part)
            lane.reached = end
        except SolarWindError as error:
            return error
        except Exception as error:
            log.exception("a batch could not be stored")
            return StoreError(f"a batch could not be stored after an unexpected {type(error).__name__}: {error}")
        return None

    def _parts(self, batch: Batch) -> Sequence[list[Batch]]:
        """Divide a batch into what is stored one after the other: a message, or several together of events with ids of
        their own."""
        parts: list[list[Batch]] = []
        for run in runs(batch):
            if run.given_id(0) is None:
                parts += [[part] for part in cut(run, self._room())]
            elif parts and parts[-1][0].given_id(0) is not None and len(parts[-1]) < _TOGETHER:
                parts[-1].append(run)
            else:
                parts.append([run])
        return parts

    async def _store_part(self, part: list[Batch]) -> None:
        if len(part) == 1:
            await self._store_message(part[0])
            return
        answers = await asyncio.gather(*map(self._store_message, part), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _store_message(self, batch: Batch) -> None:
        id = batch.given_id(0)
        if id is not None:
            made = read_id(id)
            if made is not None and await self._is_made(batch.header.topic, made, id):
                return
        await self.store(batch, DIRECT, {})

    async def store(self, batch: Batch, via: str, marks: dict[str, str]) -> None:
        """Store a batch that fits into a message, or one event: try again until there is an answer. Raise `StoreError`
        if that is a refusal, and `TooLarge`."""
        topic = batch.header.topic
        partition = self._layout.partition(topic)
        begun, backoff, tries = monotonic(), Backoff(), 0
        while True:
            await self._session.ready()
            try:
                await self._ensure(partition)
                if tries and self._is_old(begun, batch) and await self._reached(batch) > batch.header.first:
                    return
                await self.put(batch, via, marks, self._expectation(batch, partition))
                return
            except Refusal as refusal:
                if refusal.code == WRONG_SEQUENCE and batch.given_id(0) is not None:
                    return  # it is there already
                if refusal.code != NO_STREAM:
                    raise refused(refusal, f"store events of topic {topic!r}") from refusal
                self._open.discard(partition)
            except NoAnswer as error:
                if isinstance(error, Nobody):
                    await self.doubt(partition)
                if tries == 1:
                    log.warning("waiting to store events of topic %r: %s", topic, error)
                tries += 1
            await backoff.pause()

    async def doubt(self, partition: int) -> None:
        """Find out why a partition's events are not accepted: it has no stream, or only no leader."""
        try:
            await self._session.api(f"STREAM.INFO.{self._layout.events_stream(partition)}")
        except Refusal as refusal:
            if refusal.code == NO_STREAM:
                self._open.discard(partition)
        except NoAnswer:
            pass

    def _expectation(self, batch: Batch, partition: int) -> dict[str, str]:
        """Return the condition for an event whose id a caller gave: its topic has none of that id."""
        id = batch.given_id(0)
        if id is None:
            return {}
        of_id = self._layout.events_of(partition, who=id_name(id), topic=batch.header.topic)
        return {EXPECT: "0", f"{EXPECT}-Subject": of_id}

    def _is_old(self, begun: float, batch: Batch) -> bool:
        """Return whether the stream may have forgotten that it stored the batch; pieces it never knows."""
        if batch.given_id(0) is not None:
            return False
        return monotonic() - begun > self._layout.settings.dedup_s / 2 or len(batch.data) > self._room()

    async def put(
        self,
        batch: Batch,
        via: str,
        marks: dict[str, str],
        expectation: dict[str, str],
        *,
        was_delayed: bool = False,
    ) -> int:
        """Try once to store a batch that fits into a message, or one event, and return its sequence. Raise `Refusal`,
        `NoAnswer`, `TooLarge`."""
        id = batch.given_id(0)
        who = id_name(id) if id is not None else producer_name(batch.header, was_delayed=was_delayed)
        subject, headers = self._message(batch, via, who)
        room, data = self._room(), batch.data
        if len(data) <= room:
            return await self._session.publish(subject, data, marks | expectation | headers)
        pieces = in_pieces(subject, data, marks | {NUMBER: str(batch.header.first)}, room)
        if len(pieces) > MAX_PIECES:
            raise TooLarge(
                f"expected an event of at most {MAX_PIECES * room:,} bytes, got {len(data):,}: "
                "raise max_payload of the NATS servers"
            )
        pieces[0][2].update(expectation)
        return await self._session.publish_together(pieces)

    def _message(self, batch: Batch, via: str, who: str) -> tuple[str, dict[str, str]]:
        """Return the subject, and the name by which the stream knows the message if it comes again soon. An id that was
        given is looked for in the history: NATS would remember it for longer than that is kept."""
        subject = self._layout.event_subject(batch, via, who)
        return subject, {} if batch.given_id(0) is not None else {"Nats-Msg-Id": f"{who}.{batch.header.first}"}

    async def _ensure(self, partition: int) -> None:
        if partition in self._open:
            return
        async with self._opening.setdefault(partition, asyncio.Lock()):
            if partition not in self._open:
                await open_partition(self._session, self._layout, partition)
                self._open.add(partition)

    async def ensure(self, partition: int) -> None:
        """Make a partition's stream if it does not exist. Raise `StoreError`, `ConflictError`."""
        if partition not in self._open:
            what = "make a stream"
            try:
                await self._session.until_answered(lambda: self._ensure(partition), what)
            except Refusal as refusal:
                raise refused(refusal, what) from refusal

    # What is there already ----------------------------------------------------------------------------

    async def _reached(self, batch: Batch) -> int:
        """Return the number after the last of a producer's events in the log."""
        return await self._reached_by(batch.header.topic, producer_name(batch.header))

    async def _reached_by(self, topic: str, who: str) -> int:
        partition = self._layout.partition(topic)
        subject = self._layout.events_of(partition, who=who, topic=topic)
        raw = await self._session.until_answered(
            lambda: last_or_none(self._session, self._layout.events_stream(partition), subject), "ask what is stored"
        )
        if raw is None:
            return 0
        if piece_of(raw) is not None and raw.headers.get(NUMBER, "").isdecimal():
            return int(raw.headers[NUMBER]) + 1
        found = read_raw(raw)
        return found.header.first + found.header.count if found is not None else 0

    async def _check_same(self, batch: Batch, count: int) -> None:
        """Check that the first `count` numbers are in the log with the same ids, unless they were trimmed. Raise
        `ProtocolError`."""
        from .tracing import SKEW_NS, scan

        header = batch.header
        times = {header.first + index: batch.time(index) for index in range(count)}
        partition = self._layout.partition(header.topic)
        subject = self._layout.events_of(partition, who=producer_name(header), topic=header.topic)
        since = min(times.values()) - SKEW_NS
        async for raw in scan(self._session, self._layout.events_stream(partition), subject, since):
            stored = read_raw(raw)
            if stored is None:
                continue
            first = stored.header.first
            for number in range(max(first, header.first), min(first + len(stored), header.first + count)):
                if times.pop(number, None) not in (None, stored.time(number - first)):
                    raise ProtocolError(
                        f"expected number {number} of a producer once, got it for two events on topic "
                        f"{header.topic!r}: a batch is sent again as the very bytes that it was"
                    )
            if not times or first >= header.first + count:
                return

    async def _is_made(self, topic: str, made: AutoId, id: str) -> bool:
        """Return whether the topic's history has an event with that id, which Solar Wind made."""
        names = [any_producer_name(made.producer, was_delayed=was_delayed) for was_delayed in (False, True)]
        if not any([await self._reached_by(topic, name) for name in names]):
            return False
        from .tracing import find_made

        found = await find_made(self._session, self._layout, self._layout.partition(topic), made, id, topic)
        return found is not None


async def last_or_none(session: Session, stream: str, subject: str) -> Raw | None:
    """Return the last message of a subject; None if there is none, or no such stream."""
    try:
        return await session.last(stream, subject)
    except Refusal as refusal:
        if refusal.code == NO_STREAM:
            return None
        raise


def read_raw(raw: Raw) -> Batch | None:
    """Return the batch of a message; None if it is a piece of one, or if Solar Wind did not write it."""
    if piece_of(raw) is not None:
        return None
    try:
        return Batch.read(raw.data)
    except ProtocolError:
        return None


def runs(batch: Batch) -> Iterator[Batch]:
    """Divide a batch into what may travel together: an event whose id a caller gave is a message of its own."""
    ids = batch.header.ids
    if ids is None:
        yield batch
        return
    start = 0
    while start < len(batch):
        stop = start + 1
        while ids[start] is None and stop < len(batch) and ids[stop] is None:
            stop += 1
        yield batch.part(start, stop)
        start = stop


def cut(batch: Batch, room: int) -> list[Batch]:
    """Divide a batch into batches of at most `room` bytes, unless one event is larger."""
    if len(batch.data) <= room or len(batch) == 1:
        return [batch]
    half = len(batch) // 2
    return cut(batch.part(0, half), room) + cut(batch.part(half, len(batch)), room)
