"""A trace: an event, and the tree of what it caused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

from ..core.log import Stored
from ..core.spans import Spans
from ..errors import NotFound
from ..event import Event, HandOut
from ..records import Trace
from ..store.base import Store
from .answers import MAX_PAGE_BYTES
from .outcomes import Outcomes

Became = Callable[[list[Event]], Awaitable[list[Outcomes]]]
Effects = Callable[[Collection[str]], Awaitable[tuple[dict[str, list[Event]], bool]]]


def no_event(id: str) -> NotFound:
    """Return the refusal for an id that the history does not have."""
    return NotFound(f"expected the id of an event in the history, got {id!a}: there is none, or it was trimmed")


def not_caused(id: str, after: str) -> NotFound:
    return NotFound(f"expected the id of an event that {id!a} caused as after, got {after!a}, which it did not")


def effects_of(ids: Collection[str], stored: Iterable[Stored]) -> dict[str, list[Event]]:
    """Return what these events caused, by their ids."""
    found: dict[str, list[Event]] = {}
    for start, batch in stored:
        header, hand_out = batch.header, HandOut(batch, start)
        causes = [cause.id if cause.kind == "event" else "" for cause in header.causes or ()]
        for index, cause in enumerate(header.caused_by or ()):
            if cause >= 0 and causes[cause] in ids:
                found.setdefault(causes[cause], []).append(Event(hand_out, index))
    return found


async def caused_by_version(
    store: Store, topic: str, start: int, stop: int, its: str, purpose: str, version: int
) -> Spans:
    """Return where in a topic's log are the events that a version of a purpose of topic `its` caused."""
    found = Spans()
    while start < stop and (read := await store.read(topic, start, 1 << 20)):
        for first, batch in read:
            causes = [(each.kind, each.topic, each.purpose, each.version) for each in batch.header.causes or ()]
            matches = {at for at, each in enumerate(causes) if each == ("event", its, purpose, version)}
            for index, at in enumerate((matches and batch.header.caused_by) or ()):
                if at in matches:
                    found.add(first + index, first + index + 1)
            start = first + batch.count
    return found


async def trace_tree(event: Event, effects: Effects, became: Became, after: str | None, limit: int) -> Trace:
    """Return the event and what it caused, but for what it caused up to the event `after`: at most `limit` events, the
    nearest first, or fewer if they are large. `effects` returns what some events caused, by their ids, and whether that
    may not be all; `became` what became of events, in their order. Raise `NotFound`."""
    order, size = [event], len(event.data)
    children: list[list[int]] = []
    cut: set[int] = set()
    asked: set[str] = set()  # so that it ends also where events were said to cause each other
    while len(children) < len(order):  # level by level
        level = range(len(children), len(order))
        found, more = await effects([order[at].id for at in level if order[at].id not in asked])
        for at in level:
            its = found.get(order[at].id, []) if order[at].id not in asked else []
            asked.add(order[at].id)
            if at == 0 and after is not None:
                its = _behind(event, its, after)
            start = len(order)
            for child in its:
                size += len(child.data)
                if cut or len(order) == limit or (len(order) > 1 and size > MAX_PAGE_BYTES):
                    cut.add(at)
                    break
                order.append(child)
            children.append(list(range(start, len(order))))
        cut.update(level if more else ())
    traces, ends = dict[int, Trace](), await became(order)
    for index in reversed(range(len(order))):
        below = tuple(traces.pop(child) for child in children[index])
        traces[index] = Trace(order[index], below, index in cut, ends[index])
    return traces[0]


def _behind(event: Event, caused: list[Event], after: str) -> list[Event]:
    for at, child in enumerate(caused, 1):
        if child.id == after:
            return caused[at:]
    raise not_caused(event.id, after)
