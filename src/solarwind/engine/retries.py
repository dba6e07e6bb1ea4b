"""What waits for a retry: which events, until when, and why; and its wait ended at once."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from ..core.spans import Spans
from ..records import RetryInfo
from ..store.base import Store
from ..timing import time_of
from .answers import Page
from .arguments import PLACE, Limit, Place, Purpose, Topic
from .reading import events_at

if TYPE_CHECKING:  # a client of a server needs the table of operations, and nothing of a dispatcher
    from ..core.dispatcher import Dispatcher
    from ..core.purpose import Purpose as LivePurpose
    from ..event import Event
    from .clock import Clock


class _Waiting(NamedTuple):
    """An event that waits, in the order in which they are handed out again."""

    due: int
    position: int
    attempts: int
    version: int
    error: str | None


class RetryOperations:
    """The part of an engine that says what waits for a retry, and ends that."""

    store: Store
    _dispatcher: Dispatcher
    _clock: Clock

    async def _carried_out(self, count: int) -> int:
        raise NotImplementedError

    async def _dead_positions(self, topic: str, purpose: str, ids: None) -> Spans:
        raise NotImplementedError

    async def retries(
        self, topic: Topic, purpose: Purpose, after: Place | None = None, limit: Limit = 100
    ) -> Page[RetryInfo]:
        """Return a page of the events that wait for a retry, the next one first: `limit` of them, or fewer if they are
        large. Its `next` is the `after` of the page behind it. Raise `NotFound`."""
        behind, begins = (-1, -1), None if after is None else PLACE.fullmatch(after)
        if begins is not None:
            behind = int(begins[2]), int(begins[3])
        waiting = (each for each in _waiting(self._dispatcher.purpose(topic, purpose)) if each[:2] > behind)
        wanted = nsmallest(limit + 1, waiting)
        some, page = wanted[:limit], Page[RetryInfo]()
        events = await events_at(self.store, topic, Spans.of([each.position for each in some]))
        if some and some[0].position not in events:  # so that each page has something
            events |= await events_at(self.store, topic, Spans((some[0].position, some[0].position + 1)))
        shown = 0
        for each in some:
            event = events.get(each.position)
            if event is None and page:
                break
            shown += 1
            if event is not None:  # one that was lost is left out
                page.append(_info(event, each))
        if page and shown < len(wanted):
            page.next = page[-1].place
        return page

    async def retry(self, topic: Topic, purpose: Purpose, dead: bool = False, dry_run: bool = False) -> int:
        """Hand out now what waits for a retry, and with `dead` the dead letters too, as `redrive` does. Return how many
        events; with `dry_run` that is all. A target of a webhook that asked for a pause is left alone until that is
        over. Raise `NotFound`."""
        letters = await self._dead_positions(topic, purpose, None) if dead else Spans()
        count = self._dispatcher.retry_now(topic, purpose, self._clock.now(), dry=dry_run)
        if dry_run:
            return count + len(letters)
        if letters:
            count += self._dispatcher.redrive(topic, purpose, letters, self._clock.now())
        return await self._carried_out(count)


def _waiting(purpose: LivePurpose) -> Iterator[_Waiting]:
    for track in purpose.tracks.values():
        state, version = track.state, track.statement.version
        for position in track.retrying:
            if position in state.due:
                error, tried = track.errors.get(position), state.tried.get(position, 0)
                yield _Waiting(state.due[position], position, tried, version, error)


def _info(event: Event, waiting: _Waiting) -> RetryInfo:
    place = f"{waiting.due}.{waiting.position}.{event.id}"
    return RetryInfo(event.id, event.key, time_of(waiting.due), waiting.attempts, waiting.version, waiting.error, place)
