"""The relay: fires what was committed to an outbox, and deletes it once it is accepted.

A relay may die at any moment. What it fired and did not delete is fired again with the same id, by itself or another
relay, and the dispatcher does not store it again. A row waits for its relay in the transaction that claimed it, so
nobody else has it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from ..batch import Batch, seal
from ..columns import gathered
from ..engine.backoff import Backoff
from ..engine.base import Engine
from ..engine.tasks import Tasks
from ..errors import BadToken, NotFound, SolarWindError, StoreError, Unavailable
from ..extras import missing_extra
from ..limits import Limits
from ..logs import limited
from ..names import check_fired
from ..operations import Internal
from ..origin import MACHINE, process_name, this_process
from ..service.group import IdNumbers
from ..service.observing import Observer
from ..text import plain, redact
from .database import dialect_of, fault
from .rows import OutboxRow

log = logging.getLogger("solarwind")

ROWS = 2_048  # that are claimed together at most
BYTES = 1 << 20  # of their payloads and attributes
ACCEPT_S = 30.0  # that the dispatcher may take to accept them, before they are released
AGAIN_S = 0.2  # from the end of a connection to the next attempt, at least
BEHIND_S = 300.0  # is trouble: the oldest row that can be claimed was written so long ago
TELL_S = 30.0  # how often the dispatcher is told of trouble
_TELL_LAST_S = 1.0  # that a relay which stops takes to say so
_MAX_ERROR = 1_000  # characters


Prepared = tuple[OutboxRow, int, dict[str, Any]]  # a row, when it was fired, and its attributes by column


class _Result:
    """What became of claimed rows, by place: why some were `refused`, and which are `left`, because of an `error` that
    may be over later. All others were accepted."""

    def __init__(self) -> None:
        self.refused: dict[int, str] = {}
        self.left: set[int] = set()
        self.error: SolarWindError | None = None

    def leave(self, events: Sequence[Prepared], error: BaseException) -> None:
        """Note events to fire again. Raise an error that is none of Solar Wind's."""
        if not isinstance(error, SolarWindError):
            raise error
        self.left.update(row.place for row, _, _ in events)
        self.error = error


class Lane(Protocol):
    """A connection to an outbox, used by one task. Its methods raise the driver's errors."""

    async def open(self) -> None:
        """Connect, and check that the table is there."""
        ...

    async def claim(self, rows: int, size: int) -> list[OutboxRow]:
        """Claim the next rows, at most so many; and of so many bytes, or one. None of a key is left out that is before
        one of them. Return nothing where nothing is pending, and then nothing is claimed."""
        ...

    async def done(self, accepted: Sequence[int], refused: Mapping[int, str]) -> None:
        """Delete claimed rows by their places, and note why others were refused; none is claimed any more."""
        ...

    async def release(self) -> None:
        """Claim nothing any more, and change nothing."""
        ...

    async def refused(self) -> int:
        """Return how many rows were refused. Nothing is claimed meanwhile."""
        ...

    async def wait(self) -> None:
        """Wait until something may be pending."""
        ...

    async def close(self) -> None: ...


