"""Which purposes are to be written down whole, so that a recovery need not replay very many changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from ..core.state import Change, Snapshot

SNAPSHOT_AFTER = 512  # commits: so many changes at most are replayed for a purpose
SNAPSHOTS_A_COMMIT = 64


class Snapshots:
    """Of all purposes. `make` gives a purpose's state, by its topic and name; None where it is gone."""

    def __init__(self, make: Callable[[str, str], Snapshot | None]) -> None:
        self._make = make
        self._changed_at: dict[tuple[str, str], int] = {}  # the first commit since a purpose's last snapshot

    def note(self, changed: Iterable[Change | Snapshot], commit: int) -> None:
        """These go into a commit, or, where its number is 0, were there before the first."""
        for each in changed:
            self._changed_at.setdefault((each.topic, each.purpose), commit)

    def due(self, commit: int) -> list[Snapshot]:
        """Of the purposes whose changes have been piling up longest, a few a commit."""
        oldest = commit - SNAPSHOT_AFTER
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
