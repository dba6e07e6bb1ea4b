"""From whatever event loop somebody awaits something to the one that it belongs to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")


class OnALoop(Protocol):
    """Something that was started on an event loop, and is not before it was."""

    _loop: asyncio.AbstractEventLoop | None


S = TypeVar("S", bound=OnALoop)


async def on_loop(loop: asyncio.AbstractEventLoop | None, work: Coroutine[Any, Any, T]) -> T:
    """Do it on that loop, which may be another thread's. Raises `Unavailable`, before anything was done, if that loop
    does not run any more."""
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
    """A method that may be awaited on any loop, and runs on its object's."""

    @wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await on_loop(self._loop, method(self, *args, **kwargs))

    return call


def from_thread(work: Awaitable[T], loop: asyncio.AbstractEventLoop, seconds: float | None) -> T:
    """Run it on that loop and wait for it in this thread, which must be another. Raises `Unavailable`, `TimeoutError`,
    and what it raises itself."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        forget(work)
        raise Unavailable("expected wait() in a thread, got it on the event loop, which it would block: use await")

    async def run() -> T:
        return await work

    running = asyncio.run_coroutine_threadsafe(run(), loop)
    try:
        return running.result(seconds)
    finally:
        running.cancel()  # what was given up is not done behind one's back


def forget(work: object) -> None:
    """A coroutine that is never awaited says so, unless it is closed."""
    if asyncio.iscoroutine(work):
        work.close()


def check_no_loop() -> None:
    """Whether a loop of one's own may run here, with signals. Raises `Unavailable`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise Unavailable("expected run() where no event loop runs, got it on one: use `async with wind:` there")
    if threading.current_thread() is not threading.main_thread():
        raise Unavailable(
            "expected run() in the main thread, which gets the signals, got it in another: use `with wind:` there"
        )
