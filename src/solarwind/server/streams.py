"""Responses without end, as server-sent events: what feeds and viewers share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .call import Call

RETRY_MS = 1_000  # after which a browser reconnects
LAST_WORDS_S = 1.0  # for a reader that is behind when the server stops


class Stream(Protocol):
    """What one reader gets."""

    writing: asyncio.Task[None] | None
    left: asyncio.Event  # set when it is over

    async def write(self, send: Send) -> None:
        """Write until it is closed."""
        ...

    def end(self, reason: str | None = None) -> None:
        """Write the reason and end; without a reason the reader is to reconnect."""
        ...


S = TypeVar("S", bound=Stream)


class StreamResponse(Response):
    """The response of a stream, which `leave` is called with at its end."""

    media_type = "text/event-stream"

    def __init__(
        self, stream: S, call: Call, leave: Callable[[S], Awaitable[None]], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        self._stream = stream
        self._leave: Callable[[Any], Awaitable[None]] = leave
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        stream.writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(self._call.gone())
        try:
            await asyncio.wait((stream.writing, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            stream.writing.cancel()
            await self._leave(stream)
        if not stream.writing.cancelled() and stream.writing.done():
            stream.writing.result()

    async def _write(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._stream.write(send)
        except OSError:  # how some servers say that the client is gone
            pass


async def end_all(streams: Collection[Stream]) -> None:
    """End all of them; readers are told in time."""
    ending = {asyncio.ensure_future(each.left.wait()): each for each in streams}
    for stream in ending.values():
        stream.end()
    if ending:
        _, late = await asyncio.wait(ending, timeout=LAST_WORDS_S)
        for each in late:
            if (writing := ending[each].writing) is not None:
                writing.cancel()
        await asyncio.wait(ending, timeout=LAST_WORDS_S)
