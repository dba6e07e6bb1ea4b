"""Pauses between retries: short at first, then longer."""

from __future__ import annotations

import asyncio
import random

FIRST_S = 0.05
MAX_S = 1.0


class Backoff:
    """The pauses of one operation that is retried."""

    def __init__(self) -> None:
        self._wait = FIRST_S

    def next(self) -> float:
        """Return the next pause in seconds. It is random, so that many processes do not retry at the same moment."""
        wait, self._wait = self._wait, min(2 * self._wait, MAX_S)
        return wait * random.uniform(0.5, 1.0)

    async def pause(self) -> None:
        await asyncio.sleep(self.next())
