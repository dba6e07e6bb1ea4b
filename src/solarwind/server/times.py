"""Times in HTTP parameters: `now`, `beginning`, a time, or so long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from time import time_ns

from ..engine.base import Since
from ..errors import BadArgument
from ..timing import read_duration, time_of, timed
from .cloudevents import read_time

_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_DURATION = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_since(text: str, name: str = "since") -> Since:
    """Return the place in history that the text names. Raise `BadArgument` with the parameter's name."""
    if text in ("now", "beginning"):
        return text
    if found := _DURATION.fullmatch(text):
        return min(timedelta(days=36_500), _ago(int(found[1]), _UNIT[found[2]]))
    try:
        return time_of(read_time(text))
    except BadArgument:
        raise BadArgument(
            f"expected {name} now, beginning, a time such as 2026-01-31T12:00:00Z, or a duration ago such as 2h, "
            f"got {text[:80]!a}"
        ) from None


def read_timing(at: str | None, after: str | None, expires: str | None) -> dict[str, int]:
    """Return the attributes `due` and `expires` that these parameters state. Raise `BadArgument`."""
    return timed(
        time_ns(),
        at=None if at is None else _moment(at, "at"),
        after=None if after is None else read_delay(after, "after"),
        expires=None if expires is None else _end(expires),
    )


def _end(text: str) -> float | datetime:
    seconds = _seconds(text)
    return _moment(text, "expires") if seconds is None else seconds


def _seconds(text: str) -> float | None:
    return float(text) if _SECONDS.fullmatch(text) else read_duration(text)


def read_delay(delay: str | float, name: str = "delay") -> float:
    """Return a delay in seconds. Raise `BadArgument` with the parameter's name."""
    seconds = _seconds(delay) if isinstance(delay, str) else delay
    if seconds is None:
        raise BadArgument(
            f"expected {name} as seconds, or as a duration such as 30s, 5m, 12h or 7d, up to ten years, "
            f"got {str(delay)[:80]!a}"
        )
    return seconds


def _moment(text: str, name: str) -> datetime:
    try:
        return time_of(read_time(text))
    except BadArgument:
        or_delay = ", seconds, or a duration such as 5m" if name == "expires" else ""
        raise BadArgument(
            f"expected {name} as a time with its zone such as 2026-01-31T12:00:00Z{or_delay}, got {text[:80]!a}"
        ) from None


def _ago(count: int, unit: str) -> timedelta:
    try:
        return timedelta(**{unit: count})
    except OverflowError:
        return timedelta.max
