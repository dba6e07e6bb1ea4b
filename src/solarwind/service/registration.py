"""What is registered: the options of `on` and `listen`, checked, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from .. import payload as codec
from ..core.effects import Join
from ..engine.base import Since
from ..errors import BadArgument
from ..failure import MOST_SECONDS, Retry
from ..names import check_purpose, check_topic
from ..plugins import load_exchange
from .outbox import MACHINE, process_name
from .runner import Runner
from .signature import Handler


class Registration(msgspec.Struct, eq=False):
    """One call of `on`: what an instance will be made of, and the instance once it is."""

    function: Callable[..., Any]
    handler: Handler
    join: Join
    since: Since
    concurrency: int
    runner: Runner | None = None
    instance: int = 0
    joining: asyncio.Task[None] | None = None


def make_join(
    topic: str,
    purpose: str,
    exchange: str,
    version: int,
    key: str | None,
    since: Since,
    retry: Retry | None,
    lease: float,
    room: int,
) -> Join:
    """The registration of an instance. Raises `BadName` and `BadArgument` for what cannot be meant."""
    check_topic(topic)
    check_purpose(purpose)
    load_exchange(exchange)
    check_count("version", version)
    if not isinstance(lease, int | float) or not 0 < lease < MOST_SECONDS:
        raise BadArgument(f"expected a lease of more than 0 seconds, got {lease!r}")
    if retry is not None and not isinstance(retry, Retry):
        raise BadArgument(f"expected retry=Retry(...), got {retry!a}")
    if since not in ("now", "beginning") and not isinstance(since, datetime | timedelta):
        raise BadArgument(f"expected since 'now', 'beginning', a datetime or a timedelta ago, got {since!a}")
    if key is not None:
        codec.field(key)
    origin = f"{MACHINE}/{process_name()}"
    return Join(topic, purpose, exchange, version, key, retry or Retry(), int(lease * 1e9), room, origin)


def check_count(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadArgument(f"expected a {what} of 1 or more, got {value!r}")
