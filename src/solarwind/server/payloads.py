"""An answer for who may watch and not see payloads: all of it but payloads, and errors, which may quote them.

It goes by the types of answers, so that an operation to come needs nothing here: an event gets the payload null, of a
content type of its own, and what a record has in a field named `error` or `payload` is replaced, or in one named
`field`: the name of a payload's field. Keys, ids and extensions are attributes of events, and are shown.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from ..engine.answers import Page
from ..engine.watch import HIDDEN
from ..event import Event, HandOut
from ..records import Trace

T = TypeVar("T")

_FIELDS = {"error", "payload", "field"}
_TOGETHER = 100  # items in one turn of the loop


async def without_payloads(kind: Any, answer: T) -> T:
    """Return an answer of a type without its payloads and errors."""
    if not _may_have(kind):
        return answer
    if isinstance(answer, Trace):
        return await _trace(answer)  # type: ignore[return-value]
    if not isinstance(answer, list):
        bare: T = _bare(answer)
        return bare
    items: list[Any] = []
    for start in range(0, len(answer), _TOGETHER):
        items += map(_bare, answer[start : start + _TOGETHER])
        await asyncio.sleep(0)
    return Page(items, answer.next) if isinstance(answer, Page) else items  # type: ignore[return-value]


@cache
def _may_have(kind: Any) -> bool:
    """Return whether there may be a payload or an error in a value of that type."""
    if kind in (Event, Trace):
        return True
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        return bool(_FIELDS & hints.keys()) or any(_may_have(hint) for hint in hints.values())
    return any(_may_have(each) for each in get_args(kind))


def _bare(value: Any) -> Any:
    if isinstance(value, Event):
        return Event(HandOut(value._of.batch.without_payload(value._index)), 0)
    if isinstance(value, msgspec.Struct):
        changed = {
            name: HIDDEN if name in _FIELDS and isinstance(was, str) else _bare(was)
            for name in value.__struct_fields__
            if isinstance(was := getattr(value, name), str | tuple | Event | msgspec.Struct)
        }
        return msgspec.structs.replace(value, **changed)
    return tuple(map(_bare, value)) if isinstance(value, tuple) else value


async def _trace(trace: Trace) -> Trace:
    """Return a trace without payloads: without recursion, because a chain of causes can be long."""
    order, above = [trace], [-1]
    for index, each in enumerate(order):
        order += each.caused
        above += [index] * len(each.caused)
    caused: list[list[Trace]] = [[] for _ in order]
    for index in reversed(range(len(order))):
        bare = _bare(msgspec.structs.replace(order[index], caused=()))
        bare = msgspec.structs.replace(bare, caused=tuple(reversed(caused[index])))
        if not index:
            return bare  # type: ignore[no-any-return]
        caused[above[index]].append(bare)
        if not index % _TOGETHER:
            await asyncio.sleep(0)
    raise AssertionError("a trace has a root")
