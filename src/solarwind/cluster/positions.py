"""Which event of a topic is in which message: positions count a topic's events in the order of its stream.

No position is written when an event is fired; the owner counts. It notes every so often at which sequence the count
stood where, so that any event can be found by reading on from the note before it. A note stays true, since the log does
not change. What lies between a note and the next is lost where the note's own message is gone; that is why a note is
written for whatever comes behind a gap before the gap is made.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ..batch import Batch
from ..core.log import Stored
from ..core.spans import Spans
from .channel import NoAnswer
from .layout import Layout
from .pieces import Pieces, pass_over
from .publish import read_raw
from .records import LATEST, Hole, Note, TopicState, decode_notes, encode
from .session import Raw, Session

NOTE_BYTES = 256 << 10  # of events between two notes
NOTE_MESSAGES = 128
NOTES_TOGETHER = 16  # that are written together
NOTES_A_MESSAGE = 1_000
READ_MESSAGES = 256


class Notes(msgspec.Struct, eq=False):
    """The notes of one topic. Those in `known` are in order; those that are not written yet are `unwritten`."""

    state: TopicState
    holes: list[Hole] = msgspec.field(default_factory=list)  # ascending
    known: list[Note] = msgspec.field(default_factory=list)
    unwritten: list[Note] = msgspec.field(default_factory=list)
    writing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    loaded: bool = False  # whether `known` has those of earlier owners
    messages: int = NOTE_MESSAGES  # since the last note
    size: int = 0
    latest: int = LATEST  # when an event was fired since then, at most

    def count(self, raw: Raw, batch: Batch) -> int:
        """Count a message that came at the end of the topic's log, and return its position."""
        state = self.state
        start = state.end
        if state.first == start:
            state.first_total, state.first_seq = state.total, raw.seq
        if self.messages >= NOTE_MESSAGES or self.size >= NOTE_BYTES:
            self.note(Note(start, raw.seq, state.total, self.latest))
            self.messages = self.size = self.latest = 0
        size = len(raw.data)
        self.messages += 1
        self.size += size
        self.latest = max(self.latest, batch.header.time + max(batch.header.times))
        state.end += len(batch)
        state.total += size
        return start

    def note(self, note: Note) -> None:
        at = bisect_right(self.known, note)
        if note.latest == LATEST and at < len(self.known):
            note = note._replace(latest=self.known[at].latest)
        if not at or self.known[at - 1][:3] != note[:3]:
            insort(self.known, note)
            self.unwritten.append(note)

    @property
    def first(self) -> Note:
        """Where the history begins, as a note."""
        return Note(self.state.first, self.state.first_seq, self.state.first_total)

    # Holes

    def is_gone(self, seq: int) -> bool:
        """Return whether that message is in a hole: its deletion may still be under way."""
        index = bisect_right(self.holes, seq, key=_seq) - 1
        return index >= 0 and seq <= self.holes[index].last

    def behind_hole(self, at: Note) -> Note:
        """Return the same place, or what is behind the hole that it is in."""
        index = bisect_right(self.holes, at.position, key=_position) - 1
        if index < 0 or at.position >= self.holes[index].end:
            return at
        return Note(self.holes[index].end, self.holes[index].last + 1, self.holes[index].end_total)

    def counted_back(self, reads: list[Read], note: Note) -> list[Read]:
        """Give positions to messages that are right before a note, but for holes."""
        found: list[Read] = []
        at, total = note.position, note.total
        for read in reversed(reads):
            index = bisect_left(self.holes, at, key=_position) - 1
            if index >= 0 and self.holes[index].end == at:
                at, total = self.holes[index].position, self.holes[index].total
            at, total = at - read.events, total - read.bytes
            found.append(read._replace(position=at, total=total))
        return found[::-1]

    def before(self, position: int) -> int:
        """Return the index of the last note at or before a position; -1 if there is none."""
        return bisect_right(self.known, position, key=_position) - 1


_position = attrgetter("position")
_seq = attrgetter("seq")


