"""One live purpose: its instances, what its versions stated, and the tracks into which its events are divided.

What becomes of the events of a track is in `track`. A fan-out's copies belong to no track: they never pend, and are the
instances' own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Literal

from .exchange import Exchange, Exchanges, key_of
from .facts import Times
from .instance import Instance, Lease
from .log import Stored
from .rates import Rates
from .rollout import Division
from .spans import Spans
from .state import Statement
from .track import Track

if TYPE_CHECKING:
    from .limiter import Limiter
    from .shadows import Difference, Shadow

STEADY_NS = 10_000_000_000  # after an event was settled a purpose is not yet failing
LATELY_NS = 3_600_000_000_000  # for so long its last dead letter says that it fails, and that it gets more of them
PurposeState = Literal["running", "paused", "nobody up", "failing"]

MAX_HELD_BYTES = 64 << 20  # of batches whose copies are held back, of a purpose


class Purpose:
    """A purpose, its instances and its tracks."""

    def __init__(self, topic: str, name: str, exchanges: Exchanges) -> None:
        self.exchanges = exchanges
        self.topic = topic
        self.name = name
        self.key = (topic, name)
        self.tracks: dict[int, Track] = {}
        self.shadows: dict[int, Shadow] = {}  # by version; of most purposes there are none
        self.differences: deque[Difference] | None = None  # the last ones; made when first needed
        self.instances: dict[int, Instance] = {}
        self.live: Counter[int] = Counter()  # version -> instances that do not leave
        self.silent: Counter[int] = Counter()  # how many of these are
        self.dropped = 0
        self.copies_handled = 0
        self.copies_expired = 0
        # Copies that are held back until those who keep up have room: (batch, from where on, whose they are).
        self.held: deque[tuple[Stored, int, list[tuple[int, Spans]]]] | None = None  # made when first needed
        self.held_bytes = 0  # of those batches
        self.look_at = 0  # when to look at them again
        self.limiter: Limiter | None = None  # made when first needed
        # Once they are known; None again when that may have changed.
        self._active: Statement | None = None
        self._at_work: dict[int, dict[int, Instance]] = {}  # by version
        self._shares: dict[int, float] | None = None
        self._division: Division | None = None  # made when first needed
        self.lease_ns: dict[int, int] = {}  # of the last instance of each version
        self._failed = 0, 0  # since when handlers raise, and what was settled then
        self.settled_at = 0  # when an event was last settled, as far as this dispatcher knows
        self.gone: dict[int, int] = {}  # a version with a share and no instance -> until when it keeps that
        self.died = 0  # events that became dead letters, since the dispatcher started
        self.rates: Rates | None = None
        self.times: dict[int, Times] = {}  # by version
        self.oldest = (-1, 0)  # the position of the oldest event that is not done, as last asked, and when it was fired

    @property
    def main(self) -> Track:
        """The track of all events that are in no version's own share. Its record has the purpose's statements."""
        return self.tracks[0]

    @property
    def all_tracks(self) -> Collection[Track]:
        """Its tracks, and those of its shadows, which nothing is counted of."""
        if not self.shadows:
            return self.tracks.values()
        return [*self.tracks.values(), *(shadow.track for shadow in self.shadows.values())]

    @property
    def statements(self) -> dict[int, Statement]:
        return self.main.state.statements

    @property
    def paused(self) -> int:
        """Since when it is paused, in ns since 1970; 0 where it is not."""
        return self.main.state.paused

    # Versions

    def forget(self, versions: Iterable[int]) -> None:
        """Forget what is known of versions besides what was written down."""
        for version in versions:
            for known in (self.live, self.silent, self.lease_ns, self.times):
                known.pop(version, None)

    @property
    def line(self) -> list[int]:
        """The versions that may be current, in the order in which they became so."""
        rollout = self.main.state.rollout
        return rollout.line or sorted(self.statements.keys() - dict(rollout.wanted).keys() - set(rollout.shadows))

    @property
    def active(self) -> Statement:
        """The statement of the current version, which gets the events: the last in the line with a live instance that
        is heard of, else with a live one, else the last."""
        if self._active is None:
            line = self.line
            live = [version for version in line if self.live[version]]
            awake = [version for version in live if self.is_heard_of(version)]
            self._active = self.statements[(awake or live or line)[-1]]
        return self._active

    def is_heard_of(self, version: int) -> bool:
        """Return whether a version has an instance that is neither leaving nor silent."""
        return self.live[version] > self.silent[version]

    @property
    def shares(self) -> dict[int, float]:
        """The versions that have a share of what comes now."""
        if self._shares is None:
            splits = self.main.state.rollout.splits
            self._shares = dict(splits[-1].shares) if splits else {}
        return self._shares

    @property
    def division(self) -> Division:
        """How its events are divided among its tracks."""
        if self._division is None:
            self._division = Division(lambda: self.main.state.rollout.splits, key_of)
        return self._division

    def key_of_shares(self, shares: list[tuple[int, float]]) -> str | None:
        """Return the field by which these versions and the active one divide the events, if one of them states any."""
        stated = [self.statements[version] for version, _ in shares] + [self.active]
        return next((each.key for each in stated if each.key is not None), None)

    def at_work(self, version: int) -> Collection[Instance]:
        """Return the instances of a version that are not leaving; none while the purpose is paused."""
        there = self._at_work.get(version)
        if there is None:
            instances = self.instances.items() if not self.paused else ()
            there = {id: each for id, each in instances if each.version == version and not each.leaving}
            self._at_work[version] = there
        return there.values()

    def add(self, instance: Instance) -> None:
        """Add an instance."""
        self.instances[instance.id] = instance
        self.live[instance.version] += 1
        self.lease_ns[instance.version] = instance.join.lease_ns
        self.note_change()

    def begin_leaving(self, instance: Instance) -> None:
        """Hand nothing more to an instance."""
        if not instance.leaving:
            instance.leaving = True
            self.live[instance.version] -= 1
            self.silent[instance.version] -= instance.silent
            at_work = self._at_work.get(instance.version)
            if at_work is not None and self.is_heard_of(instance.version):  # else another version may have its turn
                at_work.pop(instance.id, None)
            else:
                self.note_change()

    def note_silent(self, instance: Instance, silent: bool) -> None:
        """Note that an instance is silent, or is heard of again."""
        instance.silent = silent
        if not instance.leaving:
            self.silent[instance.version] += 1 if silent else -1
            self.note_change()

    def remove(self, instance: Instance) -> None:
        """Remove an instance."""
        self.begin_leaving(instance)
        del self.instances[instance.id]

    def note_change(self) -> None:
        """Note that an instance came or went, that a version was stated, or that it was paused or resumed: other
        instances may be at work now."""
        self._active = self._shares = None
        self._at_work.clear()
        for track in self.all_tracks:
            track.note_change()

    @property
    def exchange(self) -> Exchange | None:
        """The active version's exchange; None where it is a plug-in that this process does not have."""
        return self.exchanges.lookup(self.active.exchange)

    @property
    def exchange_pends(self) -> bool:
        exchange = self.exchange
        return exchange is None or exchange.pends

    # How it stands

    @property
    def died_at(self) -> int:
        """When the last of its dead letters died, in ns since 1970; 0 where none ever did."""
        return max([track.state.died_at for track in self.tracks.values()])

    def has_died_lately(self, now: int) -> bool:
        """Return whether it got a dead letter within the last hour."""
        died_at = self.died_at
        return bool(died_at) and now - died_at < LATELY_NS

    def note_failure(self, now: int) -> None:
        """Note that handlers raised and that nothing was settled with it. A purpose that settled something of late
        does not fail: one event in a hundred may, and its state would change with each."""
        if not self.failing_since and now - self.settled_at >= STEADY_NS:
            self._failed = now, self.settled

    @property
    def failing_since(self) -> int:
        """Since when handlers raise and nothing is settled, in ns since 1970; 0 where that is not so."""
        since, settled = self._failed
        return since if since and settled == self.settled else 0

    def times_of(self, version: int) -> Times:
        """Return how long a version's events took."""
        times = self.times.get(version)
        if times is None:
            times = self.times[version] = Times()
        return times

    def has_nobody_up(self, end: int) -> bool:
        """Return whether events pend for which no instance is at work. One that leaves is so while it has events in
        hand: a client that takes events by HTTP is back once it has settled them."""
        without = [track for track in self.tracks.values() if not track.instances and track.has_due(end)]
        if not without:
            return False
        busy = {each.version for each in self.instances.values() if each.in_flight and not each.silent}
        return any(track.statement.version not in busy for track in without)

    def state(self, end: int, now: int) -> PurposeState:
        """Return its state, where `end` is that of its topic. With nothing to do it fails for an hour at most."""
        if self.paused:
            return "paused"
        if self.has_nobody_up(end):
            return "nobody up"
        left = self.failing_since and (self.pending(end) - self.delayed(end) or self.in_flight)
        if left or (self.failing_since and self.dead_count and self.has_died_lately(now)):
            return "failing"
        return "running"

    @property
    def is_limited(self) -> bool:
        """Whether events wait for its limits."""
        return self.limiter is not None and bool(self.limiter.waiting)

    # Numbers

    @property
    def leases(self) -> dict[int, Lease]:
        """All that its instances have in hand."""
        return {number: lease for instance in self.instances.values() for number, lease in instance.leases.items()}

    @property
    def copies(self) -> int:
        """The number of a fan-out's copies: in its instances' buffers, and held back."""
        held = [len(part.within(start, stored.stop)) for stored, start, parts in self.held or () for _, part in parts]
        return sum([instance.copied for instance in self.instances.values()]) + sum(held)

    def pending(self, end: int) -> int:
        """Return the number of events that are neither done nor in hand, and of a fan-out's copies."""
        count = sum([track.pending(end) for track in self.tracks.values()])
        if count and len(self.tracks) > 1:  # some of them may count by their shares, rounded up
            in_hand = sum([len(lease.positions) for track in self.tracks.values() for lease in track.leases.values()])
            count = min(count, max(1, end - (self.oldest_position(end) or 0) - in_hand))
        return count + self.copies + self.waiting_copies(end)

    def waiting_copies(self, end: int) -> int:
        """Return how many events a fan-out is to copy once they have waited for its delay."""
        return sum([len(track.waiting_copies(end)) for track in self.tracks.values()])

    def delayed(self, end: int) -> int:
        """Return how many of those that pend wait for its delay, as far as that is known."""
        return sum([track.delayed(end) for track in self.tracks.values()]) + self.waiting_copies(end)

    def oldest_position(self, end: int) -> int | None:
        """Return the position of the oldest event that is not done; None where there is none."""
        oldest = [track.oldest_position for track in self.tracks.values() if track.not_done(end) > 0]
        return min(oldest, default=None)

    def oldest_copy(self) -> int | None:
        """Return when the oldest of a fan-out's copies was fired, of those in its instances' buffers."""
        first = [instance.copies[0] for instance in self.instances.values() if instance.copies]
        return min([stored.batch.time(start - stored.start) for stored, start, _ in first], default=None)

    @property
    def retrying(self) -> int:
        """How many events wait until they are handed out again."""
        return sum([len(track.retrying) for track in self.tracks.values()])

    @property
    def settled(self) -> int:
        return sum([track.state.settled for track in self.tracks.values()]) + self.copies_handled

    @property
    def expired(self) -> int:
        return sum([track.state.expired for track in self.tracks.values()]) + self.copies_expired

    @property
    def retried(self) -> int:
        return sum([track.state.retried for track in self.tracks.values()])

    @property
    def key_missing(self) -> int:
        return sum([track.key_missing for track in self.tracks.values()])

    @property
    def dead(self) -> Spans:
        dead = Spans()
        for track in self.tracks.values():
            dead.update(track.state.dead)
        return dead

    @property
    def dead_count(self) -> int:
        return sum([track.state.dead_count for track in self.tracks.values()])

    def in_words(self, end: int) -> str:
        """Return how many events are not settled, and why."""
        delayed = self.delayed(end)
        waits = f"{self.retrying} of them for a retry" + (f", {delayed} for the delay" if delayed else "")
        return f"{self.pending(end)} pending ({waits}) and {self.in_flight} in flight"

    def is_dead(self, position: int) -> bool:
        """Return whether there is a dead letter of the event at that position."""
        return any(position in track.state.dead for track in self.tracks.values())

    def left(self, end: int) -> list[str]:
        """Return in words what a retirement would forget."""
        pending = sum([track.not_done(end) for track in self.tracks.values()])
        counts = (
            (pending, "pending event"),
            (self.dead_count, "dead letter"),
            (len(self.instances), "live instance"),
        )
        return [f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count]

    @property
    def in_flight(self) -> int:
        copies = sum([shadow.in_hand for shadow in self.shadows.values()]) if self.shadows else 0
        return sum(instance.in_flight for instance in self.instances.values()) - copies
