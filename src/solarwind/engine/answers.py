"""How the answers of operations travel: as lists of items, so that a long answer is sent in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from .. import wire
from ..batch import Batch
from ..errors import ProtocolError
from ..event import Event, HandOut
from ..records import (
    DeadLetter,
    DelayedEvent,
    EventInfo,
    LocatedEvent,
    Outcome,
    PurposeStatistics,
    Statistics,
    TopicStatistics,
    Trace,
)
from ..timing import ns_of, time_of

T = TypeVar("T")

MAX_PAGE_BYTES = 8 << 20  # of batches that are read for one answer


class Page(list[T]):
    """A part of a long list. `next` is the `after` of the following page; None at the end."""

    def __init__(self, items: Iterable[T] = (), next: str | None = None) -> None:
        super().__init__(items)
        self.next = next


class AnswerForm(msgspec.Struct, frozen=True):
    """`items` makes the items of an answer of type `kind`, `read` an answer of them. `read` raises `ProtocolError`."""

    kind: Any
    items: Callable[[Any], Iterable[Any]]
    read: Callable[[list[Any]], Any]


def form_of(kind: Any) -> AnswerForm:
    """Return the form of a type: that of `_WHOLE`, or else an item for each of a list or a page, or one item; None has
    none. The first item of a page is its `next`."""
    if kind in _WHOLE:
        return AnswerForm(kind, *_WHOLE[kind])
    if kind is type(None):
        return AnswerForm(kind, lambda answer: (), lambda items: None)
    item = item_of(kind)
    if item is None:
        if kind in _ITEMS:
            pack_one, read_one = _ITEMS[kind]
            return AnswerForm(
                kind, lambda answer: (pack_one(answer),), lambda items: read_one(_read(items, tuple[Any])[0])
            )
        return AnswerForm(kind, lambda answer: (answer,), lambda items: _read(items, tuple[kind])[0])
    pack, read = _ITEMS.get(item, (_same, None))

    def read_all(items: list[Any]) -> list[Any]:
        if read is not None:
            return [read(each) for each in items]
        found: list[Any] = _read(items, list[item])  # type: ignore[valid-type]
        return found

    if get_origin(kind) is list:
        return AnswerForm(kind, partial(map, pack), read_all)
    return AnswerForm(
        kind,
        lambda page: (page.next, *map(pack, page)),
        lambda items: Page(read_all(items[1:]), _read(items[0], str | None)),
    )


def item_of(kind: Any) -> Any:
    """Return the type of the items of a list or a page; None for any other type."""
    return get_args(kind)[0] if get_origin(kind) in (list, Page) else None


def _same(value: Any) -> Any:
    return value


def _read(items: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(items, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"expected an answer that can be read, got another: {error}") from None


# Statistics: an item for each topic ---------------------------------------------------------------------------------


def _statistics_items(found: Statistics) -> Iterable[wire.StatisticsItem]:
    items = {
        name: wire.StatisticsItem(
            name,
            topic.fired,
            topic.fired_per_s,
            {},
            topic.delayed,
            None if topic.next_due is None else ns_of(topic.next_due),
        )
        for name, topic in found.topics.items()
    }
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
    topics = {
        item.topic: TopicStatistics(
            item.fired,
            item.fired_per_s,
            item.delayed,
            None if item.next_due_ns is None else time_of(item.next_due_ns),
        )
        for item in found
    }
    return Statistics(topics, purposes)


# Events, and what has one -------------------------------------------------------------------------------------------


def _pack_letter(letter: DeadLetter) -> wire.DeadItem:
    return wire.DeadItem(_pack_event(letter.event), letter.error, letter.attempts, ns_of(letter.time), letter.version)


def _read_letter(item: Any) -> DeadLetter:
    found: wire.DeadItem = _read(item, wire.DeadItem)
    return DeadLetter(_event(found.batch), found.error, found.attempts, time_of(found.time_ns), found.version)


def _pack_delayed(delayed: DelayedEvent) -> wire.DelayedItem:
    return wire.DelayedItem(_pack_event(delayed.event), ns_of(delayed.due), delayed.place)


def _read_delayed(item: Any) -> DelayedEvent:
    found: wire.DelayedItem = _read(item, wire.DelayedItem)
    return DelayedEvent(_event(found.batch), time_of(found.due_ns), found.place)


def _pack_info(info: EventInfo) -> wire.EventItem:
    return wire.EventItem(_pack_event(info.event), info.position, list(info.outcomes))


def _read_info(item: Any) -> EventInfo:
    found: wire.EventItem = _read(item, wire.EventItem)
    return EventInfo(_event(found.batch), found.position, _read(found.outcomes, tuple[Outcome, ...]))


def _pack_located(found: LocatedEvent) -> wire.LocatedItem:
    event = _pack_event(found.event)
    return wire.LocatedItem(event, found.position, list(found.outcomes), found.start, found.time_ns)


def _read_located(item: Any) -> LocatedEvent:
    found: wire.LocatedItem = _read(item, wire.LocatedItem)
    outcomes = _read(found.outcomes, tuple[Outcome, ...])
    return LocatedEvent(_event(found.batch), found.position, outcomes, found.start, found.time_ns)


def _pack_event(event: Event) -> bytes:
    """Return the event as a batch of one."""
    batch: Batch = event._of.batch
    return batch.part(event._index, event._index + 1).data


def _read_event(item: Any) -> Event:
    return _event(_read(item, bytes))


def _event(data: bytes) -> Event:
    return Event(HandOut(Batch.read(data)), 0)


# A trace: parents before their children, without recursion, since a chain of causes can be long -----------------------


def _trace_items(trace: Trace) -> Iterable[wire.TraceItem]:
    order = [(trace, -1)]
    for index, (each, parent) in enumerate(order):
        yield wire.TraceItem(_pack_event(each.event), parent, each.more, list(each.outcomes))
        order += [(child, index) for child in each.caused]


def _read_trace(items: list[Any]) -> Trace:
    found: list[wire.TraceItem] = _read(items, list[wire.TraceItem])
    caused: list[list[Trace]] = [[] for _ in found]
    for index in reversed(range(len(found))):
        below, ends = tuple(reversed(caused[index])), _read(found[index].outcomes, tuple[Outcome, ...])
        trace = Trace(_event(found[index].batch), below, found[index].more, ends)
        if index:
            caused[found[index].parent].append(trace)
    return trace


_WHOLE: dict[Any, tuple[Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]]] = {
    Statistics: (_statistics_items, _read_statistics),
    Trace: (_trace_items, _read_trace),
}
_ITEMS: dict[Any, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    DeadLetter: (_pack_letter, _read_letter),
    DelayedEvent: (_pack_delayed, _read_delayed),
    EventInfo: (_pack_info, _read_info),
    LocatedEvent: (_pack_located, _read_located),
    Event: (_pack_event, _read_event),
}
