"""Brings what the dispatcher asks for from the store's log into memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ..core.dispatcher import Dispatcher
from ..core.log import Stored
from ..errors import StoreError
from ..store.base import Store
from .cache import LogCache
from .clock import Clock
from .wall import in_time_of

READ_BYTES = 1 << 20


class Fetcher:
    """The readings of one dispatcher's log. `reading` are the places that are being read."""

    def __init__(
        self,
        store: Store,
        cache: LogCache,
        dispatcher: Dispatcher,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        fetched: Callable[[], None],
        fail: Callable[[StoreError], None],
    ) -> None:
        """`fetched` is called whenever the dispatcher got something, and may have more to do."""
        self._store = store
        self._cache = cache
        self._dispatcher = dispatcher
        self._clock = clock
        self._spawn = spawn
        self._fetched = fetched
        self._fail = fail
        self.reading: set[tuple[str, int]] = set()

    def fetch(self, topic: str, position: int) -> None:
        """Read what is at a position of a topic, for the dispatcher."""
        if (topic, position) not in self.reading:
            self.reading.add((topic, position))
            self._spawn(self._fetch(topic, position))

    def read_ahead(self, topic: str, position: int) -> None:
        """Read what will be asked for next, unless it is in memory."""
        if position < self._dispatcher.topics[topic].end and self._cache.find(topic, position) is None:
            self.fetch(topic, position)

    async def _fetch(self, topic: str, position: int) -> None:
        try:
            found = await self.read_settled(topic, position)
        except StoreError as error:
            self._fail(error)
            return
        finally:
            self.reading.discard((topic, position))
        if self._store.shared:
            found = [in_time_of(self._clock, each) for each in found]
        self._cache.add_read(found)
        self._dispatcher.fetched(topic, position, found[0] if found else None, self._clock.now())
        self._fetched()

    async def read_settled(self, topic: str, position: int) -> list[Stored]:
        """Return what there is from `position` on. An empty result counts only if nothing arrived meanwhile."""
        while True:
            end = self._dispatcher.topics[topic].end
            found = await self._store.read(topic, position, READ_BYTES)
            if found or end == self._dispatcher.topics[topic].end:
                return found
