"""How fast, and how many at a time, the events of a purpose are handed out: its rate and its maximum in flight.

These are limits of the purpose, over all instances, versions and tracks: those that its current version states. A
shadow keeps to its own, apart. The rate is arithmetic: when the next event may go. So nothing counts down, and there is
one timer for a purpose, while events wait for the rate; the end of an event in flight needs none. Where several tracks
of a purpose wait, they take turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..rate import BURST_NS, read_rate
from .state import Change

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .instance import Lease
    from .track import Track

LIMITED = -3  # in place of a position: a timer to hand out what waited for the rate
STEP_NS = 10_000_000  # of a high rate the events of so long go together
NOTED_NS = BURST_NS  # a rate with longer intervals is kept over a restart: of others so much may come at once anyway


class Limiter(msgspec.Struct, eq=False):
    """What is left of the limits of a purpose, or of a shadow. `next` is when the next event may be handed out by the
    rate, in ns since 1970 by the engine's time."""

    next: int = 0
    rate: str | None = None  # by which that was found
    at: int = 0  # when there is a timer
    waiting: dict[Track, None] = msgspec.field(default_factory=dict)  # have more than they may: the longest first
    held: bool = False  # the track that is handed out now has to wait


class Limiters:
    """The limits of a dispatcher's purposes."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def room(self, track: Track, limiter: Limiter, max_count: int, now: int) -> int:
        """Return how many of so many events of a track may be handed out now. Where that is none, it waits: it is
        handed out again once there may be some."""
        first = next(iter(limiter.waiting), track)
        count = self._free(track, limiter, now) if first is track else 0
        if count > 0:
            return min(count, max_count)
        self.wait(track, limiter, now)
        return 0

    def wait(self, track: Track, limiter: Limiter, now: int) -> None:
        """Let a track wait for its turn, with a timer where that is only a matter of time."""
        limiter.waiting.setdefault(track)
        limiter.held = True
        if limiter.next > now and limiter.rate is not None:
            together = STEP_NS if read_rate(limiter.rate).interval < STEP_NS else 0
            when = max(limiter.next, now + together)
            if not now < limiter.at <= when:
                limiter.at = when
                self._dispatcher.wake(when, track, LIMITED)

    def _free(self, track: Track, limiter: Limiter, now: int) -> int:
        """Return how many events of a track may be handed out now, besides the last attempts for which a process is
        made ready."""
        stated, purpose = track.limits, track.purpose
        limits = []
        if stated.rate is not None:
            rate = read_rate(stated.rate)
            if limiter.rate != stated.rate:
                limiter.rate, limiter.next = stated.rate, min(limiter.next, now + rate.interval)
            limits.append(1 + (now - max(limiter.next, now - rate.slack)) // rate.interval)  # not above 0 before then
        if stated.at_most is not None:
            limits.append(stated.at_most - (purpose.in_flight if track.shadow is None else track.shadow.in_hand))
        tracks = purpose.tracks.values() if track.shadow is None else (track,)
        return min(limits) - sum([each.chosen is not None for each in tracks])

    def room_for_last(self, track: Track, now: int) -> bool:
        """Return whether the last attempt for which a process is ready may be handed out. That was so when the process
        was chosen, but limits may have changed since. Where it may not be, its track waits."""
        limiter = track.limiter
        if limiter is None or self._free(track, limiter, now) >= 0:  # its own place is kept
            return True
        self.wait(track, limiter, now)
        return False

    def handed_out(self, track: Track, limiter: Limiter, lease: Lease, count: int, now: int) -> None:
        """Note that so many events of a track were handed out. At a slow rate that is durable before they are."""
        limiter.waiting.pop(track, None)  # with what it has more it comes behind the others
        stated = track.limits.rate
        if stated is None:
            return
        rate = read_rate(stated)
        limiter.rate, limiter.next = stated, max(limiter.next, now - rate.slack) + count * rate.interval
        if rate.interval > NOTED_NS and track.shadow is None:
            main, lease.noted = track.purpose.main, True
            self._dispatcher.change(main, Change(*main.key, limited_until=limiter.next))

    def looked_at(self, track: Track, limiter: Limiter, now: int) -> None:
        """Go on with the track that waits longest, after another had what it may have."""
        if not limiter.held:
            limiter.waiting.pop(track, None)
        first = next(iter(limiter.waiting), track)
        if first is not track and self._free(first, limiter, now) > 0:
            self._dispatcher.put_off(first)

    def due(self, track: Track, when: int) -> list[Track]:
        """Return the tracks to be handed out, because a timer that was set for a track is over."""
        limiter = track.purpose.limiter if track.shadow is None else track.shadow.limiter
        return list(limiter.waiting) if limiter is not None and limiter.at == when else []
