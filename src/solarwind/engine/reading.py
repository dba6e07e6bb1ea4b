"""Pages of a topic's history, as a store has it."""

from __future__ import annotations

from collections.abc import Sequence

from ..batch import Batch
from ..core.spans import Spans
from ..errors import NotFound
from ..event import Event, HandOut
from ..store.base import Store
from .answers import MAX_PAGE_BYTES, Page

_READ_BYTES = 64 << 10  # of history that is read together
MAX_SEARCH_BYTES = 2 << 20  # of history that is looked through for one answer


async def event_at(store: Store, topic: str, position: int) -> Event:
    """Return the event at that position of a topic. Raise `NotFound`."""
    events = await events_at(store, topic, Spans((position, position + 1)))
    if position not in events:
        raise no_event_at(topic, position)
    return events[position]


async def events_at(store: Store, topic: str, positions: Spans) -> dict[int, Event]:
    """Return the events at these positions; the first ones where all of them would be too much to read at once."""
    found: dict[int, Event] = {}
    for start, batch, _ in await store.read_at(topic, positions, MAX_PAGE_BYTES):
        hand_out = HandOut(batch, start)
        for position in positions.within(start, start + batch.count).positions():
            found[position] = Event(hand_out, position - start)
    return found


async def page_of_events(
    store: Store, topic: str, position: int, *, end: int, goes_on: bool, tail: bool, key: str | None, limit: int
) -> Page[Event]:
    """Return a page of a topic's events from a position on, only those with a key if one is given; it `end`s there. One
    that `goes_on` from an earlier page follows it without a gap. With `tail`, `next` is where it ends, too. Raise
    `NotFound` where what follows was trimmed."""
    page, left = Page[Event](), MAX_SEARCH_BYTES
    together = _READ_BYTES if key is None else MAX_SEARCH_BYTES // 4
    while found := await store.read(topic, position, together):
        if goes_on and found[0].start > position:
            raise _trimmed(topic, position, found[0].start)
        goes_on = False
        for start, batch, _ in found:
            if left <= 0:
                page.next = str(start - 1)
                return page
            hand_out = HandOut(batch, start)
            for index in _indices(batch, key, max(0, position - start)):
                if len(page) == limit:
                    page.next = str(start + index - 1)
                    return page
                page.append(Event(hand_out, index))
            position, left = start + batch.count, left - len(batch.data)
    if goes_on and position < end:
        raise _trimmed(topic, position, end)
    if tail:  # beyond a gap at the end, which is trimmed, unless more was accepted meanwhile
        page.next = str(max(position, end) - 1)
    return page


def _indices(batch: Batch, key: str | None, start: int) -> Sequence[int]:
    """Return which events of a batch have that key, from `start` on; without a key all of them."""
    if key is None:
        return range(start, batch.count)
    keys = batch.header.keys or ()
    return [index for index in range(start, len(keys)) if keys[index] == key]


def no_event_at(topic: str, position: int) -> NotFound:
    return NotFound(f"expected an event at position {position} of topic {topic!r}, got none: it was lost or trimmed")


def _trimmed(topic: str, position: int, first: int) -> NotFound:
    return NotFound(
        f"expected the history of topic {topic!r} from position {position} on, but what followed was trimmed "
        f"meanwhile: begin anew, or go on with after={first - 1}"
    )
