"""When an event is due, and when it expires: what callers state of it, checked alike wherever an event may be fired."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import BadArgument
from .failure import in_seconds
from .names import shown

MAX_DELAY = timedelta(days=3_653)  # ten years
MAX_DELAY_NS = MAX_DELAY // timedelta(microseconds=1) * 1_000
_SECOND = 1_000_000_000  # ns
STEP_NS = 1_000_000  # what is due within the same millisecond stays together
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_FORMS = "seconds, a timedelta, or a text such as '5m'"


def read_duration(text: str) -> float | None:
    """Return the seconds that a text such as `30s`, `5m`, `12h` or `7d` names; None where it names none."""
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _UNIT_S[found[2]] if found else None


def timed(now: int, at: Any = None, after: Any = None, expires: Any = None) -> dict[str, int]:
    """Return the attributes `due` and `expires` of an event that is fired `now` (all in ns since 1970), without those
    that are not stated. Raise `BadArgument`."""
    attributes: dict[str, int] = {}
    if at is not None:
        if after is not None:
            raise BadArgument("expected at, a time, or after, a delay from now on, got both: state one of them")
        attributes["due"] = _time("at", at, now)
    elif after is not None:
        delay = check_delay("after from now on", after)
        # Up to a whole step, so that it is never early.
        attributes["due"] = -(-(now + delay) // STEP_NS) * STEP_NS if delay else now
    if expires is not None:
        by_time = isinstance(expires, datetime)
        end = _time("expires", expires, now) if by_time else now + _expiry(expires)
        attributes["expires"] = end
        due = attributes.get("due")
        if due is not None and end <= due:
            raise BadArgument(
                f"expected an event that expires after it is due, at {time_of(due).isoformat()}, got one that expires "
                f"at {time_of(end).isoformat()}: it would never be handed out"
            )
        if not by_time and end <= now:
            raise BadArgument(f"expected expires, more than 0 seconds from now on, got {shown(expires)}")
    return attributes


def _time(name: str, time: Any, now: int) -> int:
    expected = f"expected {name} as a datetime with a time zone, such as datetime.now(UTC) + timedelta(hours=1)"
    if not isinstance(time, datetime):
        hint = ": a delay from now on is after" if name == "at" else f", or as {_FORMS} from now on"
        raise BadArgument(f"{expected}, got {shown(time)}{hint}")
    if time.utcoffset() is None:
        raise BadArgument(
            f"{expected}, got {time.isoformat()} without one, which is another time on another machine: say "
            "tzinfo=UTC, or .astimezone() for this machine's"
        )
    try:
        ns = ns_of(time)
    except (OverflowError, ValueError):  # so far away that no clock shows it
        ns = -1
    if not 0 <= ns <= now + MAX_DELAY_NS:
        raise BadArgument(f"expected {name} between 1970 and ten years from now, got {time.isoformat()}")
    return ns


def _expiry(expires: Any) -> int:
    return check_delay("expires from now on", expires, ", or a datetime")


def check_delay(what: str, delay: Any, or_else: str = "") -> int:
    """Return a delay in ns. Raise `BadArgument` unless it is from 0 to ten years."""
    seconds: Any = read_duration(delay) if isinstance(delay, str) else in_seconds(delay)
    good = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not good or not 0 <= seconds <= MAX_DELAY.total_seconds():
        raise BadArgument(f"expected {what} as {_FORMS}{or_else}, from 0 to ten years, got {shown(delay)}")
    ns: int = round(seconds * _SECOND)
    return ns


def ns_of(time: datetime) -> int:
    """Return a datetime with a time zone in ns since 1970, to the microsecond."""
    return (time - _EPOCH) // timedelta(microseconds=1) * 1_000


def time_of(ns: int) -> datetime:
    """Return a time in ns since 1970 as a datetime, UTC."""
    return _EPOCH + timedelta(microseconds=ns // 1_000)
