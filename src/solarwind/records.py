"""The records that operations return: frozen, and the same from every engine."""

from __future__ import annotations

from datetime import datetime

import msgspec

from .event import Event


class TopicStatistics(msgspec.Struct, frozen=True):
    """`fired` counts the events accepted since the topic exists."""

    fired: int


class PurposeStatistics(msgspec.Struct, frozen=True):
    """The numbers of a purpose.

    `pending` events are with no instance, those that wait for a retry included; `in_flight` ones are with one.
    `settled` and `retried` count since the purpose exists; `dead` is the number of dead letters now.

    For a fan-out these count copies since the dispatcher started: `pending` in its instances' buffers, `settled`
    handled, and `dropped` without an instance, from a full buffer, or because the handler raised.

    `key_missing` counts the events that a keyed purpose found without a key, since the dispatcher started.
    """

    exchange: str
    versions: tuple[int, ...]
    instances: int
    pending: int
    in_flight: int
    settled: int
    retried: int
    dead: int
    dropped: int
    key_missing: int = 0


class Statistics(msgspec.Struct, frozen=True):
    topics: dict[str, TopicStatistics]
    purposes: dict[tuple[str, str], PurposeStatistics]


class PurposeInfo(msgspec.Struct, frozen=True):
    """A purpose and its numbers."""

    topic: str
    purpose: str
    statistics: PurposeStatistics


def listed(statistics: Statistics, topic: str | None) -> list[PurposeInfo]:
    """Return the purposes of one topic, or of all, by topic and name."""
    return [
        PurposeInfo(name, purpose, counts)
        for (name, purpose), counts in sorted(statistics.purposes.items())
        if topic in (None, name)
    ]


class HandlerInfo(msgspec.Struct, frozen=True):
    """A registered handler: one service instance, and the function's name."""

    topic: str
    purpose: str
    exchange: str
    version: int
    handler: str


class TopicInfo(msgspec.Struct, frozen=True):
    """A topic and its history: `kept` events of `kept_bytes` in the log. `keep` is in seconds."""

    topic: str
    fired: int
    purposes: tuple[str, ...]
    kept: int
    kept_bytes: int
    keep: float
    keep_bytes: int | None


class OwnerInfo(msgspec.Struct, frozen=True):
    """A partition of a `nats://` namespace: its stream, the process that owns it ("" while there is none), and its
    topics (None where no owner answers)."""

    partition: int
    stream: str
    owner: str
    topics: tuple[str, ...] | None


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that a purpose gave up: its error, the number of attempts, and when."""

    event: Event
    error: str
    attempts: int
    time: datetime


class Trace(msgspec.Struct, frozen=True):
    """An event and the events that it caused, in the order fired. `more`: it caused further ones, which
    `trace(event.id, after=…)` returns, after the last one here if there is any."""

    event: Event
    caused: tuple[Trace, ...]
    more: bool = False
