"""What can be asked of a dispatcher, and told it by an operator: checked here, answered by the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from .engine.base import Engine, Since
from .loops import on_own_loop
from .names import check_id, check_purpose, check_topic
from .records import DeadLetter, PurposeInfo, Statistics, TopicInfo, Trace
from .service.options import check_flag, check_ids, check_path, check_span


class Asking:
    """The part of a `SolarWind` that asks its engine."""

    _engine: Engine
    _loop: asyncio.AbstractEventLoop | None

    @on_own_loop
    async def statistics(self) -> Statistics:
        """A frozen record of all topics and purposes, and how they stand."""
        return await self._engine.statistics()

    @on_own_loop
    async def purposes(self, topic: str | None = None) -> list[PurposeInfo]:
        """The purposes, of one topic or of all."""
        return await self._engine.purposes(check_topic(topic) if topic is not None else None)

    @on_own_loop
    async def topics(self) -> list[TopicInfo]:
        """The topics, and how much history each has."""
        return await self._engine.topics()

    @on_own_loop
    async def dead(self, topic: str, purpose: str) -> list[DeadLetter]:
        """The purpose's dead letters, in the order accepted. Raises `NotFound`."""
        return await self._engine.dead(check_topic(topic), check_purpose(purpose))

    @on_own_loop
    async def redrive(self, topic: str, purpose: str, ids: Collection[str] | None = None) -> int:
        """Hand dead letters out again as if never tried, these or all. Gives how many. Raises `NotFound`."""
        return await self._engine.redrive(check_topic(topic), check_purpose(purpose), check_ids(ids))

    @on_own_loop
    async def discard(self, topic: str, purpose: str, ids: Collection[str] | None) -> int:
        """Forget dead letters, these, or with None all. Gives how many. Raises `NotFound`."""
        return await self._engine.discard(check_topic(topic), check_purpose(purpose), check_ids(ids))

    @on_own_loop
    async def replay(self, topic: str, purpose: str, since: Since = "beginning", until: Since = "now") -> int:
        """Make the history fired from `since` up to `until` pend again. Gives how many events.

        Raises `NotFound`, and `NotAllowed` for a purpose whose events do not pend.
        """
        since, until = check_span(since, until)
        return await self._engine.replay(check_topic(topic), check_purpose(purpose), since, until)

    @on_own_loop
    async def retire(self, topic: str, purpose: str, force: bool = False) -> None:
        """Forget a purpose. Raises `ConflictError` while it has events, dead letters or instances, unless `force`."""
        check_flag("force", force)
        await self._engine.retire(check_topic(topic), check_purpose(purpose), force=force)

    @on_own_loop
    async def trace(self, id: str) -> Trace:
        """The event with that id and the tree of what it caused, from the history. Raises `NotFound`."""
        return await self._engine.trace(check_id(id))

    @on_own_loop
    async def backup(self, path: str) -> None:
        """Copy the store to a new file while it is in use. Raises `NotAllowed` where there is none, `StoreError`."""
        await self._engine.backup(check_path(path))
