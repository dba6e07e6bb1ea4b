"""How long one turn of the loop takes, so that it can be shown that nobody holds up the others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import thread_time


class Turning:
    """`longest` is the most processor time that the turns of the loop took so far, in seconds.

    Not the time on the wall: a busy machine makes everything late, but nothing more work.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._since = thread_time()
        self._over = False
        self._turn()

    def _turn(self) -> None:
        now = thread_time()
        self.longest = max(self.longest, now - self._since)
        self._since = now
        if not self._over:
            asyncio.get_running_loop().call_soon(self._turn)

    def end(self) -> None:
        self._over = True
        self.longest = max(self.longest, thread_time() - self._since)


@contextmanager
def turning() -> Iterator[Turning]:
    """Of a server on this loop, while nothing else does much on it."""
    gc.collect()
    gc.freeze()  # what other tests left is not looked through meanwhile
    found = Turning()
    try:
        yield found
    finally:
        found.end()
        gc.unfreeze()
