"""One live purpose: its instances, what its versions stated, and the tracks into which its events are divided.

What becomes of the events of a track is in `track`. A fan-out's copies belong to no track: they never pend, and are the
instances' own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection

from .exchange import Exchange, Exchanges
from .instance import Instance, Lease
from .log import Stored
from .spans import Spans
from .state import Statement
from .track import Track

MAX_HELD_BYTES = 64 << 20  # of batches whose copies are held back, of a purpose


class Purpose:
    """A purpose, its instances and its tracks."""

    def __init__(self, topic: str, name: str, exchanges: Exchanges) -> None:
        self.exchanges = exchanges
        self.topic = topic
        self.name = name
        self.key = (topic, name)
        self.tracks: dict[int, Track] = {}
        self.instances: dict[int, Instance] = {}
        self.live: Counter[int] = Counter()  # version -> instances that do not leave
        self.silent: Counter[int] = Counter()  # how many of these are
        self.dropped = 0
        self.copies_handled = 0
        # Copies that are held back until those who keep up have room: (batch, from where on, whose they are).
        self.held: deque[tuple[Stored, int, list[tuple[int, Spans]]]] = deque()
        self.held_bytes = 0  # of those batches
        self.look_at = 0  # when to look at them again
        # Once they are known; None again when that may have changed.
        self._active: Statement | None = None
        self._at_work: dict[int, dict[int, Instance]] = {}  # by version
        self._shares: dict[int, float] | None = None
        self.lease_ns: dict[int, int] = {}  # of the last instance of each version
        self.gone: dict[int, int] = {}  # a version with a share and no instance -> until when it keeps that

    @property
    def main(self) -> Track:
        """The track of all events that are in no version's own share. Its record has the purpose's statements."""
        return self.tracks[0]

    @property
    def statements(self) -> dict[int, Statement]:
        return self.main.state.statements

    # Versions

    @property
    def active(self) -> Statement:
        """The statement of the version that gets the events: the highest with a live instance that is heard of, else
        with a live one, else the highest known, of those for which no share is wanted."""
        if self._active is None:
            shared = dict(self.main.state.rollout.wanted)
            live = [version for version in +self.live if version not in shared]
            awake = [version for version in live if self.is_heard_of(version)]
            known = [version for version in self.statements if version not in shared]
            self._active = self.statements[max(awake or live or known)]
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

    def key_of_shares(self, shares: list[tuple[int, float]]) -> str | None:
        """Return the field by which these versions and the active one divide the events, if one of them states any."""
        stated = [self.statements[version] for version, _ in shares] + [self.active]
        return next((each.key for each in stated if each.key is not None), None)

    def at_work(self, version: int) -> Collection[Instance]:
        """Return the instances of a version that are not leaving."""
        there = self._at_work.get(version)
        if there is None:
            instances = self.instances.items()
            there = {id: each for id, each in instances if each.version == version and not each.leaving}
            self._at_work[version] = there
        return there.values()

    def enter(self, instance: Instance) -> None:
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

    def forget(self, instance: Instance) -> None:
        """Remove an instance."""
        self.begin_leaving(instance)
        del self.instances[instance.id]

    def note_change(self) -> None:
        """Note that an instance came or went, or that a version was stated: other instances may be at work now."""
        self._active = self._shares = None
        self._at_work.clear()
        for track in self.tracks.values():
            track.note_change()

    @property
    def exchange(self) -> Exchange | None:
        """The active version's exchange; None where it is a plug-in that this process does not have."""
        return self.exchanges.lookup(self.active.exchange)

    @property
    def exchange_pends(self) -> bool:
        exchange = self.exchange
        return exchange is None or exchange.pends

    # Numbers

    @property
    def leases(self) -> dict[int, Lease]:
        """All that its instances have in hand."""
        return {number: lease for instance in self.instances.values() for number, lease in instance.leases.items()}

    @property
    def copies(self) -> int:
        """The number of a fan-out's copies: in its instances' buffers, and held back."""
        held = [len(part.within(start, stored.stop)) for stored, start, parts in self.held for _, part in parts]
        return sum([instance.copied for instance in self.instances.values()]) + sum(held)

    def pending(self, end: int) -> int:
        """Return the number of events that are neither done nor in hand, and of a fan-out's copies."""
        return sum([track.pending(end) for track in self.tracks.values()]) + self.copies

    @property
    def delayed(self) -> int:
        """How many events wait until they are handed out again."""
        return sum([len(track.delayed) for track in self.tracks.values()])

    @property
    def settled(self) -> int:
        return sum([track.state.settled for track in self.tracks.values()]) + self.copies_handled

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

    def left(self, end: int) -> list[str]:
        """Return in words what a retirement would forget."""
        pending = sum([track.open(end) for track in self.tracks.values()])
        counts = (
            (pending, "pending event"),
            (len(self.dead), "dead letter"),
            (len(self.instances), "live instance"),
        )
        return [f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count]

    @property
    def flying(self) -> int:
        return sum(instance.in_flight for instance in self.instances.values())
