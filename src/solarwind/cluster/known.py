"""Which events a topic's history has already, before they are delayed: by their ids, in its stream."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from ..batch import Batch, read_id
from .layout import Layout, id_name, producer_name
from .publish import last_or_none, read_raw
from .session import NO_STREAM, Raw, Refusal, Session
from .tracing import SKEW_NS, find_made, scan

IDS_TOGETHER = 256  # that are asked for in one request
MAX_PRODUCERS = 10_000  # that are remembered

_Producer = tuple[str, int, bytes]  # of a topic: its number, and the author's


class History:
    """Looks for events in the streams. What a producer numbered higher than anything before is new, so that it is not
    looked for."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self._layout = layout
        self._reached: OrderedDict[_Producer, int] = OrderedDict()  # the number after the last, where that is known

    async def known(self, batch: Batch) -> set[str]:
        """Return those of a batch's ids that its topic's history has."""
        header, ids = batch.header, [batch.id(index) for index in range(len(batch))]
        producer = (header.topic, header.producer, header.author)
        reached = self._reached.get(producer)
        found: set[str] = set()
        if header.ids is not None or reached is None or header.first < reached:
            found = await self._given(header.topic, ids)
            for index in range(len(batch)):
                given = batch.given_id(index)
                if given is not None and given not in found and await self._was_made(header.topic, given):
                    found.add(given)
        is_numbered = header.ids is None or None in header.ids  # Solar Wind made an id of it
        if is_numbered and (reached is None or header.first < reached):
            numbered, reached = await self._numbered(batch)
            found |= numbered
        if is_numbered:
            self._reached[producer] = max(reached or 0, header.first + len(batch))
            self._reached.move_to_end(producer)
            if len(self._reached) > MAX_PRODUCERS:
                self._reached.popitem(last=False)
        return found

    async def _given(self, topic: str, ids: Sequence[str]) -> set[str]:
        """Return those that an event has as a given id."""
        partition = self._layout.partition(topic)
        names = {id_name(id): id for id in ids}
        subjects = [self._layout.events_of(partition, who=name, topic=topic) for name in names]
        found: set[str] = set()
        for at in range(0, len(subjects), IDS_TOGETHER):
            request = {"multi_last": subjects[at : at + IDS_TOGETHER], "batch": 2 * IDS_TOGETHER}
            for raw in await self._get(partition, request):
                found.add(names[".".join(raw.subject.split(".")[5:7])])
        return found

    async def _get(self, partition: int, request: dict[str, object]) -> list[Raw]:
        stream = self._layout.events_stream(partition)
        try:
            return await self._session.until_answered(partial(self._session.get, stream, request), "ask what is stored")
        except Refusal as refusal:
            if refusal.code != NO_STREAM:
                raise
            return []

    async def _was_made(self, topic: str, id: str) -> bool:
        """Return whether an event has that id as one that Solar Wind made."""
        made = read_id(id)
        if made is None:
            return False
        partition = self._layout.partition(topic)
        return await find_made(self._session, self._layout, partition, made, id, topic) is not None

    async def _numbered(self, batch: Batch) -> tuple[set[str], int]:
        """Return those that an event of the same producer has, and the number after the last of its events."""
        header, found, reached = batch.header, set(), 0
        partition = self._layout.partition(header.topic)
        stream = self._layout.events_stream(partition)
        for was_delayed in (False, True):
            who = producer_name(header, was_delayed=was_delayed)
            subject = self._layout.events_of(partition, who=who, topic=header.topic)
            last = await self._session.until_answered(
                partial(last_or_none, self._session, stream, subject), "ask what is stored"
            )
            if last is None:
                continue
            async for raw in scan(self._session, stream, subject, batch.time(0) - SKEW_NS):
                stored = read_raw(raw)
                if stored is None:
                    continue
                first = stored.header.first
                reached = max(reached, first + len(stored))
                for number in range(max(first, header.first), min(first + len(stored), header.first + len(batch))):
                    if stored.time(number - first) == batch.time(number - header.first):
                        found.add(stored.id(number - first))
        return found, reached
