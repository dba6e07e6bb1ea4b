"""A part of a purpose's events, and what becomes of it: its state, what is next, and which instance has what in hand.

A purpose has one track for all its events, except those in a version's own share, which has a track of its own. A track
has a state, a backlog and an exchange of its own, so that versions with different exchanges are at work side by side.

The dispatcher decides when something is done; this file knows how it is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil
from typing import TYPE_CHECKING

from ..limits import Limits
from .backlog import Backlog, Lanes, Missing
from .exchange import Exchange, key_of
from .instance import Instance, Lease
from .limiter import Limiter
from .log import Log, Stored
from .process import Process
from .rollout import Split, Walk
from .spans import Spans
from .state import Change, Letter, State, Statement

if TYPE_CHECKING:
    from .delay import Delay
    from .purpose import Purpose
    from .shadows import Shadow

MAX_SUSPECTS = 1_000  # that are handed out together the first time, then a tenth of it, and so on
MAX_ERROR = 4_000  # characters of a dead letter's error
MAX_ERRORS = 1_000  # events that wait for a retry whose last error is known, the last ones,
BRIEF_ERROR = 300  # and so many characters of it
MARGIN = 1024  # events, at least, by which it is noted ahead what may be handed out


class Track:
    """A track of a purpose."""

    def __init__(
        self, purpose: Purpose, state: State, *, reached: int | None, limits: Limits, shadow: Shadow | None = None
    ) -> None:
        """With `shadow` it has copies of the events of track 0, and nothing of it is committed."""
        self.purpose = purpose
        self.shadow = shadow
        self.state = state
        self.number = state.track
        self.topic = state.topic
        self.key = (state.topic, state.purpose, state.track)
        self._limits = limits
        self.leases: dict[int, Lease] = {}
        self.margin = MARGIN
        self.left_out = 0  # expired events, since other work had its turn
        self.key_missing = 0  # events without a key that keyed handing out came upon
        self.keyless_to = 0  # those below were counted
        self.fetching = False
        self.blocked = False  # others are to be done first with what came before: see `barrier`
        # Positions from here on wait until the note that they may be handed out is durable. -1 while the track itself
        # is not; None where nothing ever is.
        self.reached = reached
        # May have been in a handler when something died: only for these is an attempt counted before it starts.
        self.suspects = Spans()
        self.counted_leases = 0  # of suspects
        # Suspects that die if they are lost once more, set aside; and the process that is chosen for one of them.
        self.last_attempts: list[int] = []
        self.chosen: Process | None = None
        self.retrying = set(state.due)  # their wait for a retry is not over
        self.errors: dict[int, str] = {}  # of these, the last errors that this process heard of
        self.delay: Delay | None = None  # where its events wait for the purpose's own delay
        self._statement: Statement | None = None  # once it is known; None again when that may have changed
        self._backlog: Backlog | None = None
        self._backlog_of: tuple[str, str | None, bool] | None = None
        self._backlog_for: Statement | None = None  # the statement by which it was found to be right

    # The instances that are at work for it

    @property
    def statement(self) -> Statement:
        """The statement of the version that is at work for it: its own while that has a share, or where the events
        were redriven into it, or are copies for it, else the active one's."""
        if self._statement is None:
            purpose = self.purpose
            own = self.number in purpose.shares or self.number < 0
            self._statement = purpose.statements[abs(self.number)] if own else purpose.active
            if self.shadow is not None:
                self._statement = purpose.statements[self.shadow.version]
        return self._statement

    def note_change(self) -> None:
        """Note that other instances may be at work for it now."""
        self._statement = None

    @property
    def exchange(self) -> Exchange | None:
        """That version's exchange; None where it is a plug-in that this process does not have."""
        return self.purpose.exchanges.lookup((self._statement or self.statement).exchange)

    @property
    def instances(self) -> Collection[Instance]:
        """The instances of that version that are not leaving."""
        return self.purpose.at_work((self._statement or self.statement).version)

    @property
    def limits(self) -> Statement:
        """The statement whose limits hold: that of the current version for all of the purpose, and a shadow's own."""
        return self.purpose.active if self.shadow is None else self.statement

    @property
    def limiter(self) -> Limiter | None:
        """What is left of the limits; None where there are none."""
        if not self.limits.is_limited:
            return None
        owner = self.purpose if self.shadow is None else self.shadow
        if owner.limiter is None:
            owner.limiter = Limiter(self.purpose.main.state.limited_until if self.shadow is None else 0)
        return owner.limiter

    # Its share of the log

    @property
    def splits(self) -> list[Split]:
        """The shares that there are, each from some position on; none of what was redriven into a version."""
        return self.purpose.main.state.rollout.splits if self.number >= 0 else []

    def note_split(self) -> bool:
        """Note that there is another split. Return whether the track has passed events of others that have to be
        written down, so that nothing waits for it there."""
        backlog = self._backlog
        if backlog is None or self.number < 0:
            return False
        if backlog.walk is None:
            backlog.walk = self._walk()
        return backlog.walk.note_split()

    def _walk(self) -> Walk:
        return Walk(self.number, self.purpose.division)

    def own_positions(self, stored: Stored) -> Sequence[int]:
        """Return the positions of a batch that are in the track."""
        if not self.splits:
            return range(stored.start, stored.stop)
        found, at = Spans(), stored.start
        while at < stored.stop:
            at, own = self.purpose.division.own(self.number, stored, at, stored.stop, len(stored.batch))
            found.update(own)
        return found.positions()

    def barrier(self, end: int) -> int:
        """Return where the track has to stop. Keys may have been in other tracks up to a split, and those events have
        to be done first. Nor does the track go back before a split, by a replay, while others have later events in
        hand."""
        if isinstance(self._backlog, Lanes):
            others = [track for track in self.purpose.tracks.values() if track is not self]
            for split in self.splits:
                if self._is_behind(split) and any(each._has_in_hand(split) for each in others):
                    self.blocked = True
                    return 0
                if split.since < end and any(each._is_behind(split) for each in others):
                    self.blocked = True
                    return split.since
        return end

    def _is_behind(self, split: Split) -> bool:
        """Return whether something from before a split is not done."""
        return self.state.open_from(split.since) < split.since

    def _has_in_hand(self, split: Split) -> bool:
        """Return whether instances have something from after a split in hand."""
        return any(edge > split.since for lease in self.leases.values() for edge in lease.positions.edges[-1:])

    # What is next

    def next(
        self, end: int, max_count: int, log: Log, ready: Sequence[Instance] = ()
    ) -> tuple[Stored, Sequence[int], bool] | Missing | None:
        """Claim up to `max_count` events that can go out now to the instances that are `ready`. Return them, and
        whether they are suspects."""
        if len(self.retrying) >= self._limits.waiting:
            return None
        backlog = self.backlog
        if backlog is None:
            return None
        if self.reached is not None and end > self.reached:
            end = self.reached
        if backlog.walk is not None and self.shadow is None:
            end = self.barrier(end)
        patient = isinstance(backlog, Lanes) and bool(ready) and self._patient(backlog, ready)
        found = backlog.next(end, max_count, log, patient=patient)
        if found is None or isinstance(found, Missing):
            return found
        stored, picks = found
        if not self.suspects:
            return stored, picks, False
        count = self._together(picks)
        if count < len(picks):
            backlog.unclaim(Spans.of(picks[count:]))
        return (stored, picks[:count], picks[0] in self.suspects) if count else None

    def _patient(self, backlog: Lanes, ready: Sequence[Instance]) -> bool:
        """Return whether the next events of some keys should wait for more of them: each instance has much more in hand
        than those, and they would only wait there. The instances' next reports look again."""
        max_count = 4 * backlog.ready
        return all(instance.in_flight > max(max_count, 2 * instance.join.room) for instance in ready)

    def _together(self, picks: Sequence[int]) -> int:
        """Return how many of `picks` may go out together. Suspects go apart from others and in ever smaller groups, and
        those that were tried twice one group at a time, so that one that kills its process is soon alone. Those that
        may be tried only once more go apart."""
        tried, suspects = self.state.tried, self.suspects
        if picks[0] not in suspects:
            return next((at for at, position in enumerate(picks) if position in suspects), len(picks))
        last = self.is_last_attempt(picks[0])
        times = tried.get(picks[0], 0)
        if not last and times > 1 and self.counted_leases:
            return 0
        several = picks if last else picks[: max(1, MAX_SUSPECTS // 10**times)]
        return next(
            (n for n, position in enumerate(several) if position not in suspects or tried.get(position, 0) != times),
            len(several),
        )

    def pop_keyless(self) -> tuple[list[int], int]:
        """Remove and return the events without a key that `next` found, and how many of them are new."""
        backlog = self._backlog
        if not isinstance(backlog, Lanes) or not backlog.keyless:
            return [], 0
        found, backlog.keyless = backlog.keyless, []
        new = sum([position >= self.keyless_to for position in found])
        self.key_missing += new
        self.keyless_to = max(self.keyless_to, found[-1] + 1)
        return found, new

    def is_last_attempt(self, position: int) -> bool:
        """Return whether the next attempt of an event is its last, or none is left."""
        return self.state.tried.get(position, 0) + 1 >= self.statement.retry.attempts

    @property
    def backlog(self) -> Backlog | None:
        """What is next, by the active exchange. None while what another exchange handed out is still in flight."""
        statement = self._statement or self.statement
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
        in_flight, old = self.in_flight(), self._backlog
        self.last_attempts.clear()  # it comes upon them again
        new = Backlog(self.state, in_flight, self.retrying)
        if by[0]:
            keys = old.keys if isinstance(old, Lanes) and self._backlog_of == by else None
            new = Lanes(self.state, in_flight, self.retrying, self._limits.waiting, key_of(by[1]), by[2], keys)
        if self.splits:
            new.walk = self._walk()
        return new

    def rewind(self) -> None:
        """Look again from the floor on, because events of the state were reopened."""
        if self.delay is not None:
            self.delay.look_again()
        if self._backlog is not None and self._backlog_of is not None:
            self._backlog = self._begin(self._backlog_of)

    def in_flight(self) -> Spans:
        spans = Spans()
        for lease in self.leases.values():
            spans.update(lease.positions)
        return spans

    # What happened

    def apply(self, change: Change) -> Change:
        """Apply a change, and tell the backlog what is done."""
        walk = self._backlog.walk if self._backlog is not None else None
        if walk is not None:
            walk.finish(change.settled)  # of what is skipped it begins anew
            walk.finish(change.expired)
            if change.dead:
                walk.finish(Spans.of(letter.position for letter in change.dead))
            change.passed.update(walk.pop_passed())
        self.state.apply(change)
        if change.dead:
            self.purpose.died += len(change.dead)
        if change.stated or change.rollout is not None:
            self.purpose.note_change()
        if change.copied_until is not None:
            self.rewind()
        for waiting in change.waiting:
            self.retrying.add(waiting.position)
        if self._backlog is not None:
            if change.settled:
                self._backlog.finish(change.settled)
            if change.skipped:
                self._backlog.finish(change.skipped)
            if change.expired:
                self._backlog.finish(change.expired)
            if change.dead:
                self._backlog.finish(Spans.of(letter.position for letter in change.dead))
        if change.skipped:
            self.retrying.intersection_update(self.state.due)
            self.suspects.difference_update(change.skipped)
        if change.expired and self.suspects:
            self.suspects.difference_update(change.expired)
        if change.passed and self.suspects:
            self.suspects.difference_update(change.passed)
        return change

    def give_back(self, positions: Spans, *, suspicious: bool) -> None:
        if suspicious:
            self.suspects.update(positions)
        if self._backlog is not None:
            self._backlog.unclaim(positions)

    def note_error(self, position: int, error: str) -> None:
        """Note why an event waits for a retry, for operators: it is in no state."""
        self.errors.pop(position, None)
        self.errors[position] = error[:BRIEF_ERROR]
        if len(self.errors) > MAX_ERRORS:
            del self.errors[next(iter(self.errors))]

    def end_wait(self, position: int) -> None:
        self.retrying.discard(position)
        self.errors.pop(position, None)
        if self._backlog is not None:
            self._backlog.end_wait(position)

    def end_waits(self) -> None:
        """End the waits of all events at once."""
        ended = sorted(self.retrying)
        self.retrying.clear()
        self.errors.clear()
        if self._backlog is not None:
            self._backlog.end_waits(ended)

    # One event

    def pends(self, stored: Stored, position: int, end: int) -> bool:
        """Return whether the event at this position of a batch is in the track, and not done."""
        state = self.state
        if not state.floor <= position < state.pends_until(end) or position in state.done:
            return False
        return not self.splits or position in self.own_positions(stored)

    def place(self, position: int) -> int:
        """Return at which place an event pends, from 1 on: behind those before it that pend and that nobody has in
        hand. Where there are other tracks, what the track has not come to yet counts by its share."""
        ahead = self.state.pending(position)
        ahead.difference_update(self.in_flight())
        return 1 + (min(len(ahead), self._share_of(self.state.floor, position)) if self.splits else len(ahead))

    # Numbers

    def pending(self, end: int) -> int:
        """Return the number of events that are neither done nor in hand."""
        return self.not_done(end) - sum([len(lease.positions) for lease in self.leases.values()])

    def not_done(self, end: int) -> int:
        """Return the number of events that are not done. Where there are other tracks, what it has not come to yet
        counts by its share. It is 0 exactly where none is left, once the track has gone on to its first."""
        state = self.state
        if self.number < 0:
            return len(state.pending(end))
        until = state.pends_until(end)
        if not self.splits:
            return until - state.floor - len(state.done)
        backlog = self._backlog
        if backlog is None or backlog.walk is None:
            return self._share_of(state.floor, until)
        seen, stop, count = backlog.counted
        ahead = min(max(state.floor, seen), until)
        near = ahead - state.floor - len(state.done.within(state.floor, ahead)) - backlog.walk.unrecorded
        return near + count + self._share_of(max(stop, ahead), until)

    def is_over(self, end: int) -> bool:
        """Return whether nothing is left of its events."""
        return not (self.leases or self.state.dead_count or self.not_done(end) > 0)

    def delayed(self, end: int, since: int | None = None) -> int:
        """Return how many events, of those that pend, wait for the purpose's delay: those from `since` on, or else
        those of which that is known."""
        if self.delay is None or self.state.copied_from is not None:
            return 0
        if since is None:
            since = self.delay.to if self.delay.waiting == self.delay.to else end
        since = max(self.state.floor, since)
        if since <= self.oldest_position:
            return max(0, self.pending(end))
        ahead = self.state.pending(end).within(since, max(since, end))
        ahead.difference_update(self.in_flight())
        return min(len(ahead), self._share_of(since, end), max(0, self.pending(end))) if self.splits else len(ahead)

    def has_due(self, end: int) -> bool:
        """Return whether events pend that do not wait for the purpose's delay, as far as that is known."""
        return self.pending(end) > 0 and (self.delay is None or self.oldest_position < self.delay.to)

    def waiting_copies(self, end: int) -> Spans:
        """Return the positions whose copies wait for the purpose's delay, and for which an instance is there."""
        delay = self.delay
        if delay is None or not 0 <= delay.copied < end or not self.instances:
            return Spans()
        return Spans((delay.copied, end))

    @property
    def oldest_position(self) -> int:
        """The position of its oldest event that is not done, where there is one."""
        walk = self._backlog.walk if self._backlog is not None else None
        return walk.beyond(self.state.floor) if walk is not None else self.state.floor

    def _share_of(self, start: int, stop: int) -> int:
        """Return about how many of these positions are in the track, and 0 only where none is."""
        splits, count = self.splits, 0
        bounds = [0, *(split.since for split in splits), stop]
        for at, shares in enumerate([{}, *(dict(split.shares) for split in splits)]):
            share = shares.get(self.number, 0.0) if self.number else 1.0 - sum(shares.values())
            count += ceil(share * max(0, min(stop, bounds[at + 1]) - max(start, bounds[at])))
        return count


def letter_of(position: int, tried: int, now: int, error: str, version: int) -> Letter:
    """Return a dead letter, with its error cut to a length that can be read."""
    return Letter(position, tried, now, error[:MAX_ERROR], version)
