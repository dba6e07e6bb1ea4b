"""Times in HTTP parameters: `now`, `beginning`, a time, or so long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..engine.base import Since
from ..errors import BadArgument
from .cloudevents import read_time

_DURATION = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_since(text: str, name: str = "since") -> Since:
    """Return the place in history that the text names. Raise `BadArgument` with the parameter's name."""
    if text in ("now", "beginning"):
        return text
    if found := _DURATION.fullmatch(text):
        return min(timedelta(days=36_500), _ago(int(found[1]), _UNIT[found[2]]))
    try:
        return _EPOCH + timedelta(microseconds=read_time(text) // 1_000)
    except BadArgument:
        raise BadArgument(
            f"expected {name} now, beginning, a time such as 2026-01-31T12:00:00Z, or a duration ago such as 2h, "
            f"got {text[:80]!a}"
        ) from None


def _ago(count: int, unit: str) -> timedelta:
    try:
        return timedelta(**{unit: count})
    except OverflowError:
        return timedelta.max
