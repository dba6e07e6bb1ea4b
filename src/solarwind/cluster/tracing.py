"""Events are found in the streams by their ids and by what caused them; this needs no owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from ..batch import AutoId, Batch, read_id
from .formats import write_time
from .layout import CAUSED, Layout, any_producer_name, id_name
from .pieces import Pieces, whole
from .publish import last_or_none, read_raw
from .session import NO_STREAM, Raw, Refusal, Session

SKEW_NS = 60_000_000_000  # that a producer's clock may be ahead of the servers'
_LATE_NS = 3_600_000_000_000  # that an event may come to the stream after it was fired
_PAGE = 256
_PAGE_BYTES = 4 << 20


async def find(session: Session, layout: Layout, partition: int, id: str, topic: str = ">") -> tuple[Batch, int] | None:
    """Return the event with that id, given or made, in one stream, or of one topic in it: its batch, and its index
    there."""
    stream = layout.events_stream(partition)
    given = await last_or_none(session, stream, layout.events_of(partition, who=id_name(id), topic=topic))
    if given is not None:
        raw = await whole(session, stream, given)
        batch = read_raw(raw) if raw is not None else None
        return None if batch is None else (batch, 0)
    made = read_id(id)
    return None if made is None else await find_made(session, layout, partition, made, id, topic)


async def find_made(
    session: Session, layout: Layout, partition: int, made: AutoId, id: str, topic: str = ">"
) -> tuple[Batch, int] | None:
    """Return the event with an id that Solar Wind made."""
    time = made.time_ns
    for was_delayed in (False, True):
        who = any_producer_name(made.producer, was_delayed=was_delayed)
        subject = layout.events_of(partition, who=who, topic=topic)
        async for raw in scan(session, layout.events_stream(partition), subject, time - SKEW_NS):
            batch = read_raw(raw)
            if raw.time > time + _LATE_NS and not was_delayed:
                break
            index = made.sequence - batch.header.first if batch is not None else -1
            if batch is not None and 0 <= index < len(batch) and batch.id(index) == id:
                return batch, index
    return None


async def caused(session: Session, layout: Layout, partition: int, since: int) -> AsyncIterator[Batch]:
    """Yield all batches of a stream in which an event caused some event, fired at or after `since` (ns since 1970)."""
    subject = layout.events_of(partition, kind=CAUSED)
    async for raw in scan(session, layout.events_stream(partition), subject, since - SKEW_NS):
        batch = read_raw(raw)
        if batch is not None and batch.time(len(batch) - 1) >= since:
            yield batch


async def scan(session: Session, stream: str, subject: str, since: int) -> AsyncIterator[Raw]:
    """Yield the messages of a subject that were stored at or after `since` (ns since 1970), each whole."""
    request: dict[str, Any] = {"start_time": write_time(since)}
    pieces = Pieces()
    more = {"next_by_subj": subject, "batch": _PAGE, "max_bytes": _PAGE_BYTES}
    while True:
        try:
            page = await session.until_answered(partial(session.page, stream, request | more), f"read stream {stream}")
        except Refusal as refusal:
            if refusal.code != NO_STREAM:
                raise
            return
        for raw in page:
            found = pieces.add(raw)
            if found is not None:
                yield found
        if not page:
            return
        request = {"seq": page[-1].seq + 1}
