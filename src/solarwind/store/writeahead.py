"""SQLite's log beside a store's file: how long it is, and how it is emptied into the file so that it stays bounded.

SQLite's own checkpoints hold up a commit. Here most of the log is copied in parallel with commits, on a thread of its
own. Only what they wrote meanwhile is copied between two commits, while nothing else writes: a log can be written from
its beginning again only after all of it was copied.

A log that grows takes longer to sync than one that is written over. Where commits are small that is what most of their
time goes into, so then it is kept short.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future

import apsw

from .database import UNKNOWN, result_code
from .files import Reserve
from .watch import Watch

log = logging.getLogger("solarwind")

_LOG_BYTES = 64 << 20  # from here on the log is emptied into the database in parallel
_SHORT_LOG_BYTES = 4 << 20  # the same, while commits are small:
_SMALL_BYTES = 128 << 10  # of the log for each, as a mean
_LOG_MAX_BYTES = 4 * _LOG_BYTES  # and from here on commits wait for that
_LOG_REFUSE_BYTES = 16 * _LOG_BYTES  # and where that fails, from here on events are refused


class WriteAheadLog:
    """The log of the store at `path`. It is called between two commits, on the thread of its `writer`."""

    def __init__(
        self,
        path: str,
        writer: apsw.Connection,
        keeper: apsw.Connection,
        thread: Executor,
        reserve: Reserve,
        watch: Watch,
        failed: Callable[[str, BaseException], object],
    ) -> None:
        """The log is emptied on `thread` by `keeper`. `failed` is called when what it holds cannot be told."""
        self._path = path
        self._writer, self._keeper = writer, keeper
        self._thread = thread
        self._reserve = reserve
        self._watch = watch
        self._failed = failed
        self._pages = 0
        self._commits = 0  # that those are of
        self._page_bytes = int(writer.pragma("page_size"))
        self._emptying: Future[None] | None = None
        self._fault = ""  # why it cannot be emptied

    @property
    def bytes(self) -> int:
        return self._pages * self._page_bytes

    @property
    def _long(self) -> int:
        """From how many bytes on it is to be emptied."""
        small = self.bytes <= self._commits * _SMALL_BYTES
        return min(_SHORT_LOG_BYTES, _LOG_BYTES) if small else _LOG_BYTES

    def harmed(self) -> str | None:
        """Return its path where it was cut off since the last transaction."""
        return None if self._watch.is_log_whole(self._pages, self._page_bytes) else f"{self._path}-wal"

    def count(self) -> None:
        """Note the length of the log after each commit, from here on."""
        self._writer.set_wal_hook(self._note_pages)

    def note_commits(self, count: int) -> None:
        """Note that the last transaction was that of so many commits besides."""
        self._commits += count

    def _note_pages(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._commits = 1 if pages < self._pages else self._commits + 1
        self._pages = pages
        return apsw.SQLITE_OK

    def bound(self) -> None:
        """Start the log anew once it is long."""
        if not self._reserve.held and self.bytes >= self._reserve.SIZE // 4:
            self.empty()  # the reserved space is for the database, too
        elif self.bytes < self._long:
            return
        elif self._emptying is None:
            self._emptying = self._thread.submit(self.empty_in_parallel)
        elif self._emptying.done() or self.bytes >= _LOG_MAX_BYTES:
            self._wait()
            self.empty()

    def empty(self) -> int:
        """Copy it to the database as far as readers allow. Return the number of pages left."""
        return self._checkpoint(self._writer)

    def empty_in_parallel(self) -> None:
        """Copy most of it, on its own thread, while commits go on."""
        try:
            for _ in range(3):  # each time less is written meanwhile
                if self._checkpoint(self._keeper) * self._page_bytes < _LOG_BYTES // 16:
                    return
        except Exception as error:  # nobody may be waiting for this thread
            log.exception("%s-wal could not be emptied into %s", self._path, self._path)
            self._failed("so what its log holds is not known", error)

    def why_refuse(self) -> str:
        """Return why no more events should be written to it, where it is long and cannot be emptied; else nothing."""
        if not self._fault or self.bytes < _LOG_REFUSE_BYTES:
            return ""
        self._wait()  # two at a time are refused
        self.empty()
        if not self._fault:
            return ""
        return (
            f"{self._path} takes no more events while {self._path}-wal, of {self.bytes >> 20:,} MiB, cannot be "
            f"emptied into it ({self._fault}): see to its disk"
        )

    def _wait(self) -> None:
        if self._emptying is not None:
            self._emptying.result()
            self._emptying = None

    def may_be_emptied(self, connection: apsw.Connection) -> bool:
        """Return whether emptying it leaves enough of the room that was reserved, where that is given up."""
        if self._reserve.held:
            return True
        growth = int(connection.pragma("page_count")) * self._page_bytes - os.path.getsize(self._path)
        return growth <= self._reserve.SIZE // 2

    def _checkpoint(self, connection: apsw.Connection) -> int:
        if not self.may_be_emptied(connection):
            return 0
        with self._watch.checkpoint() as own:
            if not own:
                return 0  # the next commit says so
            try:
                written, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error as error:
                if result_code(error) in UNKNOWN:
                    self._failed("so what it holds is not known", error)
                elif not isinstance(error, apsw.BusyError):  # else another connection is at it
                    self._note_fault(error)
                return 0  # the log grows until it can be done
        if self._fault:
            self._fault = ""
            log.warning("%s-wal is emptied into %s again", self._path, self._path)
        return max(0, self._pages - copied) if written >= 0 else 0

    def _note_fault(self, error: apsw.Error) -> None:
        """Log the fault once, until emptying succeeds again."""
        if not self._fault:
            log.warning("%s-wal cannot be emptied into %s (%s), so it grows: check its disk", *[self._path] * 2, error)
        self._fault = str(error) or type(error).__name__
