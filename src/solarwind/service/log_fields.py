"""What the log records of a handler have besides: the topic, purpose, event id, root and attempt of what it handles.

A record gets them when it is made, in the handler's context, and shows them when it is rendered: so what a call states
itself with `extra=` under the same name is not refused by `logging`, and counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .runner import handling

FIELDS = ("topic", "purpose", "event_id", "root", "attempt")


def event_fields() -> dict[str, Any]:
    """Return the fields of the event that is being handled, of a batch its first; none outside of handlers."""
    event = handling.get()
    if event is None:
        return {}
    return dict(zip(FIELDS, (event.topic, event.purpose, event.id, event.root, event.attempt), strict=True))


class HandlerRecord(logging.LogRecord):
    """A log record of a handler."""

    __slots__ = ("_fields",)  # which is not among what formatters find in `__dict__`

    def __init__(self, fields: dict[str, Any], *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            return self._fields[name]
        raise AttributeError(name)

    def getMessage(self) -> str:
        """Return the message. The first thing that is asked when a record is rendered: from here on it has its
        fields."""
        for name, value in self._fields.items():
            self.__dict__.setdefault(name, value)
        return super().getMessage()


def _factory(before: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make(*given: Any, **named: Any) -> logging.LogRecord:
        fields = event_fields()
        if not fields:
            return before(*given, **named)
        if before is logging.LogRecord:
            return HandlerRecord(fields, *given, **named)
        record = before(*given, **named)
        for name, value in fields.items():
            record.__dict__.setdefault(name, value)
        return record

    return make


_begun = False


def begin() -> None:
    """Have the records of handlers in this process have their fields. Nothing changes the second time."""
    global _begun
    if not _begun:
        _begun = True
        logging.setLogRecordFactory(_factory(logging.getLogRecordFactory()))
