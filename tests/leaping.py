"""Time that passes when a test says so, for servers on the loop of the test.

A test states limits that are long, does what has to come before their end, and leaps. With short limits and waiting it
would fail where the machine is busy with something else for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from solarwind.testing.contract import a_while


def leap(seconds: float) -> None:
    """Set the time of the running loop forward: what is due by then is due now.

    It goes on for all on this loop, `until` and `on_loop` too: leap less than those wait.
    """
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]


async def leap_until(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Leap so many seconds again and again, and let happen what needs no time, until it holds. Return how many seconds
    that were; a process that stood still meanwhile saves some."""
    leapt = 0.0
    while not condition():
        leap(seconds)
        leapt += seconds
        await a_while()
    return leapt
