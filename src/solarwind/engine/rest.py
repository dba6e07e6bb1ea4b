"""Pauses in long work on the loop, so that events are not held up.

`slices` of a server (`peer/time_slices.py`) share the time of a turn among clients; this is for work of an engine.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from time import thread_time

GENTLE_S = 0.001  # of rest, for work that nobody waits for
_SLICE_S = 0.000_1  # of work without a rest: of this thread, however busy the machine is
_TOGETHER = 2  # calls between two looks at the clock


class Pace:
    """How long a rest is, where 0 is a turn of the loop; and how long was worked between rests, in seconds."""

    def __init__(self, rest_s: float = 0.0) -> None:
        self.rest_s = rest_s
        self.worked = 0.0


pace: ContextVar[Pace | None] = ContextVar("pace", default=None)  # of what is done in this context


class Rest:
    """The pauses of one piece of work."""

    def __init__(self) -> None:
        self._since = thread_time()
        self._calls = 0
        self._pace = pace.get() or Pace()

    async def now_and_then(self) -> None:
        """Rest if it worked for long enough. To be called for each item."""
        self._calls += 1
        if not self._calls % _TOGETHER and (worked := thread_time() - self._since) > _SLICE_S:
            self._pace.worked += worked
            await asyncio.sleep(self._pace.rest_s)
            self._since = thread_time()
