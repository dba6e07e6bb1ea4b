"""What relays of outboxes tell of their troubles: kept in memory while they go on saying so.

A relay is a client like any other: it may die without a word, and what it said is forgotten soon after.
"""

from __future__ import annotations

import msgspec

from .arguments import Count, Seconds
from .clock import Clock

FORGET_NS = 120_000_000_000  # after which one is forgotten that says nothing more: it says so every 30 s
MAX_RELAYS = 100  # in trouble; beyond that the one is forgotten that was not heard of for longest


class RelayNote(msgspec.Struct, frozen=True):
    """What is wrong with a relay: so many rows of its outbox are `refused`, it is so many seconds `behind`, or its
    database does not answer, with that `error`."""

    refused: int
    behind: float
    error: str
    since: dict[str, int]  # by field, in ns since 1970, as far as this dispatcher knows
    heard: int


class RelayNotes:
    """The relays in trouble, by database and process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notes: dict[tuple[str, str], RelayNote] = {}  # in the order in which they were heard of

    def note(self, database: str, process: str, refused: int, behind: float, error: str) -> None:
        """Note how a relay stands, or forget it where nothing is wrong."""
        now, key = self._clock.now(), (database, process)
        before = self._notes.pop(key, None)
        known = {} if before is None else before.since
        wrong = (("refused", refused), ("behind", behind), ("error", error))
        since = {name: known.get(name, now) for name, value in wrong if value}
        if since:
            self._notes[key] = RelayNote(refused, behind, error, since, now)
            if len(self._notes) > MAX_RELAYS:
                del self._notes[next(iter(self._notes))]

    def items(self) -> list[tuple[tuple[str, str], RelayNote]]:
        """Return the database and process, and the note, of each relay in trouble."""
        heard = self._clock.now() - FORGET_NS
        self._notes = {key: note for key, note in self._notes.items() if note.heard > heard}
        return list(self._notes.items())


class RelayOperations:
    """The part of an engine that hears relays."""

    _relays: RelayNotes

    async def note_relay(
        self, database: str, process: str, refused: Count = 0, behind: Seconds = 0.0, error: str = ""
    ) -> None:
        """Note how a relay of the outbox of `database` in a process stands: how many rows are refused, how many seconds
        it is behind, and why its database does not answer. With nothing of that it is forgotten."""
        self._relays.note(database, process, refused, behind, error)
