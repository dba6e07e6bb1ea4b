"""What a track hands out next: `Backlog` in the order accepted, `Lanes` one event at a time per key.

Both start from a track's state alone, so a restart, a replay and a change of exchange are one thing: a new backlog. A
position is *claimed* while it need not be looked at: its event is settled, in an instance's hands, or waiting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from ..keys import Key
from .exchange import KeyOf
from .log import Log, Stored
from .rollout import FEW, Walk
from .spans import Spans
from .state import State

LOOK_AHEAD = 16_384  # events that are looked at together


class Missing(int):
    """The position whose batch is not in memory."""


class Backlog:
    """All events that are not claimed, in order."""

    more = False  # `next` found nothing in as much as it looks at together, and there is more

    def __init__(self, state: State, in_flight: Spans, delayed: set[int]) -> None:
        """`delayed` are the positions whose wait for a retry is not over; the owner keeps it up to date."""
        self.walk: Walk | None = None  # where some events are in other tracks
        self._state = state
        self._delayed = delayed
        self._cursor = state.floor
        self._far = 0  # how far it was before it went back
        self._counted = 0, 0, 0  # see `count_ahead`: from where on, up to where, and how many
        self._own = -1  # the event of its own at which `pass_others` stopped last
        self._claimed = state.done.copy()
        self._claimed.update(in_flight)
        self._claim_delayed()

    def _claim_delayed(self) -> None:
        self._claimed.update(Spans.of(self._delayed))

    @property
    def cursor(self) -> int:
        """The position below which there is nothing to look at."""
        return self._cursor

    @property
    def next_position(self) -> int:
        """The first position from the cursor on that is not claimed."""
        return self._claimed.gap(self._cursor)[0]

    @property
    def seen(self) -> int:
        """The position below which everything was looked at, though some of it may have to be looked at again."""
        return max(self._far, self._cursor)

    def through(self, end: int) -> bool:
        """Return whether there is nothing to hand out below `end`."""
        return self._cursor >= end

    def next(
        self, end: int, max_count: int, log: Log, *, patient: bool = False
    ) -> tuple[Stored, Sequence[int]] | Missing | None:
        """Claim up to `max_count` positions below `end`, all of one batch, and return them with their batch. Return
        None where there is nothing to hand out. With `patient`, an event that follows another of its key is left until
        there are more of it."""
        start, stop = self._claimed.gap(self._cursor)
        if start >= end:
            self._leap(start)
            return None
        stored = log.find(self._state.topic, start)
        if stored is None:
            return Missing(start)
        if self.walk is not None:
            return self._next_own(stored, end, max_count, log, self.walk)
        stop = min(end if stop is None else stop, end, stored.stop, start + max_count)
        self._claimed.add(start, stop)
        self._cursor = stop
        return stored, range(start, stop)

    def _leap(self, start: int) -> None:
        self._cursor = start
        if self.walk is not None:
            self.walk.leap(start)

    def _next_own(
        self, stored: Stored, end: int, max_count: int, log: Log, walk: Walk
    ) -> tuple[Stored, Sequence[int]] | Missing | None:
        """Do what `next` does, for the events that are in this track."""
        picks, room = Spans(), max_count
        until = self._cursor + LOOK_AHEAD
        self.more = False
        start, gap = self._claimed.gap(self._cursor)
        while start < end:
            if start >= stored.stop:
                if picks:
                    break
                if start >= until:
                    self.more = True
                    return None
                found = log.find(self._state.topic, start)
                if found is None:
                    return Missing(start)
                stored = found
            stop = min(end if gap is None else gap, end, stored.stop)
            stop, own = walk.own(stored, start, stop, max_count)
            if (count := len(own)) > max_count:
                own, count = own.first(max_count), max_count
                stop = own.edges[-1]
            walk.end(stop, own)
            picks.update(own)
            max_count -= count
            self._claimed.add(start, stop)
            self._cursor = stop
            if not max_count:
                break
            start, gap = self._claimed.gap(stop)
            walk.leap(start)
        return (stored, picks.positions(room - max_count)) if picks else None

    def pass_others(self, end: int, log: Log, walk: Walk) -> Missing | None:
        """Go past events of other tracks, up to the next of its own, which is not claimed. So it is known whether any
        pends, also while no instance can get it."""
        until = self._cursor + LOOK_AHEAD
        self.more = False
        while True:
            start, gap = self._claimed.gap(self._cursor)
            self._leap(start)
            if start >= end or start == self._own:
                return None
            if start >= until:
                self.more = True
                return None
            stored = log.find(self._state.topic, start)
            if stored is None:
                return Missing(start)
            stop, own = walk.own(stored, start, min(end if gap is None else gap, end, stored.stop), FEW)
            if own:
                stop = self._own = own.edges[0]
            walk.end(stop, Spans())
            self._claimed.add(start, stop)
            self._cursor = stop

    def count_ahead(self, end: int, log: Log, walk: Walk) -> None:
        """Count the track's own events beyond what was seen, as far as the log is in memory."""
        seen, stop, count = self.counted
        until = stop + LOOK_AHEAD
        while stop < end and (stored := log.find(self._state.topic, stop)) is not None:
            if stop >= until:
                self.more = True
                break
            stop, own = walk.look(stored, stop, min(end, stored.stop), FEW)
            own.difference_update(self._claimed)
            count += len(own)
        self._counted = seen, stop, count

    @property
    def counted(self) -> tuple[int, int, int]:
        """What is `seen`, up to where events beyond it are counted, and how many of these are the track's own."""
        seen = self.seen
        return self._counted if self._counted[0] == seen else (seen, seen, 0)

    def unclaim(self, positions: Spans) -> None:
        """Hand these positions out again: they were claimed, but no instance has them."""
        if positions:
            self._claimed.difference_update(positions)
            self._far = self.seen
            self._cursor = min(self._cursor, positions.edges[0])

    def end_wait(self, position: int) -> None:
        """Hand this position out again, because its wait is over."""
        self.unclaim(Spans((position, position + 1)))

    def end_waits(self, positions: Sequence[int]) -> None:
        """Do the same for several, in order."""
        self.unclaim(Spans.of(positions))

    def finish(self, positions: Spans) -> None:
        """Note that these positions are done."""
        self._cursor = max(self._cursor, self._state.floor)
        self._claimed.remove(0, self._state.floor)


