"""Threads for `def` handlers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger("solarwind")


class Threads:
    """Up to `limit` threads, made when there are jobs for them. A process that ends does not wait for them: a handler
    that never returns is given up, and what it had is handed out again."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def run(self, job: Callable[[], None]) -> None:
        """Have a job done, soon. Raises `RuntimeError` where the system gives no further thread and there is none."""
        with self._lock:
            if self._unfinished >= self._threads and self._threads < self._limit:
                self._start()
            self._unfinished += 1
        self._jobs.put(job)

    def _start(self) -> None:
        try:
            threading.Thread(target=self._live, name=f"{self._name} {self._threads}", daemon=True).start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads += 1

    def close(self) -> None:
        """End the threads, each after the job that it is at and those that wait."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = 0

    def _live(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:
                log.exception("a job on thread %r raised", threading.current_thread().name)
            del job  # what it holds may be large
            with self._lock:
                self._unfinished -= 1
