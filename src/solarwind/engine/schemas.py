"""The schemas of payloads: what producers state for a topic, and what each version of a purpose reads.

They are definitions of the store, one for each topic or version, so that they outlive their processes and are the same
for all owners. Whether all that comes can be read is looked at when one of them is stated: the answer is kept with the
version's, said in the log and to who joins, and is among what needs a person while events may pend because of it.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ..batch import Batch
from ..core.effects import Join
from ..errors import SolarWindError
from ..logs import limited
from ..records import SchemaInfo
from ..schema import read_schema, unreadable
from ..store.definitions import Definition, Definitions
from .arguments import PayloadSchema, Topic
from .clock import Clock
from .rest import Rest

if TYPE_CHECKING:  # a client of a server needs the table of operations, and nothing of a dispatcher
    from ..core.dispatcher import Dispatcher
    from ..core.purpose import Purpose as LivePurpose
    from ..core.state import Statement
    from .base import Receiver

log = logging.getLogger("solarwind")

KIND = "schema"
MAX_SCHEMAS = 2_000  # that are kept
MAX_TOGETHER = 8 << 20  # bytes of them
MAX_VERSIONS = 10  # of a purpose: the newest
MAX_FIRES = 100  # topics that are noted of a version's handlers
_Name = tuple[str, str, int]  # topic, purpose and version; no purpose, and 0, of what producers state


class _Kept(msgspec.Struct, frozen=True):
    """A schema as it is stored. `fault` is why its version cannot read all that comes, since when."""

    name: _Name
    schema: bytes
    fault: str = ""
    since: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


class Schemas:
    """The schemas that a dispatcher knows."""

    def __init__(self, definitions: Callable[[], Definitions], clock: Clock) -> None:
        self._definitions_of = definitions
        self._clock = clock
        self._known: dict[_Name, _Kept] | None = None  # once they were asked for
        self._versions: dict[tuple[str, str], list[int]] = {}  # of those, by topic and purpose, in order
        self._bytes = 0
        self._coming: dict[_Name, int] = {}  # the bytes of those that are being stored
        self._fires: dict[_Name, dict[str, None]] = {}  # the topics that handlers fired on
        self._stated_here: set[str] = set()  # topics of which producers stated a schema since this dispatcher started
        self._unwatch: Callable[[], None] = lambda: None
        self._loading = asyncio.Lock()
        self._early: list[Definition] = []  # that were changed meanwhile

    @property
    def _definitions(self) -> Definitions:
        return self._definitions_of()

    def stop(self) -> None:
        """Look no more at what others change."""
        self._unwatch()

    # Known --------------------------------------------------------------------------------------------

    async def load(self) -> dict[_Name, _Kept]:
        """Return all of them."""
        async with self._loading:
            if self._known is None:
                self._unwatch = self._definitions.watch(KIND, self._told)
                found = await self._definitions.list(KIND)
                self._known = {}
                for each in sorted([*found, *self._early], key=lambda each: each.number):
                    self._told(each)
                self._early.clear()
        return self._known

    def _told(self, definition: Definition) -> None:
        if self._known is None:
            self._early.append(definition)
            return
        topic, purpose, version = definition.name.split("\n")
        name = (topic, purpose, int(version))
        self._coming.pop(name, None)
        before = self._known.pop(name, None)
        if before is not None:
            self._bytes -= len(before.schema)
            self._versions[name[:2]].remove(name[2])
            if not self._versions[name[:2]]:
                del self._versions[name[:2]]
        if definition.value is not None:
            self._known[name] = kept = _decode(definition.value)
            self._bytes += len(kept.schema)
            insort(self._versions.setdefault(name[:2], []), name[2])

    async def _put(self, kept: _Kept) -> None:
        """Store it, if it is new. What is too much is left out, and said."""
        known = await self.load()
        before = known.get(kept.name)
        if before == kept:
            return
        # Of many that join at once there are some that are being stored.
        count, total = len(known) + len(self._coming), self._bytes + sum(self._coming.values())
        size = total - (0 if before is None else len(before.schema)) + len(kept.schema)
        if size > MAX_TOGETHER or (before is None and count >= MAX_SCHEMAS):
            limited.warning(
                ("schemas", "full"),
                "the schema of %s is not kept, since there are %s of %s bytes already: retire purposes that are over",
                *(_shown(kept.name), f"{count:,}", f"{total:,}"),
            )
            return
        self._coming[kept.name] = len(kept.schema)
        try:
            await self._definitions.put(KIND, _text(kept.name), _encode(kept))
        finally:
            self._coming.pop(kept.name, None)

    # Stated -------------------------------------------------------------------------------------------

    async def joined(self, join: Join, receiver: Receiver, dispatcher: Dispatcher) -> None:
        """Note what a version reads, and tell who joins where that is not all that comes."""
        name = (join.topic, join.purpose, join.version)
        try:
            known = await self.load()
            before = known.get(name)
            if not join.schema:
                if before is not None and not _has_others(dispatcher, name):  # it reads anything by now
                    await self._definitions.remove(KIND, _text(name))
                return
            if before is not None and read_schema(before.schema) == read_schema(join.schema):
                if before.fault:
                    receiver.told(before.fault)
                return
            fault, fits = self._fault(name, join.schema)
            await self._put(_Kept(name, join.schema, fault, self._clock.wall() if fault else 0))
            for older in self._versions.get(name[:2], [])[:-MAX_VERSIONS]:
                await self._definitions.remove(KIND, _text((*name[:2], older)))
        except SolarWindError as error:
            limited.warning(("schemas", "read"), "the schema of %s is not kept: %s", _shown(name), error)
            return
        if fault:
            limited.warning(("schema", *name), "%s", fault)
            receiver.told(fault)
        elif fits:
            log.info("%s", fits)

    def _fault(self, name: _Name, schema: bytes) -> tuple[str, str]:
        """Return why a version cannot read all that comes, or else which other can be read."""
        topic, _, version = name
        assert self._known is not None
        stated, before = self._known.get((topic, "", 0)), self._before(name)
        if stated is not None:
            return _compared(stated.schema, schema, name, f"what producers state of topic {topic!r}")
        if before is not None:
            which = "it" if before.name[2] == version else f"version {before.name[2]}"
            return _compared(before.schema, schema, name, f"what {which} read before")
        return "", ""

    def _before(self, name: _Name) -> _Kept | None:
        """Return what the version read before, or else the one before it."""
        assert self._known is not None
        if name in self._known:
            return self._known[name]
        versions = self._versions.get(name[:2], [])
        at = bisect_left(versions, name[2])
        return self._known[*name[:2], versions[at - 1]] if at else None

    async def stated(self, topic: str, schema: bytes, dispatcher: Dispatcher) -> str:
        """Note what producers state for a topic. Return which purposes cannot read it, in one sentence; "" for none."""
        try:
            return await self._stated(topic, schema, dispatcher)
        except SolarWindError as error:  # whoever fires there goes on all the same
            limited.warning(("schemas", "stated"), "the schema of topic %r is not kept: %s", topic, error)
            return ""

    async def _stated(self, topic: str, schema: bytes, dispatcher: Dispatcher) -> str:
        known = await self.load()
        self._stated_here.add(topic)
        await self._put(_Kept((topic, "", 0), schema))
        live = dispatcher.topics[topic].purposes
        faults: list[str] = []
        for name, kept in [each for each in known.items() if each[0][0] == topic and each[0][1]]:
            what = f"what producers state of topic {topic!r}"
            fault, _ = _compared(schema, kept.schema, name, what)
            since = (kept.since if fault == kept.fault else self._clock.wall()) if fault else 0
            await self._put(msgspec.structs.replace(kept, fault=fault, since=since))
            purpose = live.get(name[1])
            if fault and purpose is not None and purpose.active.version == name[2] and _pends(purpose):
                faults.append(fault)
        if not faults:
            return ""
        more = len(faults) - 1
        text = faults[0] + (f"; and so it is for {more} more purpose{'s' * (more > 1)} of the topic" if more else "")
        limited.warning(("schema", topic), "%s", text)
        return text

    async def forget(self, topic: str, purpose: str) -> None:
        """Forget what a purpose reads, which is retired."""
        for name in [each for each in self._fires if each[:2] == (topic, purpose)]:
            del self._fires[name]
        try:
            for name in [each for each in await self.load() if each[:2] == (topic, purpose)]:
                await self._definitions.remove(KIND, _text(name))
        except SolarWindError as error:
            limited.warning(("schemas", topic), "the schemas of %r on %r are not removed: %s", purpose, topic, error)

    # Asked --------------------------------------------------------------------------------------------

    def note_fired(self, join: Join, fired: Collection[Batch]) -> None:
        """Note on which topics the handlers of a version fire."""
        fires = self._fires.setdefault((join.topic, join.purpose, join.version), {})
        for batch in fired:
            if len(fires) < MAX_FIRES:
                fires[batch.topic] = None

    def fault_of(self, purpose: LivePurpose, pending: int) -> tuple[str, int] | None:
        """Return why the current version of a purpose cannot read all that comes, and since when. It matters as long as
        events pend, and where none does as long as producers state what is not read, and an instance reads it."""
        version = purpose.active.version
        kept = (self._known or {}).get((purpose.topic, purpose.name, version))
        if kept is None or not kept.fault or not _pends(purpose):
            return None
        goes_on = purpose.topic in self._stated_here and purpose.live[version] > 0
        return (kept.fault, kept.since) if pending or goes_on else None

    async def infos(self, dispatcher: Dispatcher, only: str | None) -> Iterator[SchemaInfo]:
        """Return what is known of the topics of a dispatcher, or of one: what producers state, and each version."""
        known = await self.load()

        def listed() -> Iterator[SchemaInfo]:
            for topic in sorted(dispatcher.topics) if only is None else [only] if only in dispatcher.topics else []:
                if (stated := known.get((topic, "", 0))) is not None:
                    yield SchemaInfo(topic, schema=read_schema(stated.schema))
                for name, purpose in sorted(dispatcher.topics[topic].purposes.items()):
                    for statement in sorted(purpose.statements.values(), key=lambda each: each.version):
                        fires = tuple(sorted(self._fires.get((topic, name, statement.version), ())))
                        yield _info(topic, name, statement, known.get((topic, name, statement.version)), fires)

        return listed()


def without_schema(join: Join) -> Join:
    """Return a registration as the dispatcher gets it."""
    return msgspec.structs.replace(join, schema=b"") if join.schema else join


def _info(topic: str, name: str, statement: Statement, kept: _Kept | None, fires: tuple[str, ...]) -> SchemaInfo:
    schema = None if kept is None else read_schema(kept.schema)
    retry: dict[str, Any] = msgspec.structs.asdict(statement.retry)
    return SchemaInfo(topic, name, statement.version, statement.exchange, statement.key, retry, schema, fires)


def _has_others(dispatcher: Dispatcher, name: _Name) -> bool:
    """Return whether a version has instances besides the one that has just joined."""
    topic, purpose, version = name
    live = dispatcher.topics[topic].purposes.get(purpose) if topic in dispatcher.topics else None
    return live is not None and live.live[version] > 1


def _pends(purpose: LivePurpose) -> bool:
    exchange = purpose.exchanges.lookup(purpose.active.exchange)
    return exchange is None or exchange.pends


def _compared(written: bytes, read: bytes, name: _Name, what: str) -> tuple[str, str]:
    """Return why a version cannot read all that `what` describes, or else that it can."""
    faults = unreadable(read_schema(written), read_schema(read))
    if not faults:
        return "", f"{_shown(name)} reads all of {what}"
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{_shown(name)} does not read all of {what}: {faults[0]}{more}; such an event becomes a dead letter", ""


def _shown(name: _Name) -> str:
    topic, purpose, version = name
    return f"version {version} of purpose {purpose!r} on topic {topic!r}" if purpose else f"topic {topic!r}"


def _text(name: _Name) -> str:
    return "\n".join(map(str, name))


class SchemaOperations:
    """The part of an engine that knows the schemas of payloads."""

    _dispatcher: Dispatcher
    _schemas: Schemas

    async def _caught_up(self) -> None:
        raise NotImplementedError

    async def schemas(self, topic: Topic | None = None) -> list[SchemaInfo]:
        """Return what is known of the payloads of all topics, or of one: the schema that producers state, and the one
        of each version of its purposes."""
        await self._caught_up()
        found, rest = list[SchemaInfo](), Rest()
        for each in await self._schemas.infos(self._dispatcher, topic):
            found.append(each)
            await rest.now_and_then()
        return found

    async def declare_schema(self, topic: Topic, schema: PayloadSchema) -> str:
        """State what producers fire on a topic, as a JSON Schema. Return in one sentence which purposes cannot read
        all of it; "" where all can."""
        self._dispatcher.topic(topic)
        return await self._schemas.stated(topic, schema, self._dispatcher)
