"""Fires an event on `solarwind.dead` for each event that dies, in the commit that makes it a dead letter.

So both are there, or neither. What is said of the dead event is read from its batch, which the commit waits for where
it is not in memory. Nothing is fired while no purpose listens. Where the topics are spread over several dispatchers, a
definition tells the others that one does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import groupby
from secrets import randbelow
from typing import TYPE_CHECKING, Any

import msgspec

from ..batch import MAX_PRODUCERS, Batch, seal
from ..core.deaths import Death
from ..errors import Busy
from ..event import Cause, Event, HandOut
from ..names import DEAD
from ..origin import MACHINE, process_name
from ..records import Dead
from ..timing import time_of
from .cache import LogCache
from .clock import Clock

if TYPE_CHECKING:
    from ..core.dispatcher import Dispatcher
    from ..core.log import Stored
    from ..store.base import Store
    from ..store.definitions import Definition
    from .commits import Commits

log = logging.getLogger("solarwind")

KIND = "listening"  # of the definition, whose name is the topic
MAX_TOGETHER = 500  # events in a batch, each of a few KiB at most

_encode = msgspec.json.Encoder().encode


class DeathNotices:
    """Those of one dispatcher."""

    def __init__(self, store: Store, cache: LogCache, dispatcher: Dispatcher, clock: Clock) -> None:
        self._store = store
        self._cache = cache
        self._dispatcher = dispatcher
        self._clock = clock
        self._end_watch: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Learn whether anybody listens at another dispatcher, and follow that."""
        if self._store.shared:
            self._end_watch = self._store.definitions.watch(KIND, self._told)
            for each in await self._store.definitions.list(KIND):
                self._told(each)

    def stop(self) -> None:
        self._end_watch()

    def _told(self, definition: Definition) -> None:
        if definition.name == DEAD:
            self._dispatcher.deaths.heard_elsewhere = definition.value is not None

    async def look(self) -> None:
        """Tell other dispatchers whether anybody listens here, since that may have changed."""
        deaths = self._dispatcher.deaths
        if self._store.shared and deaths.heard_here != deaths.heard_elsewhere:
            if deaths.heard_here:
                await self._store.definitions.put(KIND, DEAD, b"1")
            else:
                await self._store.definitions.remove(KIND, DEAD)

    async def fire(self, commits: Commits[Any]) -> None:
        """Add what is fired for those that died since the last commit to the next, which is to be begun right away."""
        while deaths := self._dispatcher.deaths.pop():
            try:
                self._dispatcher.topic(DEAD)
            except Busy as busy:
                log.error("nothing is fired on %s for %d events that died: %s", DEAD, len(deaths), busy)
                return
            for _, several in groupby(deaths, key=lambda each: (each.topic, each.purpose)):
                its = list(several)
                for at in range(0, len(its), MAX_TOGETHER):
                    batch = await self._batch(its[at : at + MAX_TOGETHER])
                    if batch is not None:
                        commits.fire([batch])

    async def _batch(self, deaths: list[Death]) -> Batch | None:
        payloads, causes = list[bytes](), list[Cause | None]()
        stored: Stored | None = None
        for topic, purpose, letter in deaths:
            position = letter.position
            if stored is None or not stored.start <= position < stored.stop:
                stored = self._cache.peek(topic, position) or await self._read(topic, position)
                if stored is None:
                    what = "nothing is fired on %s for event %d of %r, dead for %r: it is not in the log any more"
                    log.error(what, DEAD, position, topic, purpose)
                    continue
            event = Event(HandOut(stored.batch, stored.start, purpose, letter.version), position - stored.start)
            dead = Dead(
                topic=topic,
                id=event.id,
                purpose=purpose,
                version=letter.version,
                error=letter.error,
                attempts=letter.tried,
                time=time_of(letter.time),
                key=event.key,
                fired=event.time,
            )
            payloads.append(_encode(dead))
            causes.append(Cause.event(event))
        if not payloads:
            return None
        return seal(
            DEAD,
            payloads,
            [self._clock.wall()] * len(payloads),
            producer=randbelow(MAX_PRODUCERS),
            first=1,
            machine=MACHINE,
            process=process_name(),
            causes=causes,
        )

    async def _read(self, topic: str, position: int) -> Stored | None:
        """Return the batch of a dead event. What is dead is in the log, unless that is damaged."""
        found: Iterator[Stored] = iter(await self._store.read(topic, position, 1))
        stored = next(found, None)
        return stored if stored is not None and stored.start <= position else None
