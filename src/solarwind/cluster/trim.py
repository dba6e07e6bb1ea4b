"""Deletes history that is no longer needed from an event stream.

A topic's messages lie among those of others, so its beginning is purged by its subjects. What is deleted behind
something that must stay is deleted message by message, and first a note is written for what comes after the gap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Collection
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from ..core.spans import Spans
from .layout import Layout
from .positions import Notes, Positions, Read
from .records import Hole, Note
from .session import NO_MESSAGE, Refusal, Session

MAX_MESSAGES = 4_096  # that are looked at one by one each time
_AT_ONCE = 1 << 62  # so many messages since the last note that the next one gets one


class TrimRequest(NamedTuple):
    """What is to be deleted: see `Store.trim`. Messages whose sequence is in `needed` stay."""

    pinned: Spans
    before: int | None
    max_bytes: int | None
    needed: Collection[int]


async def trim(
    session: Session,
    layout: Layout,
    positions: Positions,
    notes: Notes,
    wanted: TrimRequest,
    confirm: Callable[[], Awaitable[None]],
) -> int:
    """Delete what is wanted, and return how many events that were. `confirm` is called before, when they count as gone
    already: it writes that down, and raises if this process is no longer the owner and does not know what is needed.
    Raise `Refusal`."""
    await positions.load(notes)
    work = _Trim(session, layout, notes, wanted)
    await work.look_at_chunks()
    await work.look_at_messages(positions)
    if not work.any:
        return 0
    await positions.write(notes)
    gone = work.apply()
    await confirm()
    await work.delete()
    await positions.forget(notes, notes.state.first)
    return gone


def note_hole(holes: list[Hole], hole: Hole) -> bool:
    """Add a hole: those that it touches, or that are in it, become one with it. Return False if it is known."""
    low = bisect_left(holes, hole.position, key=attrgetter("end"))
    high = bisect_right(holes, hole.end, key=attrgetter("position"))
    several = sorted([*holes[low:high], hole])
    last = max(several, key=attrgetter("end"))
    whole = Hole(*several[0][:3], *last[3:])
    known, holes[low:high] = holes[low:high], [whole]
    return known != [whole]


class _Trim:
    def __init__(self, session: Session, layout: Layout, notes: Notes, wanted: TrimRequest) -> None:
        topic = notes.state.name
        self._session = session
        self._notes = notes
        self._wanted = wanted
        self._stream = layout.events_stream(layout.partition(topic))
        self._subject = layout.events_of(layout.partition(topic), topic=topic)
        max_bytes = wanted.max_bytes
        self._excess = 0 if max_bytes is None else notes.state.size - max_bytes
        self._cut: Note | None = None  # what lies before it goes
        self._single: list[Read] = []  # and these, behind it
        self._bytes = 0
        self._healed = False  # another program deleted something, which was noted

    async def look_at_chunks(self) -> None:
        """Look at what lies between two notes: it is enough to know that all of it is to go."""
        known, pinned, needed = self._notes.known, self._wanted.pinned, self._wanted.needed
        for chunk, following in pairwise((self._notes.first, *known)):
            if following.position <= chunk.position:
                continue
            if pinned.within(chunk.position, following.position):
                return
            if any(chunk.seq <= seq < following.seq for seq in needed):
                return
            size = following.total - max(chunk.total, self._notes.state.first_total)
            if self._excess < self._bytes + size and not await self._is_before(following):
                return
            self._cut = following
            self._bytes += max(0, size)

    async def _is_before(self, note: Note) -> bool:
        """Return whether what lies before a note was fired before the time: it was stored before the note's message."""
        before = self._wanted.before
        if before is None:
            return False
        raw = await self._session.until_answered(
            lambda: self._session.next(self._stream, self._subject, note.seq), "look at history"
        )
        return raw is not None and raw.time < before

    async def look_at_messages(self, positions: Positions) -> None:
        """Look at messages one by one, until one is to be kept that nothing pins."""
        start, seq, total, _ = self._cut or self._notes.first
        at, last = start, seq - 1
        stays = follows = False  # one that stays was seen; one that goes lies right before
        looked = 0
        self._notes.messages = _AT_ONCE  # what comes from now on begins with a note: what lies before it may go
        async for read in positions.messages(self._notes, start):
            if read.position < start:
                continue
            if not looked and read.position > start:  # another program purged what came before
                self._cut = Note(read.position, read.raw.seq, read.total)
                self._notes.note(self._cut)
            elif read.position > at:
                hole = Hole(at, last + 1, total, read.position, read.raw.seq - 1, read.total)
                self._healed |= note_hole(self._notes.holes, hole)
            at, last, total = read.position + read.events, read.last, read.total + read.bytes
            pinned = self._is_pinned(read)
            done = looked == MAX_MESSAGES or not (pinned or self._is_old(read) or self._excess > self._bytes)
            if pinned or done:
                if follows and stays:
                    self._notes.note(Note(read.position, read.raw.seq, read.total))
                elif follows:
                    self._cut = Note(read.position, read.raw.seq, read.total)
                    self._notes.note(self._cut)
                if done:
                    return
                stays, follows = True, False
            else:
                self._drop(read, behind=stays)
                follows = True
            looked += 1

    def _is_old(self, read: Read) -> bool:
        before = self._wanted.before
        return read.batch is None or (before is not None and read.raw.time < before)

    def _is_pinned(self, read: Read) -> bool:
        if read.raw.seq in self._wanted.needed or read.last in self._wanted.needed:
            return True
        return bool(self._wanted.pinned.within(read.position, read.position + read.events))

    def _drop(self, read: Read, *, behind: bool) -> None:
        self._bytes += read.bytes
        if behind:
            self._single.append(read)
        else:
            self._cut = Note(read.position + read.events, read.last + 1, read.total + read.bytes)

    @property
    def any(self) -> bool:
        """Whether anything is to be deleted."""
        return self._is_cut or self._healed or bool(self._single)

    @property
    def _is_cut(self) -> bool:
        cut, state = self._cut, self._notes.state
        return cut is not None and (cut.position > state.first or cut.seq > state.first_seq)

    def apply(self) -> int:
        """Count it as deleted, and return how many events it is."""
        notes, state = self._notes, self._notes.state
        events = state.events
        if self._cut is not None and self._is_cut:
            state.first, state.first_seq, state.first_total = self._cut[:3]
            notes.holes = [hole for hole in notes.holes if hole.position >= state.first]
        for read in self._single:
            if read.events:
                end, total = read.position + read.events, read.total + read.bytes
                note_hole(notes.holes, Hole(read.position, read.raw.seq, read.total, end, read.last, total))
        state.missing = sum(hole.end - hole.position for hole in notes.holes)
        state.missing_bytes = sum(hole.end_total - hole.total for hole in notes.holes)
        return events - state.events

    async def delete(self) -> None:
        await self._ask("PURGE", {"filter": self._subject, "seq": self._notes.state.first_seq})
        for read in self._single:
            for seq in range(read.raw.seq, read.last + 1):
                await self._ask("MSG.DELETE", {"seq": seq, "no_erase": True})

    async def _ask(self, what: str, body: dict[str, object]) -> None:
        async def ask() -> None:
            try:
                await self._session.api(f"STREAM.{what}.{self._stream}", body)
            except Refusal as refusal:
                if refusal.code != NO_MESSAGE:  # it was deleted, and the answer was lost
                    raise

        await self._session.until_answered(ask, "trim history")
