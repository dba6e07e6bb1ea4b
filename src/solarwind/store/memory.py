"""A store in memory: the same interface, for tests and for work that need not survive the process."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from secrets import token_hex

from ..batch import Batch, read_id, slot_of
from ..columns import Header
from ..core.facts import Note, about, divided
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Letter, Snapshot
from ..errors import NotAllowed, StoreError
from .base import FOREVER, BatchPlace, Full, Keep, Meanwhile, Recovered, SingleWriter, Space, was_caused
from .definitions import Definitions, in_memory
from .delays import Delayed, MemoryDueLog, check_delayed

MAX_IDS = 100_000
MAX_BYTES = 1 << 30
_NOTES_OF = 256  # positions whose notes are forgotten together
_NOTES_TOGETHER = 1_024  # that are sorted by what they are about
_NOTE_BYTES = 512
_EDGE_BYTES = 40


def _weight(size: int, events: int, batches: int) -> int:
    """Return about how much memory such batches take, in bytes."""
    return size + 64 * events + 512 * batches


class _MemoryLog:
    """A topic's log: batches in order, and the position where each starts."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.batches: list[Batch] = []
        self.accepted: list[int] = []  # when each was, in ns since 1970
        self.end = 0
        self.events = 0  # that are kept
        self.bytes = 0
        self.notes: list[Note] = []  # the latest ones
        self.parts: dict[int, list[Note]] = {}  # the others, of each `_NOTES_OF` positions
        self.note_bytes = 0

    def at(self, position: int) -> int:
        """Return the index of the batch that holds `position`, or of the first after it."""
        index = bisect_right(self.starts, position) - 1
        return index if index >= 0 and position < self.starts[index] + len(self.batches[index]) else index + 1

    def stored(self, index: int) -> Stored:
        return Stored(self.starts[index], self.batches[index], self.accepted[index])

    def count_old(self, before: int, now: int) -> int:
        """Return how many batches from the first on were accepted before a time: see `Store.trim`."""
        old = 0
        for index, accepted in enumerate(self.accepted):
            if accepted < before:
                old = index + 1
            elif accepted <= now:
                break
        return old

    def sort_notes(self) -> int:
        """Sort the latest notes by what they are about, but for those of events that were trimmed meanwhile. Return how
        many bytes more they are."""
        more = -_size(self.notes)
        for (_, part), some in divided(self.notes, _NOTES_OF).items():
            if self.has_some_of(part):
                self.parts.setdefault(part, []).extend(some)
                more += _size(some)
        self.notes = []
        self.note_bytes += more
        return more

    def has_some_of(self, part: int) -> bool:
        """Return whether events are there of those whose notes are forgotten together."""
        at = self.at(part * _NOTES_OF)
        return at < len(self.starts) and self.starts[at] < (part + 1) * _NOTES_OF

    def delete(self, indices: list[int]) -> None:
        """Delete batches, and the notes about parts of the log of which nothing is left."""
        if len(indices) == len(self.starts):
            self.starts, self.batches, self.accepted, self.notes, self.parts, self.note_bytes = [], [], [], [], {}, 0
            return
        gone = {index: self.stored(index) for index in indices}
        self.starts = [start for index, start in enumerate(self.starts) if index not in gone]
        self.batches = [batch for index, batch in enumerate(self.batches) if index not in gone]
        self.accepted = [time for index, time in enumerate(self.accepted) if index not in gone]
        for stored in gone.values() if self.parts else ():
            for part in range(stored.start // _NOTES_OF, (stored.stop - 1) // _NOTES_OF + 1):
                if part in self.parts and not self.has_some_of(part):
                    self.note_bytes -= _size(self.parts.pop(part))


def _size(notes: Sequence[Note]) -> int:
    """Return the bytes of notes, about."""
    return _NOTE_BYTES * len(notes) + _EDGE_BYTES * sum([len(note.edges) for note in notes])


class _Made:
    """The latest ids that Solar Wind made for an author's events under one producer, by their numbers."""

    __slots__ = ("reached", "runs", "widest")

    def __init__(self) -> None:
        self.runs: deque[tuple[int, int, list[int]]] = deque()  # first number, time, times; in order of the first
        self.reached = 0  # the number after the last
        self.widest = 0  # events of a run, at most

    def add(self, header: Header) -> None:
        run = (header.first, header.time, header.times)
        if header.first >= self.reached:
            self.runs.append(run)
        else:
            self.runs.insert(bisect_right(self.runs, header.first, key=itemgetter(0)), run)
        self.reached = max(self.reached, header.first + header.count)
        self.widest = max(self.widest, header.count)

    def has(self, number: int, slot: int) -> bool:
        """Return whether Solar Wind made an id of that number and time."""
        for at in range(bisect_right(self.runs, number, key=itemgetter(0)) - 1, -1, -1):
            first, time, times = self.runs[at]
            if number - first >= self.widest:
                return False
            if number - first < len(times) and slot_of(time + times[number - first]) == slot:
                return True
        return False


class MemoryStore(SingleWriter):
    """A store that keeps no state of purposes, because nothing recovers from it. It is full at `max_bytes` of
    batches."""

    name = "memory"
    durable = False
    keep_ns = 0

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self.id = ""
        self.failed: Callable[[StoreError], None] = lambda error: None
        self.definitions: Definitions = in_memory()
        self._clear()

    def _clear(self) -> None:
        self._bytes = 0
        self.delays = MemoryDueLog(self._is_known, self._append)
        self._topics: dict[str, _MemoryLog] = {}
        self._ids: OrderedDict[tuple[str, str], int] = OrderedDict()  # the last ids given, and their positions
        # The ids that Solar Wind made, of the last events; by topic and producer, and then by author.
        self._made: dict[tuple[str, int], dict[bytes, _Made]] = {}
        self._made_runs: deque[tuple[tuple[str, int], bytes]] = deque()  # whose, the oldest first
        self._made_ids = 0
        self._dead: dict[tuple[str, str], dict[int, dict[int, Letter]]] = {}  # by purpose, track and position

    async def open(self, now: int) -> Recovered:
        self._clear()
        self.id = token_hex(16)
        return Recovered(True, now, [], [], [])

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        delayed: Sequence[Delayed] = (),
        notes: Sequence[Note] = (),
        accepted_at: int | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> list[Stored | None]:
        events = batches
        if delayed:
            check_delayed(delayed)
            events = [*batches, *(each.batch for each in delayed)]
        if events and not self._has_room_for(events):
            raise Full(
                f"memory:// is full: expected at most {self._max_bytes:,} bytes of events that pend or are kept, "
                "got more: let them be handled first, or use sqlite:///wind.db"
            )
        if delayed:
            self.delays.add(delayed)
        stored = [
            self._append(batch, batch.time(len(batch) - 1) if accepted_at is None else accepted_at) for batch in batches
        ]
        for change in changes:
            if change.dead or change.redriven or change.discarded or change.reopened or change.retired:
                self._bury(change)
        for note in notes:
            log = self._topics[note.topic]
            if log.starts:  # else the events were trimmed meanwhile
                size = _NOTE_BYTES + _EDGE_BYTES * len(note.edges)
                log.notes.append(note)
                log.note_bytes += size
                self._bytes += size
                if len(log.notes) >= _NOTES_TOGETHER:
                    self._bytes += log.sort_notes()
        if meanwhile is not None:
            meanwhile(stored)
        return stored

    def _has_room_for(self, events: Sequence[Batch]) -> bool:
        size = _weight(sum([len(batch.data) for batch in events]), sum([batch.count for batch in events]), len(events))
        # What handlers fired is committed with their settle, which makes room for it.
        by_handlers = None not in [batch.header.causes for batch in events]
        return self._bytes + self.delays.bytes + size <= self._max_bytes * (1 + by_handlers)

    def _append(self, batch: Batch, accepted_at: int) -> Stored | None:
        header = batch.header
        topic = self._topics.get(header.topic)
        if topic is None:
            topic = self._topics[header.topic] = _MemoryLog()
        made = self._made.get((header.topic, header.producer), {}).get(header.author)
        follows = made is None or header.first >= made.reached
        fresh = batch if header.ids is None and follows else self._without_known(batch, topic)
        if fresh is None:
            return None
        self._remember(batch)
        stored = Stored(topic.end, fresh, accepted_at)
        topic.starts.append(topic.end)
        topic.batches.append(fresh)
        topic.accepted.append(accepted_at)
        topic.end += fresh.count
        topic.events += fresh.count
        topic.bytes += len(fresh.data)
        self._bytes += _weight(len(fresh.data), fresh.count, 1)
        return stored

    def _without_known(self, batch: Batch, topic: _MemoryLog) -> Batch | None:
        new: list[int] = []
        header = batch.header
        made = self._made.get((header.topic, header.producer), {}).get(header.author)
        for index in range(len(batch)):
            id = batch.given_id(index)
            if id is not None:
                if self._is_known(header.topic, id):
                    continue
                self._ids[header.topic, id] = topic.end + len(new)
                if len(self._ids) > MAX_IDS:
                    self._ids.popitem(last=False)
            elif made is not None and made.has(header.first + index, slot_of(batch.time(index))):
                continue
            new.append(index)
        return batch if len(new) == len(batch) else batch.select(new) if new else None

    def _is_known(self, name: str, id: str) -> bool:
        return (name, id) in self._ids or self._made_earlier(name, id)

    def _made_earlier(self, name: str, id: str) -> bool:
        made = read_id(id)
        if made is None:
            return False
        known = self._made.get((name, made.producer), {}).values()
        return any(each.has(made.sequence, made.slot) for each in known)

    def _remember(self, batch: Batch) -> None:
        """Record the ids that Solar Wind makes for a batch, so that they are known if they come again."""
        header = batch.header
        if header.ids is not None and None not in header.ids:
            return
        name = header.topic, header.producer
        authors = self._made.get(name)
        if authors is None:
            authors = self._made[name] = {}
        made = authors.get(header.author)
        if made is None:
            made = authors[header.author] = _Made()
        made.add(header)
        self._made_runs.append((name, header.author))
        self._made_ids += header.count
        while self._made_ids > MAX_IDS and len(self._made_runs) > 1:
            name, author = self._made_runs.popleft()
            made = self._made[name][author]
            self._made_ids -= len(made.runs.popleft()[2])
            if not made.runs:
                del self._made[name][author]
                if not self._made[name]:
                    del self._made[name]

    @staticmethod
    def _position_of(id: str, topic: _MemoryLog) -> int | None:
        """Return the position of the event with that id, wherever it is in the log."""
        made = read_id(id)
        for start, batch in zip(topic.starts, topic.batches, strict=True):
            header = batch.header
            if header.ids is not None and id in header.ids:
                return start + header.ids.index(id)
            if made is not None and header.producer == made.producer:
                index = made.sequence - header.first
                if 0 <= index < len(batch) and batch.id(index) == id:
                    return start + index
        return None

    def _bury(self, change: Change) -> None:
        letters = self._dead.setdefault((change.topic, change.purpose), {}).setdefault(change.track, {})
        if change.retired:
            letters.clear()
        for edges in (change.reopened, change.redriven, change.discarded):
            if edges:  # else there is nothing to find, and the log may be long
                spans = Spans(edges)
                for position in [position for position in letters if position in spans]:
                    del letters[position]
        letters.update((letter.position, letter) for letter in change.dead)

    async def has_room(self, size: int) -> bool:
        return self._bytes + size <= 2 * self._max_bytes

    def space(self) -> Space:
        return Space(max(0, self._max_bytes - self._bytes - self.delays.bytes), self._max_bytes)

    async def make_room(self) -> bool:
        return False

    async def shrink(self) -> bool:
        return False

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        log = self._topics.get(topic)
        found: list[Stored] = []
        if log is not None:
            for index in range(log.at(position), len(log.starts)):
                max_bytes -= len(log.batches[index].data)
                if found and max_bytes < 0:
                    break
                found.append(log.stored(index))
        return found

    async def read_at(self, topic: str, positions: Spans, max_bytes: int) -> list[Stored]:
        log = self._topics.get(topic)
        found: list[Stored] = []
        if log is None:
            return found
        for position in positions.positions():
            index = log.at(position)
            if (found and position < found[-1].stop) or index == len(log.starts) or position < log.starts[index]:
                continue
            max_bytes -= len(log.batches[index].data)
            if found and max_bytes < 0:
                break
            found.append(log.stored(index))
        return found

    async def trim(
        self, topic: str, pinned: Spans, before: int | None, max_bytes: int | None, now: int = FOREVER
    ) -> int:
        log = self._topics.get(topic)
        if log is None:
            return 0
        gone, events, left = [], 0, log.bytes
        old = 0 if before is None else log.count_old(before, now)
        for index, (start, batch) in enumerate(zip(log.starts, log.batches, strict=True)):
            if index >= old and (max_bytes is None or left <= max_bytes):
                break  # the rest is younger
            if not pinned.within(start, start + len(batch)):
                gone.append(index)
                events += len(batch)
                left -= len(batch.data)
        self._bytes -= _weight(log.bytes - left, events, len(gone))
        log.events -= events
        log.bytes = left
        if gone:
            before = log.note_bytes
            log.delete(gone)
            self._bytes -= before - log.note_bytes
        return events

    async def topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        """Do nothing: the dispatcher knows it, and there is no restart."""

    async def history(self, topic: str) -> tuple[int, int]:
        log = self._topics.get(topic)
        return (log.events, log.bytes) if log is not None else (0, 0)

    async def seek(self, topic: str, time: int) -> int:
        log = self._topics.get(topic)
        if log is None:
            return 0
        for start, batch in zip(log.starts, log.batches, strict=True):
            for index in range(len(batch)) if batch.time(len(batch) - 1) >= time else ():
                if batch.time(index) >= time:
                    return start + index
        return log.end

    async def find(self, id: str, topic: str | None = None) -> tuple[str, int] | None:
        for name, log in self._topics.items():
            if topic not in (None, name):
                continue
            position = self._ids.get((name, id))
            if position is None or log.at(position) == len(log.starts) or position < log.starts[log.at(position)]:
                position = self._position_of(id, log)
            if position is not None:
                return name, position
        return None

    async def caused(
        self, ids: Collection[str], since: BatchPlace | None, max_bytes: int, max_batches: int = 1_000
    ) -> tuple[list[Stored], bool]:
        found = [
            Stored(start, batch)
            for log in self._topics.values()
            for start, batch in zip(log.starts, log.batches, strict=True)
            if was_caused(batch, ids)
        ]
        places = sorted((BatchPlace(each.batch.time(0), each.batch.topic, each.start), each) for each in found)
        some = [each for place, each in places if since is None or place >= since]
        return some[:max_batches], len(some) > max_batches

    async def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        letters = self._dead.get((topic, purpose), {}).get(track, {})
        return [letters[position] for position in positions.positions() if position in letters]

    async def notes(self, topic: str, positions: Spans) -> list[Note]:
        log = self._topics.get(topic)
        if log is None:
            return []
        parts = {position // _NOTES_OF for position in positions.positions()}
        sorted_ones = [note for part in parts for note in log.parts.get(part, ())]
        return about([*sorted_ones, *log.notes], positions)

    async def backup(self, path: str) -> None:
        raise NotAllowed(
            "expected a store with a file, got memory://: use sqlite:///wind.db to keep and back up events"
        )

    async def close(self) -> None: ...
