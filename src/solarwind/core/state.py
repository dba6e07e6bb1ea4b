"""What is remembered of a track of a purpose: a value that can be written down, replayed and snapshotted.

Live work and recovery go one way: whatever happens to a track is a `Change`; applying it to the `State` is
the only way the state changes, and a store that kept the last snapshot and the changes since can apply
them again. Positions number a topic's events from 0 in the order accepted. Sets of positions are
written as their edges (see `Spans`); times are ns since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from ..failure import Retry
from .rollout import Rollout
from .spans import Spans

if TYPE_CHECKING:
    from .effects import Join

_NO_ROLLOUT = Rollout()  # of most purposes


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """What is stated of a version. The first instance states its exchange, for `keyed` which field is the key and what
    becomes of an event without one, the delay and the limits. The last instance that states it determines how it
    retries."""

    version: int
    exchange: str
    key: str | None = None
    key_missing: str = "handle"
    retry: Retry = Retry()
    delay_ns: int = 0  # from when an event was fired, or due, until it is handed out
    joined_at: int = 0  # when its first instance did; 0 where that is not known
    rate: str | None = None  # of the purpose while the version is current, such as "100/s"
    at_most: int | None = None  # likewise: events in flight

    @classmethod
    def of(cls, join: Join, before: Statement | None, now: int) -> Statement:
        """Return what an instance states that joins now; `before` is what the version stated before."""
        retry, joined_at = (before.retry, before.joined_at) if before is not None else (Retry(), now)
        return cls(
            join.version,
            join.exchange,
            join.key,
            join.key_missing,
            join.retry or retry,
            join.delay_ns,
            joined_at,
            join.rate,
            join.at_most,
        )

    @property
    def is_limited(self) -> bool:
        return self.rate is not None or self.at_most is not None

    def agrees_with(self, other: Statement) -> bool:
        """Return whether the two are the same except for how to retry, which may change while the version is at
        work, and for when that was."""
        return msgspec.structs.replace(self, retry=other.retry, joined_at=other.joined_at) == other

    def __str__(self) -> str:
        by = f" with key {self.key}" if self.key else ""
        missing = f" with key_missing={self.key_missing!r}" if self.key_missing != "handle" else ""
        delay = f" with delay={self.delay_ns / 1e9:.9g}" if self.delay_ns else ""
        rate = f" with rate={self.rate!r}" if self.rate is not None else ""
        at_most = f" with at_most={self.at_most}" if self.at_most is not None else ""
        return f"exchange {self.exchange!r}{by}{missing}{delay}{rate}{at_most}"


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """An event that is not handed out again before it is `due`."""

    position: int
    tried: int
    due: int


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """A dead letter: which event, how often it was tried, when it died and of what error, and which version gave it
    up."""

    position: int
    tried: int
    time: int
    error: str
    version: int


class Creation(msgspec.Struct, frozen=True, array_like=True):
    """A track is new: the position that it listens from, and, of track 0, when that was."""

    since: int
    at: int = 0


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """What tracks counted that are no more."""

    settled: int = 0
    retried: int = 0
    expired: int = 0
    died_at: int = 0


class Change(msgspec.Struct, array_like=True):
    """One change of a track. Its fields are applied in their order, and changes in the order in which they happened.

    Track 0 has all events of the purpose except those in other tracks, and what concerns the purpose as a
    whole: what its versions stated, which have a share of their own, and whether it is paused."""

    topic: str
    purpose: str
    track: int = 0
    created: Creation | None = None
    retired: bool = False
    stated: list[Statement] = msgspec.field(default_factory=list)
    rollout: Rollout | None = None
    copied_until: int | None = None  # the events before it were handed out as copies; from it on they pend
    copied_from: int | None = None  # the events from it on are handed out as copies: none of them pends
    reopened: list[int] = msgspec.field(default_factory=list)  # edges: pending again, by replay
    redriven: list[int] = msgspec.field(default_factory=list)  # edges: dead letters that pend again
    discarded: list[int] = msgspec.field(default_factory=list)  # edges: dead letters that are forgotten
    reach: int = 0  # positions below it may have been handed out
    started: list[tuple[int, int]] = msgspec.field(default_factory=list)  # (position, tried): counted before it starts
    waiting: list[Waiting] = msgspec.field(default_factory=list)
    settled: Spans = msgspec.field(default_factory=Spans)
    skipped: Spans = msgspec.field(default_factory=Spans)  # done with, but not handled: trimmed or lost
    dead: list[Letter] = msgspec.field(default_factory=list)
    retried: int = 0
    passed: Spans = msgspec.field(default_factory=Spans)  # in another track, and what is settled in between
    paused: int | None = None  # when, in ns since 1970; 0 when it is resumed
    expired: Spans = msgspec.field(default_factory=Spans)  # done with, but not handled: it was too late
    # With a delay, the copies of events before it may have been handed out; -1 where they are again as they come.
    copied_to: int | None = None
    limited_until: int = 0  # of track 0: by the rate the next event may be handed out then, in ns since 1970
    forgotten: list[int] = msgspec.field(default_factory=list)  # versions that are not known any more
    ended: Totals | None = None  # of tracks of those versions, which end in the same commit

    @property
    def only_settles(self) -> bool:
        """Whether events are settled by it, and nothing else changes."""
        return self == Change(self.topic, self.purpose, self.track, settled=self.settled)


class Snapshot(msgspec.Struct, array_like=True):
    """A state as a value, with all changes up to then in it."""

    topic: str
    purpose: str
    track: int
    statements: list[Statement]
    floor: int
    done: list[int]
    dead: list[int]
    waiting: list[Waiting]
    tried: list[tuple[int, int]]
    reach: int
    settled: int
    retried: int
    copied_from: int | None = None
    rollout: Rollout = _NO_ROLLOUT
    paused: int = 0
    created_at: int = 0
    died_at: int = 0
    expired: int = 0
    copied_to: int | None = None
    limited_until: int = 0


class State:
    """One track's state. `apply` is the only method that changes it."""

    __slots__ = (
        "copied_from",
        "copied_to",
        "created_at",
        "dead",
        "dead_count",
        "died_at",
        "done",
        "due",
        "expired",
        "floor",
        "limited_until",
        "paused",
        "purpose",
        "reach",
        "retried",
        "rollout",
        "settled",
        "statements",
        "topic",
        "track",
        "tried",
    )

    def __init__(self, topic: str, purpose: str, track: int = 0) -> None:
        self.topic = topic
        self.purpose = purpose
        self.track = track
        self.statements: dict[int, Statement] = {}
        self.rollout = _NO_ROLLOUT
        self.paused = 0  # since when the purpose is, in ns since 1970; 0 where it is not
        self.created_at = 0  # of track 0: when the purpose was, in ns since 1970; what was noted before is not of it
        self.floor = 0  # every position below is done
        self.done = Spans()  # done above the floor: settled, dead or skipped
        self.dead = Spans()
        self.dead_count = 0  # how many positions that are
        self.died_at = 0  # when the last of its dead letters died, in ns since 1970; 0 where none ever did
        self.due: dict[int, int] = {}  # waiting for a retry, or handed out again since
        self.tried: dict[int, int] = {}  # attempts already counted, where there were any
        self.reach = 0
        self.settled = 0
        self.retried = 0
        self.expired = 0  # events
        self.copied_from: int | None = None  # while its exchange does not pend: no event from here on does
        self.copied_to: int | None = None  # likewise, with a delay: copies of later events are to be handed out
        self.limited_until = 0  # of track 0: see `Change`

    def apply(self, change: Change) -> None:
        if change.created is not None:
            self.floor = self.reach = change.created.since
            self.created_at = change.created.at
        for statement in change.stated:
            self.statements[statement.version] = statement
        for version in change.forgotten:
            self.statements.pop(version, None)
        if change.rollout is not None:
            self.rollout = change.rollout
        if change.copied_until is not None and self.copied_from is not None:
            copies, self.copied_from = Spans.of(range(self.copied_from, change.copied_until)), None
            self.copied_to = None
            self._finish(copies)
        if change.copied_from is not None:
            self.copied_from = change.copied_from
        if change.reopened:
            self._reopen(Spans(change.reopened))
        if change.redriven:
            self._reopen(Spans(change.redriven))
        if change.discarded:
            self._forget_dead(Spans(change.discarded))
        if change.reach > self.reach:
            self.reach = change.reach
        for position, tried in change.started:
            self.due.pop(position, None)
            self._count(position, tried)
        for waiting in change.waiting:
            self.due[waiting.position] = waiting.due
            self._count(waiting.position, waiting.tried)
        self.settled += len(change.settled)
        self._finish(change.passed)  # what is settled may be in it, and then nothing is left to be done
        self._finish(change.settled)
        self._finish(change.skipped)
        if change.expired:
            self.expired += len(change.expired)
            self._finish(change.expired)
        for letter in change.dead:
            self._finish(Spans((letter.position, letter.position + 1)))
            self.dead_count += letter.position not in self.dead
            self.dead.add(letter.position, letter.position + 1)
            self.died_at = max(self.died_at, letter.time)
        self.retried += change.retried
        if change.paused is not None:
            self.paused = change.paused
        if change.copied_to is not None:
            self.copied_to = change.copied_to if change.copied_to >= 0 else None
        if change.limited_until:
            self.limited_until = change.limited_until
        if change.ended is not None:
            self.settled += change.ended.settled
            self.retried += change.ended.retried
            self.expired += change.ended.expired
            self.died_at = max(self.died_at, change.ended.died_at)

    def _forget_dead(self, spans: Spans) -> None:
        self.dead_count -= len(self.dead.common(spans))
        self.dead.difference_update(spans)

    def _count(self, position: int, tried: int) -> None:
        if tried:
            self.tried[position] = tried
        else:
            self.tried.pop(position, None)

    def _finish(self, spans: Spans) -> None:
        if not spans:
            return
        for each in (self.tried, self.due):
            if each:
                few = spans.positions() if len(spans) < len(each) else [p for p in each if p in spans]
                for position in few:
                    each.pop(position, None)
        if spans.edges[-1] <= self.floor:
            return
        self.done.update(spans)
        if self.done.edges[0] <= self.floor:
            self.floor = max(self.floor, self.done.gap(self.floor)[0])
            self.done.remove(0, self.floor)

    def _reopen(self, spans: Spans) -> None:
        if not spans:
            return
        low = spans.edges[0]
        if low < self.floor:
            self.done.add(low, self.floor)
            self.floor = low
        self.done.difference_update(spans)
        self._forget_dead(spans)
        self.floor = self.done.gap(self.floor)[0]
        self.done.remove(0, self.floor)

    def pending(self, end: int) -> Spans:
        """Return the positions up to the topic's `end` that are not done."""
        return self.done.outside(self.floor, self.pends_until(end))

    def has_left(self, start: int, stop: int) -> bool:
        """Return whether any of these positions is not done, or is dead: it may pend again."""
        return self.done.gap(max(start, self.floor))[0] < self.pends_until(stop) or bool(self.dead.within(start, stop))

    def open_from(self, end: int) -> int:
        """Return the first position up to the topic's `end` that is not done, or else the end."""
        return self.floor if self.floor < self.pends_until(end) else end

    def pends_until(self, end: int) -> int:
        """Return the position before which events up to the topic's `end` may pend."""
        return end if self.copied_from is None else min(end, self.copied_from)

    def unended(self) -> Spans:
        """Return the positions of which an attempt was counted without an end: the handler did not raise, its process
        or instance was lost."""
        return Spans.of(position for position in self.tried if position not in self.due)

    def set_back(self, earlier: int, now: int) -> Change | None:
        """Follow a clock that was set back to `now`, by `earlier`, since the state was written: what waits does so for
        as long as it would have. Return the change, if any. What was noted later than now was so at a wrong time."""
        change = None
        if earlier and self.due:
            waiting = [Waiting(each, self.tried.get(each, 0), due - earlier) for each, due in self.due.items()]
            change = Change(self.topic, self.purpose, self.track, waiting=waiting)
            self.apply(change)
        self.limited_until -= earlier
        self.created_at = self.created_at if self.created_at <= now else 0
        self.paused, self.died_at = min(self.paused, now), min(self.died_at, now)
        return change

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.topic,
            self.purpose,
            self.track,
            list(self.statements.values()),
            self.floor,
            list(self.done.edges),
            list(self.dead.edges),
            [Waiting(position, self.tried.get(position, 0), due) for position, due in self.due.items()],
            list(self.tried.items()),
            self.reach,
            self.settled,
            self.retried,
            self.copied_from,
            self.rollout,
            self.paused,
            self.created_at,
            self.died_at,
            self.expired,
            self.copied_to,
            self.limited_until,
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> State:
        state = cls(snapshot.topic, snapshot.purpose, snapshot.track)
        state.statements = {each.version: each for each in snapshot.statements}
        state.floor = snapshot.floor
        state.done = Spans(snapshot.done)
        state.dead = Spans(snapshot.dead)
        state.dead_count = len(state.dead)
        state.due = {each.position: each.due for each in snapshot.waiting}
        state.tried = dict(snapshot.tried)
        state.reach = snapshot.reach
        state.settled = snapshot.settled
        state.retried = snapshot.retried
        state.copied_from = snapshot.copied_from
        state.rollout = snapshot.rollout
        state.paused = snapshot.paused
        state.created_at = snapshot.created_at
        state.died_at = snapshot.died_at
        state.expired = snapshot.expired
        state.copied_to = snapshot.copied_to
        state.limited_until = snapshot.limited_until
        return state


def recovered(snapshots: Iterable[Snapshot], changes: Iterable[Change]) -> list[State]:
    """Return the states that a store remembers, the first track of each purpose before its others: the snapshots, and
    the changes that came after them."""
    states = {(each.topic, each.purpose, each.track): State.restore(each) for each in snapshots}
    for change in changes:
        name = (change.topic, change.purpose, change.track)
        if change.retired:
            states.pop(name, None)
            continue
        if name not in states:
            states[name] = State(*name)
        states[name].apply(change)
    return sorted(states.values(), key=lambda state: abs(state.track))


def _encode_spans(value: object) -> list[int]:
    if isinstance(value, Spans):
        return value.edges
    raise NotImplementedError(type(value))


def _decode_spans(type_: type, value: object) -> object:
    if type_ is Spans and isinstance(value, list):
        return Spans(value)
    raise NotImplementedError(type_)


encode = msgspec.msgpack.Encoder(enc_hook=_encode_spans).encode
decode_changes = msgspec.msgpack.Decoder(list[Change], dec_hook=_decode_spans).decode
decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode
