"""An engine's time: the wall clock's when it starts; from then on it never goes back and never jumps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Set
from typing import Protocol

# Give all that is under way: an object each, the same one as long as it is.
UnderWay = Callable[[], Set[object]]


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def start(self, earliest: int, under_way: UnderWay | None = None) -> None:
        """Begin at `earliest` (ns since 1970) or later. A test's clock lets what is `under_way` end before time goes
        on."""
        ...

    def now(self) -> int:
        """Return ns since 1970, which never go back."""
        ...

    def wall(self) -> int:
        """Return the wall clock's time in ns since 1970, with which events are stamped. An operator may set it."""
        ...

    def call_at(self, when: int, callback: Callable[[], None], *, ends: bool = False) -> Timer:
        """Call `callback` once, on the loop, when `now()` has reached `when`. It may end what is under way: with `ends`
        a test's clock waits again for what took too long."""
        ...


class SteadyClock:
    """A monotonic clock: setting the system's clock neither ends leases nor delays retries."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def start(self, earliest: int, under_way: UnderWay | None = None) -> None:
        self._offset = max(time.time_ns(), earliest) - time.monotonic_ns()

    def now(self) -> int:
        return self._offset + time.monotonic_ns()

    def wall(self) -> int:
        return time.time_ns()

    def call_at(self, when: int, callback: Callable[[], None], *, ends: bool = False) -> Timer:
        # A timer that fires a hair early would only be set again, so it is set a hair late.
        return asyncio.get_running_loop().call_later(max(0, when - self.now()) / 1e9 + 0.0005, callback)
