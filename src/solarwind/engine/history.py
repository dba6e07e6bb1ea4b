"""When topics' histories are trimmed: the events that no purpose needs any more are deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..core.dispatcher import Dispatcher
from ..core.registry import Topic
from ..errors import StoreError
from ..store.base import FOREVER, Full, Store
from .clock import Clock, Timer
from .wall import STEP_NS, WallClock

log = logging.getLogger("solarwind")

_MEMORY_NS = 50_000_000  # memory:// keeps nothing, so it frees as it goes
_SOON_NS = 1_000_000_000
_CLOCK_NS = 60_000_000_000  # how often to check whether the machine's clock was set


class Trimmer:
    """Trims topics when they are due, in pieces: between two of them anything else can run.

    What is too old depends on the wall clock, as far as it is believed: see `wall`."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        clock: Clock,
        wall: WallClock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        fail: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._wall = wall
        self._ahead = 0  # what is believed of it, of the engine's clock
        self._spawn = spawn
        self._fail = fail
        self._due: dict[str, int] = {}  # topic -> when to look at its history
        self._at_once = False  # some topic is due now
        self._timer: Timer | None = None
        self._timer_at = 0
        self._running = False
        self._busy = False
        # Held while a piece is deleted: what makes history pend waits for it.
        self.guard = asyncio.Lock()

    def start(self) -> None:
        self._running, self._ahead = True, self._wall.ahead
        for topic in self._dispatcher.topics.values():
            self.look_at(topic, at_once=True)

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()

    def look_at(self, topic: Topic, *, at_once: bool = False) -> None:
        """Trim its history after a while: soon where nothing or a number of bytes is kept, otherwise by how long it is
        kept."""
        if topic.name in self._due and not at_once:
            return
        now = self._clock.now()
        if at_once:
            self._due[topic.name], self._at_once = now, True
        else:
            soon = topic.keep_ns == 0 or topic.keep_bytes is not None
            self._due[topic.name] = now + (self._soon_ns if soon else max(self._soon_ns, topic.keep_ns // 100))
        self._set_timer(now)

    @property
    def _soon_ns(self) -> int:
        return _SOON_NS if self._store.durable else _MEMORY_NS

    def _set_timer(self, now: int) -> None:
        if self._busy or not self._running or not self._due:
            return
        when = now
        if not self._at_once:
            if self._timer is not None:
                return
            when = min(max(now + self._soon_ns, min(self._due.values())), now + _CLOCK_NS)
        elif self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer, self._timer_at = self._clock.call_at(when, self._begin), when

    def _begin(self) -> None:
        self._timer = None
        if self._running:
            self._busy, self._at_once = True, False
            self._spawn(self._trim_due())

    async def _trim_due(self) -> None:
        try:
            await self._trim_all(self._pop_due())
            while self._running and not self._at_once and await self._store.shrink():
                pass
        except Full as full:
            log.warning("history is not trimmed for now: %s", full)
        except StoreError as error:
            self._fail(error)
        finally:
            self._busy = False
            self._set_timer(self._clock.now())

    def _pop_due(self) -> list[str]:
        now = self._clock.now()
        self._wall.look()
        if abs(self._wall.ahead - self._ahead) > STEP_NS:  # what was too young may be too old
            self._ahead, self._due = self._wall.ahead, dict.fromkeys(self._dispatcher.topics, now)
        return [name for name, when in self._due.items() if when <= now]

    async def _trim_all(self, names: list[str]) -> None:
        """Trim a piece of each topic in turn, until nothing more is to be deleted."""
        while names and self._running:
            more = []
            for name in names:
                self._due.pop(name, None)
                try:
                    again = await self._trim(self._dispatcher.topics[name])
                except Full:
                    for each in names:
                        self.look_at(self._dispatcher.topics[each])
                    raise
                if again:
                    more.append(name)
            names = more

    async def _trim(self, topic: Topic) -> bool:
        """Trim a piece of a topic. Return whether there may be more to do at once."""
        async with self.guard:
            pinned = self._dispatcher.needed(topic.name)
            pinned.add(topic.end, FOREVER)  # the store may have more by then
            now = self._wall.now()
            before = FOREVER if topic.keep_ns == 0 else max(0, now - topic.keep_ns)
            events = await self._store.trim(topic.name, pinned, before, topic.keep_bytes, now)
        if topic.keep_ns or len(pinned.edges) > 2 or pinned.edges[0] < topic.end:
            self.look_at(topic)
        return bool(events) and self._store.durable
