"""JetStream as a store: what the owner of a partition reads and writes. See docs/NATS.md.

Events come into the log from everywhere and are counted here as they come (`tail`); nothing but the owner writes
state. Each commit is stored only if the one before it is the owner's own: so a process that was an owner once and does
not know better writes nothing, and what handlers fired, which is in the commit, is not fired either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from msgspec import UnsetType

from ..batch import Batch
from ..core import state
from ..core.facts import Note
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Letter, Snapshot
from ..engine.tasks import Tasks
from ..errors import NotAllowed, NotFound, ProtocolError, StoreError
from ..store.base import FOREVER, BatchPlace, Full, Keep, Meanwhile, Recovered, TopicRecord, was_caused
from ..store.definitions import Definitions
from ..store.delays import Delayed, Entry, check_delayed
from .delayed import Size, StreamDueLog
from .formats import read_time
from .forward import MAX_BYTES, Forwarder
from .id_index import Row
from .known import History
from .layout import CAUSED, Layout, forwarded_by
from .log import CommitLog
from .pieces import Message, pass_over
from .positions import NOTES_TOGETHER, Notes, Positions
from .publish import Publisher
from .records import CommitRecord, TopicState
from .session import Raw, Refusal, Session, refused
from .tail import Tail
from .tracing import find_direct, find_given, read_batches
from .trim import TrimRequest, trim

log = logging.getLogger("solarwind")

CERTAIN_S = 1.5  # how long an owner counts as one without a sign: less than until it is replaced
FULL_S = 1.0  # between two tries to write where there is no room
CATCH_UP_S = 1.0  # that an owner reads on before it begins; the rest comes while it is at work
FEW_NOTES = 4  # that an owner need not write down before it leaves: what they are of is soon read
CAUSED_TOGETHER = 256  # batches that are read together to see what events caused
CHECKPOINT_BYTES = 8 << 20  # of events after which it is written down how far they were counted
MESSAGE_BYTES = 1 << 10  # reading a message costs as much as reading so many bytes


def no_file() -> NotAllowed:
    """Return the refusal of an operation that needs a store in a file."""
    return NotAllowed(
        "expected a store with a file, got nats://: use `solarwind copy --from nats://… --to sqlite:///…`, or "
        "`nats stream backup`"
    )


class JetStreamStore:
    """The store of one partition."""

    id = ""
    durable = True
    shared = True

    def __init__(
        self,
        session: Session,
        layout: Layout,
        partition: int,
        publisher: Publisher,
        definitions: Definitions,
        *,
        at_rest: bool = False,
    ) -> None:
        """`definitions` are the namespace's. `at_rest`: only a copier reads and writes it, and nothing is handed
        out."""
        self.keep_ns = int(layout.settings.keep_s * 1e9)
        self.partition = partition
        self.name = f"partition {partition}"
        self.definitions = definitions
        self._session = session
        self._layout = layout
        self._publisher = publisher
        self._stream = layout.events_stream(partition)
        self._topics: dict[str, Notes] = {}
        self._at_rest = at_rest
        self._log = CommitLog(session, layout, partition)
        self._positions = Positions(session, layout, partition, self._seen)
        self._writing = asyncio.Lock()
        self.delays = StreamDueLog(
            layout, partition, self._log, History(session, layout), self._writing, self._commit_delayed
        )
        self.forwarder = Forwarder(session, layout, partition, publisher, lambda error: self.failed(error))
        self._tail: Tail | None = None
        self._arrived: Callable[[Stored], None] | None = None
        self.failed: Callable[[StoreError], None] = lambda error: None
        self.rightful: Callable[[], Awaitable[bool]] | None = None  # whether this process is to own it
        self.is_followed = False  # another process goes on with what is to be copied
        self._created = ""
        self._changed: set[str] = set()  # topics
        self._holed: set[str] = set()  # topics whose holes changed
        self._unwritten_bytes = 0  # of events that came since the last commit
        self._write_began = inf  # the time
        self._sure_at = -inf  # the time, that this process was the owner for certain
        self._connection = 0  # of the session, by which something was written last
        self._trimming = asyncio.Lock()
        self._last_from: dict[str, int] = {}  # the last copy of each partition's: how far that one is
        self._now = 0
        self._tasks = Tasks(lambda error: self.failed(error))
        self._closed = False

    # Life ---------------------------------------------------------------------------------------------

    async def open(self, now: int) -> Recovered:
        try:
            await self._publisher.doubt(self.partition)
            await self._publisher.ensure(self.partition)
            info = await self._session.until_answered(
                lambda: self._session.api(f"STREAM.INFO.{self._stream}"), "open a stream"
            )
            self._created, end = str(info["created"]), int(info["state"]["last_seq"])
            self._connection = self._session.connections
            written = await self._log.open(now, self._created, at_rest=self._at_rest, rightful=self.rightful)
        except Refusal as refusal:
            raise refused(refusal, f"open stream {self._stream}") from refusal
        self._topics = {name: Notes(topic, written.holes.get(name, [])) for name, topic in written.topics.items()}
        before = written.before
        seen = before.seen if before is not None else 0
        if before is not None and before.created not in ("", self._created) and not _was_restored(info, seen):
            self._lost_stream()
            seen = 0
        for fired in written.fired:
            self.forwarder.add(fired.commit, fired.batches, was_delayed=fired.was_delayed)
        if before is not None:
            self.delays.size = Size(before.delayed, before.accepted)
        self._sure_at = monotonic()
        last = before.time if before is not None else 0
        self._now = max(now, last)
        await self._find_copies()
        await self._begin(seen, end)
        known = [
            TopicRecord(name, notes.state.end, notes.state.keep_ns, notes.state.keep_bytes)
            for name, notes in self._topics.items()
        ]
        return Recovered(before is None or before.closed, last, known, written.snapshots, written.changes)

    async def _begin(self, seen: int, end: int) -> None:
        """Continue reading where the former owner was, up to the sequence `end` before anything is handed out."""
        self._tail = Tail(
            self._session,
            self._stream,
            self._receive,
            self._stream_gone,
            lambda error: self.failed(error),
            start=seen + 1,
            created=self._created,
        )
        self._tail.begin()
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self._tail.until(end)
        except TimeoutError:
            pass

    def _lost_stream(self) -> None:
        log.error(
            "stream %s was deleted and made again: the events that were in it are lost, and purposes go on with what "
            "comes now",
            self._stream,
        )
        for name, notes in self._topics.items():
            known = notes.state
            known.first, known.first_total, known.first_seq = known.end, known.total, 1
            known.missing, known.missing_bytes, notes.holes = 0, 0, []
            self._holed.add(name)
            notes.loaded = True
            self._changed.add(name)
            subject = self._layout.kept(self.partition, f"index.{name}")
            self._spawn(self._session.api(f"STREAM.PURGE.{self._layout.state_stream}", {"filter": subject}))
        self._spawn(self._log.ids.clear())

    async def _find_copies(self) -> None:
        """Find in the log how far other partitions are with their copying; that must stay there."""
        vias = [forwarded_by(source) for source in range(self._layout.settings.streams)]
        subjects = [self._layout.events_of(self.partition, kind=CAUSED, via=via) for via in vias]
        last = await asyncio.gather(
            *(
                self._session.until_answered(
                    partial(self._session.last, self._stream, subject), "see how far copying is"
                )
                for subject in subjects
            )
        )
        self._last_from = {via: raw.seq for via, raw in zip(vias, last, strict=True) if raw is not None}

    def follow(self, arrived: Callable[[Stored], None]) -> None:
        self._arrived = arrived

    async def close(self) -> None:
        """Note that it was closed in order, unless another process is the owner by now."""
        if self._closed:
            return
        self._closed = True
        tail = self._tail
        try:
            if tail is not None and not self._log.fenced and self._session.error is None:
                async with asyncio.timeout(2.0):
                    async with self._trimming:
                        pass
                    if not self.is_followed:
                        await self.forwarder.idle()
                    for notes in self._topics.values():
                        if len(notes.unwritten) > FEW_NOTES:
                            await self._positions.write(notes)
                    async with self._writing:
                        record = self._commit(tail.seen, b"", [], closed=True)
                        record.ids = self._log.ids.take()
                        await self._log.write(record, [], [])
        except (StoreError, Full, Refusal, TimeoutError) as error:
            log.warning("partition %d was not closed in order: %s", self.partition, str(error) or "no answer in time")
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Close it as it is, without noting that."""
        self._closed = True
        tail, self._tail = self._tail, None
        await self._tasks.end()
        await self.forwarder.stop()
        if tail is not None:
            await tail.end()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.spawn(self._guarded(work), f"upkeep of partition {self.partition}")

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except StoreError as error:
            self.failed(error)
        except (Full, Refusal) as error:
            log.warning("upkeep of partition %d: %s", self.partition, error)

    @property
    def is_over(self) -> bool:
        return self.fenced or self.gone

    @property
    def gone(self) -> bool:
        """Whether the stream of all states was deleted."""
        return self._log.gone

    @property
    def fenced(self) -> bool:
        """Whether another process owns the partition now."""
        return self._log.fenced

    # What comes in ------------------------------------------------------------------------------------

    def _receive(self, raw: Raw) -> None:
        tokens = raw.subject.split(".", 7)
        via, name = tokens[4], tokens[7]
        try:
            batch = Batch.read(raw.data)
            if batch.topic != name:
                raise ProtocolError(f"expected a batch of topic {name!r}, got one of {batch.topic!r}")
        except ProtocolError as error:
            pass_over(raw, self._stream, error)
            return
        if via in self._last_from or via.startswith("from-"):
            self._last_from[via] = raw.seq
        notes = self._topics.get(name)
        if notes is None:
            if self._layout.partition(name) != self.partition:
                pass_over(raw, self._stream, f"topic {name!r} belongs to partition {self._layout.partition(name)}")
                return
            notes = self._topics[name] = Notes(TopicState(name), loaded=False)
        stored = Stored(notes.count(raw, batch), batch, raw.time)
        self._log.ids.arrive(raw, stored, via)
        batch.fold()
        self._changed.add(name)
        if len(notes.unwritten) >= NOTES_TOGETHER and not notes.writing.locked():
            self._spawn(self._positions.write(notes))
        self._unwritten_bytes += len(raw.data) + MESSAGE_BYTES
        if self._arrived is not None:
            self._arrived(stored)
        if self._unwritten_bytes > CHECKPOINT_BYTES:
            self._unwritten_bytes = 0
            self._spawn(self.checkpoint())

    def _stream_gone(self) -> None:
        self.failed(StoreError(f"expected stream {self._stream}, but it was deleted"))

    def owns(self, topic: str) -> bool:
        return self._layout.partition(topic) == self.partition

    async def synced(self) -> None:
        """Wait until all that is in the log by now has come. Callers that wait while a request is under way share the
        next one, and go on in the order in which they called."""
        if self._tail is not None:
            await asyncio.shield(self._tail.sync())

    async def forwarded(self) -> None:
        await self.forwarder.idle()
        await self.synced()

    # Commits ------------------------------------------------------------------------------------------

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        delayed: Sequence[Delayed | Entry] = (),
        notes: Sequence[Note] = (),
        accepted_at: int | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> list[Stored | None]:
        """See `Store.commit`; history goes by when NATS stored it. The batches are what handlers fired: they come into
        the log once they are copied there, so none has a position yet. An `Entry` of `delayed` keeps its number."""
        if batches:
            self._check_copying()
        check_delayed(delayed)
        async with self._writing:
            self._now = now or self._now
            if delayed:
                await self.delays.make_room()
            encoded = state.encode(list(changes)) if changes else b""
            record = self._commit(self._seen(), encoded, [batch.data for batch in batches])
            record.notes = state.encode(list(notes)) if notes else b""
            if delayed:
                pages, size, inbox = self.delays.accept(delayed)
                record.delayed, record.accepted = size
                await self._write(record, changes, snapshots, pages)
                self.delays.accepted(size, inbox)
                self._spawn(self._sort_delayed())
            else:
                await self._write(record, changes, snapshots)
        self.forwarder.add(record.number, list(batches))
        stored: list[Stored | None] = [None] * len(batches)
        if meanwhile is not None:
            meanwhile(stored)
        return stored

    async def _commit_delayed(self, pages: Sequence[Message], released: Sequence[Batch], size: Size) -> None:
        """Commit what changed of the due-log."""
        if released:
            self._check_copying()
        record = self._commit(self._seen(), b"", [batch.data for batch in released])
        record.delayed, record.accepted = size
        record.was_delayed = bool(released)
        await self._write(record, [], [], pages)
        self.forwarder.add(record.number, list(released), was_delayed=True)

    async def _sort_delayed(self) -> None:
        try:
            await self.delays.sort()
        except StoreError:
            if not self._closed:  # else the next owner does it
                raise

    def _check_copying(self) -> None:
        """Raise `Full` where too much of what was fired still waits to be copied."""
        if self.forwarder.bytes > MAX_BYTES:
            raise Full(
                f"what was fired on partition {self.partition} waits to be stored: expected at most {MAX_BYTES:,} "
                "bytes of it, got more"
            )

    def _seen(self) -> int:
        return self._tail.seen if self._tail is not None else 0

    def _commit(self, seen: int, changes: bytes, fired: list[bytes], *, closed: bool = False) -> CommitRecord:
        topics = [self._topics[name].state for name in self._changed]
        copied = self.forwarder.oldest or 0
        holes = {name: list(self._topics[name].holes) for name in self._holed}
        delayed, accepted = self.delays.size
        return CommitRecord(
            0, 0, self._now, seen, self._created, closed, topics, changes, fired, copied, holes, delayed, accepted
        )

    async def _write(
        self,
        record: CommitRecord,
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        pages: Sequence[Message] = (),
    ) -> None:
        if self._closed and not record.closed:  # another process may be the owner, or read on behind what it says
            raise StoreError(f"partition {self.partition} was released: nothing more is written")
        changed, self._changed, holed, self._holed = self._changed, set(), self._holed, set()
        record.ids = self._log.ids.take()
        self._write_began, connection = monotonic(), self._session.connections
        try:
            await self._log.write(record, changes, snapshots, pages)
        except Full:
            self._changed |= changed
            self._holed |= holed
            self._log.ids.give_back(record.ids)
            raise
        finally:
            self._write_began = inf
        self._connection = connection
        self._unwritten_bytes = 0
        if self._log.purge_due and not self._closed:
            self._spawn(self._purge())
        if self._log.ids.is_full and not self._closed:
            self._spawn(self.checkpoint())

    async def _purge(self) -> None:
        await self.delays.purged(await self._log.purge(self.forwarder.oldest))

    def is_sure(self) -> bool:
        """Return whether it is certain that this process owns the partition: that was shown a moment ago, NATS can be
        reached by the connection of the last commit, and no answer is late."""
        now = monotonic()
        connected = self._session.is_up and self._connection == self._session.connections
        return connected and now - self._sure_at < CERTAIN_S and now - self._write_began < CERTAIN_S

    def look(self) -> None:
        """Stay certain: while this process runs, and does not stand still, no other process counts it as gone. Called
        now and then."""
        if self.is_sure():
            self._sure_at = monotonic()

    async def confirm_ownership(self) -> None:
        while not self.is_sure():
            began = monotonic()
            try:
                await self.checkpoint()
            except Full as full:
                log.warning("%s", full)
                await asyncio.sleep(FULL_S)
            else:
                self._sure_at = began

    async def checkpoint(self) -> None:
        """Write snapshots, so that the next owner need not read all commits. A former owner is told by it that it is
        one."""
        async with self._writing:
            await self._write(self._commit(self._seen(), b"", []), [], [])

    # Reading ------------------------------------------------------------------------------------------

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        notes = self._topics.get(topic)
        return [] if notes is None else await self._positions.read(notes, position, max_bytes)

    async def history(self, topic: str) -> tuple[int, int]:
        notes = self._topics.get(topic)
        return (0, 0) if notes is None else (notes.state.events, notes.state.size)

    async def seek(self, topic: str, time: int) -> int:
        notes = self._topics.get(topic)
        if notes is None:
            return 0
        return await self._positions.seek(notes, time)

    async def read_at(self, topic: str, positions: Spans, max_bytes: int) -> list[Stored]:
        notes = self._topics.get(topic)
        return [] if notes is None else await self._positions.read_at(notes, positions, max_bytes)

    async def find(self, id: str, topic: str | None = None) -> tuple[str, int] | None:
        raw, index = await find_given(self._session, self._layout, self.partition, id, topic or ">"), 0
        if raw is None:
            for stored in await self._read_rows(await self._log.ids.having(id)):
                for at in range(len(stored.batch)) if topic in (None, stored.batch.topic) else ():
                    if stored.batch.id(at) == id:
                        return stored.batch.topic, stored.start + at
            found = await find_direct(self._session, self._layout, self.partition, id, topic or ">")
            if found is None:
                return None
            raw, index = found
        name = raw.subject.split(".", 7)[7]
        notes = self._topics.get(name)
        position = None if notes is None else await self._positions.position_of(notes, raw.seq)
        if position is not None:
            return name, position + index
        raise NotFound(f"expected the event {id!a} in the history of {name!r}, but it is not counted yet: try again")

    async def caused(
        self, ids: Collection[str], since: BatchPlace | None, max_bytes: int, max_batches: int = 1_000
    ) -> tuple[list[Stored], bool]:
        rows = [row for row in await self._log.ids.caused_by(ids) if since is None or row.place >= since]
        found: list[Stored] = []
        for at in range(0, len(rows), CAUSED_TOGETHER):
            for stored in await self._read_rows(rows[at : at + CAUSED_TOGETHER]):
                if max_bytes < 0 or len(found) == max_batches:
                    return found, True
                max_bytes -= len(stored.batch.data)
                if was_caused(stored.batch, ids):
                    found.append(stored)
        return found, False

    async def _read_rows(self, rows: Sequence[Row]) -> list[Stored]:
        """Return the batches that the index says where they are, in its order; those that there are."""
        seqs = sorted({row.seq for row in rows})
        read = await read_batches(self._session, self._layout, self.partition, seqs)
        found = []
        for row in rows:
            raw, batch = read.get(row.seq, (None, None))
            if raw is not None and batch is not None and batch.topic == row.place.topic:
                found.append(Stored(row.place.start, batch))
        return found

    async def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        return await self._log.letters.read((topic, purpose), positions)

    async def notes(self, topic: str, positions: Spans) -> list[Note]:
        return await self._log.noted.read(topic, positions)

    async def backup(self, path: str) -> None:
        raise no_file()

    # Topics and their history -------------------------------------------------------------------------

    async def topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        notes = self._topics.get(name)
        if notes is None:
            notes = self._topics[name] = Notes(TopicState(name))
        known = notes.state
        if not isinstance(keep_ns, UnsetType):
            known.keep_ns = keep_ns
        if not isinstance(keep_bytes, UnsetType):
            known.keep_bytes = keep_bytes
        self._changed.add(name)
        await self.checkpoint()

    async def has_room(self, size: int) -> bool:
        return True  # only NATS can tell

    def space(self) -> None:
        """Return None: only NATS can tell."""

    async def make_room(self) -> bool:
        return False

    async def shrink(self) -> bool:
        return False

    async def trim(
        self, topic: str, pinned: Spans, before: int | None, max_bytes: int | None, now: int = FOREVER
    ) -> int:
        notes = self._topics.get(topic)
        if notes is None or self._closed:
            return 0
        wanted = TrimRequest(pinned, before, max_bytes, set(self._last_from.values()))
        events: int = await asyncio.shield(self._tasks.keep(self._trim(topic, notes, wanted)))
        return events

    async def _trim(self, topic: str, notes: Notes, wanted: TrimRequest) -> int:
        """Trim, and note what was deleted, without being cut off in between."""
        async with self._trimming:
            try:
                events = await trim(
                    self._session, self._layout, self._positions, notes, wanted, partial(self._confirm, topic)
                )
            except Refusal as refusal:
                raise refused(refusal, f"trim the history of topic {topic!r}") from refusal
            if events:
                gone = Spans((0, notes.state.first) if notes.state.first else ())
                for hole in notes.holes:
                    gone.add(hole.position, hole.end)
                await self._log.forget_notes(topic, gone)
                await self._log.ids.forget(topic, gone)
        return events

    async def _confirm(self, topic: str) -> None:
        """Write down what is to be deleted before it is."""
        self._changed.add(topic)
        self._holed.add(topic)
        await self.checkpoint()


def _was_restored(info: dict[str, Any], seen: int) -> bool:
    """Return whether a stream that was made since is the former one all the same, from a backup: it is as long, and
    what is in it is older than itself."""
    state = info["state"]
    return int(state["last_seq"]) >= seen and read_time(state["first_ts"]) < read_time(str(info["created"]))
