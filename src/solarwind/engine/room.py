"""Whether a store has room, as its commits find out, and how long they take; each change of the room is logged once."""

from __future__ import annotations

import logging

from ..core.facts import Histogram
from ..store.base import Full

log = logging.getLogger("solarwind")


class Room:
    """The room of one dispatcher's store."""

    def __init__(self) -> None:
        self.full = False  # and that was said
        self.full_for_all = False  # not for events alone
        self.since = 0  # since when it is full, in ns since 1970
        self.why = ""
        self.commits = Histogram()  # how long they took

    def note_full(self, full: Full, now: int) -> None:
        """Log that there is no room, once until there is room again."""
        if not self.full:
            self.full, self.since, self.why = True, now, str(full)
            log.warning("%s", full)

    def note_room(self, with_events: bool) -> None:
        """Log that there is room again. Where only events had none, a commit without events shows nothing."""
        if self.full and (with_events or self.full_for_all):
            self.full = self.full_for_all = False
            log.warning("there is room again")
