"""Background tasks: each has an owner, which notices when one ends as it should not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ..errors import StoreError

log = logging.getLogger("solarwind")

T = TypeVar("T")
P = ParamSpec("P")

AGAIN_S = 0.1  # after which a task that goes on is cancelled again


class Tasks:
    """The tasks of one owner. `failed` gets the error for which the owner cannot go on: a task that was begun ended
    with an unexpected error, or was cancelled by another."""

    def __init__(self, failed: Callable[[StoreError], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    def begin(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        """Start a task that the owner depends on; `what` is a noun for the log."""
        return self._start(work, partial(self.ended, what))

    def spawn(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        """Start a task that the owner does not depend on: an error is logged."""
        return self._start(work, partial(self._spawned_ended, what))

    def repeat(self, step: Callable[[], Awaitable[None]], pause_s: float, what: str) -> asyncio.Task[Any]:
        """Run `step` repeatedly, with `pause_s` seconds between: an error is logged, and it goes on."""
        return self.begin(_repeat(step, pause_s, what), what)

    def keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task whose result another caller awaits."""
        return self._start(work, lambda task: task.cancelled() or task.exception())

    def guard(self, call: Callable[P, object], what: str) -> Callable[P, None]:
        """Return the callback of a timer, or of `call_soon`, for `call`: an unexpected error is as that of a task which
        the owner depends on, for what the call should have caused never comes."""

        def guarded(*args: P.args, **options: P.kwargs) -> None:
            try:
                call(*args, **options)
            except Exception as error:
                self.broken(what, error)

        return guarded

    def _start(self, work: Coroutine[Any, Any, Any], ended: Callable[[asyncio.Task[Any]], object]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)
        return task

    def ended(self, what: str, task: asyncio.Task[Any]) -> None:
        """Handle the end of a task that the owner depends on."""
        if task.cancelled():
            if not self._ending:
                self._failed(
                    StoreError(
                        f"expected nobody to cancel {what}, but a handler or a library cancelled all tasks of the "
                        "event loop: cancel your own tasks alone, and start again"
                    )
                )
        elif error := task.exception():
            self.broken(what, error)

    def broken(self, what: str, error: BaseException) -> None:
        """End the owner, because of an unexpected error in what it depends on."""
        log.error("%s ended in an unexpected way", what, exc_info=error)
        failure = StoreError(f"{what} cannot go on after an unexpected {type(error).__name__}: {error}")
        failure.__cause__ = error
        self._failed(failure)

    def _spawned_ended(self, what: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("%s ended in an unexpected way", what, exc_info=error)

    def cancel(self) -> None:
        """Cancel all of them; see `end` to wait for their end."""
        self._ending = True
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Cancel all of them, and wait until they have ended."""
        self._ending = True
        await end_tasks(self._tasks)

    async def wait(self, wait_s: float | None = None) -> None:
        """Wait until they have ended by themselves, for `wait_s` seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_s)


async def _repeat(step: Callable[[], Awaitable[None]], pause_s: float, what: str) -> None:
    while True:
        try:
            await step()
        except Exception:
            log.exception("%s failed in an unexpected way; it is tried again", what)
        await asyncio.sleep(pause_s)


async def complete(task: asyncio.Future[T], *, cancel: bool = False) -> T:
    """Wait for a task to end, however often the caller is cancelled meanwhile: what it does must not be left half done.
    Then raise the cancellation; else return its result. With `cancel` it is cancelled with the caller, but only once,
    so that what it does to end is not cancelled too."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancel and cancelled is None:
                task.cancel()
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # retrieved: the caller does not want to know it any more
    raise cancelled


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they are done: some libraries ignore a cancellation during a write."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
