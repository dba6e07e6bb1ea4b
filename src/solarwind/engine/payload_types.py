"""Which types the payloads of a topic had: looked for in its newest events when somebody asks, so that firing pays
nothing for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import BadPayload
from ..event import Event
from ..names import no_topic
from ..payload import is_json
from ..records import FieldTypes, PayloadTypes
from ..store.base import Store
from .arguments import Limit, Topic
from .reading import page_of_events
from .rest import Rest

if TYPE_CHECKING:
    from ..core.dispatcher import Dispatcher

MAX_SAMPLE = 1_000  # events
MAX_FIELDS = 200
MAX_DEPTH = 3  # of objects in objects
MAX_NAME = 100  # characters of a field's name; longer ones are cut
_NOT_JSON = "not JSON"  # of a payload that says it is
_NAMES = {dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


class TypeOperations:
    """The part of an engine that looks at payloads."""

    store: Store
    _dispatcher: Dispatcher

    async def _caught_up(self, topics: list[str]) -> None:
        raise NotImplementedError

    async def types(self, topic: Topic, limit: Limit = MAX_SAMPLE) -> PayloadTypes:
        """Return the types that the payloads of a topic had, by its newest `limit` events, a thousand at most, and
        fewer if they are large. Raise `NotFound`."""
        await self._caught_up([topic])
        if topic not in self._dispatcher.topics:
            raise no_topic(topic)
        end, limit = self._dispatcher.topics[topic].end, min(limit, MAX_SAMPLE)
        sample, rest = _Sample(), Rest()
        found = await page_of_events(
            self.store, topic, max(0, end - limit), end=end, goes_on=False, key=None, limit=limit, tail=False
        )
        for event in found:
            sample.add(event)
            await rest.now_and_then()
        since, until = (found[0].time, found[-1].time) if found else (None, None)
        return PayloadTypes(topic, len(found), since, until, sample.types, tuple(sample.shown()), sample.more)


class _Sample:
    """What was found so far."""

    def __init__(self) -> None:
        self.types: dict[str, int] = {}
        self.more = False  # there are fields that are left out
        self._fields: dict[str, tuple[dict[str, None], int]] = {}  # path -> types in order, and in how many events

    def add(self, event: Event) -> None:
        name, value = _payload_of(event)
        self.types[name] = self.types.get(name, 0) + 1
        if isinstance(value, dict):
            for path, its in _fields(value, "", MAX_DEPTH):
                self._note(path, its)

    def _note(self, path: str, its: str) -> None:
        if path not in self._fields and len(self._fields) == MAX_FIELDS:
            self.more = True
            return
        types, events = self._fields.get(path, ({}, 0))
        types[its] = None
        self._fields[path] = types, events + 1

    def shown(self) -> Iterator[FieldTypes]:
        for path, (types, events) in self._fields.items():
            yield FieldTypes(path, events, tuple(types))


def _payload_of(event: Event) -> tuple[str, Any]:
    content = event.content_type
    if not is_json(content):
        return content.partition(";")[0].strip().lower() or "bytes", None
    try:
        value = event.payload
    except BadPayload:
        return _NOT_JSON, None
    return _name(value), value


def _name(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)


def _fields(value: dict[str, Any], before: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the fields of an object with their types, and those of objects in it. Of more than can be shown only as
    many are looked at, however large the object is."""
    for number, (name, its) in enumerate(value.items()):
        if number > MAX_FIELDS:
            return
        path = before + (name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…")
        yield path, _name(its)
        if isinstance(its, dict) and depth > 1:
            yield from _fields(its, f"{path}.", depth - 1)
