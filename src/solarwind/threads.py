"""Threads that a process does not wait for at its end: for `def` handlers, for stores, and for a service's loop.

Those of `concurrent.futures` take no more work once the main thread has ended, before what was registered with `atexit`
is called: nothing could be stopped in order there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar

log = logging.getLogger("solarwind")

MAX_POOL = 32  # threads: as many as the usual pool has

T = TypeVar("T")


class Threads:
    """Up to `limit` threads, made when there are jobs for them. A process that ends does not wait for them: a handler
    that never returns is given up, and what it had is handed out again."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0

    def run(self, job: Callable[[], None]) -> None:
        """Run a job soon. Raise `RuntimeError` where the system allows no further thread and there is none."""
        with self._lock:
            if self._unfinished >= len(self._threads) < self._limit:
                self._start()
            self._unfinished += 1
        self._jobs.put(job)

    def _start(self) -> None:
        thread = threading.Thread(target=self._live, name=f"{self._name} {len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    @property
    def idle(self) -> bool:
        """Whether no job is under way or waits."""
        return not self._unfinished

    def close(self, wait_s: float = 0) -> None:
        """End the threads, each after its current and waiting jobs, and wait `wait_s` seconds for them."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        until = monotonic() + wait_s
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    def _live(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:
                log.exception("a job on thread %r raised", threading.current_thread().name)
            del job  # what it holds may be large
            with self._lock:
                self._unfinished -= 1


def _nothing() -> None: ...


class Pool(ThreadPoolExecutor):
    """An executor, also of a loop for `asyncio.to_thread`. Unlike the usual pool, it does not keep a process from
    ending, and works until its very end."""

    def __init__(self, name: str, threads: int = MAX_POOL) -> None:
        """`threads` is how many there may be. They are made when there is work for them, but one alone at once: at the
        end of a process, when it is closed in order, none can be made any more."""
        super().__init__(1)  # not used
        self._own = Threads(threads, name)
        self._closed = False
        if threads == 1:
            self._own.run(_nothing)

    @property
    def idle(self) -> bool:
        """Whether no job is under way or waits."""
        return self._own.idle

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._closed:
            raise RuntimeError("expected an open pool, got one that is closed")
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._own.run(job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.close(0)

    def close(self, wait_s: float) -> None:
        """End the threads when they are done, and wait `wait_s` seconds for that. Take no more work."""
        self._closed = True
        self._own.close(wait_s)
