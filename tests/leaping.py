"""Time that passes when a test says so, for servers on the loop of the test."""

from __future__ import annotations

import asyncio

# Limits in tests that leap: nothing on a busy machine takes so long, and nothing waits for them.
LONG_S = 10.0


def leap(seconds: float) -> None:
    """Set the time of the running loop forward: what is due by then is due now.

    A test states limits of `LONG_S` or more, does what has to come before their end, and leaps. With short limits and
    waiting instead, it would fail where the machine is busy with something else. Time goes on for all on this loop,
    `until` and `on_loop` too: leap less than those wait.
    """
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
