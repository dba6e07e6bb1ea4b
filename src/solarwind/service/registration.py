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
from ..origin import MACHINE, process_name
from ..plugins import load_exchange
from .runner import Runner
from .signature import Handler

MOST_COUNT = 1_000_000_000
MOST_ORIGIN = 1_000  # characters


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
    if not isinstance(lease, int | float) or not 0 < lease < MOST_SECONDS:
        raise BadArgument(f"expected a lease of more than 0 seconds, got {lease!r}")
    if retry is not None and not isinstance(retry, Retry):
        raise BadArgument(f"expected retry=Retry(...), got {retry!a}")
    if since not in ("now", "beginning") and not isinstance(since, datetime | timedelta):
        raise BadArgument(f"expected since 'now', 'beginning', a datetime or a timedelta ago, got {since!a}")
    origin = f"{MACHINE}/{process_name()}"
    join = Join(topic, purpose, exchange, version, key, retry or Retry(), int(lease * 1e9), room, origin)
    check_join(join)
    return join


def check_join(join: Join) -> None:
    """Whether it can be meant; for one that came from somewhere else too. Raises `BadName` and `BadArgument`."""
    check_topic(join.topic)
    check_purpose(join.purpose)
    load_exchange(join.exchange)
    check_count("version", join.version)
    check_count("room", join.room)
    if not 0 < join.lease_ns < MOST_SECONDS * 1e9:
        raise BadArgument(f"expected a lease of more than 0 seconds, got {join.lease_ns} ns")
    if join.key is not None:
        codec.field(join.key)
    if len(join.origin) > MOST_ORIGIN:
        raise BadArgument(f"expected an origin of at most {MOST_ORIGIN:,} characters, got {len(join.origin):,}")


def check_count(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < MOST_COUNT:
        raise BadArgument(f"expected a {what} of 1 or more, below a thousand million, got {value!r}")
