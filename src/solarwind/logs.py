"""Log lines that may come by the thousand: the first of a kind is written at once, the others are counted."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any

import msgspec

from .text import is_plain_error, plain, plain_traceback

PERIOD_S = 60.0
MAX_KINDS = 1_000  # that are counted at the same time


class _Kind(msgspec.Struct, eq=False):
    """A line that was written at `since`, and how many like it came from then on; `message` is the last of them."""

    since: float
    level: int = 0
    message: str = ""
    args: tuple[Any, ...] = ()
    more: int = 0


class LimitedLog:
    """At most one line per kind and period, and at the period's end one more with the number of those left out.

    A kind is whatever `key` says: what happened, and where it matters to whom (a topic and a purpose, a webhook), never
    an event. From any thread. `now` is given by tests: seconds that never go back.
    """

    def __init__(
        self, logger: logging.Logger, period_s: float = PERIOD_S, now: Callable[[], float] = monotonic
    ) -> None:
        self._logger = logger
        self._period_s = period_s
        self._now = now
        self._kinds: dict[Hashable, _Kind] = {}  # the oldest first
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def warning(self, key: Hashable, message: str, *args: Any, ends: Hashable = None) -> None:
        """Write a warning, or count it. What `ends` names is over: how often it was left out is not said any more."""
        with self._lock:
            if ends is not None and (kind := self._kinds.get(ends)) is not None:
                kind.more = 0
        self.log(key, logging.WARNING, message, *args)

    def error(self, key: Hashable, message: str, *args: Any, exc_info: BaseException | None = None) -> None:
        """Write an error, or count it. The traceback of `exc_info` comes with a line that is written at once."""
        self.log(key, logging.ERROR, message, *args, exc_info=exc_info)

    def log(self, key: Hashable, level: int, message: str, *args: Any, exc_info: BaseException | None = None) -> None:
        """Write a line of this level, or count it."""
        now = self._now()
        with self._lock:
            over = self._take_over(now)
            kind = self._kinds.get(key)
            is_first = kind is None
            if kind is None:
                if len(self._kinds) >= MAX_KINDS:
                    over.append(self._kinds.pop(next(iter(self._kinds))))
                self._kinds[key] = _Kind(now)
            else:
                kind.level, kind.message, kind.args = level, message, args
                kind.more += 1
                self._set_timer()
        self._write(over, now)
        if is_first:
            self._logger.log(level, message, *args, exc_info=exc_info)

    def flush(self) -> None:
        """Write the numbers of what was left out so far, without waiting for the end of the period."""
        with self._lock:
            over = list(self._kinds.values())
            self._kinds.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._write(over, self._now())

    def _take_over(self, now: float) -> list[_Kind]:
        """Those whose period is over. Where lines were left out, the one that says so begins a new period."""
        over = []
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))
            if now - kind.since < self._period_s:
                break
            del self._kinds[key]
            over.append(kind)
            if kind.more:
                self._kinds[key] = _Kind(now)
        return over

    def _write(self, over: list[_Kind], now: float) -> None:
        for kind in over:
            if kind.more:
                message = kind.message if kind.args else kind.message.replace("%", "%%")
                seconds = max(1, round(now - kind.since))
                self._logger.log(kind.level, f"{message} (%s like it in %d s)", *kind.args, f"{kind.more:,}", seconds)

    def _set_timer(self) -> None:
        """While lines are left out: what nobody else says in time, it says."""
        if self._timer is None:
            self._timer = threading.Timer(self._period_s, self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        now = self._now()
        with self._lock:
            self._timer = None
            over = self._take_over(now)
            if any(kind.more for kind in self._kinds.values()):
                self._set_timer()
        self._write(over, now)


def escape(record: logging.LogRecord) -> bool:
    """Whatever an event or an error says, a record is one line, and its traceback has lines of its own only: a filter
    of loggers and handlers."""
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = plain(message), None
    if record.exc_info and record.exc_info[1] is not None and not is_plain_error(record.exc_info[1]):
        record.exc_text = plain_traceback(record.exc_info[1])
    return True


for _name in ("solarwind", "solarwind.websocket"):
    logging.getLogger(_name).addFilter(escape)
limited = LimitedLog(logging.getLogger("solarwind"))
atexit.register(limited.flush)
