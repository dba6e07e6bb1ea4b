"""How long one turn of the loop takes, so that it can be shown that nobody holds up the others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import thread_time

from solarwind.testing.contract import on_loop

MAX_TURN_S = 0.1  # of processor time, on a machine that does `_work` in `USUAL_S`
USUAL_S = 0.01
TRIES = 5


class TooLong(AssertionError):
    """A turn of the loop took too long."""


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
def short_turns(max_s: float = MAX_TURN_S) -> Iterator[None]:
    """Check that no turn of this loop takes longer than `max_s`, or as much longer as the machine is slower. Raise
    `TooLong`."""
    gc.collect()
    gc.freeze()  # what other tests left is not looked through meanwhile
    found = Turning()
    try:
        yield
    finally:
        found.end()
        gc.unfreeze()
    max_s *= max(1.0, _work() / USUAL_S)
    if found.longest > max_s:
        raise TooLong(f"a turn took {found.longest:.3f} s of processor time, more than {max_s:.3f}")


def _work() -> float:
    """Return how much processor time it takes to do something that is always the same, in seconds."""
    since = thread_time()
    sum(len(str(number)) for number in range(50_000))
    return thread_time() - since


def on_short_turns(test: Callable[..., object]) -> Callable[..., None]:
    """Like `on_loop`, but that a test whose turns are too long is tried again: what a hypervisor takes for others
    counts as processor time, once and anywhere, while work that is not cut into pieces is too long each time."""

    once = on_loop(test)  # type: ignore[arg-type]

    @wraps(test)
    def run(*args: object, **named: object) -> None:
        for left in reversed(range(TRIES)):
            try:
                once(*args, **named)
                return
            except TooLong:
                if not left:
                    raise

    return run
