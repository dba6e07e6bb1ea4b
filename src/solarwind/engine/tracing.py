"""A trace: an event, and the tree of what it caused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence

from ..core.log import Stored
from ..core.spans import Spans
from ..errors import NotFound
from ..event import Event, HandOut
from ..records import LocatedEvent, Trace
from ..store.base import BatchPlace, Store
from .answers import MAX_PAGE_BYTES, Page
from .outcomes import Outcomes

Lookup = Callable[[str], Awaitable[list[LocatedEvent]]]  # `Operations.lookup`
Effects = Callable[[Sequence[str], BatchPlace | None, str | None, int], Awaitable[Page[LocatedEvent]]]  # and `effects`
_NOWHERE = BatchPlace(-1, "", -1)  # before all others


def no_event(id: str) -> NotFound:
    """Return the refusal for an id that the history does not have."""
    return NotFound(
        f"expected the id of an event in the history, got {id!a}: there is none, it is delayed, or it was trimmed"
    )


def not_caused(id: str, after: str) -> NotFound:
    return NotFound(f"expected the id of an event that {id!a} caused as after, got {after!a}, which it did not")


def effects_of(ids: Collection[str], stored: Iterable[Stored], since: BatchPlace | None, after: int) -> Iterator[Event]:
    """Yield what these events caused, in its order; of the batch at the place `since` what is behind position
    `after`."""
    for start, batch, _ in stored:
        header, hand_out = batch.header, HandOut(batch, start)
        causes = [cause.kind == "event" and cause.id in ids for cause in header.causes or ()]
        is_begun = since is not None and (batch.topic, start) == (since.topic, since.start)
        for index, cause in enumerate(header.caused_by or ()):
            if cause >= 0 and causes[cause] and not (is_begun and start + index <= after):
                yield Event(hand_out, index)


async def caused_by_version(
    store: Store, topic: str, start: int, stop: int, its: str, purpose: str, version: int
) -> Spans:
    """Return where in a topic's log are the events that a version of a purpose of topic `its` caused."""
    found = Spans()
    while start < stop and (read := await store.read(topic, start, 1 << 20)):
        for first, batch, _ in read:
            causes = [(each.kind, each.topic, each.purpose, each.version) for each in batch.header.causes or ()]
            matches = {at for at, each in enumerate(causes) if each == ("event", its, purpose, version)}
            for index, at in enumerate((matches and batch.header.caused_by) or ()):
                if at in matches:
                    found.add(first + index, first + index + 1)
            start = first + batch.count
    return found


async def located(
    store: Store, topic: str, position: int, became: Callable[[list[Event]], Awaitable[list[Outcomes]]]
) -> list[LocatedEvent]:
    """Return the event at that position of a topic; nothing where there is none any more."""
    read = await store.read_at(topic, Spans((position, position + 1)), 1)
    return await with_outcomes([Event(HandOut(batch, start), position - start) for start, batch, _ in read], became)


async def with_outcomes(
    events: list[Event], became: Callable[[list[Event]], Awaitable[list[Outcomes]]]
) -> list[LocatedEvent]:
    """Return events, which know their batches, with what became of them."""
    found = []
    for event, ends in zip(events, await became(events), strict=True):
        start, batch = event._of.start, event._of.batch
        found.append(LocatedEvent(event, start + event._index, ends, start, batch.time(0)))
    return found


async def trace(lookup: Lookup, effects: Effects, id: str, after: str | None, limit: int) -> Trace:
    """Return the event and what it caused, but for what it caused up to the event `after`: at most `limit` events, the
    nearest first, or fewer if they are large. Raise `NotFound`."""
    root = next(iter(await lookup(id)), None)
    if root is None:
        raise no_event(id)
    if after is None:
        return await _tree(root, effects, None, limit)
    for last in await lookup(after):
        if last.event.cause.id == id:
            return await _tree(root, effects, last, limit)
    raise not_caused(id, after)


def merged(pages: Sequence[Page[LocatedEvent]]) -> Page[LocatedEvent]:
    """Return one page of those of several dispatchers, as far as it is certain that nothing is left out."""
    if len(pages) == 1:
        return pages[0]
    ends = [place_of(page[-1]) if page else _NOWHERE for page in pages if page.next is not None]
    up_to = min(ends, default=None)
    events = [each for page in pages for each in page if up_to is None or place_of(each) <= up_to]
    events.sort(key=lambda each: (place_of(each), each.position))
    return Page(events, None if up_to is None else str(up_to.start))


def place_of(event: LocatedEvent) -> BatchPlace:
    return BatchPlace(event.time_ns, event.event.topic, event.start)


async def _tree(root: LocatedEvent, effects: Effects, last: LocatedEvent | None, limit: int) -> Trace:
    order, size = [root], len(root.event.data)
    children: list[list[int]] = []
    cut: set[int] = set()
    asked: set[str] = set()  # so that it ends also where events were said to cause each other
    while len(children) < len(order):  # level by level
        level = range(len(children), len(order))
        ids = list(dict.fromkeys(id for at in level if (id := order[at].event.id) not in asked))
        since, behind = (None, None) if last is None or children else (place_of(last), str(last.position))
        page = await effects(ids, since, behind, limit) if ids else Page[LocatedEvent]()
        found: dict[str, list[LocatedEvent]] = {}
        for each in page:
            found.setdefault(each.event.cause.id, []).append(each)
        for at in level:
            id = order[at].event.id
            its = found.get(id, []) if id not in asked else []
            asked.add(id)
            start = len(order)
            for child in its:
                size += len(child.event.data)
                if cut or len(order) == limit or (len(order) > 1 and size > MAX_PAGE_BYTES):
                    cut.add(at)
                    break
                order.append(child)
            children.append(list(range(start, len(order))))
        cut.update(level if page.next is not None else ())
    traces = dict[int, Trace]()
    for index in reversed(range(len(order))):
        below = tuple(traces.pop(child) for child in children[index])
        traces[index] = Trace(order[index].event, below, index in cut, order[index].outcomes)
    return traces[0]
