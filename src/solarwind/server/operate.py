"""The HTTP endpoints of operations, made from their rows.

Path, parameters, body and answer come from the row and the kinds of its arguments. This file has what differs from the
operation's own form: events as CloudEvents.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from functools import cache, partial
from typing import Annotated, Any, Literal, get_origin

import msgspec
from msgspec import Meta, UnsetType
from starlette.responses import Response

from .. import records
from ..engine.answers import item_of
from ..engine.arguments import MAX_PAGE, MAX_TEXT, ArgumentKind
from ..engine.request import Http, Operation
from ..errors import BadArgument, TooLarge
from ..event import Event
from ..failure import MAX_SECONDS
from ..operations import OPERATIONS
from ..options import MAX_COUNT
from ..records import DeadLetter, DelayedEvent, EventInfo, PurposeInfo, PurposeStatistics, TopicStatistics, Trace
from .call import Call, answer, in_pieces
from .cloudevents import CloudEvent, to_cloudevent
from .endpoint import Endpoint
from .schemas import Id, PurposeName, ScheduleName, SinceText, TopicName, WebhookName
from .times import read_since

Show = Callable[[Call, Any], Awaitable[Response]]

# Arguments ----------------------------------------------------------------------------------------------------------


def _same(value: Any, name: str = "") -> Any:
    return value


_PLACE = r"^([0-9]{1,4}-)?[0-9]{1,19}\.[0-9]{1,19}\..+"
# By the name of its kind: an argument's type in a query or a body, and how it is read; others need no conversion.
_FIELDS: dict[str, tuple[Any, Callable[[Any, str], Any]]] = {
    "topic": (TopicName, _same),
    "purpose": (PurposeName, _same),
    "id": (Id, _same),
    "since": (SinceText, read_since),
    "until": (SinceText, read_since),
    "keep": (Annotated[float, Meta(ge=0, lt=MAX_SECONDS)] | UnsetType | None, _same),
    "keep_bytes": (Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | UnsetType | None, _same),
    "behind": (Annotated[str, Meta(extra_json_schema={"pattern": "^(-1|[0-9]{1,19})$"})] | None, _same),
    "after": (Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9]{1,19}$"})] | None, _same),
    "place": (Annotated[str, Meta(max_length=MAX_TEXT, extra_json_schema={"pattern": _PLACE})], _same),
    "version": (Annotated[int, Meta(ge=1, lt=MAX_COUNT)], _same),
    "share": (Annotated[float, Meta(ge=0, le=1)], _same),
    "limit": (Annotated[int, Meta(ge=1, le=MAX_PAGE)], _same),
    "hook": (WebhookName, _same),
    "schedule": (ScheduleName, _same),
    "payload": (msgspec.Raw, lambda value, name: bytes(value)),
    "missed": (Literal["skip", "once"], _same),
}

_NULL: Any = msgspec.field(default_factory=partial(msgspec.Raw, b"null"))

# For a body with ids: exactly one of both.
_EITHER = Meta(
    extra_json_schema={
        "oneOf": [
            {"required": ["ids"], "properties": {"ids": {"type": "array", "minItems": 1}, "all": {"const": False}}},
            {"required": ["all"], "properties": {"ids": {"maxItems": 0}, "all": {"const": True}}},
        ]
    }
)


class _Arguments:
    """Reads the arguments of an operation that its path does not name."""

    def __init__(self, operation: Operation[..., Any], http: Http) -> None:
        self.operation = operation
        self.in_path = re.findall(r"\{(\w+)\}", http.path)
        self.kinds = {name: kind for name, kind in operation.kinds.items() if name not in self.in_path}
        self.in_body = http.method in ("POST", "PUT") and bool(self.kinds)
        self.type: Any = None
        if self.kinds:
            name = http.body or f"{operation.name.title()}Query"
            self.type = _struct(
                name, http.about, tuple(each for pair in self.kinds.items() for each in self._of(*pair))
            )
        letters = any(kind.name == "ids" for kind in self.kinds.values())
        self.described = Annotated[self.type, _EITHER] if letters else self.type

    def _of(self, name: str, kind: ArgumentKind) -> tuple[tuple[Any, ...], ...]:
        if kind.name == "ids":
            return ((name, list[Id] | None, None), ("all", bool, False))
        default = (self.operation.defaults[name],) if name in self.operation.defaults else ()
        return ((name, _field(kind)[0], *((_NULL,) if kind.name == "payload" else default)),)

    async def read(self, call: Call) -> dict[str, Any]:
        """Return the arguments. Raise `BadPayload`, `BadArgument`, `BadName` and `TooLarge`."""
        arguments: dict[str, Any] = {name: call.part(name) for name in self.in_path}
        if self.type is None:
            await call.no_body()
            return arguments
        said: Any = await call.json(self.type) if self.in_body else call.query(self.type)
        for name, kind in self.kinds.items():
            if kind.name == "ids":
                arguments[name] = _letters(said, call.host.settings.ids)
            else:
                arguments[name] = _field(kind)[1](getattr(said, name), name)
        return arguments


def _field(kind: ArgumentKind) -> tuple[Any, Callable[[Any, str], Any]]:
    """Return the type of an argument in a body or query, and what reads it."""
    plain = kind.name.removesuffix("?")
    if plain not in _FIELDS:
        return kind.wire, _same
    hint, read = _FIELDS[plain]
    return (hint, read) if plain == kind.name else (hint | None, lambda value, name: value and read(value, name))


@cache
def _struct(name: str, about: str, fields: tuple[tuple[Any, ...], ...]) -> type[msgspec.Struct]:
    """Return a struct type. Equal ones are the same type, because a schema is known by its name."""
    namespace = {"__doc__": about} if about else {}
    return msgspec.defstruct(name, fields, namespace=namespace, forbid_unknown_fields=True)


def _letters(said: Any, max_ids: int) -> list[str] | None:
    """Return the ids; None for all."""
    if bool(said.ids) == said.all:
        raise BadArgument(
            f'expected either ids of dead letters or "all": true, got {"both" if said.all else "neither"}'
        )
    if said.ids is not None and len(said.ids) > max_ids:
        raise TooLarge(f"expected at most {max_ids:,} ids, got {len(said.ids):,}: send several requests")
    return said.ids or None


# Answers ------------------------------------------------------------------------------------------------------------


class PurposeRecord(PurposeStatistics, frozen=True, kw_only=True):
    """A purpose and its numbers."""

    topic: str
    purpose: str


class StatisticsRecord(msgspec.Struct):
    """The statistics, with the names of purposes among their numbers."""

    topics: dict[str, TopicStatistics]
    purposes: list[PurposeRecord]


class DeadRecord(msgspec.Struct):
    """An event that the purpose gave up: its error, the number of attempts, when, and which version did."""

    event: CloudEvent
    error: str
    attempts: int
    time: datetime
    version: int


class DelayedRecord(msgspec.Struct):
    """An event that enters its topic when it is due. `place` is the `after` of the page that begins behind it."""

    event: CloudEvent
    due: datetime
    place: str


class EventRecord(msgspec.Struct):
    """An event, its position in its topic's history, and what became of it for each purpose."""

    event: CloudEvent
    position: int
    outcomes: tuple[records.Outcome, ...]


