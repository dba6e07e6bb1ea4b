"""How many events of a purpose wait for its own delay, and until when.

Where the next event of a track waits, all behind it do, and that is arithmetic. Where instances are behind with earlier
ones, the first that waits is searched for in the log, by halving: a few reads, and fewer the next time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core.log import waits_since

if TYPE_CHECKING:
    from ..core.delay import Delay
    from ..core.log import Stored
    from ..core.purpose import Purpose
    from ..core.track import Track
    from ..store.base import Store
    from .cache import LogCache


class Waiting:
    """The question for one dispatcher. `wall` is the wall clock's time."""

    def __init__(self, store: Store, cache: LogCache, wall: int) -> None:
        self._store = store
        self._cache = cache
        self._wall = wall

    async def count(self, purpose: Purpose, end: int, reads: Iterator[object]) -> tuple[int, int | None]:
        """Return how many of the events that pend wait for the purpose's delay, and when the first of them is handed
        out, in ns since 1970; None where earlier ones are still to be. The log is read only where `reads` has another
        item; otherwise it is as last known."""
        count, times = purpose.waiting_copies(end), list[int]()
        for track in list(purpose.tracks.values()):
            delay = track.delay
            if delay is None:
                continue
            if delay.waiting == delay.to < end:
                times.append(delay.until)
            elif track.state.copied_from is None:
                await self._search(track, delay, end, reads)
            count += track.delayed(end, max(delay.to, delay.found))
        return count, min(times, default=None) if count else None

    async def _search(self, track: Track, delay: Delay, end: int, reads: Iterator[object]) -> None:
        """Find the first event that waits."""
        before = self._wall - delay.delay_ns
        low, high = max(track.state.floor, delay.to, delay.found), end
        middle = low  # most often it is the next
        while low < high:
            stored = await self._at(track.topic, middle, reads)
            if stored is None or stored.start >= high:
                if middle == low:
                    break
                high = middle
            elif waits_since(stored) > before:
                high = max(low, stored.start)
            else:
                low = stored.stop
            middle = (low + high) // 2
        delay.found = low

    async def _at(self, topic: str, position: int, reads: Iterator[object]) -> Stored | None:
        """Return the batch that has a position, or the first after it; None where it may not be read."""
        stored = self._cache.peek(topic, position)
        if stored is None and next(reads, None) is not None:
            stored = next(iter(await self._store.read(topic, position, 1)), None)
        return stored
