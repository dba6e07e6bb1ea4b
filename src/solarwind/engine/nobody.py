"""Says in the log which purposes have events and no instance at work: a while after the start, from then on, and at the
end of a process that was over before.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from ..text import time_text
from .alarm import Wakeup
from .clock import Clock

if TYPE_CHECKING:
    from ..core.dispatcher import Dispatcher
    from ..core.purpose import Purpose

log = logging.getLogger("solarwind")

PATIENCE_NS = 10_000_000_000  # a service that restarts, or whose connection was lost, is back by then
LOOK_NS = 60_000_000_000
AGAIN_NS = 3_600_000_000_000  # after which it is said once more
MAX_LINES = 10  # for one look; the other purposes are counted
_TEXT = "nobody is up for purpose %r on topic %r: %s, and no instance%s is at work since %s: start one, or %s"
_TOGETHER = 250  # purposes that are looked at in one turn of the loop


def without(purpose: Purpose) -> str:
    """Return which instance a purpose is without that has nobody up: another version may have some."""
    return " of the version that is to get them" if purpose.instances else ""


def way_out(purpose: Purpose) -> str:
    """Return what may be done besides starting an instance."""
    if purpose.instances:
        return "have another version get them with `solarwind rollout`"
    return "retire the purpose if it is not wanted any more"


class NobodyUp:
    """The look at the purposes of one dispatcher that have no instance at work. There is a timer while it has any."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._wakeup = Wakeup(clock, self._go_on)
        self._left: list[Purpose] = []  # that this look has not come to yet
        self._found: list[tuple[int, Purpose]] = []  # by this look: how many events pend
        self._said: dict[Purpose, int] = {}  # when last
        self._started = 0
        self._soon = False  # a purpose was found that has been without for less than `PATIENCE_NS`

    def start(self) -> None:
        self._started = self._clock.now()
        self.set_timer()

    def stop(self) -> None:
        """Stop, and name the purposes that had no instance since the start and were not named yet."""
        self._wakeup.stop()
        self._found.clear()
        for purpose, since in self._dispatcher.alone.items():
            if not since and purpose not in self._said and self._is_without(purpose):
                self._found.append((self._pending(purpose), purpose))
        self._say(
            self._clock.now(),
            "nobody was up for purpose %r on topic %r: %s, and no instance%s was at work since %s: start one, or %s",
        )

    def set_timer(self) -> None:
        """Look soon, because instances have left."""
        if self._dispatcher.alone:
            self._wakeup.set(self._clock.now() + PATIENCE_NS)

    def since(self, purpose: Purpose) -> int:
        """Return since when it has no instance at work, as far as this dispatcher knows, in ns since 1970."""
        return max(self._started, self._dispatcher.alone.get(purpose, 0))

    def _go_on(self) -> None:
        """Look at some of the purposes, or begin another look."""
        now = self._clock.now()
        if not self._left:
            self._left = list(self._dispatcher.alone)
            self._said = {purpose: at for purpose, at in self._said.items() if purpose in self._dispatcher.alone}
        for purpose in islice(self._left, _TOGETHER):
            self._look_at(purpose, now)
        del self._left[:_TOGETHER]
        if self._left:
            self._wakeup.set(now)
            return
        self._say(now)
        if self._dispatcher.alone:
            self._wakeup.set(now + (PATIENCE_NS if self._soon else LOOK_NS))
            self._soon = False

    def _look_at(self, purpose: Purpose, now: int) -> None:
        if not self._is_without(purpose):
            self._said.pop(purpose, None)
        elif now - self.since(purpose) < PATIENCE_NS:
            self._soon = True
        elif now - self._said.get(purpose, -AGAIN_NS) >= AGAIN_NS:
            self._found.append((self._pending(purpose), purpose))

    def _is_without(self, purpose: Purpose) -> bool:
        topic = self._dispatcher.topics[purpose.topic]
        return (
            topic.purposes.get(purpose.name) is purpose and purpose.state(topic.end, self._clock.now()) == "nobody up"
        )

    def _pending(self, purpose: Purpose) -> int:
        return purpose.pending(self._dispatcher.topics[purpose.topic].end)

    def _say(self, now: int, text: str = _TEXT) -> None:
        found, self._found = sorted(self._found, key=lambda each: (-each[0], each[1].key)), []
        for pending, purpose in found[:MAX_LINES]:
            events = "1 event pends" if pending == 1 else f"{pending:,} events pend"
            since = time_text(self.since(purpose))
            log.warning(text, purpose.name, purpose.topic, events, without(purpose), since, way_out(purpose))
        if len(found) > MAX_LINES:
            more = len(found) - MAX_LINES
            log.warning("nobody is up for %s more purposes, whose events pend: see `solarwind purposes`", f"{more:,}")
        self._said.update((purpose, now) for _, purpose in found)
