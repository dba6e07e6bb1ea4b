"""A live service instance, as its purpose sees it: the room it has, and what it has in hand."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from ..limits import Limits
from .effects import Join
from .log import Stored
from .process import Process
from .rates import RecentRate
from .spans import Spans

if TYPE_CHECKING:
    from .facts import Times
    from .shadows import Shadow
    from .track import Track

ROOM_NS = 100_000_000  # an instance holds about so much work
MAX_ROOM = 10_000  # events
STALL_NS = 500_000_000  # a fan-out instance that made no progress for so long does not keep up
PATIENCE_NS = 1_000_000_000  # that copies are held back, at most, for an instance that keeps up
MAX_LAST_ERROR = 500  # characters of an instance's last error


class Instance(msgspec.Struct, eq=False):
    """A live registration. Its room follows the time its handler takes (`observe`)."""

    id: int
    join: Join
    room: int
    max_bytes: int
    process: Process
    times: Times  # its version's, for operators
    used: int = 0
    in_flight: int = 0
    in_hand_bytes: int = 0
    quota: int = MAX_ROOM  # its part of what pends: however much room it has, the others get theirs
    alive_until: int = 0  # with events in hand; then its lease ends
    watched: bool = False
    silent: bool = False  # its lease ended: it gets nothing before it is heard of again
    leaving: bool = False  # it finishes what it began and gets nothing more
    leases: dict[int, Lease] = msgspec.field(default_factory=dict)
    # What a fan-out holds for it: (batch, from, to), the oldest first. Made when first needed.
    copies: deque[tuple[Stored, int, int]] | None = None
    copied: int = 0
    copied_bytes: int = 0
    pace: int = 0  # events that its handler handles in `ROOM_NS`, as it last reported; 0 until it has
    moved_at: int = 0  # when it began with events, or last reported what became of some
    full_since: int = 0  # copies are held back for it; until it was through with all it had
    # For operators: when it joined and was last heard of, how many events it settled, and why its last failed.
    joined_at: int = 0
    heard_at: int = 0
    settled: int = 0
    rate: RecentRate = msgspec.field(default_factory=lambda: RecentRate(0))  # of those
    error: str = ""

    @property
    def version(self) -> int:
        return self.join.version

    @property
    def origin(self) -> str:
        return self.join.origin

    @property
    def free(self) -> int:
        if self.silent or self.leaving or self.process.closed or self.in_hand_bytes >= self.max_bytes:
            return 0
        free = self.room - self.in_flight
        if free > self.quota:
            free = self.quota
        return free if free > 0 else 0

    def add_lease(self, lease: Lease, count: int) -> None:
        """Count the lease's events, which are so many, as in hand."""
        self.leases[lease.id] = lease
        self.in_flight += count
        if lease.track is not None:
            self.process.in_hand += count
        self.in_hand_bytes += count * lease.event_bytes

    def remove_events(self, lease: Lease, count: int) -> None:
        """Count `count` of the lease's events as no longer in hand."""
        self.in_flight -= count
        if lease.track is not None:
            self.process.in_hand -= count
        self.in_hand_bytes -= count * lease.event_bytes

    def alive(self, now: int) -> None:
        """Renew the leases, because the instance was heard of."""
        self.heard_at = now
        self.alive_until = now + self.join.lease_ns

    def observe(self, handled: int, busy_ns: int) -> None:
        """Follow the measured pace: down at once, up by steps, so that one lucky measurement hoards nothing."""
        if handled:
            fits = min(MAX_ROOM, handled * ROOM_NS // max(1, busy_ns))
            self.pace = max(1, fits)
            self.room = max(self.join.room, min(fits, self.room * 16))

    def keeps_up_until(self, now: int, limits: Limits) -> int:
        """Return until when it counts as keeping up, unless it reports before: it is at work, or had nothing to do, and
        would be through a full buffer within a second, as far as is known. Return 0 where it does not keep up."""
        if self.silent or self.leaving or 0 < self.pace * 10 < limits.copies:
            return 0
        until = (self.moved_at if self.leases else now) + STALL_NS
        return min(until, self.full_since + PATIENCE_NS) if self.full_since else until

    @property
    def _copies(self) -> deque[tuple[Stored, int, int]]:
        if self.copies is None:
            self.copies = deque()
        return self.copies

    def space(self, limits: Limits) -> int:
        """Return how many copies its buffer holds before the oldest are dropped; 0 where the next batch may be too
        large."""
        if self.copied and self.copied_bytes + limits.batch_bytes > limits.copy_bytes:
            return 0
        return max(0, limits.copies - self.copied)

    def add_copies(self, stored: Stored, start: int, stop: int, limits: Limits) -> int:
        """Put copies of these events into its buffer. Return how many of the oldest were dropped."""
        first = stored.start
        self._copies.append((stored, start, stop))
        self.copied += stop - start
        self.copied_bytes += stored.batch.bytes_of(start - first, stop - first)
        dropped = 0
        while self.copied > limits.copies or self.copied_bytes > limits.copy_bytes:
            excess = max(self._oldest(self.copied_bytes - limits.copy_bytes), self.copied - limits.copies)
            dropped += len(self.pop_copies(excess)[1])
        return dropped

    def _oldest(self, size: int) -> int:
        """Return how many of the oldest copies have so many bytes, of those in the first batch; at least one."""
        stored, start, stop = self._copies[0]
        first, last = start - stored.start, stop - stored.start
        if size <= 0:
            return 1
        counts = range(1, last - first + 1)
        return 1 + bisect_left(counts, size, key=lambda count: stored.batch.bytes_of(first, first + count))

    def put_back_copies(self, stored: Stored, positions: Spans) -> None:
        """Put copies that it had in hand and did not begin back to the front of its buffer."""
        for start, stop in reversed(list(positions)):
            self._copies.appendleft((stored, start, stop))
            self.copied += stop - start
            self.copied_bytes += stored.batch.bytes_of(start - stored.start, stop - stored.start)

    def pop_copies(self, max_events: int) -> tuple[Stored, range]:
        """Remove and return the oldest copies of its buffer, all of one batch."""
        stored, start, stop = self._copies.popleft()
        if stop - start > max_events:
            self._copies.appendleft((stored, start + max_events, stop))
            stop = start + max_events
        self.copied -= stop - start
        self.copied_bytes -= stored.batch.bytes_of(start - stored.start, stop - stored.start)
        if not self.copies:
            self.full_since = 0
        return stored, range(start, stop)


def limit_to_parts(instances: Collection[Instance], ahead: int) -> None:
    """Limit each instance to an even part of the `ahead` events that are yet to be looked at, of which any instance may
    get any: otherwise the first to be done with a burst's beginning would get all the rest."""
    quota = MAX_ROOM
    if len(instances) > 1 and ahead > 0:
        able = sum([not (instance.silent or instance.process.closed) for instance in instances])
        quota = -(-ahead // max(1, able))
    for instance in instances:
        instance.quota = quota


class Lease(msgspec.Struct, eq=False):
    """Events in an instance's hands. They pend in a track until they are settled; a fan-out's copies are in none.
    `stored` is their batch: of copies, and where a shadow is compared. `counted`: their attempts were counted before
    they were handed out. `noted`: likewise, when the next may be by their rate."""

    id: int
    instance: Instance
    positions: Spans
    track: Track | None = None
    stored: Stored | None = None
    counted: bool = False
    noted: bool = False
    event_bytes: int = 0  # of payload, about
    # For operators: when it was handed out, when its first event was fired, or due, and how many were handled so far.
    handed_at: int = 0
    fired_at: int = 0
    handled: int = 0

    @property
    def shadow(self) -> Shadow | None:
        """The shadow whose copies these are; None where they are events, or a fan-out's copies."""
        return self.track.shadow if self.track is not None else None
