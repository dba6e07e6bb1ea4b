"""What a caller may give as an option: checked in one place, before any engine, so that all refuse alike."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import Any

from .engine.base import Since
from .errors import BadArgument
from .failure import MAX_SECONDS
from .loops import forget
from .names import check_id

MAX_COUNT = 1_000_000_000
_SKEW_S = 5.0  # machines' clocks differ
_SINCE = "'now', 'beginning', a datetime or a timedelta ago"


def check_count(what: str, value: object, most: int = MAX_COUNT - 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        bound = "below a thousand million" if most == MAX_COUNT - 1 else f"{most:,} at most"
        raise BadArgument(f"expected a {what} of 1 or more, {bound}, got {_shown(value)}")


def check_seconds(what: str, value: Any, *, some: bool = False) -> float:
    """A number of seconds, or a timedelta, of 0 or more; `some`: more than 0. Return it as seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    good = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < MAX_SECONDS
    if not good or (some and int(seconds * 1e9) <= 0):
        least = "more than 0 seconds" if some else "0 seconds or more"
        raise BadArgument(f"expected {what} of {least}, below a thousand million, got {_shown(value)}")
    return float(seconds)


def check_flag(what: str, value: object) -> None:
    if not isinstance(value, bool):
        raise BadArgument(f"expected {what} to be True or False, got {_shown(value)}")


def check_since(since: Any, what: str = "since", *, future: bool = False) -> Since:
    """Where in a topic's history something begins; `future`: it may lie ahead, where nothing is."""
    if isinstance(since, str) and since in ("now", "beginning"):
        return since
    if isinstance(since, timedelta):
        if since < timedelta(0):
            raise BadArgument(
                f"expected {what} {_SINCE}, got a timedelta of {since}, which lies ahead: take it positive"
            )
        return since
    if not isinstance(since, datetime):
        raise BadArgument(f"expected {what} {_SINCE}, got {_shown(since)}")
    try:
        ahead = since.timestamp() > time.time() + _SKEW_S
    except (OverflowError, ValueError, OSError):  # so far away that no clock shows it
        ahead = since.year > datetime.now(UTC).year
    if ahead and not future:
        raise BadArgument(f"expected {what} {_SINCE}, got {since.isoformat()}, which lies ahead: say 'now'")
    return since


def check_order(arguments: Mapping[str, Any]) -> None:
    """A stretch of a topic's history has `since` before `until`."""
    since, until = arguments["since"], arguments["until"]
    if _is_before(until, since):
        raise BadArgument(f"expected since to lie before until, got since {_said(since)} and until {_said(until)}")


def _is_before(one: Since, other: Since) -> bool:
    """Without asking a clock: a time and so long ago are not compared."""
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
    """Ids of events, one, or None for all."""
    if ids is None:
        return None
    if isinstance(ids, str):
        return [check_id(ids)]
    if not isinstance(ids, Collection) or isinstance(ids, bytes | bytearray | memoryview | dict):
        raise BadArgument(f"expected ids, a list of them, one, or None for all, got {_shown(ids)}")
    return [check_id(each) for each in ids]


def check_payloads(payloads: Any) -> list[Any]:
    """A payload for each event. What is one payload is not taken apart: text into its letters, a dict into its keys."""
    if not isinstance(payloads, Iterable) or isinstance(payloads, str | bytes | bytearray | memoryview | Mapping):
        raise BadArgument(
            f"expected an iterable of payloads, one for each event, got {_shown(payloads)}: for one event use fire"
        )
    return list(payloads)


def check_path(path: Any) -> str:
    """A file's path, as text."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise BadArgument(f"expected the path of a file, such as 'copy.db', got {_shown(path)}")
    return os.fspath(path)


def check_type(what: str, value: object, type_: type | tuple[type, ...], example: str) -> None:
    if not isinstance(value, type_):
        raise BadArgument(f"expected {what}, such as {example}, got {_shown(value)}")


def check_token(token: object) -> None:
    if token is not None:
        check_type("a token", token, str, "'sw_…'")


def check_engine(engine: object, url: str | None) -> None:
    if not callable(getattr(engine, "submit", None)):
        raise BadArgument(f"expected an engine, such as LocalEngine(store), got {_shown(engine)}: or give a URL")
    if url is not None:
        raise BadArgument("expected a URL or an engine, got both: the engine says where the dispatcher is")


def check_work(work: object, timeout: object) -> float | None:
    """What a thread is to wait for, and for how many seconds: those are returned."""
    if not isawaitable(work):
        raise BadArgument(f"expected a coroutine, as in wind.wait(wind.settled(10)), got {_shown(work)}")
    try:
        return None if timeout is None else check_seconds("a timeout", timeout)
    except BadArgument:
        forget(work)
        raise


def check_topic_given(topic: object) -> None:
    """`@wind.on` without parentheses gives the function as the topic, and would register nothing."""
    if not isinstance(topic, str) and (callable(topic) or isinstance(topic, staticmethod | classmethod)):
        name = getattr(topic, "__qualname__", None) or repr(topic)
        raise BadArgument(
            f"expected a topic, as in @wind.on('video.uploaded'), got the function {name}: name the topic"
        )


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_keep(keep: object) -> int | None:
    """How long a topic keeps its history, in ns; None for the default of its dispatcher."""
    return None if keep is None else int(check_seconds("keep", keep) * 1e9)


def check_keep_bytes(keep_bytes: object) -> int | None:
    """How many bytes of history a topic keeps; None for no bound."""
    if keep_bytes is not None and (type(keep_bytes) is not int or not 0 <= keep_bytes < 1 << 63):
        raise BadArgument(f"expected keep_bytes of 0 or more, of 63 bits at most, got {keep_bytes!r}")
    return keep_bytes
