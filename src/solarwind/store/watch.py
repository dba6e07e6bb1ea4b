"""Notices that a store's file or its log was removed, replaced or overwritten by another program while it is in use.

SQLite does not notice: it goes on writing to a log that leads nowhere, and what was accepted would be lost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .lock import identity

_HEADER_BYTES = 100
_LIFE = slice(60, 72)  # of the header: `user_version` and `application_id`
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_MAX_RESTARTS = 1000  # of the log, between two looks


class _Seen(NamedTuple):
    device: int
    inode: int
    size: int
    header: bytes

    @property
    def life(self) -> bytes:
        return self.header[_LIFE]


class Watch:
    """What the file at `path` and its log have to be. Only a checkpoint of the store itself changes the file.

    A check costs two system calls for each of them, and is made at every commit. The file is read by `file`, a
    descriptor of it that stays open: closing another one would release SQLite's locks."""

    def __init__(self, path: str, file: int) -> None:
        self._path, self._log_path = path, f"{path}-wal"
        self._file, self._log = file, -1
        self._guard = threading.Lock()
        self._checkpoints = 0  # that are under way
        self._seen: _Seen | None = None
        self._log_identity = identity(self._log_path)
        self._log_header = b""

    def begin(self) -> None:
        """Remember the file and its log, as they are now, as the store's own."""
        self.end()
        self._log = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
        self._log_identity, self._log_header = identity(self._log_path), os.pread(self._log, _LOG_HEADER_BYTES, 0)
        self._seen = self._look()

    def end(self) -> None:
        self._seen = None
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def is_log_whole(self, pages: int, page_bytes: int) -> bool:
        """Return whether the log is as long as its `pages` need. Asked before it is written to, which would hide it."""
        size = _LOG_HEADER_BYTES + pages * (page_bytes + _FRAME_HEADER_BYTES)
        return self._seen is None or not pages or os.fstat(self._log).st_size >= size

    def harmed(self) -> str | None:
        """Return which of the two is no longer the store's own, if any."""
        if self._seen is None:
            return None
        if self._look() != self._seen:
            with self._guard:  # so that no checkpoint begins or ends meanwhile
                if not self._agrees():
                    return self._path
        if identity(self._log_path) != self._log_identity or not self._is_own_log():
            return self._log_path
        return None

    @contextmanager
    def checkpoint(self) -> Iterator[bool]:
        """Enclose a checkpoint. Yield whether the file is still the store's own, so that it may be written to."""
        with self._guard:
            own = self._seen is None or self._agrees()
            self._checkpoints += 1
        try:
            yield own
        finally:
            with self._guard:
                self._checkpoints -= 1
                seen = self._look()
                if own and self._seen is not None and seen is not None and seen.life == self._seen.life:
                    self._seen = seen

    def _look(self) -> _Seen | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return _Seen(found.st_dev, found.st_ino, found.st_size, os.pread(self._file, _HEADER_BYTES, 0))

    def _agrees(self) -> bool:
        """Return whether the file is as it was seen, apart from what checkpoints under way change of it."""
        found, seen = self._look(), self._seen
        if not self._checkpoints or found is None or seen is None:
            return found == seen
        return (found.device, found.inode, found.life) == (seen.device, seen.inode, seen.life)

    def _is_own_log(self) -> bool:
        """Return whether its header is the one that was seen, or that of a restart: then a number in it grows by
        one."""
        header, before = os.pread(self._log, _LOG_HEADER_BYTES, 0), self._log_header
        if header != before:
            salt, former = (int.from_bytes(each[16:20], "big") for each in (header, before))
            if header[:12] != before[:12] or (salt - former) % (1 << 32) > _MAX_RESTARTS:
                return False
            self._log_header = header
        return True