class Events(msgspec.Struct):
    """The events of a trace. `more` are the ids of those that caused further ones, which are asked for by their own.
    `outcomes` has for each event what became of it for each purpose on its topic."""

    events: list[CloudEvent]
    more: list[Id]
    outcomes: list[tuple[records.Outcome, ...]]


def _letter(letter: DeadLetter) -> DeadRecord:
    return DeadRecord(to_cloudevent(letter.event), letter.error, letter.attempts, letter.time, letter.version)


def _later(delayed: DelayedEvent) -> DelayedRecord:
    return DelayedRecord(to_cloudevent(delayed.event), delayed.due, delayed.place)


def _info(info: EventInfo) -> EventRecord:
    return EventRecord(to_cloudevent(info.event), info.position, info.outcomes)


def _record(info: PurposeInfo) -> PurposeRecord:
    return PurposeRecord(**msgspec.structs.asdict(info.statistics), topic=info.topic, purpose=info.purpose)


def _tree(trace: Trace) -> Iterator[Trace]:
    todo = [trace]
    while todo:
        found = todo.pop()
        yield found
        todo += reversed(found.caused)


async def _show_statistics(call: Call, found: records.Statistics) -> Response:
    purposes = (_record(PurposeInfo(*names, counts)) for names, counts in found.purposes.items())
    return answer(StatisticsRecord(found.topics, await in_pieces(call, purposes)))


