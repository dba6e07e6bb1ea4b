"""Messages of a connection that were received and not handled yet: a long frame is handled in pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

import msgspec

from .. import wire
from ..errors import SolarWindError
from .time_slices import PIECE_BYTES, TURN_S, TimeSlices


class Inbound:
    """Passes messages to `handle` one by one and in order, in turn with other work."""

    __slots__ = ("_behind", "_failed", "_handle", "_messages", "_regulate", "_slices")

    def __init__(
        self,
        slices: TimeSlices,
        handle: Callable[[wire.FromClient], None],
        failed: Callable[[Exception], None],
        regulate: Callable[[], None],
    ) -> None:
        """`failed` is called with what `handle` raised, or with the error for invalid messages; the rest is dropped
        then. `regulate` is called when it falls behind, and when it has caught up."""
        self._slices = slices
        self._handle = handle
        self._failed = failed
        self._regulate = regulate
        self._messages: deque[wire.FromClient | msgspec.Raw] = deque()
        self._behind: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        """Return whether there are some. While there are, nothing more is to be read."""
        return self._behind is not None

    def clear(self) -> None:
        self._messages.clear()

    def add(self, data: bytes) -> None:
        """Add a frame. Most are handled at once."""
        try:
            self._messages += wire.read_client(data) if len(data) <= PIECE_BYTES else wire.split(data)
        except SolarWindError as error:
            self._failed(error)
            return
        if self._behind is None:
            if not self._slices.crowded:
                self._handle_some()
            if self._messages:
                self._behind = asyncio.get_running_loop().create_task(self._catch_up())
                self._regulate()

    async def _catch_up(self) -> None:
        try:
            while self._messages:
                await self._slices.next()
                self._handle_some()
            self._behind = None
            self._regulate()
        except Exception as error:
            self._failed(error)

    def _handle_some(self) -> None:
        """Handle as many as fit into one piece."""
        messages, stop = self._messages, perf_counter() + TURN_S
        try:
            with self._slices.piece():
                while messages:
                    message = messages.popleft()
                    self._handle(wire.read_one(message) if isinstance(message, msgspec.Raw) else message)
                    if perf_counter() > stop:
                        return
        except Exception as error:
            messages.clear()
            self._failed(error)
