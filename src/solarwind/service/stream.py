"""`listen`: an instance whose events are taken one by one, by asking for the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType

from ..errors import Unavailable
from ..event import Event
from .inbox import Inbox, Work


class Stream(AsyncIterator[Event]):
    """The events of a purpose, as an async iterator: asking for the next settles the last.

    It joins when it is first asked, or entered with `async with`. Leave it with `aclose()` or at the end of the
    `async with`: what was taken but not settled is handed out again. `settle()` settles without asking for the next.
    """

    def __init__(self, join: Callable[[Stream], Awaitable[Inbox]], leave: Callable[[Stream], Awaitable[None]]) -> None:
        self._join = join
        self._leave = leave
        self._inbox: Inbox | None = None
        self._asked: asyncio.Future[None] | None = None
        self._work: Work | None = None
        self._event: Event | None = None
        self._position = 0
        self._over = False

    async def open(self) -> Stream:
        """Join now rather than at the first event."""
        if self._inbox is None:
            self._inbox = await self._join(self)
        return self

    def wake(self) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        await self.open()
        assert self._inbox is not None
        self.settle()
        while True:
            self._inbox.look()
            if self._over:
                raise StopAsyncIteration
            if self._inbox.closed is not None:
                raise Unavailable(f"expected a purpose to listen for: {self._inbox.closed}")
            if self._work is None:
                self._work = self._inbox.next_work()
            if self._work is not None:
                if self._work.todo:
                    hand_out = self._work.hand_out(self._inbox.join, None)
                    self._position = self._work.todo.popleft()
                    self._event = Event(hand_out, self._position - hand_out.start)
                    return self._event
                work, self._work = self._work, None
                self._inbox.leave_work(work)
                continue
            self._asked = asyncio.get_running_loop().create_future()
            await self._asked

    def settle(self) -> None:
        """The last event given is done with."""
        if self._event is not None and self._work is not None:
            self._work.done.append(self._position)
            self._event = None
            if not self._work.todo and self._inbox is not None:
                work, self._work = self._work, None
                self._inbox.leave_work(work)

    async def aclose(self) -> None:
        """Leave: the last event, unless it is settled, and those not yet given are handed out again."""
        if not self._over:
            self._over = True
            self.wake()
            if self._inbox is not None:
                await self._leave(self)

    async def __aenter__(self) -> Stream:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class StreamInbox(Inbox):
    """The inbox of a stream."""

    stream: Stream

    def wake(self) -> None:
        self.stream.wake()
