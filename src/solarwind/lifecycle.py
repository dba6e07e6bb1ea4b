"""Running a service: start, signals and draining, on the main thread or on a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .calls import explains_calls
from .errors import Unavailable
from .loops import check_no_loop, forget, from_thread
from .options import check_flag, check_work
from .shutdown import Lifespan, Shutdown
from .threads import Pool

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from .wind import SolarWind

T = TypeVar("T")

log = logging.getLogger("solarwind")

HURRY_S = 1.0  # how long to wait for what was told to end at once
STILL_S = 10.0  # between two looks at what is left to settle
LATE_S = 3.0  # after the grace, or after a second signal, until the process is ended by force


# Tasks that ignored their cancellation. At exit Python would cancel them again, and might wait for them for ever.
_stuck: list[asyncio.Task[Any]] = []


def leave_stuck(code: int = 0) -> None:
    """End the process here if handlers have left tasks that do not end."""
    if _stuck:
        _flush()
        os._exit(code)


atexit.register(leave_stuck)


# The module that a command imports for its handlers, which may start nothing then.
_imported: str | None = None


@contextmanager
def only_defines(module: str) -> Iterator[None]:
    """Refuse each start of a SolarWind while a command imports a module: each worker and each start anew would do again
    what follows it."""
    global _imported
    before, _imported = _imported, module
    try:
        yield
    finally:
        _imported = before


def check_may_start() -> None:
    """Raise `Unavailable` while a command imports a module."""
    if _imported is not None:
        raise Unavailable(
            f"expected nothing to start while {_imported!r} is imported for its handlers, got a start of a "
            'SolarWind: put it below `if __name__ == "__main__":`'
        )


# A loop of its own --------------------------------------------------------------------------------------------


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on a new event loop: uvloop's where it is installed.

    Tasks and threads that handlers left behind have a second to end, and are then abandoned. A task or callback that
    raises `SystemExit` ends only itself.
    """
    try:
        loop = _new_loop()
    except BaseException:
        work.close()
        raise
    pool = Pool("solarwind pool")
    loop.set_default_executor(pool)
    asyncio.set_event_loop(loop)
    try:
        _complete(loop, work)
    finally:
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                _complete(loop, asyncio.wait(tasks, timeout=HURRY_S))
                _stuck.extend(task for task in tasks if not task.done())
            _complete(loop, asyncio.wait_for(loop.shutdown_asyncgens(), HURRY_S))
        except TimeoutError:
            pass
        finally:
            pool.close(HURRY_S)
            asyncio.set_event_loop(None)
            loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _complete(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
    task = loop.create_task(work)
    while True:
        try:
            loop.run_until_complete(task)
            return
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            log.error("a task or callback raised %s: nothing else ends with it", type(error).__name__, exc_info=error)


async def finish(tasks: Collection[asyncio.Future[Any]], seconds: float) -> None:
    """Wait `seconds` for these tasks, then cancel those that remain. What they raise is handled elsewhere."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class LoopThread:
    """Runs a SolarWind on an event loop in a thread of its own."""

    def __init__(self, wind: SolarWind) -> None:
        self._wind = wind
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="solarwind", daemon=True)

    def start(self) -> None:
        """Start it. Raise what `SolarWind.start` raises."""
        self._thread.start()
        self._loop = self._started.result()

    def stop(self) -> BaseException | None:
        """Stop it. Return what `SolarWind.stop` raised, or None."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        return self._failure

    def _run(self) -> None:
        try:
            run_loop(self._live())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)  # there is no loop yet on which to report it

    async def _live(self) -> None:
        self._over = asyncio.Event()
        try:
            await self._wind.start()
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(asyncio.get_running_loop())
        await self._over.wait()
        try:
            await self._wind.stop()
        except BaseException as error:
            self._failure = error


# A service ---------------------------------------------------------------------------------------------------


class Signals:
    """Handles SIGTERM and SIGINT while it is entered. The first asks the service to end, the second to end at once.

    A process that has not ended in time after that is ended here: a handler may block the loop, so that nothing on it
    notices the signal.
    """

    def __init__(self, grace: Callable[[], float], final: bool) -> None:
        """`final`: the process has nothing to do afterwards, so the handlers stay until its end."""
        self.asked = asyncio.Event()
        self.again = asyncio.Event()
        self._grace = grace
        self._final = final
        self._loop = asyncio.get_running_loop()
        self._former: dict[int, Any] = {}
        self._count = 0
        self._end_at = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *error: object) -> None:
        if self._final:
            return
        self._over.set()
        for number, former in self._former.items():
            signal.signal(number, former)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        first = self._count == 1
        self._end_at = monotonic() + (self._grace() + HURRY_S if first else 0) + LATE_S
        if first:
            threading.Thread(target=self._watch, name="solarwind end", daemon=True).start()
        try:
            self._loop.call_soon_threadsafe((self.asked if first else self.again).set)
        except RuntimeError:  # it is closed
            pass

    def _watch(self) -> None:
        while (left := self._end_at - monotonic()) > 0:
            if self._over.wait(min(left, 0.1)):
                return
        leave("it did not stop in time")


