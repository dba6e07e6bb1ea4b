"""From offers to outcomes: calls the handler for each event and notes what it made of it.

`concurrency` workers take events from one queue. A worker whose handler does not really wait goes on to the next event
without a turn of the loop, a task or a future in between; while it waits, the others go on. `def` handlers run on
threads of their own, so they never block the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from time import monotonic
from typing import Any

import msgspec

from ..core.effects import Failure, Join
from ..core.exchange import lookup
from ..engine.base import Engine
from ..event import Event
from ..failure import Later, Reject, said_by
from ..limits import Limits
from ..logs import limited
from .inbox import Inbox, Work
from .signature import Handler, Unfit

log = logging.getLogger("solarwind")

TURN_S = 0.005  # a worker that never waits lets the loop go on after so long
_MAX_ATTEMPTS_LOGGED = 12  # a minute, of a purpose: as many as there are by default

# The events that the running handler was called with: one, or a batch handler's list.
handling: ContextVar[Event | None] = ContextVar("solarwind_handling", default=None)


class Runner(Inbox):
    """One service instance: a handler, and the workers that call it."""

    def __init__(
        self, engine: Engine, join: Join, handler: Handler, concurrency: int, begun: asyncio.Event, limits: Limits
    ) -> None:
        """It handles nothing before `begun`."""
        super().__init__(engine, join, limits)
        self._begun = begun
        self._handler = handler
        self._concurrency = concurrency
        self._idle: list[asyncio.Future[None]] = []
        self._stopping = False
        exchange = lookup(join.exchange)
        self._pends = exchange is None or exchange.pends
        self._lost_as = "a dead letter" if self._pends else "dropped"
        self._pool = None if handler.is_async else ThreadPoolExecutor(concurrency, f"solarwind {handler.name}")
        self._workers: list[asyncio.Task[None]] = []  # made when there is work for them

    def wake(self) -> None:
        """One worker; it wakes the next. So they come into play as far as handlers really wait, and between two of them
        every other instance has its turn."""
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                if self.closed is None and not self._stopping:
                    return
        if len(self._workers) < self._concurrency and self._queue and not self._stopping:
            self._workers.append(asyncio.create_task(self._work_on()))

    async def stop(self, grace: float) -> None:
        """Give back what was not started, and let what was come to its end, for `grace` seconds at most."""
        self._stopping = True
        self.give_back()
        self._begun.set()
        self.wake()
        _, late = await asyncio.wait(self._workers, timeout=max(0.0, grace)) if self._workers else (None, set())
        for worker in late:
            worker.cancel()
        if late:
            log.warning(
                "%s on %r did not finish within %s s: its events are handed out again",
                self._handler.name,
                self.join.topic,
                grace,
            )
            if self._handler.is_async:
                await asyncio.wait(late, timeout=1.0)
        self.stop_reports()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work_on(self) -> None:
        loop = asyncio.get_running_loop()
        handle_all = self._handle_batches if self._handler.is_batch else self._handle_each
        await self._begun.wait()
        while not self._stopping and self.closed is None:
            work = self.next_work()
            if work is None:
                future = loop.create_future()
                self._idle.append(future)
                await future
                continue
            if len(work.todo) > 1:
                self.wake()
            try:
                if self._pool is None:
                    await handle_all(work)
                else:
                    await loop.run_in_executor(self._pool, self._run_in_thread, handle_all, work)
            finally:
                self.leave_work(work)
            # The others' turn: what this one has just settled made room, and all are to have a part of what fills it.
            await asyncio.sleep(0)

    @staticmethod
    def _run_in_thread(handle_all: Any, work: Work) -> None:
        """The same code for a `def` handler: nothing in it ever waits, so it comes to its end in one go."""
        try:
            handle_all(work).send(None)
        except StopIteration:
            pass

    async def _handle_each(self, work: Work) -> None:
        """Call the handler for one event after the other. This loop is what an event costs: everything is at hand."""
        call, is_async, is_raw = self._handler.call, self._handler.is_async, self._handler.is_raw
        hand_out = work.hand_out(self.join, self._engine)
        first = hand_out.start
        data, starts = hand_out.batch.layout
        take, note_done, set_handling, unset = work.todo.popleft, work.done.append, handling.set, msgspec.UNSET
        count = check_at = 0
        turn = monotonic()
        while True:
            try:
                position = take()
            except IndexError:  # that was the last, or another worker took it
                return
            index = position - first
            event = Event(hand_out, index)
            set_handling(event)
            try:
                result = call(data[starts[index] : starts[index + 1]] if is_raw else event)
                if is_async:
                    await result
                elif result is not None:
                    _refuse_awaitable(result)
            except BaseException as error:
                self._failed(work, position, event, error)
                continue
            fired, event._fired = event._fired, None
            if fired is not unset:
                work.fired[position] = fired
            note_done(position)
            count += 1
            if count >= check_at and is_async:
                spent = monotonic() - turn
                check_at = count + min(256, 1 + int(count * 0.001 / (spent + 1e-9)))
                if spent > TURN_S:
                    await asyncio.sleep(0)
                    count = check_at = 0
                    turn = monotonic()

    async def _handle_batches(self, work: Work) -> None:
        """Call the handler for up to `batch` events at a time."""
        hand_out = work.hand_out(self.join, self._engine)
        first = hand_out.start
        take = _take if self._pool is None else _take_with_others
        while positions := take(work.todo, self._handler.batch):
            events = [Event(hand_out, position - first) for position in positions]
            handling.set(events[0])
            try:
                result = self._handler.call(events)
                if self._handler.is_async:
                    await result
                else:
                    _refuse_awaitable(result)
            except Unfit as unfit:
                # The one that does not fit is dead, the others are handled without it.
                self._failed(work, positions.pop(unfit.index), events[unfit.index], unfit)
                work.todo.extendleft(reversed(positions))
                continue
            except BaseException as error:
                for position, event in zip(positions, events, strict=True):
                    self._failed(work, position, event, error)
                continue
            if events[0]._fired is not msgspec.UNSET:
                work.fired[positions[0]] = events[0]._fired
            for event in events:
                event._fired = None
            # At once, so that no report can have a part of them: they are settled together.
            work.done += positions

    def _failed(self, work: Work, position: int, event: Event, error: BaseException) -> None:
        """Note why it was not handled. What the handler fired is forgotten with it."""
        event._fired = None
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task() if self._pool is None else None
            if task is None or task.cancelling():
                raise error
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        work.failed.append(self._verdict(position, event, error))

    def _verdict(self, position: int, event: Event, error: BaseException) -> Failure:
        error = said_by(error)
        # What is no Unicode, such as half of a pair, cannot be written down.
        text = str(error).encode("utf-8", "backslashreplace").decode()
        if isinstance(error, Later):
            return Failure(position, "later", text, int(error.seconds * 1e9))
        where = f"event {event.id} on topic {event.topic!r} for {event.purpose!r}"
        if isinstance(error, Reject | Unfit):
            what = f"rejected: {where}, now {self._lost_as}"
            limited.warning(("rejected", event.topic, event.purpose), "%s: %s", what, text)
            return Failure(position, "reject", text)
        wait_ns = self.join.retry.delay_ns(event.attempt, self._engine.random)
        # Each attempt by itself, so that one event can be followed, however many there are that fail likewise.
        kind = ("raised", event.topic, event.purpose, min(event.attempt, _MAX_ATTEMPTS_LOGGED))
        what = self._next(event, wait_ns)
        limited.error(kind, "handler %s raised: %s, %s", self._handler.name, where, what, exc_info=error)
        return Failure(position, "retry", f"{type(error).__name__}: {text}", wait_ns)

    def _next(self, event: Event, wait_ns: int) -> str:
        """What becomes of an event after an attempt that failed, in words."""
        attempts = self.join.retry.attempts
        if not self._pends:
            return f"now {self._lost_as}"
        which = f"attempt {event.attempt} of {attempts}"
        if event.attempt >= attempts:
            return f"{which}, now {self._lost_as}"
        return f"{which}, again in {wait_ns / 1e9:.1f} s"


def _take(todo: deque[int], most: int) -> list[int]:
    if len(todo) > most:
        return [todo.popleft() for _ in range(most)]
    taken = list(todo)
    todo.clear()
    return taken


def _take_with_others(todo: deque[int], most: int) -> list[int]:
    """Other threads take some at the same time."""
    taken: list[int] = []
    try:
        while len(taken) < most:
            taken.append(todo.popleft())
    except IndexError:  # those were the last
        pass
    return taken


def _refuse_awaitable(result: Any) -> None:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("a def handler returned a coroutine, which nobody awaits: define the handler with async def")
