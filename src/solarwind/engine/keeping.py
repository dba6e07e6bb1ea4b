"""How much history topics keep: asked, set, and what a setting would trim, said before it does."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from ..names import no_topic
from ..records import TopicInfo
from ..store.base import Store
from ..store.delays import DelayedCount
from ..timing import time_of
from .arguments import Keep, KeepBytes, Topic

if TYPE_CHECKING:  # a client of a server needs the table of operations, and nothing of a dispatcher
    from ..core.dispatcher import Dispatcher
    from ..core.registry import Topic as LiveTopic
    from .history import Trimmer
    from .wall import WallClock


class KeepOperations:
    """The part of an engine that says and sets how much history topics keep."""

    store: Store
    _dispatcher: Dispatcher
    _trimmer: Trimmer
    _wall: WallClock

    async def _caught_up(self, topics: Collection[str] = ()) -> None:
        raise NotImplementedError

    async def topic(self, topic: Topic) -> TopicInfo:
        """Return a topic, and how much history it has. Raise `NotFound`."""
        await self._caught_up([topic])
        if topic not in self._dispatcher.topics:
            raise no_topic(topic)
        return await self._topic_info(topic)

    async def keep(
        self, topic: Topic, keep: Keep = UNSET, keep_bytes: KeepBytes = UNSET, dry_run: bool = False
    ) -> TopicInfo:
        """Set how much history a topic keeps, `keep` in seconds: None is the default, `UNSET` leaves it as it is. With
        `dry_run` nothing is set: the answer says what the topic would keep, its `kept` and `kept_bytes` about how much
        of its history that would be once the rest is trimmed. Raise `NotFound` for that of a topic that is not
        there."""
        if dry_run and topic not in self._dispatcher.topics:
            raise no_topic(topic)
        keep_ns = keep if keep is None or isinstance(keep, UnsetType) else int(keep * 1e9)
        if dry_run:
            return await self._would_keep(topic, keep_ns, keep_bytes)
        found = self._dispatcher.topic(topic)
        await self.store.topic(topic, keep_ns, keep_bytes)
        found.keep_ns, found.keep_bytes = self._kept_with(found, keep_ns, keep_bytes)
        self._trimmer.look_at(found, at_once=True)
        return await self._topic_info(topic)

    def _kept_with(
        self, topic: LiveTopic, keep_ns: int | UnsetType | None, keep_bytes: int | UnsetType | None
    ) -> tuple[int, int | None]:
        if isinstance(keep_ns, UnsetType):
            keep_ns = topic.keep_ns
        elif keep_ns is None:
            keep_ns = self.store.keep_ns
        return keep_ns, topic.keep_bytes if isinstance(keep_bytes, UnsetType) else keep_bytes

    async def _would_keep(
        self, name: str, keep_ns: int | UnsetType | None, keep_bytes: int | UnsetType | None
    ) -> TopicInfo:
        """Return what a topic would keep. Whole batches are trimmed, and what a purpose needs is not."""
        await self._caught_up([name])
        topic, info = self._dispatcher.topics[name], await self._topic_info(name)
        wanted_ns, wanted_bytes = self._kept_with(topic, keep_ns, keep_bytes)
        trimmed = 0
        for first in await self.store.read(name, 0, 1):
            old = topic.end if not wanted_ns else await self._first_since(name, self._wall.now() - wanted_ns, topic.end)
            over = 0 if wanted_bytes is None else max(0, info.kept_bytes - wanted_bytes)
            until = max(old, first.start + -(-over * info.kept // max(1, info.kept_bytes)))
            needed = self._dispatcher.needed(name).within(first.start, max(first.start, until))
            trimmed = min(info.kept, max(0, until - first.start - len(needed)))
            break
        kept = info.kept - trimmed
        size = info.kept_bytes * kept // max(1, info.kept)
        keeps = {"keep": wanted_ns / 1e9, "keep_bytes": wanted_bytes}
        return msgspec.structs.replace(info, kept=kept, kept_bytes=size, **keeps)

    async def _first_since(self, name: str, time: int, end: int) -> int:
        """Return the position of the first batch that was accepted since then, in ns since 1970, by halving."""
        low, high = 0, end
        while low < high:
            middle = (low + high) // 2
            stored = next(iter(await self.store.read(name, middle, 1)), None)
            if stored is None or stored.start >= high or stored.accepted >= time:
                high = middle if stored is None else min(middle, stored.start)
            else:
                low = stored.stop
        return low

    async def _topic_info(self, name: str, delayed: dict[str, DelayedCount] | None = None) -> TopicInfo:
        topic = self._dispatcher.topics[name]
        events, size = await self.store.history(name)
        fired, purposes = topic.end + topic.unkept, tuple(sorted(topic.purposes))
        delayed = await self.store.delays.topics() if delayed is None else delayed
        keep = topic.keep_ns / 1e9, topic.keep_bytes
        return TopicInfo(name, fired, purposes, events, size, *keep, *delayed_of(delayed.get(name)))


def delayed_of(count: DelayedCount | None) -> tuple[int, datetime | None]:
    """Return how many delayed events there are, and when the next is due."""
    return (0, None) if count is None else (count.events, time_of(count.next))
