"""Warnings of an engine that starts or stops, about surprising states of its store."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..core.registry import Topic
from ..text import time_text

log = logging.getLogger("solarwind")

CLOCK_AHEAD_S = 60.0  # a last commit that lies so far in the future is said


def warn_of_clock(last: int, wall: int) -> None:
    """Warn where the clock is behind. `last` is the last time in the store, `wall` the clock's, both in ns since
    1970."""
    ahead_s = (last - wall) / 1e9
    if ahead_s > CLOCK_AHEAD_S:
        log.warning(
            "the last time in the store, %s, lies %.0f s in the future: the clock was wrong then, or is wrong now. "
            "Leases and retries go on from there; how long history is kept goes by the clock as it is",
            time_text(last),
            ahead_s,
        )


def warn_of_forgotten(topics: Iterable[Topic]) -> None:
    """Warn of events that no purpose has handled, where `memory://` forgets them at its end."""
    left = sum(each.pending(topic.end) + each.in_flight for topic in topics for each in topic.purposes.values())
    if left:
        events = "1 event" if left == 1 else f"{left:,} events"
        way_out = "wait with `await wind.settled()`, or use sqlite:///wind.db"
        log.warning("stopped with %s on memory:// not handled, which are gone with it: %s", events, way_out)
