"""Which track an event is in: a function of its position, its key or id, and the shares that versions have, each from
some position on.

A track marks the events of other tracks as done when it passes them. That is written down in runs: the events before
one of its own are recorded together with it, when it is done. So a state has an edge only where an event of its own
pends, and what is settled up to some position is one span, however finely the tracks are interleaved.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from zlib import crc32

import msgspec

from ..batch import Batch
from ..keys import Key
from .exchange import KeyOf
from .spans import Spans

MAX_RUN = 1_024  # positions of others that are passed by, until that is written down


class Split(msgspec.Struct, frozen=True, array_like=True):
    """How events are divided from a position on: the versions with a share of their own, and how much of all events
    each gets. The rest is in track 0. Events are divided by this field of the payload, by their own key, or else by
    their id."""

    since: int
    shares: list[tuple[int, float]]
    key: str | None = None


class Rollout(msgspec.Struct, frozen=True, array_like=True):
    """The shares that are wanted, whether or not there is an instance to have one, and the splits that there are."""

    wanted: list[tuple[int, float]] = []
    splits: list[Split] = []


def bucket(batch: Batch, index: int, key_of: Callable[[Batch, int], Key | None]) -> float:
    """Return a number from 0 up to 1 for an event: the same for all events with its key."""
    name = key_of(batch, index)
    if name is None:
        name = batch.id(index)
    mixed = crc32(name.encode() if isinstance(name, str) else name) * 0x9E3779B97F4A7C15
    return (mixed >> 16 & 0xFFFFFFFF) / (1 << 32)


def owner(shares: list[tuple[int, float]], bucket: float) -> int:
    """Return the track that owns a bucket."""
    top = 0.0
    for version, share in shares:
        top += share
        if bucket < top:
            return version
    return 0


class Walk:
    """How a track goes through the log, past the events of other tracks."""

    def __init__(self, track: int, splits: Callable[[], list[Split]], key_of: Callable[[str | None], KeyOf]) -> None:
        self._track = track
        self._splits = splits
        self._key_of = key_of
        self._split = Split(0, [])
        self._by: KeyOf = key_of(None)
        self._before: dict[int, int] = {}  # an event of its own -> where the run of others before it begins
        self._run = self._at = 0  # the run of others that ends where it is
        self.others = 0  # positions in such runs
        self.passed = Spans()  # those that nothing of its own follows closely

    def leap(self, start: int) -> None:
        """Go on at `start`: what lies before it is done, or claimed. A run of others ends before it, so that nothing
        waits for it."""
        if start != self._at:
            self._pass()
            self._run = self._at = start

    def begin(self, start: int, stop: int) -> int:
        """Go on from `start`. Return up to where, at most `stop`, the shares are the same."""
        self.leap(start)
        splits = self._splits()
        at = bisect_right(splits, start, key=lambda split: split.since) - 1
        split = splits[at] if at >= 0 else Split(0, [])
        if split is not self._split:
            self._split, self._by = split, self._key_of(split.key)
        return min(stop, splits[at + 1].since) if at + 1 < len(splits) else stop

    def owns(self, batch: Batch, index: int, position: int) -> bool:
        """Return whether the event at this position, the next, is in the track."""
        shares = self._split.shares
        mine = (owner(shares, bucket(batch, index, self._by)) if shares else 0) == self._track
        if mine:
            if self._run < position and position not in self._before:
                self._before[position] = self._run
                self.others += position - self._run
            self._run = position + 1
        return mine

    def end(self, stop: int) -> None:
        """Note that the walk has come to `stop`."""
        self._at = stop
        if stop - self._run >= MAX_RUN or any(split.since == stop for split in self._splits()):
            self._pass()

    def note_split(self) -> bool:
        """Note that there is another split, maybe at the walk's position. Return whether there is something to be
        written down."""
        self.end(self._at)
        return bool(self.passed)

    def _pass(self) -> None:
        self.passed.add(self._run, self._at)
        self._run = self._at

    @property
    def beside(self) -> int:
        """How many positions of other tracks it has passed that are not written down."""
        return self.others + max(0, self._at - self._run) + len(self.passed)

    def finish(self, positions: Spans) -> None:
        """Note that these events of its own are done; so is what was passed before them."""
        if self._before:
            for position in positions.positions():
                start = self._before.pop(position, None)
                if start is not None:
                    self.others -= position - start
                    self.passed.add(start, position)

    def pop_passed(self) -> Spans:
        """Remove and return the positions that have to be written down."""
        passed, self.passed = self.passed, Spans()
        return passed
