"""Logging of a service run by `run`: lines on stderr, unless its own module has configured logging."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime

import msgspec

from ..logs import escape
from ..service.log_fields import FIELDS
from ..text import plain_json
from .parent import WORKER


class _Line(logging.Formatter):
    def __init__(self) -> None:
        worker = os.environ.get(WORKER)
        who = f"worker {worker}: " if worker else ""
        super().__init__(f"%(asctime)s %(levelname)-7s %(name)s: {who}%(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")


class _Json(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        worker = os.environ.get(WORKER)
        self._who = {"worker": int(worker)} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._who,
            **{name: getattr(record, name) for name in FIELDS if hasattr(record, name)},
        }
        if record.exc_info:
            entry["error"] = record.exc_text or self.formatException(record.exc_info)
        return plain_json(msgspec.json.encode(entry)).decode()


def log_to_stderr(json: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if json else _Line())
    handler.addFilter(escape)  # for every logger
    logging.basicConfig(level=logging.INFO, handlers=[handler])
