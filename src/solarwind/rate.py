"""How many events a purpose is handed out in a time: what callers state of it, such as `100/s`, and what it means."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import BadArgument
from .names import shown

MAX_RATE = 1_000_000  # events in a unit
BURST_NS = 100_000_000  # so much of a rate may come together; at least one event
_RATE = re.compile(r"([1-9]\d{0,6})/([smhd])", re.ASCII)
_UNIT_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9}


class Rate(NamedTuple):
    """A rate as times, in ns: from one event to the next on average, and how late one may be so that the next are not
    later for it, which is what comes together after a while with nothing to do."""

    interval: int
    slack: int


def check_rate(rate: Any) -> str | None:
    """Return a rate, or None for none. Raise `BadArgument`."""
    if rate is not None and (not isinstance(rate, str) or _read(rate) is None):
        raise BadArgument(
            f"expected a rate such as '100/s', a number from 1 to {MAX_RATE:,} for each s, m, h or d, got {shown(rate)}"
        )
    return rate


@lru_cache(10_000)
def read_rate(rate: str) -> Rate:
    """Return what a rate means. It was checked."""
    found = _read(rate)
    assert found is not None
    return found


def _read(rate: str) -> Rate | None:
    found = _RATE.fullmatch(rate)
    if found is None or int(found[1]) > MAX_RATE:
        return None
    interval = -(-_UNIT_NS[found[2]] // int(found[1]))  # up to a whole one, so that it is never more
    return Rate(interval, max(0, BURST_NS - interval))
