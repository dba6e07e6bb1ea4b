"""What an operator asks of a server, and how its answers are read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from .. import wire
from ..batch import Batch
from ..errors import NotAllowed, ProtocolError
from ..event import Event, HandOut
from ..records import DeadLetter, PurposeInfo, PurposeStatistics, Statistics, TopicInfo, TopicStatistics, Trace, listed
from .base import Since

T = TypeVar("T")


class Calls:
    """The part of the engine that asks."""

    async def _call(self, name: str, arguments: wire.Arguments) -> list[Any]:
        """The items of the answer. Raises what the server raised, and `Unavailable` where it is out of reach."""
        raise NotImplementedError

    async def topics(self) -> list[TopicInfo]:
        return _read(await self._call("topics", wire.TopicsArguments()), list[TopicInfo])

    async def statistics(self) -> Statistics:
        items = _read(await self._call("statistics", wire.StatisticsArguments()), list[wire.StatisticsItem])
        return Statistics(
            {item.topic: TopicStatistics(item.fired) for item in items},
            {
                (item.topic, purpose): _read(counts, PurposeStatistics)
                for item in items
                for purpose, counts in item.purposes.items()
            },
        )

    async def purposes(self, topic: str | None) -> list[PurposeInfo]:
        return listed(await self.statistics(), topic)

    async def dead(self, topic: str, purpose: str) -> list[DeadLetter]:
        items = _read(await self._call("dead", wire.PurposeArguments(topic, purpose)), list[wire.DeadItem])
        return [DeadLetter(_event(each.batch), each.error, each.attempts, wire.time_of(each.time_ns)) for each in items]

    async def redrive(self, topic: str, purpose: str, ids: Collection[str] | None) -> int:
        return await self._count("redrive", wire.LettersArguments(topic, purpose, _listed(ids)))

    async def discard(self, topic: str, purpose: str, ids: Collection[str] | None) -> int:
        return await self._count("discard", wire.LettersArguments(topic, purpose, _listed(ids)))

    async def replay(self, topic: str, purpose: str, since: Since, until: Since) -> int:
        times = wire.pack_since(since), wire.pack_since(until)
        return await self._count("replay", wire.ReplayArguments(topic, purpose, *times))

    async def _count(self, name: str, arguments: wire.Arguments) -> int:
        (count,) = await self._call(name, arguments)
        return int(count)

    async def retire(self, topic: str, purpose: str, *, force: bool) -> None:
        await self._call("retire", wire.RetireArguments(topic, purpose, force))

    async def trace(self, id: str) -> Trace:
        items = _read(await self._call("trace", wire.TraceArguments(id)), list[wire.TraceItem])
        caused: list[list[Trace]] = [[] for _ in items]
        for index in reversed(range(len(items))):
            trace = Trace(_event(items[index].batch), tuple(reversed(caused[index])))
            if index:
                caused[items[index].parent].append(trace)
        return trace

    async def backup(self, path: str) -> None:
        """Written here, from the copy that the server makes."""
        if os.path.lexists(path):
            raise NotAllowed(f"expected the path of a new file, but {path} exists: name another")
        blocks = await self._call("backup", wire.BackupArguments())
        await asyncio.to_thread(_write, path, blocks)


def _read(items: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(items, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"expected an answer that can be read, got another: {error}") from None


def _event(data: bytes) -> Event:
    return Event(HandOut(Batch.read(data)), 0)


def _listed(ids: Collection[str] | None) -> list[str] | None:
    return None if ids is None else list(ids)


def _write(path: str, blocks: list[bytes]) -> None:
    file = open(path, "xb", opener=_for_owner_alone)  # noqa: SIM115 (it is removed, too, where that fails)
    try:
        with file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
