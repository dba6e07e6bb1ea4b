"""The life of a service: from its start to a signal and the draining, or on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .wind import SolarWind

log = logging.getLogger("solarwind")


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run it on a loop of its own: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


async def finish(tasks: Collection[asyncio.Future[Any]], seconds: float) -> None:
    """Let them come to their end for so long, then give them up. What they raise is theirs to tell."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class LoopThread:
    """A SolarWind that lives on a loop and a thread of its own."""

    def __init__(self, wind: SolarWind) -> None:
        self._wind = wind
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: run_loop(self._live()), name="solarwind", daemon=True)

    def start(self) -> None:
        """Raises what its start raises."""
        self._thread.start()
        self._loop = self._started.result()

    def stop(self) -> BaseException | None:
        """Gives what its stop raised."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        return self._failure

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


async def serve(wind: SolarWind, until_settled: bool, started: Callable[[], None] | None = None) -> None:
    """Start it, and stop it when asked to by a signal, when all is settled if so wanted, or when its store fails.

    `started` is called once it has started.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    again = asyncio.Event()

    def signalled() -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await wind.start()
    if started is not None:
        started()
    reasons: list[asyncio.Future[Any]] = [asyncio.ensure_future(asked.wait()), wind.failed]
    if until_settled:
        reasons.append(asyncio.ensure_future(wind.settled()))
    try:
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.set()
        stopping = asyncio.ensure_future(wind.stop())
        hurry = asyncio.ensure_future(again.wait())
        await asyncio.wait([stopping, hurry], return_when=asyncio.FIRST_COMPLETED)
        for reason in (*reasons, hurry):
            if reason is not wind.failed:
                reason.cancel()
    if not stopping.done():
        stopping.cancel()
        log.warning("stopped without waiting for the handlers: their events are handed out again")
        return
    if wind.failed.done():
        wind.failed.result()
    await stopping
