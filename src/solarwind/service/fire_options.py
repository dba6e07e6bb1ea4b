"""What an event may be fired with besides its payload: the options of `fire`, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

from ..calls import unknown_option
from ..columns import check_extensions
from ..event import Cause, Event
from ..names import check_id, check_key
from ..options import check_flag, check_seconds
from ..timing import timed


class EventOptions(TypedDict, total=False):
    """What an event may be given besides a payload, wherever it is fired."""

    key: str | None
    id: str | None
    at: datetime | None
    after: float | timedelta | str | None
    expires: datetime | float | timedelta | str | None
    cause: Cause | Event | None
    extensions: Mapping[str, str] | None


class FireOptions(EventOptions, total=False):
    """What `fire` may be given besides a payload. As separate keywords, each would cost every event that has none."""

    now: bool
    within: float | timedelta | None


_ATTRIBUTES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "key": ("keys", check_key),
    "id": ("ids", check_id),
    "cause": ("causes", Cause.of),
    "extensions": ("extensions", check_extensions),
}
_TIMES = ("at", "after", "expires")


def read_options(
    options: FireOptions, clock: Callable[[], int]
) -> tuple[dict[str, Any], bool, float | None, Event | None]:
    """Return the attributes that the options state (see `columns`), `now`, `within` in seconds, and the event that is
    stated as the cause. `clock` returns the time in ns since 1970. Raise what is wrong with them."""
    attributes: dict[str, Any] = {}
    times: dict[str, Any] = {}
    now, seconds, cause = False, None, None
    for name, value in options.items():
        if name in _ATTRIBUTES:
            if value is not None:
                field, check = _ATTRIBUTES[name]
                attributes[field] = check(value)
                if isinstance(value, Event):
                    cause = value
        elif name in _TIMES:
            times[name] = value
        elif name == "now":
            now = check_flag("now", value)
        elif name == "within":
            seconds = None if value is None else check_seconds("within", value, some=True)
        else:
            raise unknown_option("fire", name, FireOptions.__annotations__)
    if times:
        attributes |= timed(clock(), **times)
    return attributes, now, seconds, cause
