"""Copying one store to another: history, purposes with their backlog, dead letters, topic settings, definitions, and
delayed events.

Neither end may be in use meanwhile. The target numbers a topic's events itself, from 0 and without the holes that
trimming left in the source, so all positions in a purpose's state are translated. The events are written first, as the
same batches, then the purposes with their dead letters, then topic settings, definitions and delayed events.

No progress is recorded: a repeated run compares the target with the source. What the target holds must be the beginning
of what would be written, the same events in the same order and the same states, and is not written again; anything else
is refused before the first write. So a copy may be interrupted and repeated, and never overwrites a store that has been
used since.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from .batch import Batch
from .core.facts import Note
from .core.log import Stored
from .core.spans import Spans
from .core.state import Change, Letter, Snapshot, State, encode, recovered
from .errors import BadArgument, ConflictError, NotAllowed, StoreError
from .extras import missing_extra
from .store.base import Full, Recovered, TopicRecord
from .store.check import Progress
from .store.definitions import Definition, Definitions
from .store.delays import BEGINNING, Entry
from .store.offline import OfflineStore
from .text import redact
from .urls import SERVERS, sqlite_path

PAGE_BYTES = 4 << 20  # of events read, and committed, together
PORTION_BYTES = 256 << 10  # of states and dead letters in one commit
PORTION_STATES = 64
EXPECTED = "a store to copy, such as sqlite:///wind.db or nats://127.0.0.1:4222"


class CopyStore(Protocol):
    """What copying needs of the store that holds a topic: see `Store`. A commit has batches, or else changes and
    snapshots; it may return None for a batch's position, but keeps all batches, in order."""

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        *,
        notes: Sequence[Note] = (),
    ) -> list[Stored | None]: ...

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]: ...

    async def history(self, topic: str) -> tuple[int, int]: ...

    async def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]: ...

    async def notes(self, topic: str, positions: Spans) -> list[Note]: ...

    async def topic(self, name: str, keep_ns: int | None, keep_bytes: int | None) -> None: ...


class End(Protocol):
    """The source or the target of a copy: one store, or several that share the topics."""

    @property
    def place(self) -> str:
        """The name used in messages; no two ends have the same."""
        ...

    async def open(self, now: int) -> Recovered:
        """Open all its stores. `Recovered.clean` is true if all of them were closed in order."""
        ...

    def store_of(self, topic: str) -> CopyStore: ...

    definitions: Definitions  # once it is open

    async def delayed(self, after: tuple[int, int], max_bytes: int) -> list[Entry]:
        """Return the due-log's next entries: see `DueLog.page`."""
        ...

    async def delay(self, entries: Sequence[Entry]) -> None:
        """Add entries to the due-log."""
        ...

    async def leave(self, clean: bool) -> None:
        """Close all its stores; unless `clean`, as if they had been interrupted. A store that was only read stays
        unchanged."""
        ...


class Copied(msgspec.Struct, frozen=True):
    """What the target holds now; `before` counts the events that an earlier run had copied."""

    topics: int
    events: int
    before: int
    delayed: int
    purposes: int
    dead_letters: int


def open_end(url: str, *, writes: bool) -> End:
    """Return the end at `url`, not yet open. Raise `BadArgument` or `NotAllowed` where a copy cannot use it."""
    try:
        scheme = urlsplit(url.strip()).scheme
    except ValueError as error:
        raise BadArgument(f"expected {EXPECTED}, got {redact(url)!a}: {redact(str(error))}") from None
    if scheme == "sqlite":
        return OfflineStore(sqlite_path(url), writes=writes)
    if scheme == "nats":
        try:
            from .cluster.copying import NatsEnd
        except ImportError:
            raise missing_extra("nats", "a nats:// URL") from None
        return NatsEnd(url, writes=writes)
    shown = redact(url)
    if scheme in SERVERS:
        raise NotAllowed(f"expected {EXPECTED}, got the server {shown}: stop it, and name the store that it serves")
    if scheme == "memory":
        raise NotAllowed(f"expected {EXPECTED}, got {shown}, which nobody else can see: name a store that lasts")
    raise BadArgument(f"expected {EXPECTED}, got {shown!a}")