async def _show_trace(call: Call, found: Trace) -> Response:
    """Answer with the event and what it caused, each after the one that its `causationid` names. It is a list, because
    a chain of causes may be longer than JSON can nest."""
    events = await in_pieces(call, (to_cloudevent(each.event) for each in _tree(found)))
    outcomes = await in_pieces(call, (each.outcomes for each in _tree(found)))
    return answer(Events(events, [each.event.id for each in _tree(found) if each.more], outcomes))


async def _show_nothing(call: Call, found: None) -> Response:
    return Response(status_code=204)


async def _show_list(call: Call, found: list[Any], *, made: Callable[[Any], Any], of: Callable[..., Any]) -> Response:
    return answer(of(await in_pieces(call, map(made, found))))


async def _show_page(call: Call, found: Any, *, made: Callable[[Any], Any], of: Callable[..., Any]) -> Response:
    return answer(of(await in_pieces(call, map(made, found)), found.next))


async def _show_value(call: Call, found: Any, *, of: Callable[..., Any]) -> Response:
    return answer(of(found))


# Types that are shown in another form: the type for OpenAPI, and how it is made.
_ITEMS: dict[Any, tuple[Any, Callable[[Any], Any]]] = {
    PurposeInfo: (PurposeRecord, _record),
    DeadLetter: (DeadRecord, _letter),
    DelayedEvent: (DelayedRecord, _later),
    EventInfo: (EventRecord, _info),
    Event: (CloudEvent, to_cloudevent),
}
_WHOLE: dict[Any, tuple[Any, Show]] = {
    records.Statistics: (StatisticsRecord, _show_statistics),
    Trace: (Events, _show_trace),
    type(None): (None, _show_nothing),
}


def _shown(operation: Operation[..., Any], http: Http) -> tuple[Any, Show]:
    """Return the type of the answer for OpenAPI, and the function that makes the answer."""
    kind, key = operation.form.kind, http.key
    if kind in _WHOLE:
        return _WHOLE[kind]
    item = item_of(kind)
    if item is not None:
        described, made = _ITEMS.get(item, (item, _same))
        if get_origin(kind) is list:
            of = msgspec.defstruct(key.title(), [(key, list[described])])  # type: ignore[valid-type]
            return of, partial(_show_list, made=made, of=of)
        name = f"{operation.name.title()}Page"
        of = msgspec.defstruct(name, [(key, list[described]), ("next", str | None)])  # type: ignore[valid-type]
        return of, partial(_show_page, made=made, of=of)
    if key:
        of = msgspec.defstruct(key.title(), [(key, kind)])
        return of, partial(_show_value, of=of)
    described, made = _ITEMS.get(kind, (kind, _same))
    return described, partial(_show_value, of=made)


# Endpoints ----------------------------------------------------------------------------------------------------------


def endpoint_of(operation: Operation[..., Any]) -> Endpoint:
    """Return the endpoint of an operation whose row has one."""
    http = operation.http
    assert http is not None
    assert operation.right != "own"
    assert operation.right != "relay"
    arguments = _Arguments(operation, http)
    described, show = _shown(operation, http)

    async def handle(call: Call) -> Response:
        request = operation.request(await arguments.read(call))
        assert call.grant is not None
        return await show(call, await call.host.ask(request, call.grant))

    return Endpoint(
        http.method,
        http.path,
        operation.right,
        handle,
        http.summary,
        described,
        body=arguments.described if arguments.in_body else None,
        query=None if arguments.in_body else arguments.type,
        statuses=(204,) if described is None else (200,),
    )


ENDPOINTS = tuple(endpoint_of(operation) for operation in OPERATIONS.values() if operation.http is not None)
