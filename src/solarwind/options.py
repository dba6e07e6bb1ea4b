"""Checks of callers' options, in one place before any engine, so that all engines refuse alike."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import Any

import msgspec

from .engine.base import Since
from .errors import BadArgument, BadPayload
from .failure import MAX_SECONDS, in_seconds
from .loops import forget
from .names import check_id, shown
from .payload import check_grammar, is_json, json_fault
from .schedule import Ticks

MAX_COUNT = 1_000_000_000
_SKEW_S = 5.0  # machines' clocks differ
_SINCE = "'now', 'beginning', a datetime or a timedelta ago"


def check_count(what: str, value: object, maximum: int = MAX_COUNT - 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise BadArgument(f"expected {what} to be an integer from 1 to {maximum:,}, got {shown(value)}")


def check_seconds(what: str, value: Any, *, some: bool = False) -> float:
    """Return a number of seconds, or a timedelta, as seconds: 0 or more, or with `some` more than 0. Raise
    `BadArgument`."""
    seconds = in_seconds(value)
    good = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < MAX_SECONDS
    if not good or (some and int(seconds * 1e9) <= 0):
        minimum = "more than 0" if some else "0 or more"
        raise BadArgument(
            f"expected {what} of {minimum} seconds (or a timedelta), below 1,000,000,000, got {shown(value)}"
        )
    return float(seconds)


def check_flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadArgument(f"expected {what} to be True or False, got {shown(value)}")
    return value


def check_since(since: Any, what: str = "since", *, future: bool = False) -> Since:
    """Return a place in a topic's history; with `future` it may lie ahead. Raise `BadArgument`."""
    if isinstance(since, str) and since in ("now", "beginning"):
        return since
    if isinstance(since, timedelta):
        if since < timedelta(0):
            raise BadArgument(
                f"expected {what} {_SINCE}, got a timedelta of {since}, which lies ahead: take it positive"
            )
        return since
    if not isinstance(since, datetime):
        raise BadArgument(f"expected {what} {_SINCE}, got {shown(since)}")
    try:
        ahead = since.timestamp() > time.time() + _SKEW_S
    except (OverflowError, ValueError, OSError):  # so far away that no clock shows it
        ahead = since.year > datetime.now(UTC).year
    if ahead and not future:
        raise BadArgument(f"expected {what} {_SINCE}, got {since.isoformat()}, which lies ahead: say 'now'")
    return since


def check_order(arguments: Mapping[str, Any]) -> None:
    """Raise `BadArgument` where `since` does not lie before `until`."""
    since, until = arguments["since"], arguments["until"]
    if _is_before(until, since):
        raise BadArgument(f"expected since to lie before until, got since {_said(since)} and until {_said(until)}")


def check_ticks(arguments: Mapping[str, Any]) -> None:
    """Raise `BadArgument` for a schedule that has no ticks, and `BadPayload` where its payload is no JSON."""
    Ticks(arguments["every"], arguments["zone"])
    if is_json(arguments["content"]):
        try:
            check_grammar(arguments["payload"])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadPayload(json_fault(arguments["payload"], error)) from None


def _is_before(one: Since, other: Since) -> bool:
    """Return whether one place lies before another, as far as it is certain without a clock."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        try:
            return one.astimezone(UTC) < other.astimezone(UTC)
        except (OverflowError, ValueError, OSError):  # so far away that no clock shows it
            return one.year < other.year
    if one == "beginning":
        return other != "beginning"
    ago = [timedelta(0) if each == "now" else each for each in (one, other)]
    return isinstance(ago[0], timedelta) and isinstance(ago[1], timedelta) and ago[0] > ago[1]


def _said(since: Since) -> str:
    if isinstance(since, timedelta):
        return f"{since} ago"
    return since.isoformat() if isinstance(since, datetime) else since


def check_ids(ids: Any) -> Collection[str] | None:
    """Return ids of events, or None for all; one id may be given alone. Raise `BadArgument`."""
    if ids is None:
        return None
    if isinstance(ids, str):
        return [check_id(ids)]
    if not isinstance(ids, Collection) or isinstance(ids, bytes | bytearray | memoryview | dict):
        raise BadArgument(f"expected ids, a list of them, one, or None for all, got {shown(ids)}")
    return [check_id(each) for each in ids]


def check_payloads(payloads: Any) -> list[Any]:
    """Return a list of payloads. Raise `BadArgument` for text or a dict, which is one payload."""
    if not isinstance(payloads, Iterable) or isinstance(payloads, str | bytes | bytearray | memoryview | Mapping):
        raise BadArgument(
            f"expected an iterable of payloads, one for each event, got {shown(payloads)}: for one event use fire"
        )
    return list(payloads)


def check_type(what: str, value: object, type_: type | tuple[type, ...], example: str) -> None:
    if not isinstance(value, type_):
        raise BadArgument(f"expected {what}, such as {example}, got {shown(value)}")


def check_engine(engine: object, url: str | None) -> None:
    if not callable(getattr(engine, "submit", None)):
        raise BadArgument(f"expected an engine, such as LocalEngine(store), got {shown(engine)}: or give a URL")
    if url is not None:
        raise BadArgument("expected a URL or an engine, got both: the engine says where the dispatcher is")


def check_work(work: object, timeout: object) -> float | None:
    """Check what a thread is to wait for, and return for how many seconds. Raise `BadArgument`."""
    if not isawaitable(work):
        raise BadArgument(f"expected a coroutine, as in wind.wait(wind.settled(10)), got {shown(work)}")
    try:
        return None if timeout is None else check_seconds("a timeout", timeout)
    except BadArgument:
        forget(work)
        raise


def check_topic_given(topic: object) -> None:
    """Raise `BadArgument` for `@wind.on` without parentheses, which passes the function as the topic."""
    if not isinstance(topic, str) and (callable(topic) or isinstance(topic, staticmethod | classmethod)):
        name = getattr(topic, "__qualname__", None) or repr(topic)
        raise BadArgument(
            f"expected a topic, as in @wind.on('video.uploaded'), got the function {name}: name the topic"
        )


def check_keep(keep: object) -> float | None:
    """Return how long a topic keeps its history, in s; None for its dispatcher's default. Raise `BadArgument`."""
    return None if keep is None else check_seconds("keep", keep)


def check_keep_bytes(keep_bytes: object) -> int | None:
    """Return how many bytes of history a topic keeps; None for no limit. Raise `BadArgument`."""
    if keep_bytes is not None and (type(keep_bytes) is not int or not 0 <= keep_bytes < 1 << 63):
        raise BadArgument(f"expected keep_bytes of 0 or more, of 63 bits at most, got {keep_bytes!r}")
    return keep_bytes
