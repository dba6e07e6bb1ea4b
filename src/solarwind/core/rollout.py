"""Which track an event is in: a function of its position, its key or id, and the shares that versions have, each from
some position on.

A track marks the events of other tracks as done when it passes them. That is written down in runs: the events before
one of its own are recorded together with it, when it is done. So a state has an edge only where an event of its own
pends, and what is settled up to some position is one span, however finely the tracks are interleaved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import compress
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
MAX_PARTS = 16  # of the log, whose division is remembered: one track may be far behind another
MAX_EDGES = 1 << 15  # of the spans in them, unless it is a single part
AHEAD = 16  # events that are divided together for each that an instance has room for
FEW = 64  # so many are divided together whatever the room, and no fewer are worth remembering
RUN = 4  # events that are numbered in a row and have one place, so that what tracks cost is for each of these runs
MAX_NAMES = 1 << 14  # of which it is remembered whether they are in a share,
MAX_SHARES = 16  # for so many shares
_NAMELESS = 2
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
    names = _names(stored, start, stop, key_of)
    found, others, low, top, before = dict[int, Spans](), Spans(), 0, 0.0, 0
    for version, share in split.shares:
        top += share
        high = min(_PLACES, ceil(top * _PLACES))
        if names:
            below = int.from_bytes(_are_below(high, stored, start, names), "little")
            own = Spans(_edges(below ^ before, start, stop))
            before = below
        else:
            own = _numbered(stored, start, stop, low, high)
        found[version] = own
        others.update(own)
        low = high
    found[0] = others.outside(start, stop)
    return found


def _names(stored: Stored, start: int, stop: int, key_of: KeyOf | None) -> Sequence[Key | None]:
    """Return what the places of these events are of, with None where that is the event's number. Return nothing where
    it is so for all of them."""
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
    return names


class _Below(dict[Key | None, int]):
    """Whether the places of names are below one: 1 or 0, remembered for a while. What has no name is `_NAMELESS`."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __missing__(self, name: Key | None) -> int:
        if len(self) >= MAX_NAMES:
            self.clear()
        if name is None:
            found = _NAMELESS
        else:
            place = crc32(name.encode() if isinstance(name, str) else name) * _GOLDEN >> 16 & _PLACES - 1
            found = int(place < self._place)
        self[name] = found
        return found


@lru_cache(MAX_SHARES)
def _below(place: int) -> Callable[[Key | None], int]:
    return _Below(place).__getitem__


def _are_below(place: int, stored: Stored, start: int, names: Sequence[Key | None]) -> bytes:
    """Return for each of these events whether its place is below this one: 1 or 0."""
    found = bytes(map(_below(place), names))
    if _NAMELESS not in found:
        return found
    header, indices = stored.batch.header, range(start - stored.start, stored.batch.count)
    pairs = zip(found, indices, strict=False)
    return bytes([_number(header, index) >> 32 < place if each == _NAMELESS else each for each, index in pairs])


def _edges(own: int, start: int, stop: int) -> list[int]:
    """Return as edges of spans which of these positions are its own: the number has a byte for each, 1 or 0."""
    count = stop - start
    changes = (own ^ own << 8).to_bytes(count + 1, "little")  # where one is unlike the one before
    return list(compress(range(start, stop + 1), changes))


def _number(header: Header, index: int) -> int:
    """Return the place of an event that follows from its number, in 2^64ths."""
    return _place_of_run((header.first + index) // RUN, header)


def _place_of_run(run: int, header: Header) -> int:
    return (run * _GOLDEN + header.producer * _ODD) % _WHOLE


def _numbered(stored: Stored, start: int, stop: int, low: int, high: int) -> Spans:
    """Return the events whose places follow from their numbers and are from `low` up to `high`. From one run of them to
    the next it is one of three steps, whatever the share."""
    if high - low > _PLACES // 2:  # the others are fewer
        return _numbered(stored, start, stop, high, low + _PLACES).outside(start, stop)
    width = (high - low) << 32
    if not width:
        return Spans()
    header, found = stored.batch.header, list[int]()
    origin = stored.start - header.first  # where the event with number 0 would be
    run, end = (start - origin) // RUN, -((origin - stop) // RUN)
    place = (_place_of_run(run, header) - (low << 32)) % _WHOLE
    while run < end and place >= width:
        place = (place + _GOLDEN) % _WHOLE
        run += 1
    forth, up, back, down = _steps(width)
    last_up, both, between = width - up, forth + back, up - down
    add = found.append
    while run < end:
        add(run)
        if place < last_up:
            run += forth
            place += up
        elif place >= down:
            run += back
            place -= down
        else:
            run += both
            place += between
    return Spans([origin + RUN * edge for edge in Spans.of(found).edges]).within(start, stop)


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

    @property
    def edges(self) -> int:
        """How many edges the spans have."""
        return sum([len(own.edges) for own in self.tracks.values()])


class Division:
    """How the events of a purpose are divided, looked up once for all of its tracks."""

    def __init__(self, splits: Callable[[], list[Split]], key_of: Callable[[str], KeyOf]) -> None:
        self._splits = splits
        self._key_of = key_of
        self._parts: deque[_Part] = deque(maxlen=MAX_PARTS)

    def own(self, track: int, stored: Stored, start: int, stop: int, max_count: int) -> tuple[int, Spans]:
        """Return up to where, at most `stop`, the events of a batch were divided, and those of them from `start` on
        that are in the track. More are divided together where about `max_count` are needed."""
        split = None
        for each in reversed(self._splits()):  # of which there are few, and it is mostly the last
            if each.since <= start:
                split = each
                break
            stop = min(stop, each.since)
        if split is None or not split.shares:
            return stop, Spans((start, stop)) if track == 0 else Spans()
        part = self._part(stored, start, min(stop, start + max(FEW, AHEAD * max_count)), split)
        stop = min(stop, part.stop)
        own = part.tracks.get(track)
        return stop, own.within(start, stop) if own is not None else Spans()

    def _part(self, stored: Stored, start: int, stop: int, split: Split) -> _Part:
        for part in self._parts:
            if part.split is split and part.start <= start < part.stop:
                return part
        key_of = self._key_of(split.key) if split.key is not None else None
        part = _Part(split, start, stop, divide(stored, start, stop, split, key_of))
        if stop - start >= FEW:  # else an event that is tried again would take the place of those that all tracks need
            self._parts.append(part)
            while len(self._parts) > 1 and sum([each.edges for each in self._parts]) > MAX_EDGES:
                self._parts.popleft()
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
            before = Spans()
            before.edges = edges[:-1] if self._run < edges[0] else edges[1:-1]
            if self._run < edges[0]:
                before.edges.insert(0, self._run)
            self._before.update(before)
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
        ends = low % 2  # a run ends at the first
        if before[low:high] == done[1 - ends : -1]:  # all in one piece, which is written down as one
            passed = Spans((before[low - 1] if ends else done[0], done[-1]))
            del before[low - ends : high]
        else:
            runs = [bisect_left(before, start) for start in done[::2]]
            passed = Spans([edge for at in runs if at % 2 for edge in before[at - 1 : at + 1]])
            self._before.difference_update(passed)
        self.passed.update(passed)

    def pop_passed(self) -> Spans:
        """Remove and return the positions that have to be written down."""
        passed, self.passed = self.passed, Spans()
        return passed
