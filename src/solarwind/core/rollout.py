"""Which track an event is in: a function of its position, its key or id, and the shares that versions have, each from
some position on.

A track marks the events of other tracks as done when it passes them. That is written down in runs: the events before
one of its own are recorded together with it, when it is done. So a state has an edge only where an event of its own
pends, and what is settled up to some position is one span, however finely the tracks are interleaved.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple
from zlib import crc32

import msgspec

from ..columns import Header
from ..keys import Key
from .exchange import KeyOf
from .log import Stored
from .spans import Spans

MAX_RUN = 1_024  # positions of others that are passed by, until that is written down
MAX_PARTS = 4  # of the log, whose division is remembered
AHEAD = 16  # events that are divided together for each that an instance has room for
FEW = 64  # so many are divided together whatever the room, and no fewer are worth remembering
MAX_PLACES = 1 << 14  # of keys, that are remembered
_PLACES = 1 << 32  # that an event may have: a share is as many of them
_WHOLE = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15  # the golden ratio, in 2^64ths
_ODD = 0xD1B54A32D192ED03  # so that the events of different producers begin at different places


class Split(msgspec.Struct, frozen=True, array_like=True):
    """How events are divided from a position on: the versions with a share of their own, and how much of all events
    each gets. The rest is in track 0. Events are divided by this field of the payload, by their own key, or else by
    their id."""

    since: int
    shares: list[tuple[int, float]]
    key: str | None = None


class Rollout(msgspec.Struct, frozen=True, array_like=True):
    """The shares that are wanted, whether or not there is an instance to have one, and the splits that there are. A
    version whose share is 0 is held.

    `line` has the versions that may be current, in the order in which they became so: the last that has an instance is.
    Where it is empty, these are all versions without a share that are no shadows, in the order of their numbers. A
    version that is neither in the line nor has a share was rolled back, or is a shadow.

    `shadows` are the versions that get a copy of what the current one gets. They are neither in the line nor have a
    share."""

    wanted: list[tuple[int, float]] = []
    splits: list[Split] = []
    line: list[int] = []
    shadows: list[int] = []


def divide(stored: Stored, start: int, stop: int, split: Split, key_of: KeyOf | None) -> dict[int, Spans]:
    """Return which of these positions of a batch are in which track.

    Each event has a place, and each track has the places of its share. All events with a key have the same place, and
    without one an event's id has it. Where that was made here it has a number, and the multiples of the golden ratio
    divide evenly what is numbered in a row, so that a share is exact; other texts are hashed. `key_of` reads the key
    where it is a field of the payload."""
    places = _places(stored, start, stop, key_of)
    found, others, low, top = dict[int, Spans](), Spans(), 0, 0.0
    for version, share in split.shares:
        top += share
        high = min(_PLACES, ceil(top * _PLACES))
        if places is None:
            own = Spans(_numbered(stored, start, stop, low, high))
        else:
            own = Spans.of([at for at, place in enumerate(places, start) if place < high])
            own.difference_update(others)
        found[version] = own
        others.update(own)
        low = high
    found[0] = others.outside(start, stop)
    return found


def _places(stored: Stored, start: int, stop: int, key_of: KeyOf | None) -> Sequence[int] | None:
    """Return the places of these events, and None where all of them follow from their numbers."""
    batch, header = stored.batch, stored.batch.header
    indices = range(start - stored.start, stop - stored.start)
    names: Sequence[Key | None] = ()
    if key_of is not None:
        names = [key_of(batch, index) for index in indices]
    elif header.keys is not None:
        names = header.keys[indices.start : indices.stop]
    if header.ids is not None:
        ids = header.ids[indices.start : indices.stop]
        names = [id if name is None else name for name, id in zip(names, ids, strict=True)] if names else ids
    if not names:
        return None
    places = list(map(_place_of, names))
    if min(places) >= 0:
        return places
    if max(places) < 0:
        return None
    return [_number(header, at) >> 32 if place < 0 else place for at, place in zip(indices, places, strict=True)]


class _Places(dict[Key | None, int]):
    """The places of names, remembered for a while. What has no name is at -1."""

    def __missing__(self, name: Key | None) -> int:
        if name is None:
            return -1
        if len(self) >= MAX_PLACES:
            self.clear()
        data = name.encode() if isinstance(name, str) else name
        place = self[name] = crc32(data) * _GOLDEN >> 16 & _PLACES - 1
        return place


_place_of = _Places().__getitem__


def _number(header: Header, index: int) -> int:
    """Return the place of an event that follows from its number, in 2^64ths."""
    return ((header.first + index) * _GOLDEN + header.producer * _ODD) % _WHOLE


def _numbered(stored: Stored, start: int, stop: int, low: int, high: int) -> list[int]:
    """Return the events whose places follow from their numbers and are from `low` up to `high`, as edges of spans. From
    one of them to the next it is one of three steps, whatever the share."""
    width = (high - low) << 32
    if not width:
        return []
    at, edges = start, list[int]()
    place = (_number(stored.batch.header, start - stored.start) - (low << 32)) % _WHOLE
    while at < stop and place >= width:
        place = (place + _GOLDEN) % _WHOLE
        at += 1
    forth, up, back, down = _steps(width)
    last_up, both, between = width - up, forth + back, up - down
    while at < stop:
        if edges and edges[-1] == at:
            edges[-1] = at + 1
        else:
            edges += (at, at + 1)
        if place < last_up:
            at += forth
            place += up
        elif place >= down:
            at += back
            place -= down
        else:
            at += both
            place += between
    return edges


@lru_cache(1_000)
def _steps(width: int) -> tuple[int, int, int, int]:
    """Return the smallest number of events whose places are apart by less than `width` upwards, and by how much; and
    the same downwards."""
    forth, up, back, down = 1, _GOLDEN, 1, _WHOLE - _GOLDEN
    while up >= width or down >= width:
        if up > down:
            forth, up = forth + back, up - down
        else:
            back, down = forth + back, down - up
    return forth, up, back, down


class _Part(NamedTuple):
    """How the events of a part of the log are divided."""

    split: Split
    start: int
    stop: int
    tracks: dict[int, Spans]


class Division:
    """How the events of a purpose are divided, looked up once for all of its tracks."""

    def __init__(self, splits: Callable[[], list[Split]], key_of: Callable[[str], KeyOf]) -> None:
        self._splits = splits
        self._key_of = key_of
        self._parts: deque[_Part] = deque(maxlen=MAX_PARTS)

    def own(self, track: int, stored: Stored, start: int, stop: int, max_count: int) -> tuple[int, Spans]:
        """Return up to where, at most `stop`, the events of a batch were divided, and those of them from `start` on
        that are in the track. More are divided together where about `max_count` are needed."""
        splits = self._splits()
        at = bisect_right(splits, start, key=lambda split: split.since) - 1
        if at + 1 < len(splits):
            stop = min(stop, splits[at + 1].since)
        if at < 0 or not splits[at].shares:
            return stop, Spans((start, stop)) if track == 0 else Spans()
        part = self._part(stored, start, min(stop, start + max(FEW, AHEAD * max_count)), splits[at])
        stop = min(stop, part.stop)
        return stop, part.tracks.get(track, Spans()).within(start, stop)

    def _part(self, stored: Stored, start: int, stop: int, split: Split) -> _Part:
        for part in self._parts:
            if part.split is split and part.start <= start < part.stop:
                return part
        key_of = self._key_of(split.key) if split.key is not None else None
        part = _Part(split, start, stop, divide(stored, start, stop, split, key_of))
        if stop - start >= FEW:  # else an event that is tried again would take the place of those that all tracks need
            self._parts.append(part)
        return part

    def ends_at(self, position: int) -> bool:
        """Return whether another split begins at the position."""
        return any(split.since == position for split in self._splits())


class Walk:
    """How a track goes through the log, past the events of other tracks."""

    def __init__(self, track: int, division: Division) -> None:
        self._track = track
        self._division = division
        self._before = Spans()  # runs of others, each of them before one of its own
        self._run = self._at = 0  # the run of others that ends where it is
        self.passed = Spans()  # those that nothing of its own follows closely

    def leap(self, start: int) -> None:
        """Go on at `start`: what lies before it is done, or claimed. A run of others ends before it, so that nothing
        waits for it."""
        if start != self._at:
            self._pass()
            self._run = self._at = start

    def own(self, stored: Stored, start: int, stop: int, max_count: int) -> tuple[int, Spans]:
        """Go on from `start`. Return what `Division.own` returns."""
        self.leap(start)
        return self.look(stored, start, stop, max_count)

    def look(self, stored: Stored, start: int, stop: int, max_count: int) -> tuple[int, Spans]:
        """Return what `Division.own` returns, without going there."""
        return self._division.own(self._track, stored, start, stop, max_count)

    def end(self, stop: int, own: Spans) -> None:
        """Note that the walk has come to `stop`, and which events on the way there are its own."""
        edges = own.edges
        if edges:
            self._before.update(Spans([self._run, *edges[:-1]] if self._run < edges[0] else edges[1:-1]))
            self._run = edges[-1]
        self._at = stop
        if stop - self._run >= MAX_RUN or self._division.ends_at(stop):
            self._pass()

    def note_split(self) -> bool:
        """Note that there is another split, maybe at the walk's position. Return whether there is something to be
        written down."""
        self.end(self._at, Spans())
        return bool(self.passed)

    def _pass(self) -> None:
        self.passed.add(self._run, self._at)
        self._run = self._at

    @property
    def unrecorded(self) -> int:
        """How many positions of other tracks it has passed that are not written down."""
        return len(self._before) + max(0, self._at - self._run) + len(self.passed)

    def beyond(self, floor: int) -> int:
        """Return the first position from a state's floor on that it has not passed."""
        position, _ = self._before.gap(floor)
        return self._at if self._run <= position < self._at else position

    def finish(self, own: Spans) -> None:
        """Note that these events of its own are done; so is what was passed before them."""
        before, done = self._before.edges, own.edges
        if not before or not done:
            return
        low, high = bisect_left(before, done[0]), bisect_left(before, done[-1])
        first = [before[low - 1]] if low % 2 else []  # where a run begins that ends at the first
        low -= len(first)
        passed = Spans(before[low:high])
        if passed.edges == first + done[len(first) == 0 : -1]:  # all in one piece, which is written down as one
            del before[low:high]
            passed = Spans((*(first or done[:1]), done[-1]))
        else:
            ends = [bisect_left(before, start) for start in done[::2]]
            passed = Spans([edge for at in ends if at % 2 for edge in before[at - 1 : at + 1]])
            self._before.difference_update(passed)
        self.passed.update(passed)

    def pop_passed(self) -> Spans:
        """Remove and return the positions that have to be written down."""
        passed, self.passed = self.passed, Spans()
        return passed
