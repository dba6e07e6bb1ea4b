"""Running work on the event loop that it belongs to, from any loop or thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .calls import explained
from .errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")


class OnALoop(Protocol):
    """An object that belongs to an event loop from its start on."""

    _loop: asyncio.AbstractEventLoop | None


S = TypeVar("S", bound=OnALoop)


async def on_loop(loop: asyncio.AbstractEventLoop | None, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on that loop, which may be another thread's. Raise `Unavailable`, with nothing done, if that loop does
    not run any more."""
    if loop is None or loop is asyncio.get_running_loop():
        return await work
    if not loop.is_running():
        work.close()
        raise Unavailable(
            "expected the event loop on which this SolarWind was started, but it does not run any more: "
            "stop a SolarWind before its loop ends, and make a new one here"
        )
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


def on_own_loop(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method run on its object's loop, whichever loop awaits it."""
    begun = explained(method)

    @wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await on_loop(self._loop, begun(self, *args, **kwargs))

    return call


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread and process."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def needed_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that runs in this thread. Raise `Unavailable` where there is none, as in a coroutine of trio."""
    loop = running_loop()
    if loop is None:
        raise Unavailable(
            "expected an event loop of asyncio, got none here, as where trio runs: use asyncio.run(...), or for anyio "
            "the backend asyncio; `with wind:` needs none"
        )
    return loop


def from_thread(work: Awaitable[T], loop: asyncio.AbstractEventLoop, seconds: float | None) -> T:
    """Run `work` on that loop and wait for it in this thread, which must be another. Raise `Unavailable`,
    `TimeoutError`, and what the work raises."""
    if running_loop() is loop:
        forget(work)
        raise Unavailable("expected wait() in a thread, got it on the event loop, which it would block: use await")

    async def run() -> T:
        return await work

    running = asyncio.run_coroutine_threadsafe(run(), loop)
    try:
        return running.result(seconds)
    finally:
        running.cancel()  # work that is no longer awaited must not go on unseen


def forget(work: object) -> None:
    """Close a coroutine that will not be awaited, so that Python does not warn about it."""
    if asyncio.iscoroutine(work):
        work.close()


def check_no_loop() -> None:
    """Raise `Unavailable` unless this thread may run a new loop with signal handlers."""
    if running_loop() is not None:
        raise Unavailable("expected run() where no event loop runs, got it on one: use `async with wind:` there")
    if threading.current_thread() is not threading.main_thread():
        raise Unavailable(
            "expected run() in the main thread, which gets the signals, got it in another: use `with wind:` there"
        )
