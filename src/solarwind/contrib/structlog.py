"""structlog: a processor that adds the event which is being handled.

structlog.configure(processors=[add_event, structlog.processors.JSONRenderer()])
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from ..service.log_fields import event_fields


def add_event(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add `topic`, `purpose`, `event_id`, `root` and `attempt` of the event that is being handled, of a batch its
    first. What is bound under such a name stays; outside of handlers nothing is added."""
    for name, value in event_fields().items():
        event_dict.setdefault(name, value)
    return event_dict
