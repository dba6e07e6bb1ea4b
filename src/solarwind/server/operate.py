"""What an operator asks and does by HTTP: the same as on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response

from ..errors import BadArgument, NotFound, TooLarge
from ..failure import MOST_SECONDS
from ..operations import Internal
from ..records import DeadLetter, PurposeInfo, PurposeStatistics, TopicInfo, TopicStatistics, Trace
from .call import Call, answer, in_pieces
from .cloudevents import CloudEvent, to_cloudevent
from .described import Id, SinceText, Topic
from .times import read_since

_TOGETHER = 1_000  # ids that are compared as one piece
MOST_PAGE_BYTES = 8 << 20  # of payload, in one answer


class TopicSettings(msgspec.Struct, forbid_unknown_fields=True):
    """How much history a topic keeps: events up to `keep` seconds old, `keep_bytes` at most. Null is the
    default again, and no bound; what is left out stays as it is."""

    keep: Annotated[float, Meta(ge=0, le=MOST_SECONDS)] | UnsetType | None = UNSET
    keep_bytes: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | UnsetType | None = UNSET


class PurposesQuery(msgspec.Struct, forbid_unknown_fields=True):
    topic: Topic | None = None  # of all topics


class RetireQuery(msgspec.Struct, forbid_unknown_fields=True):
    force: bool = False


class DeadQuery(msgspec.Struct, forbid_unknown_fields=True):
    """`limit` of them, or fewer if they are large, from the one after the event with the id `after` on."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    after: Id | None = None


