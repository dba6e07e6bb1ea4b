"""The kinds of arguments of operations: how each is checked, once for all engines, and how it travels."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, get_args

import msgspec

from .. import wire
from ..errors import BadArgument, BadName, TooLarge
from ..names import (
    check_content,
    check_fired,
    check_id,
    check_path,
    check_purpose,
    check_schedule,
    check_topic,
    check_webhook,
    shown,
)
from ..options import (
    MAX_COUNT,
    check_count,
    check_flag,
    check_ids,
    check_keep,
    check_keep_bytes,
    check_seconds,
    check_since,
    check_type,
)
from ..schedule import TICKS
from ..schema import read_schema
from ..shares import check_share
from ..store.base import BatchPlace
from .base import Since as When


def _same(value: Any) -> Any:
    return value


class ArgumentKind(msgspec.Struct, frozen=True):
    """`check` gets a caller's value and the argument's name, and returns what the operation gets; it raises `BadName`
    or `BadArgument`. `wire` is the type by which it travels, None where it does not; `pack` makes it, and `read`
    decodes it."""

    name: str
    check: Callable[[Any, str], Any]
    wire: Any = None
    pack: Callable[[Any], Any] = _same
    read: Callable[[Any], Any] = _same


def _optional(kind: ArgumentKind) -> ArgumentKind:
    def check(value: Any, name: str) -> Any:
        return None if value is None else kind.check(value, name)

    return msgspec.structs.replace(kind, name=f"{kind.name}?", check=check, wire=kind.wire | None)


def kind_of(hint: Any) -> ArgumentKind:
    """Return the kind of a parameter: of its annotation, or of its plain type."""
    if isinstance(kind := _metadata(hint), ArgumentKind):
        return kind
    for each in get_args(hint):
        if isinstance(kind := _metadata(each), ArgumentKind) or (kind := _PLAIN.get(each)) is not None:
            return _optional(kind)
    return _PLAIN[hint]


def _metadata(hint: Any) -> Any:
    return getattr(hint, "__metadata__", (None,))[0]


def _flag(value: Any, name: str) -> bool:
    check_flag(name, value)
    return bool(value)


def _packed_ids(ids: Collection[str] | None) -> list[str] | None:
    return None if ids is None else list(ids)


def _text(value: Any, name: str) -> str:
    check_type(name, value, str, "text")
    if len(value) > MAX_TEXT:
        raise BadArgument(f"expected {name} of at most {MAX_TEXT:,} characters, got {len(value):,}")
    return str(value)


def _after(value: Any, name: str) -> str | None:
    if value is not None and not (isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 20):
        raise BadArgument(f"expected {name} as the `next` of an earlier page, got {ascii(value)[:80]}")
    return None if value is None else str(value)


def _place(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not PLACE.fullmatch(value):
        raise BadArgument(f"expected {name} as the `next` of an earlier page, got {shown(value)}")
    return value


def read_version(text: str) -> tuple[str, str, int]:
    """Return the topic, purpose and version in TOPIC/PURPOSE@VERSION. Raise `BadName` and `ValueError`."""
    names, _, version = text.rpartition("@")
    topic, _, purpose = names.partition("/")
    if not (version.isascii() and version.isdecimal() and 0 < int(version) < MAX_COUNT):
        raise ValueError("the version is no number of 1 or more")
    return check_topic(topic), check_purpose(purpose), int(version)


def _version_of(value: Any, name: str) -> str:
    try:
        read_version(value)
    except (AttributeError, BadName, ValueError):
        raise BadArgument(
            f"expected {name} as TOPIC/PURPOSE@VERSION, such as 'video.uploaded/Encode@2', got {shown(value)}"
        ) from None
    return str(value)


def _batch_place(value: Any, name: str) -> BatchPlace | None:
    if value is None:
        return None
    try:
        time, topic, start = value
    except (TypeError, ValueError):
        raise BadArgument(f"expected {name}, the place of a batch, got {shown(value)}") from None
    for each in (time, start):
        check_type(name, each, int, "5")
    return BatchPlace(time, check_topic(topic), start)


def _keep(value: Any, name: str) -> Any:
    return value if value is msgspec.UNSET else check_keep(value)


def _keep_bytes(value: Any, name: str) -> Any:
    return value if value is msgspec.UNSET else check_keep_bytes(value)


def _count(value: Any, name: str, maximum: int) -> int:
    check_count(name, value, maximum)
    return int(value)


def _number(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_COUNT:
        raise BadArgument(f"expected {name} to be an integer from 0 to {MAX_COUNT - 1:,}, got {shown(value)}")
    return value


def _parts(value: Any, name: str) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    try:
        unknown = [each for each in names if each not in PARTS]
    except TypeError:
        unknown = [value]
    if unknown or not names:
        got = shown(unknown[0]) if unknown else "none"
        raise BadArgument(f"expected {name}, some of {', '.join(PARTS)}, got {got}")
    return tuple(each for each in PARTS if each in names)


def _payload(value: Any, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise BadArgument(f"expected {name} as bytes, got {shown(value)}")
    if len(value) > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"expected {name} of at most {MAX_PAYLOAD_BYTES:,} bytes for a schedule, got {len(value):,}")
    return value


def _schema(value: Any, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise BadArgument(f"expected {name}, a JSON Schema as bytes, got {shown(value)}")
    read_schema(value)
    return value


def _every(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadArgument(f"expected {name} as {TICKS}, got {shown(value)}")
    return _text(value, name)


def _zone(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadArgument(f"expected {name} as the name of a time zone such as 'Europe/Berlin', got {shown(value)}")
    return _text(value, name)


def _missed(value: Any, name: str) -> str:
    if value not in ("skip", "once"):
        raise BadArgument(f'expected {name} as "skip" or "once", got {shown(value)}')
    return str(value)


MAX_PAYLOAD_BYTES = 32 << 10
MAX_TEXT = 1_000  # characters
# Behind which delayed event a page begins: when that is due, the number of its entry in the due-log, and its id. On a
# cluster the number of its partition stands before it.
PLACE = re.compile(r"(?:(\d{1,4})-)?(\d{1,19})\.(\d{1,19})\.(.+)", re.DOTALL | re.ASCII)
LAST_PLACE = (1 << 63) - 1  # behind the numbers of all entries
MAX_PAGE = 10_000  # items
MAX_INTERVAL_S = 60
PARTS = (
    "topics",
    "purposes",
    "instances",
    "attention",
    "audit",
    "stores",
    "webhooks",
    "server",
)  # of what can be watched
MAX_WAIT_S = 5.0  # a request does not wait for longer: its client may be gone
_PLAIN = {bool: ArgumentKind("flag", _flag, bool), str: ArgumentKind("text", _text, str)}
Version = Annotated[int, ArgumentKind("version", lambda value, name: _count(value, name, MAX_COUNT - 1), int)]
Share = Annotated[float, ArgumentKind("share", lambda value, name: check_share(value, name), float)]
Count = Annotated[int, ArgumentKind("count", _number, int)]
Seconds = Annotated[float, ArgumentKind("seconds", lambda value, name: check_seconds(name, value), float)]
Limit = Annotated[int, ArgumentKind("limit", lambda value, name: _count(value, name, MAX_PAGE), int)]
After = Annotated[str | None, ArgumentKind("after", lambda value, name: _after(value, name), str | None)]
# In a history, -1 is before its first event.
Behind = Annotated[
    str | None,
    ArgumentKind("behind", lambda value, name: "-1" if value == "-1" else _after(value, name), str | None),
]
Place = Annotated[str, ArgumentKind("place", _place, str)]
Wait = Annotated[float, ArgumentKind("wait", lambda value, name: min(MAX_WAIT_S, check_seconds(name, value)), float)]
Topic = Annotated[str, ArgumentKind("topic", lambda value, name: check_topic(value), str)]
FiredTopic = Annotated[str, ArgumentKind("topic", lambda value, name: check_fired(value), str)]
Purpose = Annotated[str, ArgumentKind("purpose", lambda value, name: check_purpose(value), str)]
HookName = Annotated[str, ArgumentKind("hook", lambda value, name: check_webhook(value), str)]
ScheduleName = Annotated[str, ArgumentKind("schedule", lambda value, name: check_schedule(value), str)]
Payload = Annotated[bytes, ArgumentKind("payload", _payload, bytes)]
Content = Annotated[str, ArgumentKind("content", lambda value, name: check_content(_text(value, name)), str)]
PayloadSchema = Annotated[bytes, ArgumentKind("schema", _schema, bytes)]
Every = Annotated[str, ArgumentKind("every", _every, str)]
Zone = Annotated[str, ArgumentKind("zone", _zone, str)]
Missed = Annotated[Literal["skip", "once"], ArgumentKind("missed", _missed, str)]
EventId = Annotated[str, ArgumentKind("id", lambda value, name: check_id(value), str)]
Ids = Annotated[
    Collection[str] | None,
    ArgumentKind("ids", lambda value, name: check_ids(value), wire.Listed[str] | None, _packed_ids),
]
Since = Annotated[When, ArgumentKind("since", check_since, str | int, wire.pack_since, wire.read_since)]
Parts = Annotated[Collection[str], ArgumentKind("parts", _parts, str, ",".join)]
Interval = Annotated[int, ArgumentKind("interval", lambda value, name: _count(value, name, MAX_INTERVAL_S), int)]
Until = Annotated[
    When,
    ArgumentKind(
        "until", lambda value, name: check_since(value, name, future=True), str | int, wire.pack_since, wire.read_since
    ),
]
CausedBy = Annotated[str, ArgumentKind("caused_by", lambda value, name: _version_of(value, name), str)]
NewFile = Annotated[
    str, ArgumentKind("file", lambda value, name: check_path(value))
]  # where it is asked: it does not travel
Keep = Annotated[float | msgspec.UnsetType | None, ArgumentKind("keep", _keep, float | msgspec.UnsetType | None)]
KeepBytes = Annotated[
    int | msgspec.UnsetType | None, ArgumentKind("keep_bytes", _keep_bytes, int | msgspec.UnsetType | None)
]
AtBatch = Annotated[BatchPlace | None, ArgumentKind("place", _batch_place, tuple[int, str, int] | None)]
# These are for the engine itself, and were checked where they were stated.
Purposes = Annotated[
    Collection[tuple[str, str]],
    ArgumentKind("purposes", lambda value, name: value, wire.Named[tuple[str, str]], list),
]
