"""From offers to outcomes: calls the handler for each event and notes what it made of it.

`concurrency` workers take events from one queue. A worker whose handler does not really wait goes on to the next event
without a turn of the loop, a task or a future in between; while it waits, the others go on. `def` handlers run on
threads of their own, so they never block the loop.

Whatever a handler raises is a failed attempt, also `SystemExit` or the cancellation of its task; only `stop` ends a
worker. Nothing that a call sets in its context is seen by the next: a `def` handler is called in a copy of it. For
`async def` that would cost a quarter of the speed, so there the worker checks afterwards whether the context is still
the same, which costs 70 ns. If it is not, or if the worker was cancelled, it ends, and a new one replaces it.

A child that a handler forks has a copy of all this, but it is no worker: where it returns from the handler, it ends
before anything is reported. The fork itself makes each copy stop at its next regular check, so that this costs an event
nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Coroutine, Sequence
from contextvars import Context, ContextVar, copy_context
from math import inf
from time import monotonic
from typing import Any, NoReturn
from weakref import WeakSet

import msgspec

from ..core.effects import Failure, Join
from ..engine.base import Engine
from ..event import Event
from ..failure import Retry
from ..limits import Limits
from ..logs import limited
from ..plugins import registered
from ..systems import after_fork
from ..threads import Threads
from .consumer import Consumer, Work
from .outcome import Outcome, outcome_of
from .signature import Handler, Unfit, refuse_unrun

log = logging.getLogger("solarwind")

TURN_S = 0.005  # a worker that never waits lets the loop go on after so long
MAX_UNSEEN = 16  # events that are handled between two looks at the clock, where that lasted less than `QUICK_S`
QUICK_S = 0.001
HURRY_S = 1.0  # that a handler has to end once it was cancelled
REPLACE_S = 1.0  # until a worker that ended unexpectedly is replaced
_AGAIN_NS = int(0.1e9)  # after which events are tried again of which a worker said nothing
_MAX_NAMED = 3  # events
_MAX_ATTEMPTS_LOGGED = 12  # a minute, of a purpose: as many as there are by default

# The events that the running handler was called with: one, or a batch handler's list.
handling: ContextVar[Event | None] = ContextVar("solarwind_handling", default=None)


_RUNNERS: WeakSet[Runner] = WeakSet()  # in this process


def _after_fork() -> None:
    for runner in list(_RUNNERS):
        runner.leave_behind()
    _RUNNERS.clear()


after_fork(_after_fork)


class Worker(asyncio.Task[None]):
    """A task that knows whether it was cancelled on purpose: by the runner, its handler, or a library that the handler
    uses."""

    def __init__(self, work: Coroutine[Any, Any, None], *, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.requests: list[object] = []  # the messages of its cancellations
        self.context = context  # that it runs in
        super().__init__(work, loop=loop, context=context)

    def cancel(self, msg: Any | None = None) -> bool:
        self.requests.append(msg)
        return super().cancel(msg)


class Runner(Consumer):
    """One service instance: a handler, and the workers that call it."""

    def __init__(
        self,
        engine: Engine,
        join: Join,
        handler: Handler,
        concurrency: int,
        begun: asyncio.Event,
        limits: Limits,
        context: Context | None = None,
    ) -> None:
        """Handle nothing before `begun`. Handlers are called in copies of `context`."""
        super().__init__(engine, join, limits)
        self._begun = begun
        self._handler = handler
        self._concurrency = concurrency
        self._context = context or copy_context()
        self._idle: list[asyncio.Future[None]] = []
        self._retry = join.retry or Retry()
        self._stopping = False
        self._cancelled = False  # what is still at work, by `stop`
        exchange = registered.lookup(join.exchange)
        self._pends = exchange is None or exchange.pends
        self._threads = None if handler.is_async else Threads(concurrency, f"solarwind {handler.name}")
        self._workers: list[Worker] = []  # made when there is work for them
        self._is_copy = False  # in a forked child
        _RUNNERS.add(self)

    @property
    def at_work(self) -> int:
        """How many handlers are running."""
        return sum(work.running for work in self._active)

    def wake(self) -> None:
        """Wake one worker, which wakes the next. So only as many run as handlers really wait, and between two of them
        every other instance has its turn."""
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                if self.closed is None and not self._stopping:
                    return
        if len(self._workers) < self._concurrency and self._queue and not self._stopping:
            # Not in the context of the code that happened to fire.
            worker = Worker(self._work_on(), loop=asyncio.get_running_loop(), context=self._context.copy())
            self._workers.append(worker)
            worker.add_done_callback(self._replace)

    def _replace(self, worker: asyncio.Task[None]) -> None:
        """Start another worker in its place, if there is work."""
        self._workers = [each for each in self._workers if each is not worker]
        error = None if worker.cancelled() else worker.exception()
        if error is None:
            self.wake()
        elif not (self._stopping and isinstance(error, KeyboardInterrupt)):
            what = f"a worker of handler {self._handler.name} on {self.join.topic!r} ended, another takes its place"
            log.error("%s: %s", what, outcome_of(error).text, exc_info=error)
            asyncio.get_running_loop().call_later(REPLACE_S, self.wake)

    async def stop(self, grace: float) -> None:
        """Give back what was not started, and let running handlers finish, for `grace` seconds at most."""
        self._stopping = True
        self.give_back()
        self._begun.set()
        self.wake()
        workers = list(self._workers)
        try:
            _, late = await asyncio.wait(workers, timeout=max(0.0, grace)) if workers else (None, set())
            if late:
                where = "" if self._handler.around is None else self._handler.around.where
                what = f"{self._handler.name} on {self.join.topic!r}{where}"
                self._note_late(what, grace)
                self._cancel(late)
                _, stuck = await asyncio.wait(late, timeout=HURRY_S)
                if stuck:
                    log.warning("%s still runs though it was cancelled: it is no longer waited for", what)
        finally:
            self._cancel(self._workers)
            self.stop_reports()
            if self._threads is not None:
                self._threads.close()

    def _note_late(self, what: str, grace: float) -> None:
        """Say which handler did not finish, and at which events."""
        events: list[Event] = []
        for work in self._active:
            hand_out = work.hand_out(self.join, self._engine)
            events += [Event(hand_out, each - hand_out.start) for each in work.at().positions()] if work.running else ()
        named = ", ".join(repr(each.id) for each in events[:_MAX_NAMED])
        more = f" and {len(events) - _MAX_NAMED:,} more" if len(events) > _MAX_NAMED else ""
        at, again = (f"events {named}{more}", "they are") if len(events) > 1 else (f"event {named}", "it is")
        at = f", at {at}: {again} handed out again" if events else ""  # it was just reported
        log.warning("%s did not finish within %g s%s", what, grace, at)
        self._engine.cut_off(what, events)

    def _cancel(self, workers: Collection[asyncio.Task[None]]) -> None:
        self._cancelled = True
        if self._handler.around is not None:
            self._handler.around.cancel()
        for worker in workers:
            worker.cancel()

    # Forked children ----------------------------------------------------------------------------------

    def leave_behind(self) -> None:
        """Begin nothing more, in a forked child. If it was forked in a handler that lets the loop go on, it ends."""
        self._is_copy = True
        self.certain_until = -inf
        for worker in self._workers:
            worker.requests.append("forked")
        event, join = handling.get(), self.join
        if event is None or (event.topic, event.purpose) != (join.topic, join.purpose):
            return
        if self._handler.is_async and self._active:
            self._loop.call_soon(self._end_copy)

    def _end_copy(self) -> NoReturn:
        """End this process, which is a forked child that came back out of the handler."""
        try:
            log.error(
                "a child that handler %s on %r forked, process %d, came back out of the handler: it ends here, and "
                "nothing of it is reported; end such a child with os._exit",
                *(self._handler.name, self.join.topic, os.getpid()),
            )
        finally:
            os._exit(1)

    def leave_work(self, work: Work) -> None:
        if self._is_copy:
            self._end_copy()
        if work.running == 1 and not work.left and not self._stopping and work.unsaid:  # a worker ended in between
            for position in work.at().positions():
                work.failed.append(Failure(position, "retry", "its worker ended unexpectedly", _AGAIN_NS))
        super().leave_work(work)

    # Workers ------------------------------------------------------------------------------------------

    async def _work_on(self) -> None:
        loop, worker = asyncio.get_running_loop(), asyncio.current_task()
        assert isinstance(worker, Worker)
        on_loop = self._handle_batches if self._handler.is_batch else self._handle_each
        await self._begun.wait()
        while not self._stopping and self.closed is None:
            work = self.next_work()
            if work is None:
                future = loop.create_future()
                self._idle.append(future)
                await future
                continue
            if work.left > 1:
                self.wake()
            if self._threads is not None:
                await self._on_thread(self._threads, work)
            else:
                try:
                    if not await on_loop(worker, work):
                        return
                finally:
                    self.leave_work(work)
            # The others' turn: what this one has just settled made room, and all are to have a part of what fills it.
            await asyncio.sleep(0)

    async def _handle_each(self, worker: Worker, work: Work) -> bool:
        """Call the handler for one event after the other. This loop is the cost of an event, so everything it uses is
        local. Return False if another worker must go on with it."""
        call, is_raw = self._handler.call, self._handler.is_raw
        hand_out = work.hand_out(self.join, self._engine)
        first = hand_out.start
        data, starts = hand_out.batch.layout
        take, note_done, set_handling, unset = work.todo.popleft, work.done.append, handling.set, msgspec.UNSET
        # Where the dispatcher stands still with this process, no other instance has got an event meanwhile.
        at_once = MAX_UNSEEN if self._engine.patience_s == inf else 0
        clock, requests, context = monotonic, worker.requests, worker.context
        turn_ends = seen = 0.0
        unseen = 0  # events that may begin before the clock is looked at again
        while True:
            if unseen:
                unseen -= 1
            else:
                now = clock()
                if now > turn_ends:
                    if turn_ends:
                        await asyncio.sleep(0)
                        now = clock()
                    turn_ends = now + TURN_S
                if now > self.certain_until:
                    return True
                if at_once and now - seen < QUICK_S:
                    unseen = at_once
                seen = now
            try:
                position = take()
            except IndexError:  # that was the last, or another worker has it
                return True
            index = position - first
            event = hand_out.handled = Event(hand_out, index)
            set_handling(event)
            before = context.copy()
            try:
                result = await call(data[starts[index] : starts[index + 1]] if is_raw else event)
                if result is not None:
                    refuse_unrun(result)
            except BaseException as error:
                hand_out.handled = None
                if self._is_end(error):
                    raise
                work.failed.append(self._failure(position, event, error, outcome_of(error)))
            else:
                hand_out.handled = None
                if event._fired is not unset:
                    self.note_fired(work, position, event._fired)
                note_done(position)
            try:
                if requests or context != before:
                    return False
            except Exception:  # values that cannot be compared, such as arrays
                return False

    async def _handle_batches(self, worker: Worker, work: Work) -> bool:
        """Call the handler for up to `batch` events at a time. Return False if another worker must go on with it."""
        hand_out = work.hand_out(self.join, self._engine)
        turn = monotonic()
        while monotonic() <= self.certain_until and (positions := work.next_part(self._handler.batch)):
            events = [Event(hand_out, position - hand_out.start) for position in positions]
            hand_out.handled = events[0]
            handling.set(events[0])
            before = copy_context()
            try:
                refuse_unrun(await self._handler.call(events))
            except BaseException as error:
                hand_out.handled = None
                if self._is_end(error):
                    raise
                self._batch_failed(work, positions, events, error)
            else:
                _batch_done(self, work, positions, events)
            if worker.requests or _is_other(before):
                return False
            if monotonic() - turn > TURN_S:
                await asyncio.sleep(0)
                turn = monotonic()
        return True

    def _is_end(self, error: BaseException) -> bool:
        """Return whether an exception means that this worker is to end, although it came out of the handler."""
        kind = type(error)  # `isinstance` would ask the error, whose attributes may be anything
        if issubclass(kind, asyncio.CancelledError):
            return self._cancelled
        if issubclass(kind, GeneratorExit):  # its loop is gone
            return not _on_a_loop()
        # Ctrl-C in a program that handles no signals, while it stops already.
        return issubclass(kind, KeyboardInterrupt) and self._stopping

    # Threads ------------------------------------------------------------------------------------------

    async def _on_thread(self, threads: Threads, work: Work) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        handle = self._batches_on_thread if self._handler.is_batch else self._each_on_thread

        def ended(error: BaseException | None) -> None:
            try:
                self.leave_work(work)  # now, not when the waiting task is cancelled
            except Exception as unexpected:
                error = error or unexpected
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def job() -> None:
            error = None
            try:
                self._context.copy().run(handle, work)
            except BaseException as unexpected:
                error = RuntimeError(f"a thread ended: {outcome_of(unexpected).text}")
                error.__cause__ = unexpected
            if self._is_copy:
                self._end_copy()
            try:
                loop.call_soon_threadsafe(ended, error)
            except RuntimeError:  # the loop is closed: nothing waits any more
                pass

        try:
            threads.run(job)
        except RuntimeError:
            self.leave_work(work)
            raise
        await done

    def _each_on_thread(self, work: Work) -> None:
        """Do what `_handle_each` does, for `def` handlers."""
        call, is_raw = self._handler.call, self._handler.is_raw
        hand_out = work.hand_out(self.join, self._engine)
        first = hand_out.start
        data, starts = hand_out.batch.layout
        take, note_done, set_handling, unset = work.todo.popleft, work.done.append, handling.set, msgspec.UNSET
        while monotonic() <= self.certain_until:
            try:
                position = take()
            except IndexError:
                return
            index = position - first
            event = hand_out.handled = Event(hand_out, index)
            set_handling(event)
            try:
                result = copy_context().run(call, data[starts[index] : starts[index + 1]] if is_raw else event)
                if result is not None:
                    refuse_unrun(result)
            except BaseException as error:
                hand_out.handled = None
                if self._is_given_up(error):
                    return
                work.failed.append(self._failure(position, event, error, outcome_of(error)))
            else:
                hand_out.handled = None
                if event._fired is not unset:
                    self.note_fired(work, position, event._fired)
                note_done(position)

    def _batches_on_thread(self, work: Work) -> None:
        """Do what `_handle_batches` does, for `def` handlers."""
        hand_out = work.hand_out(self.join, self._engine)
        while monotonic() <= self.certain_until and (positions := work.next_part(self._handler.batch)):
            events = [Event(hand_out, position - hand_out.start) for position in positions]
            hand_out.handled = events[0]
            handling.set(events[0])
            try:
                refuse_unrun(copy_context().run(self._handler.call, events))
            except BaseException as error:
                hand_out.handled = None
                if self._is_given_up(error):
                    return
                self._batch_failed(work, positions, events, error)
            else:
                _batch_done(self, work, positions, events)

    def _is_given_up(self, error: BaseException) -> bool:
        """Return whether `stop` has cancelled what is `async` around a `def` handler: its events are handed out again,
        and no attempt has failed."""
        return self._cancelled and issubclass(type(error), asyncio.CancelledError)

    # Failures -----------------------------------------------------------------------------------------

    def _batch_failed(self, work: Work, positions: list[int], events: Sequence[Event], error: BaseException) -> None:
        """Try a failed batch again at once in halves, down to the events that fail alone: those have failed, and no
        attempt of the others is counted. What the batch fired is forgotten. `Later` and `Reject` apply to all of its
        events."""
        if self._is_copy:
            self._end_copy()
        if type(error) is Unfit:
            # The one that does not fit is dead, the others are handled without it.
            position, unfit = positions.pop(error.index), events[error.index]
            work.failed.append(self._failure(position, unfit, error, outcome_of(error)))
            work.put_back(positions)
            return
        outcome = outcome_of(error)
        if outcome.verdict == "retry" and len(positions) > 1:
            self._log_batch(events, error)
            if not self._stopping:  # else they are handed out again
                middle = len(positions) // 2
                work.put_back(positions[:middle], positions[middle:])
            return
        for position, event in zip(positions, events, strict=True):
            work.failed.append(self._failure(position, event, error, outcome))

    def _log_batch(self, events: Sequence[Event], error: BaseException) -> None:
        what = f"{len(events)} events on topic {events[0].topic!r} for {events[0].purpose!r}"
        kind = ("raised for a batch", events[0].topic, events[0].purpose)
        _log(logging.ERROR, kind, f"handler {self._handler.name} raised: {what}, again at once in two parts", error)

    def _failure(self, position: int, event: Event, error: BaseException, outcome: Outcome) -> Failure:
        """Return what is to become of an event, and log it. Never raise."""
        if self._is_copy:
            self._end_copy()
        if outcome.verdict == "later":
            return Failure(position, "later", outcome.text, outcome.after_ns)
        where = f"event {event.id} on topic {event.topic!r} for {event.purpose!r}"
        if outcome.verdict == "reject":
            what = f"rejected: {where}, {self._end(event)}"
            _log(logging.WARNING, ("rejected", event.topic, event.purpose), f"{what}: {outcome.text}")
            return Failure(position, "reject", outcome.text)
        wait_ns = self._retry.delay_ns(event.attempt, self._engine.random)
        # Each attempt by itself, so that one event can be followed, however many there are that fail likewise.
        attempt = min(event.attempt, _MAX_ATTEMPTS_LOGGED)
        kind = ("raised", event.topic, event.purpose, attempt, type(error).__name__)
        what = f"handler {self._handler.name} raised: {where}, {self._next(event, wait_ns)}"
        _log(logging.ERROR, kind, what, error)
        return Failure(position, "retry", outcome.text, wait_ns)

    def _next(self, event: Event, wait_ns: int) -> str:
        """Return in words what becomes of an event after a failed attempt."""
        attempts = self._retry.attempts
        if event.shadow or not self._pends:
            return self._end(event)
        which = f"attempt {event.attempt} of {attempts}"
        if event.attempt >= attempts:
            return f"{which}, {self._end(event)}"
        return f"{which}, again in {wait_ns / 1e9:.1f} s"

    def _end(self, event: Event) -> str:
        """Return in words what becomes of an event that is not tried again."""
        if event.shadow:
            return "a shadow's copy, which is only compared"
        return "now a dead letter" if self._pends else "now dropped"


def _batch_done(consumer: Consumer, work: Work, positions: list[int], events: Sequence[Event]) -> None:
    events[0]._of.handled = None
    if events[0]._fired is not msgspec.UNSET:
        consumer.note_fired(work, positions[0], events[0]._fired)
    # At once, so that no report can have a part of them: they are settled together.
    work.done += positions


def _log(level: int, kind: tuple[object, ...], message: str, error: BaseException | None = None) -> None:
    """Log with the error's traceback, if that can be written. An attempt is counted even if logging fails."""
    try:
        limited.log(kind, level, "%s", message, exc_info=error)
    except BaseException as fault:
        try:
            log.log(level, "%s (no traceback: writing it raised %s)", message, type(fault).__name__)
        except BaseException:
            pass


def _is_other(before: Context) -> bool:
    """Return whether the context has changed."""
    try:
        return copy_context() != before
    except Exception:  # values that cannot be compared, such as arrays
        return True


def _on_a_loop() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