async def copy(source: End, target: End, progress: Progress = lambda done, total: None) -> Copied:
    """Copy all of `source` to `target`, which is empty or holds a part of this copy.

    `progress` is called with the number of events copied and the total. Raise `ConflictError`, with nothing written,
    where the target holds something else, and `StoreError` where an end cannot be read or written.
    """
    if source.place == target.place:
        raise BadArgument(f"expected two stores, got {source.place} twice: name another to copy to")
    now = time.time_ns()
    found = await source.open(now)
    try:
        there = await target.open(now)
        clean = there.clean  # until the copy is complete, the target keeps its own mark
        try:
            copied = await _Copying(source, target, found, there, max(now, found.now), progress).run()
            clean = found.clean
        except Full as full:
            raise StoreError(f"{full}: make room, and copy again to go on") from full
        finally:
            await target.leave(clean)
    finally:
        await source.leave(found.clean)
    return copied


class PositionMap:
    """Translates a topic's positions in the source to those in the target, which has no holes."""

    def __init__(self, end: int) -> None:
        self.stop = 0  # in the source: everything below has been read
        self.count = 0  # events read
        self._end = end  # the source's
        self._starts: list[int] = []  # where each run of events without a hole begins, in the source
        self._counts: list[int] = []  # and in the target

    def add(self, stored: Stored) -> None:
        """Add the next batch."""
        if not self._starts or stored.start > self.stop:
            self._starts.append(stored.start)
            self._counts.append(self.count)
        self.stop = stored.stop
        self.count += len(stored.batch)

    def below(self, position: int) -> int:
        """Return how many events the source has below `position`. Past its end, positions continue without holes."""
        if position >= self._end:
            return self.count + position - self._end
        run = bisect_right(self._starts, position) - 1
        if run < 0:
            return 0
        following = self._counts[run + 1] if run + 1 < len(self._counts) else self.count
        return min(self._counts[run] + position - self._starts[run], following)

    def __contains__(self, position: int) -> bool:
        return self.below(position) < self.below(position + 1)

    def spans(self, spans: Spans) -> Spans:
        moved = Spans()
        for start, stop in spans:
            moved.add(self.below(start), self.below(stop))
        return moved

    def numbers(self, numbers: dict[int, int]) -> dict[int, int]:
        return {self.below(position): number for position, number in numbers.items() if position in self}

    def letters(self, letters: Iterable[Letter]) -> list[Letter]:
        return [
            msgspec.structs.replace(each, position=self.below(each.position))
            for each in letters
            if each.position in self
        ]

    def notes(self, notes: Iterable[Note], of: Spans) -> list[Note]:
        """Return what is noted about these events, in the order reported, each once."""
        moved: list[Note] = []
        for each in sorted(notes, key=attrgetter("reported_at")):
            edges = self.spans(of.common(Spans(each.edges))).edges
            tried = [(self.below(at), tried) for at, tried in each.tried if at in of]
            moved.append(msgspec.structs.replace(each, edges=edges, tried=tried))
        return [each for at, each in enumerate(moved) if each.edges and (not at or each != moved[at - 1])]

    def state(self, state: State) -> State:
        """Return the same state with the target's positions: the same events are pending, waiting, tried and dead."""
        moved = State.restore(state.snapshot())
        done = moved.done = self.spans(state.done)
        moved.floor = done.gap(self.below(state.floor))[0]
        done.remove(0, moved.floor)
        moved.dead = self.spans(state.dead)
        moved.due, moved.tried = self.numbers(state.due), self.numbers(state.tried)
        moved.reach = self.below(state.reach)
        if state.copied_from is not None:
            moved.copied_from = self.below(state.copied_from)
        splits = [msgspec.structs.replace(split, since=self.below(split.since)) for split in state.rollout.splits]
        moved.rollout = msgspec.structs.replace(state.rollout, splits=splits)
        return moved


