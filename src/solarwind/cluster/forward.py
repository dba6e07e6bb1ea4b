"""What handlers fired is copied from their owner's commits into the streams of its topics: each batch once, in order.

A commit holds what was fired with what was settled, so both are there or neither. From there it is copied on. Each copy
says which commit it is of, and is stored only if nothing was stored by this partition since the copy before. So the
next owner of the partition sees how far the copying is, and a former owner copies nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..batch import Batch
from ..engine.backoff import Backoff
from ..engine.tasks import Tasks
from ..errors import SolarWindError, StoreError
from .layout import CAUSED, Layout, forwarded_by, producer_name
from .pieces import HEADERS_BYTES
from .publish import Publisher, cut, last_or_none, runs
from .session import EXPECT, WRONG_SEQUENCE, NoAnswer, Nobody, Raw, Refusal, Session
from .tracing import scan

log = logging.getLogger("solarwind")

FROM = "Solarwind-From"
MAX_BYTES = 64 << 20  # that wait to be copied: then no more is committed
MAX_TOGETHER, MAX_TOGETHER_BYTES = 100, 1 << 20  # messages that are stored together


class CommitPlace(NamedTuple):
    """How far copying is: so many events of that batch of that commit."""

    commit: int
    batch: int
    events: int

    @classmethod
    def read(cls, raw: Raw) -> CommitPlace | None:
        """Return what a copy says; None where it is none."""
        numbers = raw.headers.get(FROM, "").split(".")
        return cls(*map(int, numbers)) if len(numbers) == 3 and all(map(str.isdecimal, numbers)) else None

    def __str__(self) -> str:
        return f"{self.commit}.{self.batch}.{self.events}"


NOWHERE = CommitPlace(0, 0, 0)


class _Waiting(NamedTuple):
    """A batch that is to be copied. `was_delayed`: it comes out of the due-log."""

    place: CommitPlace
    batch: Batch
    was_delayed: bool


class _Part(NamedTuple):
    """What goes into one message. `done` is how far copying is when it is stored."""

    done: CommitPlace
    batch: Batch
    was_delayed: bool


class Forwarder:
    """Copies what the handlers of one partition fired."""

    def __init__(
        self,
        session: Session,
        layout: Layout,
        partition: int,
        publisher: Publisher,
        failed: Callable[[StoreError], None],
    ) -> None:
        """`failed` is called where nothing more can be copied."""
        self._tasks = Tasks(failed)
        self._session = session
        self._layout = layout
        self._partition = partition
        self._publisher = publisher
        self._copiers: dict[int, _Copier] = {}
        self._stopped = False

    @property
    def bytes(self) -> int:
        """How many bytes wait to be copied."""
        return sum(copier.bytes for copier in self._copiers.values())

    @property
    def stuck(self) -> bool:
        """Whether something could not be copied at once."""
        return any(copier.stuck for copier in self._copiers.values())

    @property
    def oldest(self) -> int | None:
        """The number of the first commit that is still needed."""
        waiting = [copier.waiting[0] for copier in self._copiers.values() if copier.waiting]
        return min((each.place.commit for each in waiting), default=None)

    def add(self, commit: int, fired: list[Batch], *, was_delayed: bool = False) -> None:
        """Copy these batches of a commit that is durable; `was_delayed`: they come out of the due-log."""
        if self._stopped:
            return
        for number, batch in enumerate(fired):
            target = self._layout.partition(batch.header.topic)
            copier = self._copiers.get(target)
            if copier is None:
                copier = self._copiers[target] = _Copier(
                    self._session, self._layout, self._partition, target, self._publisher, self._tasks
                )
            copier.add(_Waiting(CommitPlace(commit, number, 0), batch, was_delayed))

    async def idle(self) -> None:
        """Wait until all is copied."""
        for copier in list(self._copiers.values()):
            await copier.idle.wait()

    async def stop(self) -> None:
        self._stopped = True
        await self._tasks.end()


class _Copier:
    """Copies from one partition into the stream of another, or its own."""

    def __init__(
        self, session: Session, layout: Layout, source: int, target: int, publisher: Publisher, tasks: Tasks
    ) -> None:
        self._tasks = tasks
        self._session = session
        self._layout = layout
        self._stream = layout.events_stream(target)
        self._via = forwarded_by(source)
        self._subject = layout.events_of(target, kind=CAUSED, via=self._via)
        self._target = target
        self._publisher = publisher
        self._done = NOWHERE
        self._seq: int | None = None  # of the last copy; None: to be asked
        self.waiting: deque[_Waiting] = deque()
        self.bytes = 0
        self.idle = asyncio.Event()
        self.stuck = False
        self.task: asyncio.Task[None] | None = None

    def add(self, waiting: _Waiting) -> None:
        self.waiting.append(waiting)
        self.bytes += len(waiting.batch.data)
        self.idle.clear()
        if self.task is None:
            self.task = self._tasks.begin(self._empty(), "the copying of what handlers fired")

    async def _empty(self) -> None:
        backoff = Backoff()
        while self.waiting:
            topic = self.waiting[0].batch.topic
            try:
                await self._publisher.ensure(self._target)
                await self._copy()
            except (SolarWindError, Refusal, NoAnswer) as error:
                if isinstance(error, Nobody):
                    await self._publisher.doubt(self._target)
                if not self.stuck:
                    self.stuck = True
                    log.warning("events that handlers fired on topic %r wait: %s", topic, error)
                self._seq = None
                await backoff.pause()
                continue
            if self.stuck:
                log.warning("events that handlers fired on topic %r are stored again", topic)
            backoff, self.stuck = Backoff(), False
        self.task = None
        self.idle.set()

    async def _copy(self) -> None:
        """Copy what waits longest, or find out that it is copied already."""
        if self._seq is None:
            await self._find_last()
        parts = self._next_parts()
        if parts and parts[0].batch.given_id(0) is not None:
            await self._publisher.store(parts[0].batch, self._via, {FROM: str(parts[0].done)})
            self._done, self._seq = parts[0].done, None  # nothing was stored if it was there already
        elif parts:
            await self._put(parts)
        while self.waiting and self._copied(self.waiting[0]) == len(self.waiting[0].batch):
            self.bytes -= len(self.waiting.popleft().batch.data)

    def _copied(self, waiting: _Waiting) -> int:
        """Return how many of its events are copied."""
        if self._done[:2] == waiting.place[:2]:
            return self._done.events
        return len(waiting.batch) if self._done[:2] > waiting.place[:2] else 0

    def _next_parts(self) -> list[_Part]:
        """Return what is stored together: several messages, or one of an event with an id of its own, or one that is
        larger than a message may be."""
        room = self._session.max_payload - HEADERS_BYTES
        parts: list[_Part] = []
        size = 0
        for waiting in self.waiting:
            place, batch, was_delayed = waiting
            copied = self._copied(waiting)
            while copied < len(batch):
                rest = batch.part(copied, len(batch)) if copied else batch
                part = cut(next(runs(rest)), room)[0]
                is_alone = part.given_id(0) is not None or len(part.data) > room
                size += len(part.data)
                if parts and (is_alone or len(parts) == MAX_TOGETHER or size > MAX_TOGETHER_BYTES):
                    return parts
                copied += len(part)
                parts.append(_Part(place._replace(events=copied), part, was_delayed))
                if is_alone:
                    return parts
        return parts

    async def _find_last(self) -> None:
        raw = await self._session.until_answered(
            lambda: last_or_none(self._session, self._stream, self._subject), "see how far copying is"
        )
        self._seq = 0 if raw is None else raw.seq
        done = None if raw is None else CommitPlace.read(raw)
        if raw is not None and done is None:  # another program wrote it
            async for each in scan(self._session, self._stream, self._subject, 0):
                done = CommitPlace.read(each) or done
        self._done = max(self._done, done or NOWHERE)

    async def _put(self, parts: list[_Part]) -> None:
        expect = {EXPECT: str(self._seq), f"{EXPECT}-Subject": self._subject}
        try:
            if len(parts) == 1:
                done, batch, was_delayed = parts[0]
                self._seq = await self._publisher.put(
                    batch, self._via, {FROM: str(done)}, expect, was_delayed=was_delayed
                )
            else:
                messages = [
                    (
                        self._layout.event_subject(
                            batch, self._via, producer_name(batch.header, was_delayed=was_delayed)
                        ),
                        batch.data,
                        {FROM: str(done)},
                    )
                    for done, batch, was_delayed in parts
                ]
                messages[0][2].update(expect)
                self._seq = await self._session.publish_together(messages)
            self._done = parts[-1].done
        except Refusal as refusal:
            if refusal.code != WRONG_SEQUENCE:
                raise
            self._seq = None  # the answer to the last one was lost; or another process copies
