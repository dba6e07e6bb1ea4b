"""The end of a copy that is a namespace: see `solarwind.copying`.

The copier owns all partitions, and no other process is there. It puts what it copies into the event streams itself, in
the order of its source: many messages together, and only behind what it put there before. So events come to be where it
counted them to be, each once, whatever happens on the way; and it notices a process that fires meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from operator import attrgetter

import msgspec
from nats.aio.msg import Msg

from ..batch import Batch
from ..core.facts import Note
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Letter, Snapshot
from ..engine.tasks import Tasks
from ..errors import ConflictError, SolarWindError, StoreError, TooLarge
from ..limits import Limits
from ..store.base import Recovered, TopicRecord
from ..store.definitions import Definitions
from ..store.delays import Entry
from .address import NamespaceSettings, read_address
from .definitions import DefinitionKeys
from .delayed import PART_BITS
from .layout import COPIED, Layout, id_name, producer_name
from .namespace import open_namespace
from .owners import HEARTBEAT_S, Member, Record
from .pieces import HEADERS_BYTES, Message, in_pieces
from .publish import NUMBER, Publisher, cut, runs
from .session import NO_STREAM, WRONG_SEQUENCE, NoAnswer, Refusal, Session, refused
from .store import JetStreamStore

log = logging.getLogger("solarwind")

TOGETHER = 500  # messages that are stored together; JetStream accepts 1,000 at most
TOGETHER_BYTES = 4 << 20
LOOK_S = 0.1
LEAVE_S = 5.0  # to note how a partition was left, where there is no answer any more
_EXPECT = "Nats-Expected-Last-Sequence"


class NatsEnd:
    """The namespace at `url`. Unless it `writes`, it writes only what any owner writes there."""

    def __init__(self, url: str, *, writes: bool) -> None:
        self._address = address = read_address(url)
        servers = ",".join(server.removeprefix("nats://") for server in address.servers)
        self.place = f"nats://{servers}/{address.namespace}"
        self._writes = writes
        self._partitions: dict[int, PartitionEnd] = {}
        self._others = ""
        self._tasks = Tasks(self._deaf)
        self._error: StoreError | None = None  # for which other processes are not heard

    async def open(self, now: int) -> Recovered:
        self._session = Session(self._address)
        await self._session.open()
        try:
            await self._open_namespace()
            await self._refuse_others()
            self.publisher = Publisher(self._session, self.layout, Limits())
            self.definitions: Definitions = DefinitionKeys(self._session, self.layout).definitions
            while new := await self._used() - self._partitions.keys():
                for partition in sorted(new):
                    await self._partition(partition).open(now)
                for each in self._partitions.values():  # which may bring a partition into use
                    await each.store.forwarder.idle()
            for each in self._partitions.values():
                await each.store.synced()
        except Refusal as refusal:
            await self._close(clean=None)
            raise refused(refusal, f"open {self.place}") from refusal
        except BaseException:
            await self._close(clean=None)
            raise
        return self._recovered(now)

    def _recovered(self, now: int) -> Recovered:
        found = [each.found for each in self._partitions.values()]
        return Recovered(
            all(each.clean for each in found),
            max((each.now for each in found), default=now),
            [record for each in self._partitions.values() for record in each.topics()],
            [snapshot for each in found for snapshot in each.snapshots],
            [change for each in found for change in each.changes],
        )

    async def delayed(self, after: tuple[int, int], max_bytes: int) -> list[Entry]:
        """See `End`. What is due at the same time is in the order of its numbers, and then of the partitions."""
        found: list[Entry] = []
        ends: list[tuple[int, int]] = []
        count = self.layout.settings.streams
        for partition, each in self._partitions.items():
            due, number = after
            page = await each.delayed((due, (number - partition) // count), max_bytes)
            if page:
                found += [entry._replace(number=entry.number * count + partition) for entry in page]
                ends.append(found[-1].place)
        return sorted((entry for entry in found if entry.place <= min(ends)), key=attrgetter("place"))

    async def delay(self, entries: Sequence[Entry]) -> None:
        """Keep their order, also across partitions."""
        accepted = max((each.accepted for each in self._partitions.values()), default=0)
        parts: dict[int, list[Entry]] = {}
        for number, entry in enumerate(entries, accepted + 1):
            partition = self.layout.partition(entry.batch.topic)
            parts.setdefault(partition, []).append(entry._replace(number=number << PART_BITS))
        for partition, delayed in parts.items():
            await self._partition(partition).delay(delayed)

    def store_of(self, topic: str) -> PartitionEnd:
        return self._partition(self.layout.partition(topic))

    def _partition(self, partition: int) -> PartitionEnd:
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = PartitionEnd(self, self._session, partition)
        return found

    async def leave(self, clean: bool) -> None:
        await self._close(clean)

    async def _close(self, clean: bool | None) -> None:
        """Close the partitions. `clean` is None where the copy failed; then, as where they were only read, each is left
        as it was."""
        for each in self._partitions.values():
            await each.leave(clean if self._writes else None)
        self._partitions.clear()
        await self._tasks.end()
        await self._session.close()

    # Other processes -------------------------------------------------------------------------------------

    async def _open_namespace(self) -> None:
        if not self._writes:
            await self._refuse_missing()
        self.layout: Layout = await self._session.until_answered(
            lambda: open_namespace(self._session), "open a namespace"
        )

    async def _refuse_missing(self) -> None:
        stream = Layout(self._address.namespace, NamespaceSettings()).state_stream
        try:
            await self._session.until_answered(
                lambda: self._session.api(f"STREAM.INFO.{stream}"), "see whether a namespace is there"
            )
        except Refusal as refusal:
            if refusal.code != NO_STREAM:
                raise
            raise StoreError(
                f"expected a namespace, but there is none at {self.place}: fire the first event to it, or name another"
            ) from None

    async def _used(self) -> set[int]:
        """Return the partitions that are in use."""
        key = self.layout.key("owner.")
        request = {"subjects_filter": f"{key}*"}
        info = await self._session.until_answered(
            lambda: self._session.api(f"STREAM.INFO.{self.layout.bucket_stream}", request), "see what is in use"
        )
        return {int(subject.removeprefix(key)) for subject in info["state"].get("subjects") or ()}

    async def _refuse_others(self) -> None:
        """Refuse to copy where a process is at work. It answers a hello at once; an owner that is too busy, with its
        next heartbeat."""
        self._session.back.append(self._listen)
        await self._hear()
        looks = 2
        for partition in await self._used():
            raw = await self._session.last(self.layout.bucket_stream, self.layout.key(f"owner.{partition}"))
            if raw is not None and msgspec.json.decode(raw.data or b"{}", type=Record).node:
                looks = int(HEARTBEAT_S / LOOK_S) + 2
        for _ in range(looks):
            await asyncio.sleep(LOOK_S)
            self.check_alone()

    def check_alone(self) -> None:
        if self._error is not None:
            raise self._error
        if self._others:
            raise ConflictError(
                f"expected nobody to be at work on {self.place} while it is copied, got process {self._others}: stop "
                "it, and copy again"
            )

    def _listen(self) -> None:
        self._tasks.begin(self._hear(), "listening for other processes")

    def _deaf(self, error: StoreError) -> None:
        self._error = error

    async def _hear(self) -> None:
        try:
            await self._session.subscribe(self.layout.live("heartbeat"), self._heard)
            await self._session.tell(self.layout.live("hello"), b"copy")
            await self._session.flush()
        except NoAnswer:
            pass  # the connection is gone, and when it is back this is called again

    async def _heard(self, message: Msg) -> None:
        try:
            member = msgspec.json.decode(message.data, type=Member)
        except msgspec.MsgspecError:
            return
        if member.takes_part or member.owned:
            self._others = member.name


class PartitionEnd:
    """One partition. It is made in the namespace when something is first written to it."""

    def __init__(self, end: NatsEnd, session: Session, partition: int) -> None:
        self._end = end
        self._session = session
        self._partition = partition
        self._stream = end.layout.events_stream(partition)
        self._ends: dict[str, int] = {}
        self._last = 0  # the sequence of the last message
        self._is_behind = False  # whether something was stored that was not counted yet
        self._error: StoreError | None = None
        self._is_open = False

    async def open(self, now: int) -> None:
        end = self._end
        self.store = JetStreamStore(
            self._session, end.layout, self._partition, end.publisher, end.definitions, at_rest=True
        )
        self.store.failed = self._failed
        try:
            self.found = await self.store.open(now)
        except BaseException:
            await self.store.abandon()
            raise
        self.store.follow(self._arrived)  # at once: what came before is in `found`
        self._is_open = True
        self._ends = {record.name: record.end for record in self.found.topics}
        self._last = await self._last_sequence()

    def _arrived(self, stored: Stored) -> None:
        self._ends[stored.batch.header.topic] = stored.stop

    def _failed(self, error: StoreError) -> None:
        self._error = error

    async def _last_sequence(self) -> int:
        last: int = await self._session.until_answered(
            lambda: self._session.last_sequence(self._stream), f"ask stream {self._stream} how long it is"
        )
        return last

    def topics(self) -> list[TopicRecord]:
        records = {record.name: record for record in self.found.topics}
        return [
            msgspec.structs.replace(records.get(name) or TopicRecord(name, 0), end=end)
            for name, end in self._ends.items()
        ]

    async def leave(self, clean: bool | None) -> None:
        """Note how the partition is left; None is as it was found."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            async with asyncio.timeout(LEAVE_S):
                if clean or (clean is None and self.found.clean):
                    await self.store.synced()
                    await self.store.close()
                elif clean is not None:
                    await self.store.commit([], [], [], 0)  # which does not say that the owner left in order
        except (SolarWindError, TimeoutError) as error:
            log.warning("partition %d was not left in order: %s", self._partition, error or "no answer in time")
        finally:
            await self.store.abandon()

    # What copying asks --------------------------------------------------------------------------------

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        self._check()
        return await self.store.read(topic, position, max_bytes) if self._is_open else []

    async def history(self, topic: str) -> tuple[int, int]:
        return await self.store.history(topic) if self._is_open else (0, 0)

    async def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        self._check()
        return await self.store.dead(topic, purpose, track, positions) if self._is_open else []

    async def notes(self, topic: str, positions: Spans) -> list[Note]:
        self._check()
        return await self.store.notes(topic, positions) if self._is_open else []

    async def topic(self, name: str, keep_ns: int | None, keep_bytes: int | None) -> None:
        await self._ready(0)
        await self.store.topic(name, keep_ns, keep_bytes)

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        *,
        notes: Sequence[Note] = (),
    ) -> list[Stored | None]:
        await self._ready(now)
        group: list[Message] = []
        size = 0
        await self._session.up.wait()
        for event in self._events(batches, self._session.max_payload - HEADERS_BYTES):
            more = sum(len(data) for _, data, _ in event)
            if group and (len(group) + len(event) > TOGETHER or size + more > TOGETHER_BYTES):
                await self._put(group)
                group, size = [], 0
            group += event
            size += more
        if group:
            await self._put(group)
        if changes or snapshots or notes:
            if self._is_behind:
                await self.store.synced()
                self._is_behind = False
            await self.store.commit([], changes, snapshots, now, notes=notes)
        return [None] * len(batches)

    @property
    def accepted(self) -> int:
        """How many batches were delayed so far."""
        return self.store.delays.size.accepted if self._is_open else 0

    async def delayed(self, after: tuple[int, int], max_bytes: int) -> list[Entry]:
        self._check()
        return await self.store.delays.page(after, max_bytes) if self._is_open else []

    async def delay(self, delayed: Sequence[Entry]) -> None:
        await self._ready(0)
        await self.store.commit([], [], [], 0, delayed)
        await self.store.delays.sort()

    def _check(self) -> None:
        self._end.check_alone()
        if self._error is not None:
            raise self._error

    async def _ready(self, now: int) -> None:
        self._check()
        if not self._is_open:
            await self.open(now)
            if self._ends or self._last:
                raise self._fired()

    # What is stored -----------------------------------------------------------------------------------

    def _events(self, batches: Sequence[Batch], room: int) -> Iterator[list[Message]]:
        """Return the messages of a batch, or the pieces of one event."""
        for batch in batches:
            for run in runs(batch):
                for part in cut(run, room):
                    id = part.given_id(0)
                    who = id_name(id) if id is not None else producer_name(part.header)
                    subject = self._end.layout.event_subject(part, COPIED, who)
                    yield [(subject, part.data, {})] if len(part.data) <= room else self._pieces(subject, part, room)

    def _pieces(self, subject: str, event: Batch, room: int) -> list[Message]:
        pieces = in_pieces(subject, event.data, {NUMBER: str(event.header.first)}, room)
        if len(pieces) > TOGETHER:
            raise TooLarge(
                f"expected an event of at most {TOGETHER * room:,} bytes, got {len(event.data):,}: "
                "raise max_payload of the NATS servers"
            )
        return pieces

    async def _put(self, messages: list[Message]) -> None:
        """Store messages behind what is there, until it is certain that they are stored."""
        stop = self._last + len(messages)
        messages[0][2][_EXPECT] = str(self._last)
        try:
            self._last = await self._session.until_answered(
                lambda: self._session.publish_together(messages), f"store events in stream {self._stream}"
            )
        except Refusal as refusal:
            if refusal.code != WRONG_SEQUENCE:
                raise refused(refusal, f"store events in stream {self._stream}") from refusal
            self._last = await self._last_sequence()
            if self._last != stop:  # else the answer to an earlier try was lost
                raise self._fired() from None
        self._is_behind = True

    def _fired(self) -> ConflictError:
        return ConflictError(
            f"expected nobody to fire on {self._end.place} while it is copied to, got events in stream {self._stream} "
            "that somebody else stored: copy to an empty namespace"
        )
