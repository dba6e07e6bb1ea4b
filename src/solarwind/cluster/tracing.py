"""Events are found in the streams by their ids; this needs no owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from ..batch import AutoId, Batch, read_id
from .formats import write_time
from .layout import CAUSED, DIRECT, Layout, any_producer_name, id_name
from .pieces import PIECE, Pieces, piece_of, whole
from .publish import NUMBER, last_or_none, read_raw
from .session import NO_STREAM, Raw, Refusal, Session

SKEW_NS = 60_000_000_000  # that a producer's clock may be ahead of the servers'
_LATE_NS = 3_600_000_000_000  # that an event may come to the stream after it was fired
_SOON_NS = 1_000_000_000  # the same, mostly
_PAGE = 256
_PAGE_BYTES = 4 << 20
_NEAR_SEQS = 8  # between messages that are read together
_AT_ONCE = 16  # requests
_NEAR = {"batch": 16, "max_bytes": 256 << 10}  # messages from about the time at which an event was fired


async def find_given(session: Session, layout: Layout, partition: int, id: str, topic: str = ">") -> Raw | None:
    """Return the message of the event with that given id in one stream, or of one topic in it."""
    stream = layout.events_stream(partition)
    last = await last_or_none(session, stream, layout.events_of(partition, who=id_name(id), topic=topic))
    return None if last is None else await whole(session, stream, last)


async def find_made(
    session: Session, layout: Layout, partition: int, made: AutoId, id: str, topic: str
) -> tuple[Batch, int] | None:
    """Return the event of a topic with an id that Solar Wind made: its batch, and its index there. What did not come
    from its producer at once is looked for message by message: an owner has an index of it."""
    found = await find_direct(session, layout, partition, id, topic)
    batch = None if found is None else read_raw(found[0])
    if found is not None and batch is not None:
        return batch, found[1]
    time = made.time_ns
    for was_delayed in (False, True):
        who = any_producer_name(made.producer, was_delayed=was_delayed)
        subject = layout.events_of(partition, kind=CAUSED, who=who, topic=topic)
        async for raw in scan(session, layout.events_stream(partition), subject, time - SKEW_NS):
            if raw.time > time + _LATE_NS and not was_delayed:
                break
            index = index_in(raw, made, id)
            batch = read_raw(raw)
            if index is not None and batch is not None:
                return batch, index
    return None


async def find_direct(
    session: Session, layout: Layout, partition: int, id: str, topic: str = ">"
) -> tuple[Raw, int] | None:
    """Return the event with an id that Solar Wind made, if its producer stored it itself: its message, and its index
    there. On each topic such messages are in the order of their numbers, so that few of them are looked at."""
    made = read_id(id)
    if made is None:
        return None
    stream = layout.events_stream(partition)
    of_producer = layout.events_of(partition, via=DIRECT, who=any_producer_name(made.producer), topic=topic)
    body = {"subjects_filter": of_producer}
    try:
        info = await session.until_answered(lambda: session.api(f"STREAM.INFO.{stream}", body), f"read stream {stream}")
    except Refusal as refusal:
        if refusal.code != NO_STREAM:
            raise
        return None
    lanes = {tuple(subject.split(".", 7)[5:]) for subject in info["state"].get("subjects") or ()}
    for producer, author, name in sorted(lanes):
        subject = layout.events_of(partition, via=DIRECT, who=f"{producer}.{author}", topic=name)
        found = await _find_in_order(session, stream, subject, made, id, int(info["state"]["last_seq"]))
        if found is not None:
            return found
    return None


async def _find_in_order(
    session: Session, stream: str, subject: str, made: AutoId, id: str, last: int
) -> tuple[Raw, int] | None:
    """Look first where the event is if it came at once, then halve what is before or behind that."""
    low, high = 1, last
    request: dict[str, Any] = {"start_time": write_time(made.time_ns - _SOON_NS), **_NEAR}
    while low <= high:
        ask = partial(session.page, stream, {**request, "next_by_subj": subject})
        page: list[Raw] = await session.until_answered(ask, f"read stream {stream}")
        for raw in page:
            first, stop = _numbers(raw)
            if made.sequence < first or raw.seq > high:
                high = min(high, raw.seq - 1)
                break
            if made.sequence < stop:
                return await _whole_with(session, stream, raw, made, id)
            low = max(low, raw.seq + 1)
        if "seq" in request and (not page or page[0].seq > high):
            high = min(high, request["seq"] - 1)
        request = {"seq": (low + high) // 2, "batch": 1}
    return None


def _numbers(raw: Raw) -> tuple[int, int]:
    """Return the number of the first event of a message, or of the event of which it is a piece, and that behind the
    last; of another program's message such as are before all others."""
    number = raw.headers.get(NUMBER, "")
    if piece_of(raw) is not None and number.isdecimal():
        return int(number), int(number) + 1
    batch = read_raw(raw)
    return (0, 0) if batch is None else (batch.header.first, batch.header.first + len(batch))


async def _whole_with(session: Session, stream: str, raw: Raw, made: AutoId, id: str) -> tuple[Raw, int] | None:
    """Return the whole message of which `raw` is a part, and the index of the event in it, if its id is this one."""
    piece = piece_of(raw)
    if piece is not None:
        at, count = piece
        last = Raw(raw.subject, raw.seq + count - at, b"", {PIECE: f"{count}/{count}"}, raw.time)
        found = await whole(session, stream, last)
    else:
        found = raw
    index = None if found is None else index_in(found, made, id)
    return None if found is None or index is None else (found, index)


def index_in(raw: Raw, made: AutoId, id: str) -> int | None:
    """Return the index of the event with an id that Solar Wind made in a message; None if it is not there."""
    batch = read_raw(raw)
    index = -1 if batch is None else made.sequence - batch.header.first
    return index if batch is not None and 0 <= index < len(batch) and batch.id(index) == id else None


async def read_batches(
    session: Session, layout: Layout, partition: int, seqs: Sequence[int]
) -> dict[int, tuple[Raw, Batch]]:
    """Return the batches in the messages with these sequences, ascending, by those: of what handlers fired or was
    caused. Those that are near each other are read together."""
    stream, subject = layout.events_stream(partition), layout.events_of(partition, kind=CAUSED)
    wanted, runs = set(seqs), list[list[int]]()
    for seq in seqs:
        if runs and seq - runs[-1][-1] <= _NEAR_SEQS and len(runs[-1]) < _PAGE:
            runs[-1].append(seq)
        else:
            runs.append([seq])
    found: dict[int, tuple[Raw, Batch]] = {}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def read(run: list[int]) -> None:
        async with limit:
            pieces, seq = Pieces(), run[0]
            while True:
                more = {"next_by_subj": subject, "batch": run[-1] - seq + 1, "max_bytes": _PAGE_BYTES}
                ask = partial(session.page, stream, {"seq": seq, **more})
                page: list[Raw] = await session.until_answered(ask, f"read stream {stream}")
                for raw in page:
                    piece = piece_of(raw)
                    message = pieces.add(raw)
                    batch = read_raw(message) if message is not None and message.seq in wanted else None
                    if message is not None and batch is not None:
                        found[message.seq] = message, batch
                    seq = raw.seq + 1
                is_cut = bool(page) and piece is not None and piece[0] < piece[1]
                if not page or (seq > run[-1] and not is_cut):
                    return

    await asyncio.gather(*map(read, runs))
    return found


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
