"""Which tracks of purposes are to be written down whole, so that a recovery need not replay very many changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from ..core.state import Change, Snapshot

SNAPSHOT_AFTER = 512  # commits: so many changes at most are replayed for a track
SNAPSHOTS_A_COMMIT = 64


class Snapshots:
    """Of all tracks. `make` returns a track's state, by topic, purpose and number; None where it is gone."""

    def __init__(self, make: Callable[[str, str, int], Snapshot | None], after: int | None = None) -> None:
        """Write a track down after so many commits, `SNAPSHOT_AFTER` if not given."""
        self._make = make
        self._after = after or SNAPSHOT_AFTER
        self._changed_at: dict[tuple[str, str, int], int] = {}  # the first commit since a track's last snapshot

    def note(self, changed: Iterable[Change | Snapshot], commit: int) -> None:
        """These go into a commit, or, where its number is 0, were there before the first."""
        for each in changed:
            self._changed_at.setdefault((each.topic, each.purpose, each.track), commit)

    def take(self, changes: Sequence[Change], commit: int) -> list[Snapshot]:
        """The snapshots that go with these changes into a commit: of tracks that have the most to replay, a few."""
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
