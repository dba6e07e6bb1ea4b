"""One live purpose: its state, its instances, and who has which events in hand.

The dispatcher decides when something is done; this file knows how it is kept. It never looks at a clock: `now` is
ns since 1970 wherever it is asked for, and never goes back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection, Sequence

import msgspec

from ..limits import Limits
from ..payload import field
from .backlog import Backlog, Lanes, Missing
from .effects import Join
from .exchange import Exchange, KeyOf, header_key, lookup
from .log import Log, Stored
from .process import Process
from .spans import Spans
from .state import Change, Letter, State, Statement

ROOM_NS = 100_000_000  # an instance holds about so much work
MAX_ROOM = 10_000  # events
MAX_CAREFUL = 1_000  # suspects handed out together the first time, then a tenth of it, and so on
MAX_ERROR = 4_000  # characters of a dead letter's error
STALL_NS = 500_000_000  # a fan-out instance that made no progress for so long does not keep up
MARGIN = 1024  # events, at least, by which it is noted ahead what may be handed out
PATIENCE_NS = 1_000_000_000  # that copies are held back, at most, for an instance that keeps up
MAX_HELD_BYTES = 64 << 20  # of batches whose copies are held back, of a purpose


class Instance(msgspec.Struct, eq=False):
    """A live registration. Its room follows the time its handler takes (`observe`)."""

    id: int
    join: Join
    room: int
    max_bytes: int
    process: Process
    used: int = 0
    in_flight: int = 0
    in_hand_bytes: int = 0
    quota: int = MAX_ROOM  # its part of what pends: however much room it has, the others get theirs
    alive_until: int = 0  # with events in hand; then its lease ends
    watched: bool = False
    silent: bool = False  # its lease ended: it gets nothing before it is heard of again
    leaving: bool = False  # it finishes what it began and gets nothing more
    leases: set[int] = msgspec.field(default_factory=set)
    # What a fan-out holds for it: (batch, from, to), the oldest first.
    copies: deque[tuple[Stored, int, int]] = msgspec.field(default_factory=deque)
    copied: int = 0
    copied_bytes: int = 0
    pace: int = 0  # events that its handler takes in `ROOM_NS`, as it last reported; 0 until it has
    moved_at: int = 0  # when it began with events, or last reported what became of some
    full_since: int = 0  # copies are held back for it; until it was through with all it had

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

    def take(self, lease: Lease) -> None:
        """The lease's events are in its hands."""
        self.leases.add(lease.id)
        self.in_flight += len(lease.positions)
        if lease.copies_of is None:
            self.process.in_hand += len(lease.positions)
        self.in_hand_bytes += len(lease.positions) * lease.event_bytes

    def put_down(self, lease: Lease, count: int) -> None:
        """So many of the lease's events are no more in its hands."""
        self.in_flight -= count
        if lease.copies_of is None:
            self.process.in_hand -= count
        self.in_hand_bytes -= count * lease.event_bytes

    def alive(self, now: int) -> None:
        """It was heard of: its leases run on."""
        self.silent = False
        self.alive_until = now + self.join.lease_ns

    def observe(self, handled: int, busy_ns: int) -> None:
        """Follow the pace: down at once, up by steps, so that one lucky measurement hoards nothing."""
        if handled:
            fits = min(MAX_ROOM, handled * ROOM_NS // max(1, busy_ns))
            self.pace = max(1, fits)
            self.room = max(self.join.room, min(fits, self.room * 16))

    def keeps_up_until(self, now: int, limits: Limits) -> int:
        """Until when it counts as one that does, unless it reports before: it is at work, or had nothing to do, and
        would be through a full buffer within a second, as far as is known. 0 where it does not."""
        if self.silent or self.leaving or 0 < self.pace * 10 < limits.copies:
            return 0
        until = (self.moved_at if self.leases else now) + STALL_NS
        return min(until, self.full_since + PATIENCE_NS) if self.full_since else until

    def space(self, limits: Limits) -> int:
        """How many copies its buffer takes before the oldest have to go; none where the next batch may be too large."""
        if self.copied and self.copied_bytes + limits.batch_bytes > limits.copy_bytes:
            return 0
        return max(0, limits.copies - self.copied)

    def buffer(self, stored: Stored, start: int, stop: int, limits: Limits) -> int:
        """Put copies of these events into its buffer; give how many of the oldest had to go."""
        first = stored.start
        self.copies.append((stored, start, stop))
        self.copied += stop - start
        self.copied_bytes += stored.batch.bytes_of(start - first, stop - first)
        dropped = 0
        while self.copied > limits.copies or self.copied_bytes > limits.copy_bytes:
            excess = max(self._oldest(self.copied_bytes - limits.copy_bytes), self.copied - limits.copies)
            dropped += len(self.unbuffer(excess)[1])
        return dropped

    def _oldest(self, size: int) -> int:
        """How many of the oldest copies have so many bytes, of those in the first batch; at least one."""
        stored, start, stop = self.copies[0]
        first, last = start - stored.start, stop - stored.start
        if size <= 0:
            return 1
        counts = range(1, last - first + 1)
        return 1 + bisect_left(counts, size, key=lambda count: stored.batch.bytes_of(first, first + count))

    def rebuffer(self, stored: Stored, positions: Spans) -> None:
        """Copies that it had in hand and did not begin with come first again."""
        for start, stop in reversed(list(positions)):
            self.copies.appendleft((stored, start, stop))
            self.copied += stop - start
            self.copied_bytes += stored.batch.bytes_of(start - stored.start, stop - stored.start)

    def unbuffer(self, most: int) -> tuple[Stored, range]:
        """Take the oldest copies out of its buffer, all of one batch."""
        stored, start, stop = self.copies.popleft()
        if stop - start > most:
            self.copies.appendleft((stored, start + most, stop))
            stop = start + most
        self.copied -= stop - start
        self.copied_bytes -= stored.batch.bytes_of(start - stored.start, stop - stored.start)
        if not self.copies:
            self.full_since = 0
        return stored, range(start, stop)


class Lease(msgspec.Struct, eq=False):
    """Events in an instance's hands. `counted`: their attempts were, before they were handed out."""

    id: int
    instance: Instance
    positions: Spans
    event_bytes: int  # of payload, about
    copies_of: Stored | None = None  # a fan-out's batch; else the events pend until they are settled
    counted: bool = False

    @property
    def pends(self) -> bool:
        return self.copies_of is None


class Purpose:
    """A purpose and its instances."""

    def __init__(self, state: State, *, reached: int | None, limits: Limits) -> None:
        self.state = state
        self._limits = limits
        self.instances: dict[int, Instance] = {}
        self.live: Counter[int] = Counter()  # version -> instances that do not leave
        self._attempts: Counter[int] = Counter()  # what instances state -> how many do
        self.margin = MARGIN
        self.leases: dict[int, Lease] = {}
        self.dropped = 0
        self.copies_handled = 0
        self.key_missing = 0  # events without a key that keyed handing out came upon
        self.keyless_to = 0  # those below were counted
        # Copies that are held back until those who keep up have room: (batch, from where on, whose they are).
        self.held: deque[tuple[Stored, int, list[tuple[int, Spans]]]] = deque()
        self.held_bytes = 0  # of those batches
        self.look_at = 0  # when to look at them again
        self.fetching = False
        # Positions from here on wait until the note that they may be handed out is durable. -1 while the purpose itself
        # is not; None where nothing ever is.
        self.reached = reached
        # May have been in a handler when something died: only for these is an attempt noted before it starts.
        self.suspects = Spans()
        self.careful = 0  # leases of suspects
        # Suspects that die if they are lost once more, set aside; and the process in which one of them has its turn.
        self.last_tries: deque[int] = deque()
        self.turn: Process | None = None
        self.delayed = set(state.due)
        # Once they are known; None again when that may have changed.
        self._active: Statement | None = None
        self._at_work: dict[int, Instance] | None = None
        self._backlog: Backlog | None = None
        self._backlog_of: tuple[str, str | None, bool] | None = None
        self._backlog_for: Statement | None = None  # the statement by which it was found to be right

    @property
    def key(self) -> tuple[str, str]:
        return self.state.topic, self.state.purpose

    # Versions

    @property
    def active(self) -> Statement:
        """What the version that gets the events states: the highest with a live instance, else the highest known."""
        if self._active is None:
            self._active = self.state.statements[max(+self.live or self.state.statements)]
        return self._active

    @property
    def at_work(self) -> Collection[Instance]:
        """The instances of the active version that do not leave."""
        if self._at_work is None:
            active = self.active.version
            there = self.instances.items()
            self._at_work = {id: each for id, each in there if each.version == active and not each.leaving}
        return self._at_work.values()

    def enter(self, instance: Instance) -> None:
        """It is there from now on."""
        self.instances[instance.id] = instance
        self.live[instance.version] += 1
        self._attempts[instance.join.retry.attempts] += 1
        self.note_change()

    def begin_leaving(self, instance: Instance) -> None:
        """It gets nothing more."""
        if not instance.leaving:
            instance.leaving = True
            self.live[instance.version] -= 1
            at_work = self._at_work
            if at_work is not None and self.live[instance.version]:  # else another version may have its turn
                at_work.pop(instance.id, None)
            else:
                self.note_change()

    def forget(self, instance: Instance) -> None:
        """It is gone."""
        self.begin_leaving(instance)
        del self.instances[instance.id]
        attempts = instance.join.retry.attempts
        self._attempts[attempts] -= 1
        if not self._attempts[attempts]:
            del self._attempts[attempts]

    def note_change(self) -> None:
        """An instance came, or a version was stated, or has none any more: others may be at work now."""
        self._active = self._at_work = None

    @property
    def exchange(self) -> Exchange | None:
        """The active version's; None where it is a plug-in that this process does not have."""
        return lookup(self.active.exchange)

    @property
    def exchange_pends(self) -> bool:
        exchange = self.exchange
        return exchange is None or exchange.pends

    # What is next

    def next(
        self, end: int, most: int, log: Log, ready: Sequence[Instance] = ()
    ) -> tuple[Stored, Sequence[int], bool] | Missing | None:
        """Take up to `most` events that can go out now, to those who are `ready`, and whether to be careful with
        them."""
        if len(self.delayed) >= self._limits.waiting:
            return None
        backlog = self.backlog
        if backlog is None:
            return None
        if self.reached is not None and end > self.reached:
            end = self.reached
        found = backlog.next(end, most, log, patient=bool(ready) and self._patient(backlog, ready))
        if found is None or isinstance(found, Missing):
            return found
        stored, picks = found
        if not self.suspects:
            return stored, picks, False
        count = self._carefully(picks)
        if count < len(picks):
            backlog.back(Spans.of(picks[count:]))
        return (stored, picks[:count], picks[0] in self.suspects) if count else None

    def _patient(self, backlog: Backlog, ready: Sequence[Instance]) -> bool:
        """Whether the next events of some keys had better go together with more of them: each instance has much more in
        hand than those, and they would only wait there. Their next reports look again."""
        if not isinstance(backlog, Lanes):
            return False
        most = 4 * backlog.ready
        return all(instance.in_flight > max(most, 2 * instance.join.room) for instance in ready)

    def _carefully(self, picks: Sequence[int]) -> int:
        """How many of `picks` may go out together: suspects apart from others and in ever smaller groups, and those
        that were tried twice one group at a time, so that one that kills its process is soon alone. Those that may be
        tried but once more go apart."""
        tried, suspects = self.state.tried, self.suspects
        if picks[0] not in suspects:
            return next((at for at, position in enumerate(picks) if position in suspects), len(picks))
        last = self.is_last_try(picks[0])
        times = tried.get(picks[0], 0)
        if not last and times > 1 and self.careful:
            return 0
        several = picks if last else picks[: max(1, MAX_CAREFUL // 10**times)]
        return next(
            (n for n, position in enumerate(several) if position not in suspects or tried.get(position, 0) != times),
            len(several),
        )

    def take_keyless(self) -> tuple[list[int], int]:
        """The events without a key that `next` came upon, and how many of them are new."""
        backlog = self._backlog
        if not isinstance(backlog, Lanes) or not backlog.keyless:
            return [], 0
        found, backlog.keyless = backlog.keyless, []
        new = sum([position >= self.keyless_to for position in found])
        self.key_missing += new
        self.keyless_to = max(self.keyless_to, found[-1] + 1)
        return found, new

    @property
    def attempts(self) -> int:
        """How often an event may be tried."""
        return min(self._attempts)

    def is_last_try(self, position: int) -> bool:
        """Whether the next attempt of an event is its last, or none is left."""
        return self.state.tried.get(position, 0) + 1 >= self.attempts

    @property
    def backlog(self) -> Backlog | None:
        """What is next, by the active exchange. None while what another exchange handed out is still in flight."""
        statement = self.active
        if self._backlog_for is statement:
            return self._backlog
        exchange = self.exchange
        by = (
            "keyed" if exchange is not None and exchange.keyed else "",
            statement.key,
            statement.key_missing == "reject",
        )
        if self._backlog is None or self._backlog_of != by:
            if self._backlog_of not in (None, by) and self.in_flight():
                return None
            self._backlog, self._backlog_of = self._begin(by), by
        self._backlog_for = statement
        return self._backlog

    def _begin(self, by: tuple[str, str | None, bool]) -> Backlog:
        in_flight = self.in_flight()
        self.last_tries.clear()  # it comes upon them again
        if not by[0]:
            return Backlog(self.state, in_flight, self.delayed)
        old = self._backlog
        keys = old.keys if isinstance(old, Lanes) and self._backlog_of == by else None
        return Lanes(self.state, in_flight, self.delayed, self._limits.waiting, key_of(by[1]), by[2], keys)

    def rewind(self) -> None:
        """The state was reopened behind the backlog's back: look again from the floor on."""
        if self._backlog is not None and self._backlog_of is not None:
            self._backlog = self._begin(self._backlog_of)

    def in_flight(self) -> Spans:
        spans = Spans()
        for lease in self.leases.values():
            if lease.pends:
                spans.update(lease.positions)
        return spans

    # What happened

    def apply(self, change: Change) -> Change:
        """Apply a change, and tell the backlog what is done with."""
        self.state.apply(change)
        if change.stated:
            self.note_change()
        if change.copied_until is not None:
            self.rewind()
        for waiting in change.waiting:
            self.delayed.add(waiting.position)
        if self._backlog is not None:
            if change.settled:
                self._backlog.finish(change.settled)
            if change.skipped:
                self._backlog.finish(change.skipped)
            if change.dead:
                self._backlog.finish(Spans.of(letter.position for letter in change.dead))
        if change.skipped:
            self.delayed.intersection_update(self.state.due)
            self.suspects.difference_update(change.skipped)
        return change

    def give_back(self, positions: Spans, *, suspicious: bool) -> None:
        if suspicious:
            self.suspects.update(positions)
        if self._backlog is not None:
            self._backlog.back(positions)

    def due(self, position: int) -> None:
        self.delayed.discard(position)
        if self._backlog is not None:
            self._backlog.due(position)

    # Numbers

    @property
    def copies(self) -> int:
        """Of a fan-out: in its instances' buffers, and held back."""
        held = [len(part.within(start, stored.stop)) for stored, start, parts in self.held for _, part in parts]
        return sum([instance.copied for instance in self.instances.values()]) + sum(held)

    def pending(self, end: int) -> int:
        """Events that are not done with and in nobody's hands, and a fan-out's copies."""
        in_hand = sum([len(lease.positions) for lease in self.leases.values() if lease.pends])
        return self.state.pends_until(end) - self.state.floor - len(self.state.done) - in_hand + self.copies

    def left(self, end: int) -> list[str]:
        """What a retirement would forget, in words."""
        pending = len(self.state.pending(end))
        counts = (
            (pending, "pending event"),
            (len(self.state.dead), "dead letter"),
            (len(self.instances), "live instance"),
        )
        return [f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count]

    @property
    def flying(self) -> int:
        return sum(instance.in_flight for instance in self.instances.values())


def letter_of(position: int, tried: int, now: int, error: str) -> Letter:
    """A dead letter. Of its error so much is kept as somebody would read."""
    return Letter(position, tried, now, error[:MAX_ERROR])


def key_of(path: str | None) -> KeyOf:
    """How a purpose that names its key by this path, or by none, reads an event's key."""
    if path is None:
        return header_key
    read = field(path)
    return lambda batch, index: read(batch.payload(index), batch.content(index))
