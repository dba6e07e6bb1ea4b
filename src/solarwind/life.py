"""The life of a service: from its start to a signal, and the draining in between."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
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


async def serve(wind: SolarWind, until_settled: bool) -> None:
    """Start it, and stop it when asked to by a signal, when all is settled if so wanted, or when its store fails."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    again = asyncio.Event()

    def signalled() -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await wind.start()
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
