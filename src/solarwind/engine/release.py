"""Moves delayed events into their topics when they are due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from ..core.log import Stored
from ..errors import StoreError
from ..store.base import Full, Store
from .alarm import Wakeup
from .clock import Clock
from .due import Due

log = logging.getLogger("solarwind")


class Releaser:
    """Releases the due-log of a store, in pieces: each is a commit, which the engine makes in turn with its others, so
    that what is accepted is in the order of its positions. `due` knows when. Where nothing is delayed there is no
    timer, and no question to the store."""

    def __init__(
        self, store: Store, due: Due, clock: Clock, arrived: Callable[..., None], wake: Callable[[], None]
    ) -> None:
        """`arrived` gets what was released. `wake` has `release` called."""
        self._store = store
        self._due = due
        self._clock = clock
        self._arrived: Callable[..., None] = arrived
        self._wakeup = Wakeup(clock, wake)
        self._stopped = False

    async def recover(self) -> Collection[str]:
        """Read what is next in the due-log, and return which topics have events there. Raise `StoreError`."""
        self._due.add(await self._store.delays.next_due())
        return await self._store.delays.topics() if self._due.nearest is not None else ()

    def stop(self) -> None:
        """Begin no further release."""
        self._stopped = True
        self._wakeup.stop()

    def check(self) -> None:
        """Raise `StoreError` while the last release failed."""
        if self._due.failing:
            raise StoreError(
                "expected delayed events to enter their topics, but the store cannot move them: see the log, it is "
                "tried again"
            )

    def set_timer(self) -> None:
        """Have `release` called when something may be due."""
        if self._due.nearest is not None and not self._stopped:
            self._wakeup.set(self._due.wake_at(self._clock.now(), self._clock.wall()))

    async def release(self) -> bool:
        """Move a limited number of events, if any are due. Return whether that was so; else there is a timer. Where it
        fails it is tried again later, which is logged once."""
        if self._stopped or not self._due.is_due(self._clock.now(), self._clock.wall()):
            self.set_timer()
            return False
        due_log, failed, nearest = self._store.delays, self._due.failing, self._due.begin()
        try:
            released: list[Stored] = await due_log.release(self._clock.wall())
            self._arrived(*released)
            self._due.released(await due_log.next_due())
            if failed:
                log.warning("delayed events enter their topics again")
        except (Full, StoreError) as error:
            self._due.failed(nearest, self._clock.now())
            if not failed:
                log.error("delayed events cannot enter their topics, which is tried again: %s", error)
        await asyncio.sleep(0)  # others have their turn, however much is due
        return True