class Letters(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters: those with these `ids`, or `all`."""

    ids: list[Id] | None = None
    all: bool = False


# What `Letters` does not say of itself: one of both.
EITHER = Annotated[
    Letters,
    Meta(
        extra_json_schema={
            "oneOf": [
                {"required": ["ids"], "properties": {"ids": {"type": "array", "minItems": 1}, "all": {"const": False}}},
                {"required": ["all"], "properties": {"ids": {"maxItems": 0}, "all": {"const": True}}},
            ]
        }
    ),
]


class Span(msgspec.Struct, forbid_unknown_fields=True):
    """A part of the history: `now`, `beginning`, a time such as 2026-01-31T12:00:00Z, or so long ago such as 2h."""

    since: SinceText = "beginning"
    until: SinceText = "now"


class PurposeRecord(PurposeStatistics, frozen=True, kw_only=True):
    """A purpose, and how it stands."""

    topic: str
    purpose: str


class Statistics(msgspec.Struct):
    topics: dict[str, TopicStatistics]
    purposes: list[PurposeRecord]


class Topics(msgspec.Struct):
    topics: list[TopicInfo]


class Purposes(msgspec.Struct):
    purposes: list[PurposeRecord]


class DeadRecord(msgspec.Struct):
    """An event that the purpose gave up, after how many attempts, when, and why."""

    event: CloudEvent
    error: str
    attempts: int
    time: datetime


class Dead(msgspec.Struct):
    """`total` says how many there are, whatever the part that is shown."""

    dead: list[DeadRecord]
    total: int


class Redriven(msgspec.Struct):
    redriven: int


class Discarded(msgspec.Struct):
    discarded: int


class Replayed(msgspec.Struct):
    replayed: int


class Events(msgspec.Struct):
    events: list[CloudEvent]


async def statistics(call: Call) -> Response:
    found = await Internal.statistics(call.server.engine)
    purposes = (_record(PurposeInfo(*names, counts)) for names, counts in found.purposes.items())
    return answer(Statistics(found.topics, await in_pieces(call, purposes)))


async def topics(call: Call) -> Response:
    return answer(Topics(await in_pieces(call, await Internal.topics(call.server.engine))))


async def topic(call: Call) -> Response:
    return answer(await _topic(call))


async def set_topic(call: Call) -> Response:
    name, wanted = call.topic, await call.json(TopicSettings)
    keep_ns = int(wanted.keep * 1e9) if isinstance(wanted.keep, float) else wanted.keep
    await Internal.topic(call.server.engine, name, keep_ns, wanted.keep_bytes)
    return answer(await _topic(call))


async def _topic(call: Call) -> TopicInfo:
    for found in await Internal.topics(call.server.engine):
        if found.topic == call.topic:
            return found
    raise NotFound(f"expected a topic that something was fired on or listens to, got {call.topic!r}, which is none")


async def purposes(call: Call) -> Response:
    found = await Internal.purposes(call.server.engine, call.query(PurposesQuery).topic)
    return answer(Purposes(await in_pieces(call, map(_record, found))))


async def purpose(call: Call) -> Response:
    for found in await Internal.purposes(call.server.engine, call.topic):
        if found.purpose == call.purpose:
            return answer(_record(found))
    raise NotFound(f"expected a purpose of topic {call.topic!r}, got {call.purpose!r}, which is none")


def _record(info: PurposeInfo) -> PurposeRecord:
    return PurposeRecord(**msgspec.structs.asdict(info.statistics), topic=info.topic, purpose=info.purpose)


async def retire(call: Call) -> Response:
    await Internal.retire(call.server.engine, call.topic, call.purpose, force=call.query(RetireQuery).force)
    return Response(status_code=204)


async def dead(call: Call) -> Response:
    query = call.query(DeadQuery)
    letters = await Internal.dead(call.server.engine, call.topic, call.purpose)
    at = 0
    if query.after is not None:
        at = await _behind(call, letters, query.after)
        if at < 0:
            raise NotFound(f"expected the id of a dead letter as after, got {query.after[:80]!a}, which is none")
    return answer(Dead(await in_pieces(call, _page(letters[at : at + query.limit])), len(letters)))


async def _behind(call: Call, letters: list[DeadLetter], id: str) -> int:
    """Where the one after the event with this id is; -1 where there is none."""
    for at, each in enumerate(letters, 1):
        if each.event.id == id:
            return at
        if not at % _TOGETHER:
            await call.server.turns.line()
    return -1


def _page(letters: list[DeadLetter]) -> Iterator[DeadRecord]:
    size = 0
    for each in letters:
        size += len(each.event.data)
        if len(each.event.data) < size > MOST_PAGE_BYTES:
            return
        yield DeadRecord(to_cloudevent(each.event), each.error, each.attempts, each.time)


async def redrive(call: Call) -> Response:
    ids = await _letters(call)
    return answer(Redriven(await Internal.redrive(call.server.engine, call.topic, call.purpose, ids)))


async def discard(call: Call) -> Response:
    ids = await _letters(call)
    return answer(Discarded(await Internal.discard(call.server.engine, call.topic, call.purpose, ids)))


async def _letters(call: Call) -> list[str] | None:
    """The ids; None is all."""
    letters, most = await call.json(Letters), call.server.settings.ids
    if bool(letters.ids) == letters.all:
        raise BadArgument(
            f'expected either ids of dead letters or "all": true, got {"both" if letters.all else "neither"}'
        )
    if letters.ids is not None and len(letters.ids) > most:
        raise TooLarge(f"expected at most {most:,} ids, got {len(letters.ids):,}: send several requests")
    return letters.ids or None


async def replay(call: Call) -> Response:
    span = await call.json(Span)
    since, until = read_since(span.since), read_since(span.until, "until")
    return answer(Replayed(await Internal.replay(call.server.engine, call.topic, call.purpose, since, until)))


async def trace(call: Call) -> Response:
    """The event and what it caused, each after the one that its `causationid` names: a list, since a chain of causes
    may be longer than JSON can nest."""
    found = await Internal.trace(call.server.engine, call.part("id"))
    return answer(Events(await in_pieces(call, _tree(found))))


def _tree(trace: Trace) -> Iterator[CloudEvent]:
    todo = [trace]
    while todo:
        found = todo.pop()
        yield to_cloudevent(found.event)
        todo += reversed(found.caused)