def leave(why: str) -> None:
    """End this process now. The events it has in hand are handed out again."""
    log.error("leaving at once, %s: events that are not settled are handed out again", why)
    _flush()
    os._exit(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass


def log_draining(wind: SolarWind) -> None:
    """Log how many running handlers it waits for, if any."""
    busy = wind.busy
    if busy and wind.grace > 0:
        log.warning(
            "draining: %d handler%s, up to %g s; a second signal does not wait", busy, "s" * (busy > 1), wind.grace
        )


async def serve(
    wind: SolarWind, until_settled: bool, started: Callable[[], None] | None = None, *, final: bool = False
) -> None:
    """Start it, and stop it on a signal, when its store fails or, with `until_settled`, when everything is settled.

    `started` is called once all have joined, before any handler runs. `final`: the process ends with it.
    """
    with Signals(lambda: wind.grace, final) as signals:
        asked = asyncio.ensure_future(signals.asked.wait())
        hurry = asyncio.ensure_future(signals.again.wait())
        try:
            if started is not None:
                wind._on_ready = started  # type: ignore[method-assign]
            if not await _starts(wind, asked):
                return
            failure = await _until_over(wind, asked, until_settled)
            if asked.done():
                log_draining(wind)
            stopping = asyncio.ensure_future(wind.stop())
            await asyncio.wait([stopping, hurry], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                log.warning("stopped without waiting for the handlers: their events are handed out again")
                await wind.stop(grace=0)
            if wind.failed.done():
                wind.failed.result()
            await stopping
            if failure is not None:
                raise failure
        finally:
            asked.cancel()
            hurry.cancel()


async def _starts(wind: SolarWind, asked: asyncio.Future[Any]) -> bool:
    """Start it. Return False if it was asked to end before it had started."""
    starting = asyncio.ensure_future(wind.start())
    await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
        return True
    starting.cancel()
    await asyncio.wait([starting])
    return False


async def _say_what_stands_still(wind: SolarWind) -> None:
    """Log once what is still waited for, where it does not decrease."""
    before = ""
    while True:
        await asyncio.sleep(STILL_S)
        left = await wind._left()
        if left == before:
            log.warning("not settled yet, and nothing changes: %s", left)
            return
        before = left


async def _until_over(wind: SolarWind, asked: asyncio.Future[Any], until_settled: bool) -> BaseException | None:
    """Wait for a reason to end. Return the error for which it is not known whether everything is settled, if any."""
    reasons: list[asyncio.Future[Any]] = [asked, wind.failed]
    settled = asyncio.ensure_future(wind.settled()) if until_settled else None
    saying = asyncio.ensure_future(_say_what_stands_still(wind)) if until_settled else None
    if settled is not None:
        reasons.append(settled)
    await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
    if saying is not None and not saying.cancel() and not saying.cancelled():
        saying.exception()  # it only says something
    return settled.exception() if settled is not None and not settled.cancel() and not settled.cancelled() else None


# On the object ------------------------------------------------------------------------------------------------


@explains_calls
class Life:
    """The part of a `SolarWind` that runs it: in an app, on a thread of its own, or as a service."""

    _bound: asyncio.TimerHandle | None = None  # the time limit for fires while the app stops
    _thread: LoopThread | None = None

    def _on_ready(self) -> None:
        """Called once all have joined, before any handler runs."""

    @property
    def _wind(self) -> SolarWind:
        return cast("SolarWind", self)

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """Run it from before the first request of an ASGI app to after the last: `FastAPI(lifespan=wind.lifespan)`.

        An ASGI server waits for all requests before it tells the app to stop. So from the signal on, what requests fire
        has `grace` seconds to be accepted; after that, and for further fires, they get `Unavailable`. Streams of
        `listen` end at once.
        """
        return Lifespan(self._run_beside, "wind.lifespan")

    @asynccontextmanager
    async def _run_beside(self) -> AsyncIterator[None]:
        async with self._wind:
            shutdown = Shutdown(self._end_requests)
            shutdown.watch()
            try:
                yield
            finally:
                shutdown.end()
                if self._bound is not None:
                    self._bound.cancel()
                    self._bound = None

    def _end_requests(self) -> None:
        """End what requests may wait for without end."""
        if self._bound is None:
            wind, loop = self._wind, asyncio.get_running_loop()
            self._bound = loop.call_later(wind.grace, wind._give_up_fired, wind.grace)
            for reader in list(wind._readers):
                reader.end()

    def __enter__(self) -> SolarWind:
        """Run it on a thread of its own, without asyncio. Use `wait` for its coroutines."""
        thread = LoopThread(self._wind)
        thread.start()
        self._thread = thread
        return self._wind

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wind._forked:
            return
        assert self._thread is not None
        failure = self._thread.stop()
        if failure is not None and error is None:
            raise failure

    def wait(self, work: Awaitable[T], timeout: float | timedelta | None = None) -> T:
        """Run one of the coroutines from a thread, as in `wind.wait(wind.settled(10))`, and return its result.

        Raise `TimeoutError` after `timeout` seconds, and what the coroutine raises.
        """
        seconds, wind = check_work(work, timeout), self._wind
        try:
            wind._check_running()
        except Unavailable:
            forget(work)
            raise
        assert wind._loop is not None
        return from_thread(work, wind._loop, seconds)

    def run(self, *, until_settled: bool = False) -> None:
        """Run as a service until SIGTERM or SIGINT, then drain; or `until_settled`. A second signal ends the draining.

        Call it in the main thread, where no event loop runs; elsewhere use `async with` or `with`. Raise `Unavailable`,
        and `StoreError` if the store fails meanwhile.
        """
        check_flag("until_settled", until_settled)
        check_no_loop()
        run_loop(serve(self._wind, until_settled))
