"""Decides which tracks are to be written as a snapshot, so that a recovery replays few changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from ..core.state import Change, Snapshot

SNAPSHOT_AFTER = 512  # commits: so many changes at most are replayed for a track
SNAPSHOTS_A_COMMIT = 64


class Snapshots:
    """The snapshots of all tracks. `make` returns a track's state, by topic, purpose and number; None where it is
    gone."""

    def __init__(self, make: Callable[[str, str, int], Snapshot | None], after: int | None = None) -> None:
        """Write a track after `after` commits, by default `SNAPSHOT_AFTER`."""
        self._make = make
        self._after = after or SNAPSHOT_AFTER
        self._changed_at: dict[tuple[str, str, int], int] = {}  # the first commit since a track's last snapshot

    def note(self, changed: Iterable[Change | Snapshot], commit: int) -> None:
        """Note what goes into a commit; number 0 stands for what was there before the first."""
        for each in changed:
            self._changed_at.setdefault((each.topic, each.purpose, each.track), commit)

    def pop_due(self, changes: Sequence[Change], commit: int) -> list[Snapshot]:
        """Return the snapshots to be written in a commit with these changes: a few, of the tracks with the most to
        replay, which count as written then."""
        if changes:
            self.note(changes, commit)
        oldest = commit - self._after
        if not self._changed_at or next(iter(self._changed_at.values())) > oldest:
            return []
        snapshots: list[Snapshot] = []
        for name, number in list(islice(self._changed_at.items(), SNAPSHOTS_A_COMMIT)):
            if number > oldest:
                break
            del self._changed_at[name]
            snapshot = self._make(*name)
            if snapshot is not None:
                snapshots.append(snapshot)
        return snapshots
