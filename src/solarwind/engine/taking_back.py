"""Takes delayed events back: what is asked for in one turn of the loop, or while a commit is made, goes into one
commit."""

from __future__ import annotations

import asyncio
from itertools import compress

from ..errors import SolarWindError, Unavailable
from ..store.base import Full, Store
from ..store.delays import CANCEL_TOGETHER
from .clock import Clock
from .running import refuse
from .tasks import Tasks

_Asked = tuple[tuple[str, str], asyncio.Future[bool]]  # topic and id


class TakingBack:
    """The part of an engine that takes delayed events back, which has a task while there is something to do."""

    def __init__(self, store: Store, clock: Clock, tasks: Tasks) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._asked: list[_Asked] = []  # the first of them may be in the commit that is being made
        self._at_work = False

    async def take_back(self, topic: str, id: str) -> bool:
        """Take an event back, durably. Return False where it is not there (any more), due, or in its topic. Raise
        `StoreError`."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked.append(((topic, id), future))
        if not self._at_work:
            self._at_work = True
            self._tasks.spawn(self._work(), "taking delayed events back")
        return await future

    async def _work(self) -> None:
        try:
            while self._asked:
                some = self._asked[:CANCEL_TOGETHER]
                await self._commit(some)
                del self._asked[: len(some)]
        finally:
            self._at_work = False
            left, self._asked = self._asked, []
            for _, future in left:
                refuse(future, Unavailable("expected a dispatcher that runs, but it stopped: try again"))

    async def _commit(self, some: list[_Asked]) -> None:
        events = [event for event, _ in some]
        try:
            found = await self._store.delays.cancel(events, self._clock.wall())
            # One that was fired again without a delay is in its topic: then it was not taken back.
            there = await asyncio.gather(*(self._store.find(id, topic) for topic, id in compress(events, found)))
        except (SolarWindError, Full) as error:
            for _, future in some:
                refuse(future, error)
            return
        in_topics = iter(there)
        for (_, future), was_there in zip(some, found, strict=True):
            taken_back = was_there and next(in_topics) is None
            if not future.done():
                future.set_result(taken_back)
