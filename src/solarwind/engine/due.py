"""When the due-log is to be released: pure, see `commits`.

Due times are those of the wall clock, which may be set, and timers go by the engine's clock, which never jumps. So an
event may be late where the machine slept or its clock was set, but it is never early.
"""

from __future__ import annotations

from ..batch import Batch
from ..store.delays import Delayed

LOOK_NS = 60_000_000_000  # how often to check whether the machine's clock was set
FIRST_PAUSE_NS = 250_000_000  # after the due-log could not be released, and doubled each time
MAX_PAUSE_NS = 8_000_000_000


def by_due(batch: Batch) -> list[Delayed]:
    """Return a batch's events by due time; those without one are due at once. Of those with the same id, the first one
    counts, though another may be due earlier."""
    times: dict[int, list[int]] = {}
    ids: set[str] = set()
    for index, due in enumerate(batch.header.due or [None] * len(batch)):
        id = batch.given_id(index)
        if id is None or id not in ids:
            times.setdefault(due or 0, []).append(index)
        if id is not None:
            ids.add(id)
    if [len(indices) for indices in times.values()] == [len(batch)]:
        return [Delayed(due, batch) for due in times]
    return [Delayed(due, batch.select(indices)) for due, indices in sorted(times.items())]


class Due:
    """The nearest due time, and what follows from releases. `now` is the engine's time, `wall` the wall clock's."""

    def __init__(self) -> None:
        self.nearest: int | None = None
        self.releasing = False
        self.failing = False  # the last release failed
        self._pause = FIRST_PAUSE_NS
        self._not_before = 0

    def add(self, due: int | None) -> None:
        """Note that something durable is due then."""
        if due is not None and (self.nearest is None or due < self.nearest):
            self.nearest = due

    def is_due(self, now: int, wall: int) -> bool:
        """Return whether a release is to begin."""
        return self._not_before <= now and self.has_work(wall) and not self.releasing

    def has_work(self, wall: int) -> bool:
        """Return whether something is due and has not entered its topic."""
        return self.releasing or (self.nearest is not None and self.nearest <= wall)

    def wake_at(self, now: int, wall: int) -> int:
        """Return the engine's time at which to ask `is_due` again, where something is delayed."""
        wait = LOOK_NS if self.nearest is None else min(self.nearest - wall, LOOK_NS)
        return max(now + wait, self._not_before)

    def begin(self) -> int | None:
        """Begin a release. Return what was nearest; what is added from here on is nearest after it."""
        nearest, self.nearest = self.nearest, None
        self.releasing = True
        return nearest

    def released(self, nearest: int | None) -> None:
        """Note that a release succeeded, and what the due-log has next."""
        self.add(nearest)
        self._pause, self.releasing, self.failing = FIRST_PAUSE_NS, False, False

    def failed(self, nearest: int | None, now: int) -> None:
        """Note that a release failed: try again after a pause, which is longer each time."""
        self.add(nearest)
        self._not_before, self.releasing, self.failing = now + self._pause, False, True
        self._pause = min(2 * self._pause, MAX_PAUSE_NS)
