"""Rate-limited logging: the first line of a kind is written at once, the others are counted."""

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
MAX_KINDS = 1_000  # counted at the same time


class _Kind(msgspec.Struct, eq=False):
    """A line that was written at `since`, and the number of similar ones after it; `message` is the latest."""

    since: float
    level: int = 0
    message: str = ""
    args: tuple[Any, ...] = ()
    more: int = 0


class LimitedLog:
    """Writes at most one line for each kind and period, and at its end one more with the number of lines left out.

    `key` names the kind: what happened and to what (a topic and a purpose, a webhook), never an event. It may be called
    from any thread. Tests pass `now`: seconds that never go back.
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
        """Write a warning, or count it. `ends` names a kind that is over: the number of its lines is not reported any
        more."""
        with self._lock:
            if ends is not None and (kind := self._kinds.get(ends)) is not None:
                kind.more = 0
        self.log(key, logging.WARNING, message, *args)

    def error(self, key: Hashable, message: str, *args: Any, exc_info: BaseException | None = None) -> None:
        """Write an error, or count it. The traceback of `exc_info` is written with a line that is not counted."""
        self.log(key, logging.ERROR, message, *args, exc_info=exc_info)

    def log(self, key: Hashable, level: int, message: str, *args: Any, exc_info: BaseException | None = None) -> None:
        """Write a line of this level, or count it."""
        now = self._now()
        with self._lock:
            over = self._expire(now)
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
        """Write the numbers of lines left out so far, without waiting for the end of the period."""
        with self._lock:
            over = list(self._kinds.values())
            self._kinds.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._write(over, self._now())

    def _expire(self, now: float) -> list[_Kind]:
        """Remove and return the kinds whose period is over. Where lines were left out, a new period begins."""
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
                self._logger.log(
                    kind.level,
                    f"{message} (the last of %s more like it in %d s)",
                    *kind.args,
                    f"{kind.more:,}",
                    seconds,
                )

    def _set_timer(self) -> None:
        """Start the timer that reports what was left out, if it is not running."""
        if self._timer is None:
            self._timer = threading.Timer(self._period_s, self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        now = self._now()
        with self._lock:
            self._timer = None
            over = self._expire(now)
            if any(kind.more for kind in self._kinds.values()):
                self._set_timer()
        self._write(over, now)


def escape(record: logging.LogRecord) -> bool:
    """Keep each record on one line, whatever text an event or an error holds. A filter for loggers and handlers."""
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
