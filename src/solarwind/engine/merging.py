"""One answer of those of several dispatchers: each gives a part, and says which topics are its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ..records import (
    Attention,
    InstanceInfo,
    LocatedEvent,
    PurposeInfo,
    RateCounts,
    RateHistory,
    SchemaInfo,
    Statistics,
    StoreInfo,
    TopicInfo,
    TopicStatistics,
    sorted_attention,
    sorted_instances,
)
from .answers import Page
from .request import Owns
from .tracing import merged

D = TypeVar("D", TopicInfo, TopicStatistics)


def topics_of_all(parts: Sequence[tuple[list[TopicInfo], Owns]]) -> list[TopicInfo]:
    topics = {each.topic: each for found, owns in parts for each in found if owns(each.topic)}
    for found, owns in parts:
        for each in found:
            if each.delayed and not owns(each.topic):  # by a handler on another topic
                topics[each.topic] = _with_delayed(topics.get(each.topic), each)
    return sorted(topics.values(), key=lambda each: each.topic)


def _with_delayed(counts: D | None, other: D) -> D:
    """Return the counts of a topic with the delayed events that another dispatcher has of it."""
    if counts is None:
        return other
    times = [each.next_due for each in (counts, other) if each.next_due is not None]
    return msgspec.structs.replace(counts, delayed=counts.delayed + other.delayed, next_due=min(times, default=None))


def purposes_of_all(parts: Sequence[tuple[list[PurposeInfo], Owns]]) -> list[PurposeInfo]:
    return sorted((each for found, _ in parts for each in found), key=lambda each: (each.topic, each.purpose))


def schemas_of_all(parts: Sequence[tuple[list[SchemaInfo], Owns]]) -> list[SchemaInfo]:
    found = [each for infos, owns in parts for each in infos if owns(each.topic)]
    return sorted(found, key=lambda each: (each.topic, each.purpose, each.version))


def instances_of_all(parts: Sequence[tuple[list[InstanceInfo], Owns]]) -> list[InstanceInfo]:
    return sorted_instances(each for found, _ in parts for each in found)


def rates_of_all(parts: Sequence[tuple[RateHistory, Owns]]) -> RateHistory:
    """Return the sums, up to the latest of their times."""
    found = [each for each, _ in parts]
    spans = ([getattr(each, span) for each in found] for span in ("seconds", "ten_seconds", "minutes"))
    return RateHistory(found[0].topic, "", max(each.time for each in found), *(_sum(counts) for counts in spans))


def _sum(counts: Sequence[RateCounts]) -> RateCounts:
    names = RateCounts.__struct_fields__
    return RateCounts(*(tuple(map(sum, zip(*(getattr(each, name) for each in counts), strict=True))) for name in names))


def stores_of_all(parts: Sequence[tuple[list[StoreInfo], Owns]]) -> list[StoreInfo]:
    return sorted((each for found, _ in parts for each in found), key=lambda each: each.store)


def attention_of_all(parts: Sequence[tuple[list[Attention], Owns]]) -> list[Attention]:
    return sorted_attention(each for found, _ in parts for each in found)


def statistics_of_all(parts: Sequence[tuple[Statistics, Owns]]) -> Statistics:
    topics = {name: counts for found, owns in parts for name, counts in found.topics.items() if owns(name)}
    for found, owns in parts:
        for name, counts in found.topics.items():
            if counts.delayed and not owns(name):  # by a handler on another topic
                topics[name] = _with_delayed(topics.get(name), counts)
    purposes = {names: counts for found, _ in parts for names, counts in found.purposes.items()}
    return Statistics(dict(sorted(topics.items())), dict(sorted(purposes.items())))


def found(parts: Sequence[tuple[list[LocatedEvent], Owns]]) -> list[LocatedEvent]:
    return [each for some, _ in parts for each in some]


def effects(parts: Sequence[tuple[Page[LocatedEvent], Owns]]) -> Page[LocatedEvent]:
    return merged([page for page, _ in parts])
