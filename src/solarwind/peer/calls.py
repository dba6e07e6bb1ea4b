"""What an operator asks over a connection, answered in parts that are small enough to travel."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from .. import wire
from ..batch import Batch
from ..engine.base import Engine
from ..event import Event
from ..names import check_id, check_purpose, check_topic
from ..records import Trace
from ..service.options import check_span

MOST_ITEMS = 256  # in a part
_MOST_BYTES = 256 << 10
Part = list[Any]


async def answer(engine: Engine, name: str, arguments: Any) -> AsyncIterator[Part]:
    """Raises `BadName`, and what the engine raises."""
    _check_names(arguments)
    async for part in _ANSWERS[name](engine, arguments):
        yield part


def _check_names(of: wire.Arguments) -> None:
    """Here, since whoever speaks the protocol himself has not checked them, and not every engine does."""
    if isinstance(of, wire.PurposeArguments):
        check_topic(of.topic)
        check_purpose(of.purpose)
    if isinstance(of, wire.LettersArguments):
        for id in of.ids or ():
            check_id(id)
    elif isinstance(of, wire.TopicArguments):
        check_topic(of.name)
    elif isinstance(of, wire.TraceArguments):
        check_id(of.id)


async def _topics(engine: Engine, _: wire.Arguments) -> AsyncIterator[Part]:
    for part in _parts(await engine.topics()):
        yield part


async def _topic(engine: Engine, of: wire.TopicArguments) -> AsyncIterator[Part]:
    await engine.topic(of.name, of.keep_ns, of.keep_bytes)
    yield []


async def _statistics(engine: Engine, _: wire.Arguments) -> AsyncIterator[Part]:
    found = await engine.statistics()
    items = {name: wire.StatisticsItem(name, topic.fired, {}) for name, topic in found.topics.items()}
    for (topic, purpose), counts in found.purposes.items():
        items[topic].purposes[purpose] = counts
    for part in _parts(items.values()):
        yield part


async def _dead(engine: Engine, of: wire.PurposeArguments) -> AsyncIterator[Part]:
    letters = await engine.dead(of.topic, of.purpose)
    for part in _parts(
        wire.DeadItem(_single(each.event), each.error, each.attempts, wire.ns_of(each.time)) for each in letters
    ):
        yield part


async def _redrive(engine: Engine, of: wire.LettersArguments) -> AsyncIterator[Part]:
    yield [await engine.redrive(of.topic, of.purpose, of.ids)]


async def _discard(engine: Engine, of: wire.LettersArguments) -> AsyncIterator[Part]:
    yield [await engine.discard(of.topic, of.purpose, of.ids)]


async def _replay(engine: Engine, of: wire.ReplayArguments) -> AsyncIterator[Part]:
    since, until = check_span(wire.read_since(of.since), wire.read_since(of.until))
    yield [await engine.replay(of.topic, of.purpose, since, until)]


async def _retire(engine: Engine, of: wire.RetireArguments) -> AsyncIterator[Part]:
    await engine.retire(of.topic, of.purpose, force=of.force)
    yield []


async def _trace(engine: Engine, of: wire.TraceArguments) -> AsyncIterator[Part]:
    for part in _parts(_tree(await engine.trace(of.id))):
        yield part


async def _quiet(engine: Engine, of: wire.PurposesArguments) -> AsyncIterator[Part]:
    await engine.quiet(of.purposes)
    yield []


async def _left(engine: Engine, of: wire.PurposesArguments) -> AsyncIterator[Part]:
    yield [await engine.left(of.purposes)]


async def _backup(engine: Engine, _: wire.Arguments) -> AsyncIterator[Part]:
    """The bytes of the copy, which is made in a folder of its own first."""
    with tempfile.TemporaryDirectory(prefix="solarwind-") as folder:
        path = os.path.join(folder, "backup.db")
        copying = asyncio.ensure_future(engine.backup(path))
        try:
            await asyncio.shield(copying)
        finally:
            await asyncio.wait([copying])  # a thread writes into the folder, even if nobody waits for it any more
        size, at = os.path.getsize(path), 0
        while at < size:
            yield [await asyncio.to_thread(_block, path, at)]
            at += _MOST_BYTES


def _block(path: str, at: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(at)
        return file.read(_MOST_BYTES)


def _tree(trace: Trace) -> Iterable[wire.TraceItem]:
    """Parents before their children, without recursion, since a chain of causes can be long."""
    order = [(trace, -1)]
    for index, (each, parent) in enumerate(order):
        yield wire.TraceItem(_single(each.event), parent)
        order += [(child, index) for child in each.caused]


def _single(event: Event) -> bytes:
    """The event as a batch of one."""
    batch: Batch = event._of.batch
    return batch.part(event._index, event._index + 1).data


def _parts(items: Iterable[Any]) -> Iterable[Part]:
    part: Part = []
    size = 0
    for item in items:
        part.append(item)
        size += len(getattr(item, "batch", b""))
        if len(part) == MOST_ITEMS or size > _MOST_BYTES:
            yield part
            part, size = [], 0
    yield part


_ANSWERS: dict[str, Callable[[Engine, Any], AsyncIterator[Part]]] = {
    "topics": _topics,
    "topic": _topic,
    "statistics": _statistics,
    "dead": _dead,
    "redrive": _redrive,
    "discard": _discard,
    "replay": _replay,
    "retire": _retire,
    "trace": _trace,
    "quiet": _quiet,
    "left": _left,
    "backup": _backup,
}
