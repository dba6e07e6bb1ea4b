"""How much a process has in memory, and by how much something makes it grow.

One reading says little: an allocator takes tens of MB in advance, which only ever adds to what something costs. So the
least of several times counts, and what the earlier ones made is still there while the later ones are measured.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from pathlib import Path


def resident(pid: int, what: str = "VmRSS") -> int:
    """Return its `VmRSS`, or `VmHWM`, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no {what} of process {pid}")


async def least_growth(pid: int, act: Callable[[], Awaitable[object]], enough: int) -> float:
    """Let `act` happen up to five times, until the process grows by less than `enough` bytes. Return the least."""
    found = math.inf
    for _ in range(5):
        before = resident(pid)
        await act()
        found = min(found, resident(pid) - before)
        if found < enough:
            break

    return found
