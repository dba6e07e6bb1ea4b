"""Long work on the loop, done in pieces, of which one turn of the loop has a limited time for all clients together.

A client that sends or asks for much must not hold up the others. Such work is cut into pieces of a few milliseconds at
most, and all of it shares one queue, so that a hundred long answers delay the others no more than one does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

PIECE_BYTES = 32 << 10  # that are read or written as one piece
TURN_S = 0.005  # of pieces in one turn of the loop; after that each further turn has one
_NOTICED_S = 0.000_5  # what takes less, in all turns since the last look, is not worth the end of a turn of its own


class TimeSlices:
    """The queue. Used on one loop."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()  # with the duration of its piece, in s
        self._turning = False
        self._spent = 0.0  # seconds in this turn of the loop, and less than is noticed in those before
        self._resetting = False

    async def next(self) -> None:
        """Return when there is time for one more piece: at once, where little was done in this turn of the loop."""
        if self.crowded:
            await self.line()

    async def line(self) -> None:
        """Wait in the queue even if there is time: for pieces whose time is not measured."""
        await self._wait(TURN_S)

    async def brief(self, seconds: float) -> None:
        """Return when there is time for a piece of about so many seconds, which are counted."""
        if self.crowded:
            await self._wait(seconds)
        else:
            self.spend(seconds)

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append((waiter, seconds))
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
        await waiter

    def _turn(self) -> None:
        left = TURN_S
        while self._waiting and left > 0:
            waiter, seconds = self._waiting.popleft()
            if not waiter.done():  # else it was cancelled
                waiter.set_result(None)
                left -= seconds
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._turning = False

    @property
    def crowded(self) -> bool:
        """Whether a further piece has to wait for `next`."""
        return bool(self._waiting) or self._spent >= TURN_S

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Measure the time of one piece."""
        since = perf_counter()
        try:
            yield
        finally:
            self.spend(perf_counter() - since)

    def spend(self, seconds: float) -> None:
        """Count the time of a piece."""
        self._spent += seconds
        if self._spent > _NOTICED_S and not self._resetting:
            self._resetting = True
            asyncio.get_running_loop().call_soon(self._reset)

    def _reset(self) -> None:
        self._spent, self._resetting = 0.0, False
