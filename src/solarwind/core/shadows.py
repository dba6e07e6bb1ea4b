"""Shadows: versions that get a copy of what the current one gets, so that what the two make of it can be compared.

A shadow has a track of its own, which is in none of its purpose's: so nothing of it is counted, waited for or
committed, and nothing is kept in the log for it. It has the batches of its copies itself, in a buffer as bounded as a
fan-out instance's, and goes without what it is too slow for, or has no instance for. What its handlers fire is dropped.

An event is compared by what each of the two made of it the first time, once both have. Most of it is settled and
nothing was fired: of that there are only spans.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from ..batch import Batch
from ..limits import Limits
from .effects import Failure, Report
from .instance import MAX_LAST_ERROR, Lease
from .log import Stored
from .spans import Spans
from .state import Change, Creation, State
from .track import Track

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .limiter import Limiter
    from .purpose import Purpose

MAX_DIFFERENCES = 1_000  # that are kept of a purpose, the last ones
MAX_FIRED = 5  # events that are shown of what a handler fired
MAX_PAYLOAD = 100  # bytes that are shown of each

Verdict = Literal["settled", "failed", "rejected", "later", "lost", "expired"]
_VERDICTS: dict[str, Verdict] = {"retry": "failed", "reject": "rejected", "later": "later"}


class FiredEvent(msgspec.Struct, frozen=True):
    """An event that a handler fired, and the beginning of its payload."""

    topic: str
    key: str | None
    payload: bytes


class Result(msgspec.Struct, frozen=True):
    """What a version made of an event: `fired` has the first events of those that its handler fired, `count` how many
    these are, and `mark` is the same for the same ones."""

    verdict: Verdict
    error: str = ""
    fired: tuple[FiredEvent, ...] = ()
    count: int = 0
    mark: int = 0

    def agrees_with(self, other: Result) -> bool:
        return (self.verdict, self.count, self.mark) == (other.verdict, other.count, other.mark)


class Difference(msgspec.Struct, frozen=True):
    """An event of which the current version and a shadow made different things, and when that was seen."""

    version: int
    id: str
    time: int
    current: Result
    shadow: Result


_PLAIN = Result("settled")
_EXPIRED = Result("expired", "it expired before it was handed out")
_LOST = Result("lost", "its instance was lost with the event in hand")


class Side:
    """What one of the two made of events that the other has not reported yet: `plain` are settled, and nothing was
    fired for them; `odd` has the results of others."""

    def __init__(self) -> None:
        self.plain = Spans()
        self.odd: dict[int, Result] = {}

    def pop(self, position: int) -> Result | None:
        """Remove and return the result of an event, if there is one."""
        if position in self.plain:
            self.plain.remove(position, position + 1)
            return _PLAIN
        return self.odd.pop(position, None)

    def forget(self, positions: Spans) -> None:
        self.plain.difference_update(positions)
        for position in [each for each in self.odd if each in positions]:
            del self.odd[position]

    def __len__(self) -> int:
        return len(self.plain) + len(self.odd)

    def limit(self, max_count: int) -> int:
        """Forget the older half of it where it is too much. Return how many that is."""
        if len(self) <= max_count:
            return 0
        there = Spans.of(self.odd)
        there.update(self.plain)
        older = there.first(len(there) // 2)
        self.forget(older)
        return len(older)


class Shadow:
    """One version that is a shadow: its copies, and what came of them."""

    def __init__(self, purpose: Purpose, version: int, since: int, limits: Limits) -> None:
        """It gets what is accepted from position `since` on."""
        state = State(*purpose.key)
        state.apply(Change(*purpose.key, created=Creation(since)))
        self.version = version
        self.track = Track(purpose, state, reached=None, limits=limits, shadow=self)
        self.end = since  # of what it got
        self.compared = self.differed = self.missed = 0  # events
        self.limiter: Limiter | None = None  # made when first needed
        self._purpose = purpose
        self._limits = limits
        self._buffer: list[Stored] = []
        self._events = self._bytes = 0  # in it
        self._current, self._own = Side(), Side()

    @property
    def in_hand(self) -> int:
        return sum([len(lease.positions) for lease in self.track.leases.values()])

    @property
    def waiting(self) -> int:
        """How many results of one of the two wait for the other's."""
        return len(self._current) + len(self._own)

    # Its copies

    def find(self, topic: str, position: int) -> Stored | None:
        """Return the batch of a copy: see `Log`."""
        at = bisect_right(self._buffer, position, key=lambda stored: stored.start) - 1
        return self._buffer[at] if at >= 0 and position < self._buffer[at].stop else None

    def add(self, stored: Stored) -> None:
        """Add a copy of what was just accepted. Where that is too much the older half of what is there goes, and where
        there is no instance all of it."""
        self.end = stored.stop
        self._buffer.append(stored)
        self._events += stored.batch.count
        self._bytes += len(stored.batch.data)
        done, limits = self.track.state.floor, self._limits
        self._drop(next((at for at, each in enumerate(self._buffer) if each.stop > done), len(self._buffer)))
        if not self._purpose.live[self.version]:
            self._skip(len(self._buffer))
        elif self._events > limits.copies or self._bytes > limits.copy_bytes:
            at, events, size = 0, self._events, self._bytes
            while at < len(self._buffer) - 1 and (events > limits.copies // 2 or size > limits.copy_bytes // 2):
                events -= self._buffer[at].batch.count
                size -= len(self._buffer[at].batch.data)
                at += 1
            self._skip(at)

    def _drop(self, count: int) -> None:
        for stored in self._buffer[:count]:
            self._events -= stored.batch.count
            self._bytes -= len(stored.batch.data)
        if count:
            del self._buffer[:count]

    def _skip(self, count: int) -> None:
        """Go on without the oldest batches."""
        gone = self._undone(self._buffer[count - 1].stop if count else 0)
        self.missed += sum(
            [len(gone.common(Spans.of(self.track.own_positions(each)))) for each in self._buffer[:count]]
        )
        self._drop(count)
        self._go_without(gone)

    def skip_from(self, position: int) -> None:
        """Go on without what is in no batch that is there, from a position on."""
        at = bisect_right(self._buffer, position, key=lambda stored: stored.start)
        gone = self._undone(self._buffer[at].start if at < len(self._buffer) else self.end)
        gone.remove(0, position)
        self.missed += len(gone)
        self._go_without(gone)

    def _undone(self, until: int) -> Spans:
        undone = self.track.state.pending(until)
        undone.difference_update(self.track.in_flight())
        return undone

    def _go_without(self, gone: Spans) -> None:
        self.track.apply(Change(*self.track.key, skipped=gone))
        self.track.rewind()  # also where nothing is gone, so that the same is not looked for again
        self._current.forget(gone)

    # What came of them

    def note(
        self, plain: Spans, odd: dict[int, Result], stored: Stored, now: int, *, own: bool
    ) -> Iterator[Difference]:
        """Note what the shadow itself, or the current version, made of events, and yield what differs."""
        mine, other = (self._own, self._current) if own else (self._current, self._own)
        rest = plain.copy()
        same = other.plain.common(rest)
        if same:
            self.compared += len(same)
            other.plain.difference_update(same)
            rest.difference_update(same)
        results = dict(odd)
        for known in (other.odd, mine.odd) if rest else ():
            for position in [each for each in known if each in rest]:
                rest.remove(position, position + 1)
                results[position] = _PLAIN
        for position, result in results.items():
            theirs = other.pop(position)
            if theirs is not None:
                self.compared += 1
                if not result.agrees_with(theirs):
                    self.differed += 1
                    pair = (theirs, result) if own else (result, theirs)
                    yield Difference(self.version, stored.batch.id(position - stored.start), now, *pair)
            elif (own or self._waits_for(position)) and position not in mine.plain:
                mine.odd.setdefault(position, result)
        if not own:
            state = self.track.state
            rest.remove(0, state.floor)
            rest.difference_update(state.done)
        mine.plain.update(rest)
        self.missed += mine.limit(self._limits.copies) if own else 0

    def note_expired(self, gone: Spans) -> None:
        """Note that copies expired before they could be handed out: it was too slow for them."""
        self.missed += len(gone)
        self._current.forget(gone)

    def _waits_for(self, position: int) -> bool:
        """Return whether the shadow may yet report an event."""
        state = self.track.state
        return position >= state.floor and position not in state.done


class Shadows:
    """The shadows of all purposes of a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def note_change(self, purpose: Purpose, end: int) -> None:
        """Begin and end shadows as the rollout says, at the topic's end."""
        wanted = purpose.main.state.rollout.shadows
        for version in [version for version in purpose.shadows if version not in wanted]:
            ended = purpose.shadows.pop(version)
            ended.track.delay = ended.limiter = None  # so that its timers find nothing to do
        for version in wanted:
            if version not in purpose.shadows:
                shadow = purpose.shadows[version] = Shadow(purpose, version, end, self._dispatcher.limits)
                self._dispatcher.delays.note_change(shadow.track, end)

    def hand_out(self, purpose: Purpose, fresh: Stored | None, now: int) -> None:
        """Copy what was just accepted, and hand out what there is."""
        for shadow in list(purpose.shadows.values()):
            if fresh is not None:
                shadow.add(fresh)
            self._dispatcher.exchange(shadow.track, now)

    def has(self, report: Report) -> bool:
        """Return whether a report is about a shadow's copies."""
        found = self._dispatcher.instances.get(report.instance)
        lease = found[0].leases.get(report.lease) if found is not None else None
        return lease is not None and lease.shadow is not None

    def compare(
        self, lease: Lease, done: Spans, failed: list[Failure], fired: Collection[Batch], now: int
    ) -> tuple[Spans, list[Failure]]:
        """Compare what became of events of a lease. Return what of it counts: nothing of what a shadow did, which is
        done with an event whatever came of it."""
        track = lease.track
        assert track is not None
        if lease.stored is not None and (track.shadow is not None or track.number == 0):
            plain, odd = _results(lease.stored, done, failed, fired)
            self._note(track, plain, odd, lease.stored, now)
        if track.shadow is None:
            return done, failed
        over = done.copy()
        over.update(Spans.of([failure.position for failure in failed]))
        if over:
            self._dispatcher.change(track, Change(*track.key, settled=over))
        return Spans(), []

    def _note(self, track: Track, plain: Spans, odd: dict[int, Result], stored: Stored, now: int) -> None:
        purpose, own = track.purpose, track.shadow is not None
        for shadow in [track.shadow] if track.shadow is not None else purpose.shadows.values():
            for difference in shadow.note(plain, odd, stored, now, own=own):
                if purpose.differences is None:
                    purpose.differences = deque(maxlen=MAX_DIFFERENCES)
                purpose.differences.append(difference)

    def expired(self, track: Track, gone: Spans, stored: Stored, now: int) -> None:
        """Note that events of a track expired before they could be handed out."""
        if track.shadow is not None:
            track.shadow.note_expired(gone)
        elif track.number == 0 and track.purpose.shadows:
            self._note(track, Spans(), dict.fromkeys(gone.positions(), _EXPIRED), stored, now)

    def lost(self, lease: Lease, now: int) -> None:
        """Note that a shadow's instance was lost: that is what became of its copies."""
        assert lease.track is not None
        if lease.stored is not None:
            odd = dict.fromkeys(lease.positions.positions(), _LOST)
            self._note(lease.track, Spans(), odd, lease.stored, now)
        self._dispatcher.change(lease.track, Change(*lease.track.key, settled=lease.positions.copy()))


def copies_in_hand(purpose: Purpose, version: int) -> int:
    """Return how many copies the instances of a version have in hand."""
    instances = [each for each in purpose.instances.values() if each.version == version]
    leases = [lease for each in instances for lease in each.leases.values()]
    return sum([len(lease.positions) for lease in leases if lease.shadow is not None])


def _results(
    stored: Stored, done: Spans, failed: list[Failure], fired: Collection[Batch]
) -> tuple[Spans, dict[int, Result]]:
    """Return which events are settled and nothing was fired for them, and the results of the others. What handlers
    fired belongs to the event that is its cause; of a single event all of it."""
    odd = {each.position: Result(_VERDICTS[each.verdict], each.error[:MAX_LAST_ERROR]) for each in failed}
    if not fired or not done:
        return done, odd
    by_cause: dict[str, list[tuple[Batch, int]]] = {}
    for batch in fired:
        for index in range(batch.count):
            cause = batch.cause(index).id if len(done) > 1 else ""
            by_cause.setdefault(cause, []).append((batch, index))
    plain = done.copy()
    for position in done.positions():
        its = by_cause.get(stored.batch.id(position - stored.start) if len(done) > 1 else "")
        if its:
            plain.remove(position, position + 1)
            odd[position] = _with_fired(its)
    return plain, odd


def _with_fired(fired: list[tuple[Batch, int]]) -> Result:
    """Return the result of a handler that fired these. The order of those on one topic counts."""
    fired.sort(key=lambda each: each[0].topic)
    events = [(batch.topic, batch.key(index), batch.content(index), batch.payload(index)) for batch, index in fired]
    shown = tuple([FiredEvent(topic, key, payload[:MAX_PAYLOAD]) for topic, key, _, payload in events[:MAX_FIRED]])
    return Result("settled", "", shown, len(events), hash(tuple(events)))
