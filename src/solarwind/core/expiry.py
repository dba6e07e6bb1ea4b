"""Events that expired before they could be handed out: a purpose is done with them, and they are no dead letters.

They are looked for where they would be handed out next, so that a batch of which none expires costs one look at it.
Until then they pend, as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from .facts import Note
from .log import Stored
from .spans import Spans
from .state import Change
from .track import Track

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .purpose import Purpose

MAX_TOGETHER = 16_384  # that a track leaves out in a turn; then other work has its turn


class Expiry:
    """The events of a dispatcher that expired."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def expired(self, stored: Stored, picks: Sequence[int], now: int) -> Spans:
        """Return those of the events that are not to be handed out any more."""
        expires = stored.batch.header.expires
        if expires is None:
            return Spans()
        wall, start = self._dispatcher.wall(now), stored.start
        return Spans.of([at for at in picks if (end := expires[at - start]) is not None and end <= wall])

    def leave_out(self, track: Track, stored: Stored, picks: Sequence[int], now: int) -> Sequence[int]:
        """Have the track done with those of the events that expired, and return the others."""
        gone = self.expired(stored, picks, now)
        if not gone:
            return picks
        track.left_out += len(gone)
        self._dispatcher.shadows.expired(track, gone, stored, now)
        if track.shadow is None:
            tried = [(at, track.state.tried[at]) for at in gone.positions() if at in track.state.tried]
            self._note(track, gone.copy(), tried, now)
        self._dispatcher.change(track, Change(*track.key, expired=gone))
        return [at for at in picks if at not in gone]

    def _note(self, track: Track, gone: Spans, tried: list[tuple[int, int]], now: int) -> None:
        # They are found a few at a time; one note is of all of a turn.
        notes, version = self._dispatcher.notes, track.statement.version
        last = notes[-1] if notes else None
        note = Note(*track.purpose.key, "expired", gone.edges, version, "", 0, now, 0, tried)
        if last is not None and msgspec.structs.replace(last, edges=note.edges, tried=tried) == note:
            gone.update(Spans(last.edges))
            last.edges, last.tried = gone.edges, [*last.tried, *tried]
        else:
            notes.append(note)

    def leave_out_copies(self, purpose: Purpose, stored: Stored, picks: Sequence[int], now: int) -> Sequence[int]:
        """Count those of a fan-out's copies that expired, and return the others."""
        gone = self.expired(stored, picks, now)
        purpose.copies_expired += len(gone)
        return [at for at in picks if at not in gone] if gone else picks
