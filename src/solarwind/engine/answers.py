"""How the answers of operations travel: as a list of items, so that a long one goes in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from .. import wire
from ..batch import Batch
from ..errors import ProtocolError
from ..event import Event, HandOut
from ..records import DeadLetter, PurposeStatistics, Statistics, TopicStatistics, Trace

T = TypeVar("T")


class Form(msgspec.Struct, frozen=True):
    """`items` makes the items of an answer of type `kind`, `read` an answer of them. `read` raises `ProtocolError`."""

    kind: Any
    items: Callable[[Any], Iterable[Any]]
    read: Callable[[list[Any]], Any]


def form_of(kind: Any) -> Form:
    """Return the form of a type: one of `_FORMS`, or else a list's items, or one item; None has none."""
    if kind in _FORMS:
        return Form(kind, *_FORMS[kind])
    if kind is type(None):
        return Form(kind, lambda answer: (), lambda items: None)
    if get_origin(kind) is list:
        return Form(kind, lambda answer: answer, lambda items: _read(items, kind))
    return Form(kind, lambda answer: (answer,), lambda items: _read(items, tuple[kind])[0])


def item_of(kind: Any) -> Any:
    """Return the type of a list's items; None where it is no list."""
    return get_args(kind)[0] if get_origin(kind) is list else None


def _read(items: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(items, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"expected an answer that can be read, got another: {error}") from None


# Statistics: an item for each topic ---------------------------------------------------------------------------------


def _statistics_items(found: Statistics) -> Iterable[wire.StatisticsItem]:
    items = {name: wire.StatisticsItem(name, topic.fired, {}) for name, topic in found.topics.items()}
    for (topic, purpose), counts in found.purposes.items():
        items[topic].purposes[purpose] = counts
    return items.values()


def _read_statistics(items: list[Any]) -> Statistics:
    found: list[wire.StatisticsItem] = _read(items, list[wire.StatisticsItem])
    purposes: dict[tuple[str, str], PurposeStatistics] = {
        (item.topic, purpose): _read(counts, PurposeStatistics)
        for item in found
        for purpose, counts in item.purposes.items()
    }
    return Statistics({item.topic: TopicStatistics(item.fired) for item in found}, purposes)


# Dead letters -------------------------------------------------------------------------------------------------------


def _dead_items(letters: list[DeadLetter]) -> Iterable[wire.DeadItem]:
    for each in letters:
        yield wire.DeadItem(_single(each.event), each.error, each.attempts, wire.ns_of(each.time))


def _read_dead(items: list[Any]) -> list[DeadLetter]:
    found: list[wire.DeadItem] = _read(items, list[wire.DeadItem])
    return [DeadLetter(_event(each.batch), each.error, each.attempts, wire.time_of(each.time_ns)) for each in found]


# A trace: parents before their children, without recursion, since a chain of causes can be long -----------------------


def _trace_items(trace: Trace) -> Iterable[wire.TraceItem]:
    order = [(trace, -1)]
    for index, (each, parent) in enumerate(order):
        yield wire.TraceItem(_single(each.event), parent)
        order += [(child, index) for child in each.caused]


def _read_trace(items: list[Any]) -> Trace:
    found: list[wire.TraceItem] = _read(items, list[wire.TraceItem])
    caused: list[list[Trace]] = [[] for _ in found]
    for index in reversed(range(len(found))):
        trace = Trace(_event(found[index].batch), tuple(reversed(caused[index])))
        if index:
            caused[found[index].parent].append(trace)
    return trace


def _event(data: bytes) -> Event:
    return Event(HandOut(Batch.read(data)), 0)


def _single(event: Event) -> bytes:
    """The event as a batch of one."""
    batch: Batch = event._of.batch
    return batch.part(event._index, event._index + 1).data


_FORMS: dict[Any, tuple[Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]]] = {
    Statistics: (_statistics_items, _read_statistics),
    list[DeadLetter]: (_dead_items, _read_dead),
    Trace: (_trace_items, _read_trace),
}
