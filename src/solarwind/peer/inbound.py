"""Messages of a connection that were received and not handled yet: a long frame is handled in pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Protocol, TypeVar

import msgspec

from .. import wire
from .time_slices import PIECE_BYTES, TURN_S, TimeSlices

T = TypeVar("T")


class Handler(Protocol):
    """The owner of the messages."""

    def handle(self, message: wire.FromClient) -> None: ...

    def failed(self, error: Exception) -> None:
        """Note what `handle` raised, or the error for invalid messages; the rest is dropped then."""
        ...

    def regulate(self) -> None:
        """Note that it falls behind, or has caught up."""
        ...


class Inbound:
    """Passes messages to the handler one by one and in order, in turn with other work."""

    __slots__ = ("_behind", "_handler", "_messages", "_slices")

    def __init__(self, slices: TimeSlices, handler: Handler) -> None:
        self._slices = slices
        self._handler = handler
        self._messages: deque[wire.FromClient | msgspec.Raw] | None = None  # if there are any
        self._behind: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        """Return whether there are some. While there are, nothing more is to be read."""
        return self._behind is not None

    def clear(self) -> None:
        if self._messages is not None:
            self._messages.clear()

    def add(self, data: bytes) -> None:
        """Add a frame. Most are handled at once."""
        try:
            messages = wire.read_client(data) if len(data) <= PIECE_BYTES else wire.split(data)
        except Exception as error:
            self._handler.failed(error)
            return
        if self._messages is not None:
            self._messages += messages
            return
        if len(messages) == 1 and not self._slices.crowded:  # as most are
            self._handle_some(messages)
            return
        rest = iter(messages)
        if self._slices.crowded or self._handle_some(rest):
            self._messages = deque(rest)
            self._behind = asyncio.get_running_loop().create_task(self._catch_up(self._messages))
            self._handler.regulate()

    async def _catch_up(self, messages: deque[wire.FromClient | msgspec.Raw]) -> None:
        try:
            while messages:
                await self._slices.next()
                self._handle_some(_popped(messages))
            self._messages = self._behind = None
            self._handler.regulate()
        except Exception as error:
            self._handler.failed(error)

    def _handle_some(self, messages: Iterable[wire.FromClient | msgspec.Raw]) -> bool:
        """Handle as many as fit into one piece. Return whether there may be more."""
        handle = self._handler.handle
        since = now = perf_counter()
        try:
            for message in messages:
                handle(wire.read_one(message) if isinstance(message, msgspec.Raw) else message)
                now = perf_counter()
                if now - since > TURN_S:
                    return True
        except Exception as error:
            self.clear()
            self._handler.failed(error)
        finally:
            self._slices.spend(now - since)
        return False


def _popped(messages: deque[T]) -> Iterator[T]:
    while messages:
        yield messages.popleft()