class Lanes(Backlog):
    """One event of each key at a time. Those behind it wait in its lane and follow in order.

    Every position below the cursor has been looked at: it is done, out (in flight, ready, or waiting for a retry), or
    in a lane. An event without a key waits for no other."""

    def __init__(
        self,
        state: State,
        in_flight: Spans,
        delayed: set[int],
        max_waiting: int,
        key: KeyOf,
        rejects: bool,
        keys: dict[int, Key] | None = None,
    ) -> None:
        """With `rejects`, an event without a key is not handed out; the owner collects it from `keyless`. `keys` are
        the keys of the positions in flight, as another backlog's `keys` gave them."""
        super().__init__(state, in_flight, delayed)
        self._key = key
        self._rejects = rejects
        self.keyless: list[int] = []  # found by the last calls of `next`
        self._max_waiting = max_waiting
        self._lanes: dict[Key, deque[int] | None] = {}  # key -> those behind the one that is out
        self._out: dict[int, Key] = {}  # the key of each event that is out
        self._ready: list[int] = []
        self._waiting = 0
        self._delayed_behind: set[int] = set()  # in a lane, and waiting for a retry from before they came there
        for position, name in (keys or {}).items():
            if position in in_flight:
                self._lanes[name] = None
                self._out[position] = name

    def _claim_delayed(self) -> None:
        """Claim nothing: delayed events are looked at like all others, since they hold their keys."""

    def through(self, end: int) -> bool:
        return self._cursor >= end and not self._ready

    @property
    def ready(self) -> int:
        """How many events are the next of their key."""
        return len(self._ready)

    @property
    def keys(self) -> dict[int, Key]:
        return self._out

    def next(
        self, end: int, max_count: int, log: Log, *, patient: bool = False
    ) -> tuple[Stored, Sequence[int]] | Missing | None:
        self.more = False
        if self._ready and not patient:
            # What is ready may lie behind `end`: it waits for another track, or for a delay that a new version states.
            self._ready.sort()
            if self._ready[0] < end:
                return self._next_ready(end, max_count, log)
        picks: list[int] = []
        stored: Stored | None = None
        until = self._cursor + LOOK_AHEAD
        while not picks and self._waiting < self._max_waiting:
            if self._cursor >= until:
                self.more = True
                return None
            start, stop = self._claimed.gap(self._cursor)
            if start >= end:
                self._leap(start)
                return None
            stored = log.find(self._state.topic, start)
            if stored is None:
                return Missing(start)
            picks = self._look(stored, start, min(end if stop is None else stop, end, stored.stop), max_count)
        return (stored, picks) if stored is not None and picks else None

    def _next_ready(self, end: int, max_count: int, log: Log) -> tuple[Stored, Sequence[int]] | Missing:
        ready = self._ready
        stored = log.find(self._state.topic, ready[0])
        if stored is None:
            return Missing(ready[0])
        count = min(bisect_left(ready, min(stored.stop, end)), max_count)
        picks = ready[:count]
        del ready[:count]
        return stored, picks

    def _look(self, stored: Stored, start: int, stop: int, max_count: int) -> list[int]:
        """Claim the positions from `start` up to `stop`. Return those whose key is free, and put the others into their
        lanes."""
        picks: list[int] = []
        lanes, out, delayed, walk = self._lanes, self._out, self._delayed, self.walk
        key_of, batch, first = self._key, stored.batch, stored.start
        positions: Sequence[int] = range(start, stop)
        if walk is not None:
            stop, own = walk.own(stored, start, stop, max_count)
            positions = own.positions()
        for position in positions:
            key = key_of(batch, position - first)
            if key is None:
                if position not in delayed:
                    self.keyless.append(position)
                    if not self._rejects:
                        picks.append(position)
            elif key in lanes:
                lane = lanes[key]
                if lane is None:
                    lanes[key] = deque((position,))
                else:
                    lane.append(position)
                self._waiting += 1
                if position in delayed:
                    self._delayed_behind.add(position)
            else:
                lanes[key] = None
                out[position] = key
                if position not in delayed:
                    picks.append(position)
            if len(picks) == max_count or self._waiting == self._max_waiting:
                stop = position + 1
                break
        if walk is not None:
            walk.end(stop, own.within(start, stop))
        self._claimed.add(start, stop)
        self._cursor = stop
        return picks

    def unclaim(self, positions: Spans) -> None:
        self._ready.extend(positions.positions())

    def end_wait(self, position: int) -> None:
        if position in self._delayed_behind:
            self._delayed_behind.remove(position)  # it follows in its turn
        elif position < self._cursor or position in self._claimed:  # else it is yet to be looked at
            self._ready.append(position)

    def end_waits(self, positions: Sequence[int]) -> None:
        for position in positions:
            self.end_wait(position)

    def finish(self, positions: Spans) -> None:
        for position in positions.positions():
            key = self._out.pop(position, None)
            if key is None:
                continue
            lane = self._lanes[key]
            if lane:
                following = lane.popleft()
                self._out[following] = key
                if following in self._delayed:
                    self._delayed_behind.discard(following)
                else:
                    self._ready.append(following)
                self._waiting -= 1
            else:
                del self._lanes[key]
        super().finish(positions)
