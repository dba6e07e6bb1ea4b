"""A purpose's own delay: its events are handed out so long after they were accepted, or were due, and in order.

A track with a delay has an end that follows the clock instead of the topic: the first event that is not old enough. So
nothing is kept of the events that wait, whatever their number, and there is one timer for a track. The time is the wall
clock's, as for events that are due: where that was set an event may be late, but is never early.

A fan-out's events do not pend, so its position is noted (`State.copied_to`), before the copies are handed out: no event
is copied twice. They go to the instances that are there then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .backlog import Backlog, Missing
from .log import Log, Stored, waits_since
from .state import Change
from .track import Track

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

LOOK_NS = 60_000_000_000  # how often to check whether the machine's clock was set
DELAYED = -2  # in place of a position: a timer to hand out what has waited long enough
BATCHES_TOGETHER = 1_000  # whose copies are noted together


class Delay(msgspec.Struct, eq=False):
    """How far the events of a track with a delay may be handed out. `now` is the engine's time, `wall` the wall
    clock's."""

    delay_ns: int
    to: int = 0  # the events below it have waited long enough
    waiting: int = -1  # the event at `to`, once it is known that it has not
    until: int = 0  # when it has, in ns since 1970
    at: int = 0  # when there is a timer, by `now`
    found: int = 0  # for operators: those below it have, too, and instances are behind with them
    # The events below the first, which seem to be accepted in the future, are handed out at the second, by `now`.
    ahead_to: int = 0
    ahead_until: int = 0
    # Of a fan-out: the copies of events below the first are handed out; those below the second may be.
    copied: int = -1
    noted: int = 0

    def look_again(self) -> None:
        """Begin anew, because the delay has changed, or events pend again."""
        self.waiting = -1
        self.to = self.found = self.at = self.ahead_to = 0


class Delays:
    """The tracks of a dispatcher that have a delay."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def note_change(self, track: Track, end: int) -> None:
        """Note which delay the version states that is at work for a track now, where `end` is that of the topic. What
        waits does so by that from now on. Dead letters that were redriven into a version have waited."""
        stated = track.statement.delay_ns if track.number >= 0 else 0
        state, delay = track.state, track.delay
        copies = state.copied_from is not None
        if copies and stated and state.copied_to is None:
            self._dispatcher.change(track, Change(*track.key, copied_to=end))
        if not stated and state.copied_to is None:
            track.delay = None
            return
        if delay is None:
            delay = track.delay = Delay(stated)
            track.rewind()
        elif delay.delay_ns != stated:
            delay.delay_ns = stated
            track.rewind()
        if not copies:
            delay.copied = -1
        elif delay.copied < 0 and state.copied_to is not None:
            delay.copied = delay.noted = state.copied_to

    # Events that pend

    def limit(self, track: Track, start: int, end: int, log: Log, now: int) -> int | Missing:
        """Return the position before which the track's events may be handed out, `end` at most, or what has to be in
        memory to say so. `start` is the next one; where it has to wait, there is a timer."""
        delay = track.delay
        assert delay is not None
        if delay.to < start:
            delay.to = start
        if start >= end or delay.to > start:
            return min(delay.to, end)
        if delay.waiting == start and delay.at > now:
            return start
        stored = log.find(track.topic, start)
        if stored is None:
            return Missing(start)
        wait = self._wait(delay, stored, start, end, now)
        if wait > 0:
            self._look_again(track, delay, wait, now)
            return start
        delay.to = stored.stop
        return min(delay.to, end)

    def _wait(self, delay: Delay, stored: Stored, start: int, end: int, now: int) -> int:
        """Return how long the events of a batch have to wait yet, from `start` on. Those that seem to be accepted in
        the future wait no longer than any: the clock was set back."""
        wait = waits_since(stored) + delay.delay_ns - self._dispatcher.wall(now)
        if start < delay.ahead_to:
            return min(wait, delay.ahead_until - now)
        if wait > delay.delay_ns:
            wait = delay.delay_ns
            delay.ahead_to, delay.ahead_until = end, now + wait
        return wait

    def _look_again(self, track: Track, delay: Delay, wait: int, now: int) -> None:
        """Have the track looked at again once its next event has waited long enough."""
        delay.waiting, delay.until = delay.to, self._dispatcher.wall(now) + wait
        when = now + min(wait, LOOK_NS)
        if not now < delay.at <= when:
            delay.at = when
            self._dispatcher.wake(when, track, DELAYED)

    def look(self, track: Track, backlog: Backlog | None, now: int) -> None:
        """Look, without an instance that could get it, whether the track's next event has waited long enough: so it is
        known whether anybody is missed. Copy what a fan-out has."""
        if track.fetching or track.delay is None:
            return
        if track.state.copied_from is not None:
            self._copy(track, track.delay, now)
        elif backlog is not None and track.shadow is None:
            end = self._dispatcher.topics[track.topic].end
            found = self.limit(track, backlog.next_position, end, self._dispatcher.log, now)
            if isinstance(found, Missing):
                self._dispatcher.fetch(track, found)

    # A fan-out's copies

    def _copy(self, track: Track, delay: Delay, now: int) -> None:
        """Note that copies may be handed out, as far as the events have waited long enough, and hand out those that are
        noted durably."""
        dispatcher, state, end = self._dispatcher, track.state, self._dispatcher.topics[track.topic].end
        self.hand_out(track, delay.noted, now)
        to, found = state.copied_to or 0, 0
        for _ in range(BATCHES_TOGETHER):
            found = self.limit(track, to, end, dispatcher.log, now)
            if isinstance(found, Missing) or found <= to:
                break
            to = found
        else:
            dispatcher.put_off(track)
        if to != state.copied_to:
            dispatcher.change(track, Change(*track.key, copied_to=to))
            if track.reached is None:
                self.hand_out(track, to, now)
        if isinstance(found, Missing):
            if not track.fetching:
                dispatcher.fetch(track, found)
        elif not delay.delay_ns and to == end == delay.copied:  # all of it is as without a delay
            dispatcher.change(track, Change(*track.key, copied_to=-1))
            track.delay = None

    def hand_out(self, track: Track, to: int, now: int) -> None:
        """Copy the events below `to`, since it is noted that they may have been copied."""
        delay, dispatcher = track.delay, self._dispatcher
        if delay is None or delay.copied < 0:
            return
        delay.noted = max(delay.noted, to)
        while delay.copied < delay.noted and not track.fetching:
            start = delay.copied
            stored = dispatcher.log.find(track.topic, start)
            if stored is None:
                dispatcher.fetch(track, start)
                return
            delay.copied = stored.stop
            dispatcher.copies.hand_out(track, stored, now)

    def skip(self, track: Track, start: int, stop: int) -> None:
        """Go on without the copies of these events, which are not in the log any more."""
        delay, state = track.delay, track.state
        if delay is None or delay.copied < 0 or state.copied_to is None:
            return
        if start <= delay.copied < stop:
            track.purpose.dropped += stop - delay.copied
            delay.copied = stop
        if start <= state.copied_to < stop:
            self._dispatcher.change(track, Change(*track.key, copied_to=stop))
