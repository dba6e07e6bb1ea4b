"""Pauses between tries of what may work later: short at first, so that little is lost; then longer, so that nobody
spins."""

from __future__ import annotations

import asyncio
import random

FIRST_S = 0.05
MAX_S = 1.0


class Backoff:
    """Of one thing that is tried."""

    def __init__(self) -> None:
        self._wait = FIRST_S

    def next(self) -> float:
        """How long the next pause is, in seconds. By chance, so that many do not try at the same moment."""
        wait, self._wait = self._wait, min(2 * self._wait, MAX_S)
        return wait * random.uniform(0.5, 1.0)

    async def pause(self) -> None:
        await asyncio.sleep(self.next())