class _TopicCopy:
    """A topic of the source, what the target has of it, and how far the source's log has been read."""

    def __init__(self, name: str, source: TopicRecord | None, target: TopicRecord | None, states: list[State]) -> None:
        self.name = name
        self.source = source or TopicRecord(name, 0)
        self.target = target or TopicRecord(name, 0)
        self.is_missing = target is None and source is not None
        self.states = states
        self.positions = PositionMap(self.source.end)
        self.letters: dict[tuple[str, int], set[Letter]] = {}  # the target's letters, by track

    @property
    def settings(self) -> tuple[int | None, int | None]:
        return self.source.keep_ns, self.source.keep_bytes


class _Portion:
    """States and dead letters for one commit."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.changes: list[Change] = []
        self.size = 0

    def add(self, what: Snapshot | Change) -> None:
        self.size += len(encode([what]))
        if isinstance(what, Snapshot):
            self.snapshots.append(what)
        else:
            self.changes.append(what)

    @property
    def is_full(self) -> bool:
        return self.size >= PORTION_BYTES or len(self.snapshots) >= PORTION_STATES


class _Copying:
    """One run of a copy between two open ends."""

    def __init__(
        self, source: End, target: End, found: Recovered, there: Recovered, now: int, progress: Progress
    ) -> None:
        self._source, self._target = source, target
        self._now = now
        self._progress = progress
        self._total = self._done = 0  # events
        self._dead_letters = 0
        self._missing: list[Definition] = []  # in the target
        self._delayed = BEGINNING  # the place in the source up to which the target has its due-log
        self._delayed_events = 0  # up to there
        self._states_there = recovered(there.snapshots, there.changes)
        self._topics_there = {each.name: each for each in there.topics}
        states: dict[str, list[State]] = {each.name: [] for each in found.topics}
        for state in recovered(found.snapshots, found.changes):
            states.setdefault(state.topic, []).append(state)
        records = {each.name: each for each in found.topics}
        self._topics = {
            name: _TopicCopy(name, records.get(name), self._topics_there.get(name), on_it)
            for name, on_it in states.items()
        }

    async def run(self) -> Copied:
        await self._compare()
        before = sum(topic.target.end for topic in self._topics.values())
        for name in self._topics:
            self._total += (await self._source.store_of(name).history(name))[0]
        for topic in self._topics.values():
            await self._copy_events(topic)
        for topic in self._topics.values():
            await self._copy_purposes(topic)
        for topic in self._topics.values():
            await self._copy_settings(topic)
        for definition in self._missing:
            await self._target.definitions.put(definition.kind, definition.name, definition.value or b"", before=0)
        while page := await self._source.delayed(self._delayed, PAGE_BYTES):
            await self._target.delay(page)
            self._delayed = page[-1].place
            self._delayed_events += sum(len(entry.batch) for entry in page)
        purposes = sum(not state.track for topic in self._topics.values() for state in topic.states)
        return Copied(len(self._topics), self._done, before, self._delayed_events, purposes, self._dead_letters)

    # --- what the target holds --------------------------------------------------------------------------------

    async def _compare(self) -> None:
        """Find how far an earlier run came. Raise `ConflictError` where the target holds anything else."""
        for name in self._topics_there:
            if name not in self._topics:
                raise self._conflict(f"topic {name!r}, which the source does not have")
        for topic in self._topics.values():
            await self._locate(topic)
            kept = topic.target.keep_ns, topic.target.keep_bytes
            if any(each not in (None, mine) for each, mine in zip(kept, topic.settings, strict=True)):
                raise self._conflict(f"another history to keep of topic {topic.name!r}")
        if self._states_there:
            for topic in self._topics.values():
                if await self._page(topic):
                    raise self._conflict(f"purposes, but not all events of topic {topic.name!r}")
            for state in self._states_there:
                await self._compare_state(state)
        await self._compare_definitions()
        await self._compare_delayed()

    async def _compare_definitions(self) -> None:
        there = {(each.kind, each.name): each.value for each in await self._target.definitions.list()}
        for each in await self._source.definitions.list():
            key = each.kind, each.name
            if key not in there:
                self._missing.append(each)
            elif there.pop(key) != each.value:
                raise self._conflict(f"another {each.kind} {each.name!r}")
        for kind, name in there:
            raise self._conflict(f"the {kind} {name!r}, which the source does not have")

    async def _compare_delayed(self) -> None:
        """Check that the target's due-log is the beginning of the source's. Entries may have been cut differently, so
        events are compared. One that the target has in part is written again: what is there is left out."""
        theirs = _delayed_events(self._target)
        async for entry in _delayed(self._source):
            for event in _events_of(entry):
                there = await anext(theirs, None)
                if there is None:
                    return
                if there != event:
                    raise self._conflict("other delayed events")
            self._delayed = entry.place
            self._delayed_events += len(entry.batch)
        if await anext(theirs, None) is not None:
            raise self._conflict("other delayed events")

    async def _locate(self, topic: _TopicCopy) -> None:
        """Read the source up to the target's last event of a topic, and check that it is the same event."""
        end = topic.target.end
        last: tuple[Batch, int] | None = None
        while last is None and topic.positions.count < end and (page := await self._page(topic)):
            for batch in page:
                left = end - topic.positions.count
                if left <= len(batch.batch):
                    last = batch.batch, left - 1
                if left >= len(batch.batch):  # else the rest of it is still to be written
                    topic.positions.add(batch)
                if last is not None:
                    break
        if not end:
            return
        if last is None:
            held = f"{topic.positions.count:,}"
            raise self._conflict(f"{end:,} events of topic {topic.name!r}, where the source has {held}")
        found = await self._target.store_of(topic.name).read(topic.name, end - 1, 1)
        if not found or not _same_event(last, (found[0].batch, end - 1 - found[0].start)):
            raise self._conflict(f"other events of topic {topic.name!r}")

    async def _compare_state(self, state: State) -> None:
        topic = self._topics.get(state.topic)
        mine = next((each for each in topic.states if _track(each) == _track(state)), None) if topic else None
        what = f"purpose {state.purpose!r} on topic {state.topic!r}"
        if topic is None or mine is None:
            raise self._conflict(f"{what}, which the source does not have")
        letters = set(await _letters(self._target, state))
        if not _same_state(topic.positions.state(mine), state) or letters - set(await self._letters(topic, mine)):
            raise self._conflict(f"{what} in another state")
        topic.letters[_track(state)] = letters

    def _conflict(self, what: str) -> ConflictError:
        return ConflictError(
            f"expected {self._target.place} to be empty, or to hold a part of a copy of {self._source.place}, got "
            f"{what}: one of the two was in use since; copy to an empty one"
        )

    # --- what is written --------------------------------------------------------------------------------------

    async def _page(self, topic: _TopicCopy) -> list[Stored]:
        """Return the source's next batches."""
        return await self._source.store_of(topic.name).read(topic.name, topic.positions.stop, PAGE_BYTES)

    async def _copy_events(self, topic: _TopicCopy) -> None:
        end, positions = topic.target.end, topic.positions
        self._done += positions.count
        while page := await self._page(topic):
            before, batches, fresh = positions.count, list[Batch](), Spans()
            for stored in page:
                known = max(0, end - positions.count)  # events of this batch that are there: it was cut in two
                batches.append(stored.batch.part(known, len(stored.batch)) if known else stored.batch)
                positions.add(stored)
                fresh.add(stored.start + known, stored.stop)
            notes = positions.notes(await self._source.store_of(topic.name).notes(topic.name, fresh), fresh)
            written = await self._target.store_of(topic.name).commit(batches, [], [], self._now, notes=notes)
            self._check(topic, batches, written, max(before, end))
            self._done += positions.count - before
            self._progress(self._done, self._total)

    def _check(
        self, topic: _TopicCopy, batches: Sequence[Batch], written: Sequence[Stored | None], position: int
    ) -> None:
        """Check that the batches got the positions that were counted for them, where the store returns positions."""
        for batch, stored in zip(batches, written, strict=True):
            if stored is not None and (stored.start != position or len(stored.batch) != len(batch)):
                raise StoreError(
                    f"expected each event of topic {topic.name!r} once in {self._source.place}, got some twice, up to "
                    f"{batch.id(len(batch) - 1)}: what is in {self._target.place} now is of no use"
                )
            position += len(batch)

    async def _letters(self, topic: _TopicCopy, state: State) -> list[Letter]:
        """Return a track's dead letters as the target is to have them."""
        return topic.positions.letters(await _letters(self._source, state))

    async def _copy_purposes(self, topic: _TopicCopy) -> None:
        portion = _Portion()
        async for what in self._states_and_letters(topic):
            portion.add(what)
            if portion.is_full:
                await self._commit(topic, portion)
                portion = _Portion()
        if portion.size:
            await self._commit(topic, portion)

    async def _states_and_letters(self, topic: _TopicCopy) -> AsyncIterator[Snapshot | Change]:
        """Yield the states and letters that the target lacks. A state comes before its letters, which do not change
        it."""
        for state in topic.states:
            known = topic.letters.get(_track(state))
            if known is None:
                yield topic.positions.state(state).snapshot()
            for letter in await self._letters(topic, state):
                self._dead_letters += 1
                if known is None or letter not in known:
                    yield Change(topic.name, state.purpose, state.track, dead=[letter])

    async def _commit(self, topic: _TopicCopy, portion: _Portion) -> None:
        await self._target.store_of(topic.name).commit([], portion.changes, portion.snapshots, self._now)

    async def _copy_settings(self, topic: _TopicCopy) -> None:
        """Copy the topic's settings, last: with a short `keep`, a process that opened an unfinished copy would trim
        events that the purposes still lack."""
        kept = topic.target.keep_ns, topic.target.keep_bytes
        if topic.settings != kept or (topic.is_missing and not topic.positions.count):
            await self._target.store_of(topic.name).topic(topic.name, *topic.settings)


async def _delayed(end: End) -> AsyncIterator[Entry]:
    after = BEGINNING
    while page := await end.delayed(after, PAGE_BYTES):
        for entry in page:
            yield entry
        after = page[-1].place


def _events_of(entry: Entry) -> Iterator[tuple[int, str, bytes]]:
    for index in range(len(entry.batch)):
        yield entry.due, entry.batch.id(index), entry.batch.payload(index)


async def _delayed_events(end: End) -> AsyncIterator[tuple[int, str, bytes]]:
    async for entry in _delayed(end):
        for event in _events_of(entry):
            yield event


def _track(state: State) -> tuple[str, int]:
    return state.purpose, state.track


async def _letters(end: End, state: State) -> list[Letter]:
    """Return the dead letters of a track."""
    return await end.store_of(state.topic).dead(state.topic, state.purpose, state.track, state.dead)


def _same_event(one: tuple[Batch, int], other: tuple[Batch, int]) -> bool:
    """Return whether both are the same event. Batches may have been cut differently, so events are compared."""
    (batch, index), (other_batch, other_index) = one, other
    return (batch.id(index), batch.payload(index)) == (other_batch.id(other_index), other_batch.payload(other_index))


def _same_state(one: State, other: State) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in State.__slots__)