class Relay:
    """Fires what was committed to the outbox of one database, while it runs.

    A database or a dispatcher that goes away is waited for; the log says so once."""

    def __init__(self, database: str) -> None:
        """Raise `BadArgument` for an invalid URL."""
        dialect = dialect_of(database)
        self._database = database
        self._shown = redact(database)[:_MAX_ERROR]
        self._name = f"the relay of {self._shown}"
        self._make: list[Callable[[], Lane]]
        self._failures: tuple[type[Exception], ...]
        if dialect == "sqlite":
            from . import sqlite

            self._failures, self._make = sqlite.FAILURES, [partial(sqlite.SqliteLane, database)]
        else:
            try:
                from . import postgres
            except ImportError:
                raise missing_extra("postgres", "a postgresql:// URL") from None
            self._failures = postgres.FAILURES
            self._make = [partial(postgres.PostgresLane, database, number) for number in range(postgres.LANES)]
        self._known: tuple[type[Exception], ...] = (*self._failures, Unavailable, StoreError, NotFound)
        self._waiting: dict[str, set[int]] = {"database": set(), "dispatcher": set()}  # which lanes wait for it
        self._backoffs = [Backoff() for _ in self._make]
        self._tasks: Tasks | None = None
        # What the dispatcher is told where it is trouble, and whether it was.
        self._refused = 0
        self._count_at = 0.0  # when to count them again
        self._behind: dict[int, float] = {}  # by how many seconds, of each lane that has rows
        self._error = ""  # of the database
        self._trouble = asyncio.Event()  # there is some that is new, or none any more
        self._told = False

    async def start(self, engine: Engine, limits: Limits, observer: Observer | None = None) -> None:
        """Begin to fire what is within the limits, and tell the observer of it. Raise `NotFound` where the table is
        missing. A database that is away is waited for."""
        self._engine = engine
        self._limits = limits
        self._observer = observer
        self._numbers = IdNumbers(engine.author)
        await self._check()
        self._tasks = Tasks(self._failed)
        for number in range(len(self._make)):
            self._tasks.repeat(partial(self._connect, number), AGAIN_S, self._name)
        self._tasks.repeat(self._tell, AGAIN_S, self._name)

    async def stop(self) -> None:
        """End it. What it has claimed is pending again."""
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            await tasks.end()
            if self._told:
                self._told = False
                with suppress(SolarWindError, TimeoutError):
                    async with asyncio.timeout(_TELL_LAST_S):
                        await Internal.note_relay(self._engine, self._shown, this_process())

    def _failed(self, error: StoreError) -> None:
        log.error("%s has ended: %s", self._name, error)

    async def _check(self) -> None:
        lane = self._make[0]()
        try:
            await lane.open()
        except self._known as error:
            found = self._fault(error)
            if isinstance(found, NotFound):
                raise found from None
            self._wait_for("database", 0, found)
        finally:
            await lane.close()

    def _fault(self, error: BaseException) -> SolarWindError:
        return error if isinstance(error, SolarWindError) else fault(self._database, error)

    def _wait_for(self, what: str, number: int, error: BaseException) -> None:
        """Note that a lane waits; the log says it of the first."""
        if not self._waiting[what]:
            log.error("%s waits: %s; it goes on by itself", self._name, error)
        self._waiting[what].add(number)
        if what == "database":
            self._error = plain(str(error))[:_MAX_ERROR]
            self._trouble.set()

    def _over(self, what: str, number: int) -> None:
        """Note that a lane does not wait any more; the log says it of the last."""
        if number in self._waiting[what]:
            self._waiting[what].remove(number)
            if not self._waiting[what]:
                log.info("%s goes on: the %s is back", self._name, what)
                self._trouble.set()

    async def _tell(self) -> None:
        """Tell the dispatcher what is wrong, for as long as it is, and once that nothing is any more; then wait until
        that changes."""
        self._trouble.clear()
        error = self._error if self._waiting["database"] else ""
        behind = max(self._behind.values(), default=0.0)
        found = self._refused, behind if behind > BEHIND_S else 0.0, error
        if any(found) or self._told:
            try:
                await Internal.note_relay(self._engine, self._shown, this_process(), *found)
                self._told = any(found)
            except SolarWindError:  # it is away, or too old to know of it
                pass
        with suppress(TimeoutError):
            async with asyncio.timeout(TELL_S):
                await self._trouble.wait()

    async def _count(self, lane: Lane) -> None:
        """Count the refused rows, now and then."""
        now = asyncio.get_running_loop().time()
        if now >= self._count_at:
            self._count_at = now + TELL_S
            before, self._refused = self._refused, await lane.refused()
            if before != self._refused:
                self._trouble.set()

    # One lane ---------------------------------------------------------------------------------------------

    async def _connect(self, number: int) -> None:
        """Work on one connection until it fails."""
        lane = self._make[number]()
        try:
            await lane.open()
            while True:
                await self._step(lane, number)
        except self._known as error:
            self._wait_for("database", number, self._fault(error))
            await self._backoffs[number].pause()
        finally:
            try:
                await lane.close()
            except self._failures:
                pass

    async def _step(self, lane: Lane, number: int) -> None:
        """Fire what can be claimed, or wait."""
        try:
            self._engine.check()
        except SolarWindError as error:
            await self._wait_for_dispatcher(error, number)
            return
        if number == 0:
            await self._count(lane)
        rows = await lane.claim(ROWS, BYTES)
        self._over("database", number)
        if not rows:
            self._over("dispatcher", number)
            self._behind.pop(number, None)
            await lane.wait()
            return
        oldest = min(row.written for row in rows)
        self._behind[number] = max(0.0, (self._engine.service_clock.wall() - oldest) / 1e9)
        result = _Result()
        await self._fire(rows, result)
        ended = [row.place for row in rows if row.place not in result.left]
        if ended:
            self._backoffs[number] = Backoff()  # a topic that waits makes no other one late
            await lane.done([place for place in ended if place not in result.refused], result.refused)
        else:
            await lane.release()
        if result.refused:
            self._count_at = 0.0
        if result.error is not None:
            await self._wait_for_dispatcher(result.error, number)
            return
        self._over("dispatcher", number)

    async def _wait_for_dispatcher(self, error: SolarWindError, number: int) -> None:
        self._wait_for("dispatcher", number, error)
        await self._backoffs[number].pause()

    # Firing -----------------------------------------------------------------------------------------------

    async def _fire(self, rows: Sequence[OutboxRow], result: _Result) -> None:
        """Fire rows, and wait until they are accepted. What may be accepted later is left, to be fired again: all that
        follows it on its topic, and nothing of another."""
        topics: dict[tuple[str, bool], list[Prepared]] = {}  # what is delayed goes another way than the rest
        for row in rows:
            try:
                time, attributes = row.read()
                topics.setdefault((check_fired(row.topic), "due" in attributes), []).append((row, time, attributes))
            except SolarWindError as error:  # another program wrote it
                self._refuse(row, error, result)
        submitted = [(events, self._submit(events)) for events in topics.values()]
        found_all = await self._accepted([future for _, future in submitted])
        for (events, _), found in zip(submitted, found_all, strict=True):
            if found is None:
                continue
            if not _is_final(found):
                result.leave(events, found)
            elif len(events) > 1:
                await self._fire_singly(events, result)
            else:
                self._refuse(events[0][0], found, result)

    async def _fire_singly(self, events: Sequence[Prepared], result: _Result) -> None:
        """Fire events that were refused together one after the other, to know which of them it is."""
        for at, event in enumerate(events):
            [found] = await self._accepted([self._submit([event])])
            if found is not None and not _is_final(found):
                result.leave(events[at:], found)
                return
            if found is not None:
                self._refuse(event[0], found, result)

    def _submit(self, events: Sequence[Prepared]) -> asyncio.Future[None]:
        try:
            batch = self._sealed(events)
            batch.check(self._limits)  # another program may have written it
            submitted = self._engine.submit(batch)
            if self._observer is not None:
                self._observer.sent(batch, submitted)
            return submitted
        except SolarWindError as error:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    def _sealed(self, events: Sequence[Prepared]) -> Batch:
        """Return a batch of events of one topic, of which all are delayed or none."""
        row, _, attributes = events[0]
        topic, contents = row.topic, [row.content for row, _, _ in events]
        producer, first = self._numbers.allocate(topic, len(events), later="due" in attributes)
        return seal(
            topic,
            [row.payload for row, _, _ in events],
            [time for _, time, _ in events],
            producer=producer,
            first=first,
            author=self._engine.author,
            machine=MACHINE,
            process=process_name(),
            **{
                "content": contents if len(set(contents)) > 1 else contents[0],
                **gathered(attributes for _, _, attributes in events),
            },
        )

    async def _accepted(self, submitted: Sequence[asyncio.Future[None]]) -> list[BaseException | None]:
        """Wait until all are accepted or refused, and return why not; `Unavailable` where that takes too long."""
        if not submitted:
            return []
        try:
            _, late = await asyncio.wait(submitted, timeout=ACCEPT_S)
        except asyncio.CancelledError:
            self._withdraw(submitted)
            raise
        self._withdraw(late)
        slow = Unavailable(f"expected the dispatcher to accept events within {ACCEPT_S:g} s, it did not")
        return [slow if future in late or future.cancelled() else future.exception() for future in submitted]

    def _withdraw(self, submitted: Any) -> None:
        """Take back what was not sent. The rest may be accepted later, and is then known by its id."""
        for future in submitted:
            if not future.done() and not self._engine.withdraw(future):
                future.add_done_callback(_forget)

    def _refuse(self, row: OutboxRow, error: BaseException, result: _Result) -> None:
        """Note that an event was refused."""
        text = plain(str(error))[:_MAX_ERROR]
        result.refused[row.place] = text
        limited.error(
            ("refused", self._name, row.topic),
            "%s: event %s on topic %r was refused: %s; see `solarwind outbox status`, and `redrive` it once it may be "
            "fired",
            self._name,
            plain(row.id),
            plain(row.topic),
            text,
        )


def _is_final(error: BaseException) -> bool:
    """Return whether an event would be refused again, however often it is fired."""
    return isinstance(error, SolarWindError) and error.fault == "caller" and not isinstance(error, BadToken)


def _forget(submitted: asyncio.Future[None]) -> None:
    """Retrieve the error of what nobody waits for any more."""
    if not submitted.cancelled():
        submitted.exception()