class Read(NamedTuple):
    """A message that was read back: the position it begins at, and its batch, if it has one."""

    position: int
    total: int  # bytes before it
    raw: Raw
    last: int  # the sequence of its last piece
    batch: Batch | None

    @property
    def events(self) -> int:
        return len(self.batch) if self.batch is not None else 0

    @property
    def bytes(self) -> int:
        return len(self.raw.data) if self.batch is not None else 0


class Positions:
    """Reads the event stream of one partition by positions."""

    def __init__(self, session: Session, layout: Layout, partition: int, seen: Callable[[], int]) -> None:
        """`seen` returns the sequence up to which all is counted."""
        self._seen = seen
        self._session = session
        self._layout = layout
        self._partition = partition
        self._stream = layout.events_stream(partition)

    def _subject(self, topic: str) -> str:
        return self._layout.kept(self._partition, f"index.{topic}")

    async def write(self, notes: Notes) -> None:
        """Write the notes that are not written yet. Raise `Refusal`."""
        subject = self._subject(notes.state.name)
        async with notes.writing:
            entries = list(notes.unwritten)
            if entries:
                await self._session.until_answered(
                    lambda: self._session.publish(subject, encode(entries)), "write down where events are"
                )
                del notes.unwritten[: len(entries)]

    async def load(self, notes: Notes) -> None:
        """Read the notes that were written."""
        if notes.loaded:
            return
        found: list[Note] = []
        seq, stream = 1, self._layout.state_stream
        while True:
            raw = await self._next(stream, self._subject(notes.state.name), seq)
            if raw is None:
                break
            try:
                found += decode_notes(raw.data)
            except msgspec.MsgspecError as error:
                pass_over(raw, stream, error)
            seq = raw.seq + 1
        notes.known = sorted({*found, *notes.known})
        notes.loaded = True

    async def forget(self, notes: Notes, position: int) -> None:
        """Forget the notes of what was trimmed, before a position."""
        first = notes.before(position)
        if first > 4 * NOTES_TOGETHER:
            del notes.known[:first]
            known, subject, stream = list(notes.known), self._subject(notes.state.name), self._layout.state_stream

            async def rewrite() -> None:
                seqs = [
                    await self._session.publish(subject, encode(known[at : at + NOTES_A_MESSAGE]))
                    for at in range(0, len(known), NOTES_A_MESSAGE)
                ]
                await self._session.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": seqs[0]})

            async with notes.writing:
                await self._session.until_answered(rewrite, "shorten an index")

    async def read(self, notes: Notes, position: int, max_bytes: int) -> list[Stored]:
        """See `Store.read`."""
        found: list[Stored] = []
        async for read in self.messages(notes, position, max_bytes):
            if read.batch is None or read.position + len(read.batch) <= position:
                continue
            max_bytes -= len(read.raw.data)
            if found and max_bytes < 0:
                break
            read.batch.fold()
            found.append(Stored(read.position, read.batch, read.raw.time))
            if max_bytes <= 0 or len(found) >= READ_MESSAGES:
                break
        return found

    async def read_at(self, notes: Notes, positions: Spans, max_bytes: int) -> list[Stored]:
        """See `Store.read_at`. What is between two positions is read too where no note is."""
        found: list[Stored] = []
        position = positions.edges[0] if positions else None
        while position is not None:
            goes_on = False
            async for read in self.messages(notes, position, at_once=NOTE_MESSAGES):
                stop = read.position + read.events
                if read.batch is None or stop <= position:
                    continue
                if positions.within(read.position, stop):
                    max_bytes -= read.bytes
                    if found and max_bytes < 0:
                        return found
                    read.batch.fold()
                    found.append(Stored(read.position, read.batch, read.raw.time))
                rest = positions.within(stop, notes.state.end)
                if not rest:
                    return found
                position = rest.edges[0]
                if notes.before(position) > notes.before(stop) + 1:
                    goes_on = True
                    break
            if not goes_on:
                break
        return found

    async def messages(
        self, notes: Notes, position: int, max_bytes: int = NOTE_BYTES, at_once: int = 0
    ) -> AsyncIterator[Read]:
        """Yield all messages that are counted, from the last note before `position` on; about so many bytes and
        messages are read together. What is behind something that is gone, and was not trimmed, is counted back from the
        next note, or the end."""
        await self.load(notes)
        state, seen = notes.state, self._seen()
        index = notes.before(position)
        anchor = notes.known[index] if index >= 0 and notes.known[index].position >= state.first else notes.first
        following = [note for note in notes.known[index + 1 :] if note.position > anchor.position]
        following.append(Note(state.end, seen + 1, state.total))
        at: Note | None = None  # where the next message is, once that is known
        unknown: list[Read] = []
        async for read in self._all(state.name, anchor.seq, max_bytes, at_once or READ_MESSAGES):
            seq = read.raw.seq
            while following and following[0].seq <= seq:
                anchor, at = following.pop(0), None
                for each in notes.counted_back(unknown, anchor):
                    yield each
                unknown.clear()
            if not following:
                return  # what follows was not counted yet
            if seq < state.first_seq or notes.is_gone(seq):
                continue  # it was trimmed just now
            if anchor.position < state.first:
                anchor, at = notes.first, None
            if at is None:
                behind = notes.behind_hole(anchor)
                if behind == anchor and anchor.seq != seq:
                    unknown.append(read)
                    continue
                at = behind
            at = notes.behind_hole(at)
            yield read._replace(position=at.position, total=at.total)
            at = Note(at.position + read.events, 0, at.total + read.bytes)
        for each in notes.counted_back(unknown, following[0]):
            yield each

    async def _all(self, topic: str, seq: int, max_bytes: int, at_once: int) -> AsyncIterator[Read]:
        """Yield the messages of a topic from a sequence on, not counted yet."""
        pieces = Pieces()
        while page := await self._page(topic, seq, max_bytes, at_once):
            for raw in page:
                seq = raw.seq + 1
                whole = pieces.add(raw)
                if whole is not None:
                    batch = read_raw(whole)
                    yield Read(0, 0, whole, raw.seq, batch if batch is not None and batch.topic == topic else None)

    async def seek(self, notes: Notes, time: int) -> int:
        """See `Store.seek`. What lies between two notes is read only where an event may be so late."""
        await self.load(notes)
        first, end = notes.state.first, notes.state.end
        start = first
        for note in [*notes.known, Note(end, 0, 0)]:
            if note.position > start:
                found = await self._seek(notes, start, note.position, time) if note.latest >= time else None
                if found is not None:
                    return found
                start = note.position
        return end

    async def _seek(self, notes: Notes, start: int, stop: int, time: int) -> int | None:
        async for read in self.messages(notes, start, at_once=NOTE_MESSAGES):
            if read.position >= stop:
                break
            for at in range(read.events) if read.batch is not None else ():
                if read.batch is not None and read.batch.time(at) >= time and read.position + at >= start:
                    return read.position + at
        return None

    async def position_of(self, notes: Notes, seq: int) -> int | None:
        """Return the position of the first event of the message with that sequence; None if it is not counted."""
        await self.load(notes)
        index = bisect_right(notes.known, seq, key=_seq) - 1
        start = notes.known[index].position if index >= 0 else notes.state.first
        async for read in self.messages(notes, max(start, notes.state.first), at_once=NOTE_MESSAGES):
            if read.raw.seq >= seq:
                return read.position if read.raw.seq == seq else None
        return None

    async def _page(self, topic: str, seq: int, max_bytes: int, at_once: int) -> list[Raw]:
        subject = self._layout.events_of(self._partition, topic=topic)
        limits = {"batch": at_once, "max_bytes": max(1 << 16, max_bytes)}
        request = {"seq": max(1, seq), "next_by_subj": subject, **limits}

        async def read() -> list[Raw]:
            page = await self._session.page(self._stream, request)
            seen = self._seen()
            if not page and seq <= seen and await self._session.last_sequence(self._stream) < seen:
                # A node that was cut off and believes it is the leader: what it does not have is not gone.
                raise NoAnswer(f"a node that is behind answered for stream {self._stream}")
            return page

        page: list[Raw] = await self._session.until_answered(read, f"read stream {self._stream}")
        return page

    async def _next(self, stream: str, subject: str, seq: int) -> Raw | None:
        raw: Raw | None = await self._session.until_answered(
            lambda: self._session.next(stream, subject, seq), f"read stream {stream}"
        )
        return raw
