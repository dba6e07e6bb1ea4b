"""`listen`: an instance whose events are read one by one."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextvars import ContextVar
from time import time_ns
from types import TracebackType
from typing import Any

from ..core.effects import Join
from ..engine.base import Engine
from ..errors import Unavailable
from ..event import Event
from ..limits import Limits
from .consumer import Consumer, Work

# The event that was given last where this runs.
_in_hand: ContextVar[Event | None] = ContextVar("solarwind_in_hand", default=None)


class Reader(Consumer):
    """The instance of an open stream. It has no reference to the stream, so that a stream may be dropped."""

    def __init__(self, engine: Engine, join: Join, limits: Limits) -> None:
        super().__init__(engine, join, limits)
        self.over = False  # it has left
        self._asked: asyncio.Future[None] | None = None
        self._work: Work | None = None
        self._event: Event | None = None
        self._position = 0

    def wake(self) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    def end(self) -> None:
        """Return no further events."""
        self.over = True
        self.wake()

    async def next(self) -> Event:
        """Settle the last event and return the next. Raise `StopAsyncIteration` once it has left, and `Unavailable`
        while another caller waits for the next."""
        if self._asked is not None and not self._asked.done():
            raise Unavailable(
                "expected one reader of a stream at a time, got another while one waits for the next event: "
                "listen once for each, for the same purpose"
            )
        self.settle()
        began = 0 if self.observer is None else time_ns()
        while True:
            self.look()
            if self.over:
                raise StopAsyncIteration
            if self.closed is not None:
                raise Unavailable(f"expected a purpose to listen for: {self.closed}")
            if self._work is None:
                self._work = self.next_work()
            if self._work is not None:
                if self._work.todo:
                    hand_out = self._work.hand_out(self.join, None)
                    self._position = self._work.todo.popleft()
                    self._event = Event(hand_out, self._position - hand_out.start)
                    _in_hand.set(self._event)
                    if self.observer is not None:
                        self.observer.received(self._event, began)
                    return self._event
                work, self._work = self._work, None
                self.leave_work(work)
                continue
            self._asked = asyncio.get_running_loop().create_future()
            await self._asked

    @property
    def is_waited_for(self) -> bool:
        """Whether the caller, or the task that started it, was given an event that has yet to be settled."""
        return self._event is not None and self._event is _in_hand.get()

    def settle(self) -> None:
        if self._event is not None and self._work is not None:
            self._work.done.append(self._position)
            self._event = None
            if not self._work.todo:
                work, self._work = self._work, None
                self.leave_work(work)


def check_free(handled: Event | None, readers: Collection[Reader]) -> None:
    """Raise `Unavailable` where waiting for everything would wait for itself: for the event `handled`, whose handler is
    the caller, or for one of a stream."""
    if handled is not None:
        raise Unavailable(
            f"expected settled() outside of handlers, got it in that of {handled.purpose!r} on {handled.topic!r}, "
            "which would wait for itself: fire an event, and go on where that is handled"
        )
    for reader in readers:
        if reader.is_waited_for:
            raise Unavailable(
                f"expected settled() with no event in hand, got it where one of {reader.join.topic!r} for "
                f"{reader.join.purpose!r} is yet to be settled, for which it would wait: call the stream's "
                "settle() first"
            )


class Stream(AsyncIterator[Event]):
    """The events of a purpose, as an async iterator: asking for the next settles the last.

    It joins when it is first asked, or entered with `async with`. It leaves at the end of the `async with`, with
    `aclose()`, when the `async for` that joined it is left, or when it is garbage: events that were received but not
    settled are handed out again. `settle()` settles without asking for the next."""

    def __init__(
        self,
        join: Callable[[], Awaitable[Reader]],
        leave: Callable[[Reader], Awaitable[None]],
        leave_soon: Callable[[Reader], None],
    ) -> None:
        """`leave_soon` may be called on any thread, at any moment."""
        self._join = join
        self._leave = leave
        self._leave_soon = leave_soon
        self._reader: Reader | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dropped: weakref.finalize[..., Any] | None = None
        self._over = False

    async def open(self) -> Stream:
        """Join now rather than at the first event."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise Unavailable(
                "expected a stream on the event loop that it was opened on, got it on another: read it there"
            )
        if self._reader is None and not self._over:
            self._reader = await self._join()
            self._loop = loop
            self._dropped = weakref.finalize(self, self._leave_soon, self._reader)
            self._dropped.atexit = False
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        return self if self._reader is not None or self._over else _Loop(self)

    async def __anext__(self) -> Event:
        await self.open()
        if self._reader is None:
            raise StopAsyncIteration
        return await self._reader.next()

    def settle(self) -> None:
        """Settle the last event."""
        if self._reader is not None:
            self._reader.settle()

    async def aclose(self) -> None:
        """Leave: the last event, unless it is settled, and those not read yet are handed out again."""
        self._over = True
        reader = self._forget()
        if reader is not None:
            await self._leave(reader)

    def _forget(self) -> Reader | None:
        """Close the stream, and return its reader."""
        reader, self._reader, self._loop = self._reader, None, None
        if self._dropped is not None:
            self._dropped.detach()
        return reader

    def _drop(self) -> None:
        """Leave, because the `async for` that opened it was left. Another `async for` may open it again."""
        reader = self._forget()
        if reader is not None:
            self._leave_soon(reader)

    async def __aenter__(self) -> Stream:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Loop(AsyncIterator[Event]):
    """An `async for` over a stream that was not opened before. Python drops it when the loop is left."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._begun = False

    async def __anext__(self) -> Event:
        if not self._begun:
            self._begun = True
            await self._stream.open()
            weakref.finalize(self, self._stream._drop).atexit = False
        return await self._stream.__anext__()
