"""Warnings of an engine that starts or stops, about surprising states of its store."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..core.registry import Topic

log = logging.getLogger("solarwind")


def warn_of_forgotten(topics: Iterable[Topic]) -> None:
    """Warn of events that no purpose has handled, where `memory://` forgets them at its end."""
    left = sum(each.pending(topic.end) + each.in_flight for topic in topics for each in topic.purposes.values())
    if left:
        events = "1 event" if left == 1 else f"{left:,} events"
        way_out = "wait with `await wind.settled()`, or use sqlite:///wind.db"
        log.warning("stopped with %s on memory:// not handled, which are gone with it: %s", events, way_out)
