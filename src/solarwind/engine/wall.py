"""What the wall clock is believed to say, where it was set: history goes by that, see GUARANTEES.md, "The clock".

A clock that was set back is believed at once, since what it says makes nothing go. One that was set forward, or whose
machine slept, is believed after an hour, so that a mistake that is put right by then costs no history and no ids.
"""

from __future__ import annotations

import logging
from time import time_ns

from ..core.log import Stored
from ..text import time_text
from .clock import Clock

log = logging.getLogger("solarwind")

STEP_NS = 1_000_000_000  # less is no step
SAID_NS = 60_000_000_000  # a step of more is said
DOUBT_NS = 3_600_000_000_000  # so long a clock that was set forward is not believed
SHOWN_NS = 24 * DOUBT_NS  # so long a clock that was wrong before the start is shown
UNUSED_NS = 365 * SHOWN_NS  # a store that seems to have been unused for longer is one whose clock is doubted


def in_time_of(clock: Clock, stored: Stored) -> Stored:
    """Return a batch that another machine's clock says when it was accepted, by this one: they differ where a test
    moves this one."""
    return stored._replace(accepted=stored.accepted + clock.wall() - time_ns())


class WallClock:
    """The wall clock as an offset of the engine's, which goes by the time that passes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.start(0)

    def start(self, last: int) -> None:
        """Begin, where the last commit of the store was at `last`, in ns since 1970; 0 where there is none."""
        now, wall = self._clock.now(), self._clock.wall()
        self._last, self._began = last, now
        self._believed = self._seen = wall - now  # ahead of the engine's
        self._since = now  # when what is seen was seen first
        if last and wall - last > UNUSED_NS:
            self._believed = last - now
            log.warning("%s", self._doubts())
        elif self.is_behind:
            log.warning("%s", self._behind())

    def look(self) -> None:
        """Look at the clock, which may have been set. Called now and then."""
        now = self._clock.now()
        ahead = self._clock.wall() - now
        step, self._seen = ahead - self._seen, ahead
        if ahead - self._believed <= STEP_NS:
            if self._believed - ahead > SAID_NS:
                log.warning("the clock was set back by %.0f s: it is %s now", -step / 1e9, time_text(now + ahead))
            self._believed = ahead
        elif abs(step) > STEP_NS:
            self._since = now
            if step > SAID_NS:
                log.warning("%s", self._doubts())
        elif now - self._since >= DOUBT_NS:
            self._believed = ahead

    @property
    def ahead(self) -> int:
        """How many ns what is believed is ahead of the engine's clock."""
        return self._believed

    def now(self) -> int:
        """Return the time that it is believed to be, in ns since 1970."""
        return self._clock.now() + self._believed

    @property
    def is_behind(self) -> bool:
        """Whether the last commit before the start lies in the future, or did so at the start, less than a day ago."""
        return self._last - self._began - self._seen > SAID_NS and self._clock.now() - self._began < SHOWN_NS

    def wrong(self) -> tuple[int, str] | None:
        """Return since when something is wrong with the clock, in ns since 1970, and what, in a sentence."""
        if self._seen - self._believed > SAID_NS:
            return self._since + self._seen, self._doubts()
        return (self._began + self._seen, self._behind()) if self.is_behind else None

    def _doubts(self) -> str:
        return (
            f"The clock says {time_text(self._clock.wall())}, {(self._seen - self._believed) / 1e9:,.0f} s more than "
            "passed: it was set, or the machine or the store was at rest. History goes by the time that passed for an "
            "hour: set the clock if it is wrong"
        )

    def _behind(self) -> str:
        return (
            f"The last commit in the store was at {time_text(self._last)}, in the future: the clock was wrong then, or "
            "is wrong now. What waited for a retry waits on for as long as it had to; set the clock if it is wrong"
        )
