"""Deleting the history that nobody needs any more from an event stream.

A topic's messages lie among those of others, so its beginning is purged by its subjects. What goes from behind
something that must stay goes message by message, and first a note is written for what comes behind the gap.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

from ..core.spans import Spans
from .layout import Layout
from .positions import Notes, Positions, Read
from .records import Hole, Note
from .session import NO_MESSAGE, Refusal, Session

MOST_MESSAGES = 4_096  # that are looked at one by one each time
_AT_ONCE = 1 << 62  # so many messages since the last note that the next one gets one


class Wanted(NamedTuple):
    """What is to go: see `Store.trim`. Messages whose sequence is in `needed` stay."""

    pinned: Spans
    before: int | None
    most_bytes: int | None
    needed: Collection[int]


async def trim(session: Session, layout: Layout, positions: Positions, notes: Notes, wanted: Wanted) -> int:
    """Gives how many events were deleted. Raises `Refusal`."""
    await positions.load(notes)
    notes.messages = _AT_ONCE  # what comes from now on begins with a note: what lies before it may go
    work = _Trim(session, layout, notes, wanted)
    await work.look_at_chunks()
    await work.look_at_messages(positions)
    await positions.write(notes)
    gone = await work.delete()
    await positions.forget(notes, notes.state.first)
    return gone


class _Trim:
    def __init__(self, session: Session, layout: Layout, notes: Notes, wanted: Wanted) -> None:
        topic = notes.state.name
        self._session = session
        self._notes = notes
        self._wanted = wanted
        self._stream = layout.events_stream(layout.partition(topic))
        self._subject = layout.events_of(layout.partition(topic), topic=topic)
        most = wanted.most_bytes
        self._excess = 0 if most is None else notes.state.size - most
        self._cut: Note | None = None  # what lies before it goes
        self._single: list[Read] = []  # and these, behind it
        self._bytes = 0

    async def look_at_chunks(self) -> None:
        """Of what lies between two notes it is enough to know that it is all to go."""
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
        """Whether what lies before a note was fired before the time: it was stored before the note's message."""
        before = self._wanted.before
        if before is None:
            return False
        raw = await self._session.until_answered(
            lambda: self._session.next(self._stream, self._subject, note.seq), "look at history"
        )
        return raw is not None and raw.time < before

    async def look_at_messages(self, positions: Positions) -> None:
        """From there on, one by one, until one is to be kept that nothing pins."""
        start = self._cut.position if self._cut else self._notes.state.first
        stays = follows = False  # one that stays was seen; one that goes lies right before
        looked = 0
        async for read in positions.messages(self._notes, start):
            if read.position < start:
                continue
            if not looked and read.position > start:  # somebody else purged what came before
                self._cut = Note(read.position, read.raw.seq, read.total)
                self._notes.note(self._cut)
            pinned = self._is_pinned(read)
            done = looked == MOST_MESSAGES or not (pinned or self._is_old(read) or self._excess > self._bytes)
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
        batch, before = read.batch, self._wanted.before
        return batch is None or (before is not None and batch.time(len(batch) - 1) < before)

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

    async def delete(self) -> int:
        state = self._notes.state
        events = state.events
        cut = self._cut
        if cut is not None and (cut.position > state.first or cut.total > state.first_total):
            await self._ask("PURGE", {"filter": self._subject, "seq": cut.seq})
            state.first, state.first_seq, state.first_total = cut
            state.holes = [hole for hole in state.holes if hole.position >= cut.position]
        for read in self._single:
            for seq in range(read.raw.seq, read.last + 1):
                await self._ask("MSG.DELETE", {"seq": seq, "no_erase": True})
            if read.events:
                state.holes.append(Hole(read.position, read.events, read.bytes))
        return events - state.events

    async def _ask(self, what: str, body: dict[str, object]) -> None:
        async def ask() -> None:
            try:
                await self._session.api(f"STREAM.{what}.{self._stream}", body)
            except Refusal as refusal:
                if refusal.code != NO_MESSAGE:  # it was deleted, and the answer was lost
                    raise

        await self._session.until_answered(ask, "trim history")
