"""What goes into the next commit, and what follows from stored, full or failed.

Pure: a local engine, the owner of a partition and the simulator run it, each with a store of its own. A batch comes
with whoever waits for it, a `W`; with None where a handler fired it, which was promised with that handler's settle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from ..batch import Batch
from ..core.dispatcher import Dispatcher
from ..core.effects import Offer, Report
from ..core.facts import Note
from ..core.log import Stored
from ..core.state import Change, Snapshot
from ..errors import Busy
from ..store.delays import Delayed
from .due import Due, by_due
from .snapshots import Snapshots

MAX_COMMIT_BYTES = 8 << 20

W = TypeVar("W")


class Recent(Protocol):
    """The part of the log in memory."""

    def add(self, stored: Stored) -> None: ...


class Commit(msgspec.Struct, Generic[W], eq=False):
    """What one commit takes along, and the offers that are to be delivered once it is durable."""

    number: int
    incoming: list[tuple[Batch, W | None]]
    later: list[tuple[Batch, W | None]]  # goes into the due-log
    changes: list[Change]
    snapshots: list[Snapshot]
    after: list[Offer]
    notes: list[Note] = []  # facts for operators, which are left out where there is no room

    @property
    def batches(self) -> list[Batch]:
        return [batch for batch, _ in self.incoming]

    @property
    def delayed(self) -> list[Delayed]:
        return [each for batch, _ in self.later for each in by_due(batch)]


class Commits(Generic[W]):
    """The commits of one dispatcher, one at a time."""

    def __init__(self, dispatcher: Dispatcher, recent: Recent, snapshot_after: int | None = None) -> None:
        """Put what was accepted into `recent`. `snapshot_after`: see `Snapshots`."""
        self._dispatcher = dispatcher
        self._recent = recent
        self._snapshots = Snapshots(dispatcher.snapshot, snapshot_after)
        self.due = Due()
        self.number = 0  # of the commit that was begun last
        self.done = 0  # of the last one that was stored
        self.incoming: list[tuple[Batch, W | None]] = []
        self._committing: list[tuple[Batch, W | None]] = []  # by the commit that is under way, or was the last
        self._uncommitted: list[Change] = []  # taken from the dispatcher, but there was no room
        self._after: list[Offer] = []
        self._settles = 0  # so many of the dispatcher's changes are known to be nothing but settles
        self._stuck_bytes = 0  # of what handlers fired and there is no room for: no use in having them fire more
        self._fired_bytes = 0  # of what handlers fired and is to be committed before they fire more

    def recover(
        self, snapshots: Iterable[Snapshot], changes: Iterable[Change], *, clean: bool, now: int, earlier: int = 0
    ) -> None:
        """Begin with what the store remembers: see `Registry.recover`."""
        snapshots, changes = list(snapshots), list(changes)
        self._dispatcher.recover(snapshots, changes, clean=clean, now=now, earlier=earlier)
        self._snapshots.note(snapshots, 0)
        self._snapshots.note(changes, 0)

    # In -----------------------------------------------------------------------------------------------

    def submit(self, batch: Batch, waiter: W) -> bool:
        """Add a batch to the next commit. Return False where it is not to be stored: it is accepted and gone. Raise
        `Busy`."""
        stored = self._dispatcher.receive(batch)
        if stored:
            self.incoming.append((batch, waiter))
        return stored

    def withdraw(self, waiter: W) -> bool:
        """Withdraw what was submitted and is in no commit yet. Return whether that was possible."""
        for index, (_, each) in enumerate(self.incoming):
            if each is waiter:
                del self.incoming[index]
                return True
        return False

    def report(self, report: Report, fired: Collection[Batch], now: int) -> bool:
        """Note what an instance made of its events, and what its handlers fired with it. Return False where that counts
        for nothing. What a shadow fired does not: nothing of it is kept."""
        kept = () if fired and self._dispatcher.shadows.has(report) else fired
        if kept:
            report = self._with_room(report, kept)
        counts = self._dispatcher.post_send(report, now, fired)
        if counts and report.done and not report.refusal:
            self.fire(kept)
        return counts

    def _with_room(self, report: Report, fired: Collection[Batch]) -> Report:
        """Return the report; its events are to be tried again if one topic that they fired on would be one too many."""
        try:
            for batch in fired:
                self._dispatcher.topic(batch.topic)
        except Busy as busy:
            return msgspec.structs.replace(report, refusal=str(busy))
        return report

    def fire(self, fired: Collection[Batch]) -> None:
        """Add what a handler fired, in the same turn as its settle: they go into the same commit."""
        for batch in fired:
            if self._dispatcher.receive(batch):
                self.incoming.append((batch, None))
                self._fired_bytes += batch.weight

    def hold(self, offer: Offer) -> bool:
        """Keep an offer that is to be delivered after the next commit. Return False for one that need not wait."""
        waits = offer.after_commit or max(self._stuck_bytes, self._fired_bytes) > MAX_COMMIT_BYTES
        if waits:
            self._after.append(offer)
        return waits

    # A commit -----------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether there is something to commit besides batches."""
        return bool(self._dispatcher.changes or self._uncommitted)

    @property
    def waiting(self) -> bool:
        """Whether there is something to commit."""
        return bool(self.incoming or self._dispatcher.changes or self._uncommitted)

    @property
    def can_wait(self) -> bool:
        """Whether only settles wait, and nothing waits for them."""
        changes = self._dispatcher.changes
        while self._settles < len(changes) and changes[self._settles].only_settles:
            self._settles += 1
        others = self.incoming or self._uncommitted or self._after or self._dispatcher.crashes.awaits_commit
        return self._settles == len(changes) and not others

    @property
    def following(self) -> int:
        """The number of the commit with which all that came in is durable."""
        return self.number + self.waiting

    def begin(self) -> Commit[W]:
        """Begin a commit with everything that waits. The store must store all of it or nothing."""
        incoming, self.incoming, self._fired_bytes, self._settles = self.incoming, [], 0, 0
        self._committing = incoming = self._divided(incoming) if len(incoming) > 1 else incoming
        later = [each for each in incoming if each[0].header.due is not None]
        if later:
            incoming = [each for each in incoming if each[0].header.due is None]
        changes, self._uncommitted = self._uncommitted + self._dispatcher.pop_changes(), []
        after, self._after = self._after, []
        self.number += 1
        snapshots = self._snapshots.pop_due(changes, self.number)
        notes = self._dispatcher.pop_notes() if changes else []
        return Commit(self.number, incoming, later, changes, snapshots, after, notes)

    def _divided(self, incoming: list[tuple[Batch, W | None]]) -> list[tuple[Batch, W | None]]:
        """Return as much of it as goes into one commit; the rest waits for the next."""
        size = 0
        for index, (batch, _) in enumerate(incoming):
            size += len(batch.data)
            if size > MAX_COMMIT_BYTES:
                # What a handler fired goes with its settle, however much it is.
                first, rest = incoming[: index + 1], incoming[index + 1 :]
                self.incoming = [each for each in rest if each[1] is not None]
                return first + [each for each in rest if each[1] is None]
        return incoming

    def accept(self, stored: Stored, now: int) -> None:
        """Dispatch a batch that is in the log: by a commit, because it was due, or because it arrived from
        elsewhere."""
        self._recent.add(stored)
        self._dispatcher.accepted(stored, now)

    def end(self, commit: Commit[W], now: int) -> Sequence[Offer]:
        """End a commit that is durable: its batches are accepted. Return the offers that waited for it, and those that
        began to wait meanwhile where no other commit follows."""
        self._stuck_bytes = 0
        if commit.changes:
            self._dispatcher.committed(commit.changes, now)
        if commit.later:
            self.due.add(min(due for due, _ in commit.delayed))
        self.done = commit.number
        if not self.waiting:
            commit.after += self._after
            self._after = []
        return commit.after

    def refuse(self, commit: Commit[W]) -> list[tuple[Batch, W]]:
        """Leave a commit's batches and notes out, because there is no room for them, and return the batches that are
        refused. What handlers fired stays, since it was promised with their settle; a producer's own batch may be fired
        again."""
        together, commit.notes = commit.incoming + commit.later, []
        commit.incoming = [each for each in commit.incoming if each[1] is None]
        commit.later = [each for each in commit.later if each[1] is None]
        return [(batch, waiter) for batch, waiter in together if waiter is not None]

    def put_back(self, commit: Commit[W]) -> None:
        """Put everything in a commit back for the next one, because there is no room for any of it."""
        self.incoming = commit.incoming + commit.later + self.incoming
        self._uncommitted = commit.changes
        self._after = commit.after + self._after
        self._stuck_bytes = sum(len(batch.data) for batch, waiter in self.incoming if waiter is None)

    def abandon(self) -> list[W]:
        """Begin no further commit. Return the waiters whose batches were not accepted, or may have been."""
        left = [waiter for _, waiter in (*self._committing, *self.incoming) if waiter is not None]
        self.incoming = []
        return left
