"""Delayed events, as an operator sees them: in pages by when they are due, or one by its id."""

from __future__ import annotations

from ..batch import Batch
from ..errors import NotFound
from ..event import Event, HandOut
from ..records import DelayedEvent
from ..store.delays import BEGINNING, DueLog, Entry
from ..timing import time_of
from .answers import MAX_PAGE_BYTES, Page
from .arguments import PLACE


async def page_of_delayed(due_log: DueLog, topic: str | None, after: str | None, limit: int) -> Page[DelayedEvent]:
    """Return a page of delayed events, of one topic or of all, the next one that is due first."""
    place, id = read_place(after) if after is not None else (BEGINNING, "")
    page, left = Page[DelayedEvent](), MAX_PAGE_BYTES
    # The events of an entry go, one by one: so it is looked at again, from behind that one if it is still there.
    first, place = place, (place[0], place[1] - 1) if place != BEGINNING else place
    while entries := await due_log.page(place, topic=topic):
        for entry in entries:
            ids = [entry.batch.id(index) for index in range(len(entry.batch))]
            start = ids.index(id) + 1 if entry.place == first and id in ids else 0
            for index in range(start, len(ids)):
                if page and (len(page) == limit or left <= 0):
                    page.next = page[-1].place
                    return page
                page.append(_delayed(entry, index))
            left -= len(entry.batch.data)
            place = entry.place
    return page


async def delayed_event(due_log: DueLog, topic: str, id: str) -> DelayedEvent:
    """Return a delayed event. Raise `NotFound`."""
    entry = await due_log.find(topic, id)
    for index in range(len(entry.batch) if entry is not None else 0):
        if entry is not None and entry.batch.id(index) == id:
            return _delayed(entry, index)
    raise not_delayed(topic, id)


def not_delayed(topic: str, id: str) -> NotFound:
    return NotFound(
        f"expected the id of a delayed event of topic {topic!r}, got {id!a}, which is not one (any more): "
        "`solarwind delayed list` shows them"
    )


def read_place(text: str) -> tuple[tuple[int, int], str]:
    """Return the place of an entry and the id in it that a checked text names."""
    found = PLACE.fullmatch(text)
    assert found is not None
    return (int(found[2]), int(found[3])), found[4]


def _delayed(entry: Entry, index: int) -> DelayedEvent:
    batch: Batch = entry.batch
    place = f"{entry.due}.{entry.number}.{batch.id(index)}"
    return DelayedEvent(Event(HandOut(batch), index), time_of(entry.due), place)
