"""The small files beside a database: the mark of its progress, and a reserve of disk space.

SQLite does not notice a lost commit: after one flipped bit in its log it drops all commits from there on without an
error. The mark beside the database records how many there must be.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

import apsw

from .base import Space

WRITE = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
_READ = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
_PROBE_BYTES = 8 << 20
_ZEROS = bytes(64 << 10)  # SQLite's own files take less than 128 KiB at once


def make_file(path: str, like: str) -> None:
    """Create a file with the mode of the file `like`, if it does not exist."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(file, os.stat(like).st_mode & 0o666)
    finally:
        os.close(file)


def open_file(path: str, vfs: str | None, flags: int) -> apsw.VFSFile:
    """Open a file by SQLite's own file access, so that a replacement for it in tests applies here too.

    Opening and closing it otherwise would release SQLite's own locks on it, which belong to the process.
    """
    return apsw.VFSFile(vfs or "", os.path.abspath(path), [flags, 0])


def _sync_content(descriptor: int) -> None:
    """Make a file's content durable: its times need not be."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:  # macOS
        os.fsync(descriptor)


class Synced:
    """A file that is written by SQLite's file access, with a descriptor of its own that its content is synced by: that
    access would hold up all threads meanwhile, because it keeps Python's lock. So only a replacement for it, in tests,
    is used for this, too."""

    def __init__(self, path: str, vfs: str | None) -> None:
        """Open the file, which is there. Raise `apsw.Error` or `OSError`."""
        self.file = open_file(path, vfs, WRITE)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC) if vfs is None else -1
        except OSError:
            self.file.xClose()
            raise

    def begin(self, start: int, size: int) -> None:
        """Let the disk begin to write a part of the content, while something else is done before `sync`. Where a kernel
        does not offer that, or a sandbox forbids it, `sync` does it all."""
        # What is said to be needed no more Linux begins to write, and keeps it: it is not written yet.
        if self._descriptor >= 0 and hasattr(os, "posix_fadvise"):  # macOS has none
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Make what was written durable. Raise `apsw.Error` or `OSError`."""
        if self._descriptor >= 0:
            _sync_content(self._descriptor)
        else:
            self.file.xSync(apsw.SQLITE_SYNC_DATAONLY | apsw.SQLITE_SYNC_NORMAL)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.file.xClose()


def read_start(path: str, vfs: str | None, size: int) -> bytes:
    """Return the first bytes of a file, up to `size`."""
    file = open_file(path, vfs, _READ)
    try:
        size = min(size, file.xFileSize())
        return file.xRead(size, 0) if size else b""
    finally:
        file.xClose()


def space_around(path: str) -> Space | None:
    """Return how much room there is on the disk of `path`; None where the system does not say: a commit says why."""
    try:
        disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return None
    return Space(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def sync_folder(path: str) -> None:
    """Make the names of new files in the folder of `path` as durable as the files."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Reach(NamedTuple):
    """The progress of a store: its last commit, and the number of events accepted up to then.

    `store` and `life` identify the file. While a life begins, the file may still be that of `former`. With `emptied`
    it was closed: its log was emptied into it and is gone, so a log beside it is none of its own.
    """

    store: bytes
    life: int
    former: int
    commit: int
    events: int
    time: int
    emptied: bool


class Mark:
    """The progress of the database, recorded after each commit: never ahead of what is durable.

    Three records take turns: the one last made durable, the one being made durable, and the one that commits go on
    writing to. So whichever of them a power cut damages, an older one is left.

    A crash at any moment leaves no log that has anything beside a mark that says `emptied`. Opening replaces all three
    records, durably, before it writes to the log. Closing writes that record last: after the last commit, after the
    log was copied to the database and synced there, after the log was deleted, and after its folder was synced, so that
    the log does not come back. Where one of these steps fails, or another process reads the store meanwhile, it is not
    written, and a log there is taken for its own.
    """

    _RECORD = struct.Struct("<8s16siiqqq?")
    _MAGIC = b"solwind3"
    _APART = 4096  # never two in one sector
    _TURNS = 3

    def __init__(self, database: str, vfs: str | None, failed: Callable[[BaseException], None]) -> None:
        """`failed` is called, on the syncing thread, when a sync fails."""
        self.path = f"{database}-mark"
        self._database = database
        self._vfs = vfs
        self._failed = failed
        self._turn = 0
        self._file: Synced | None = None
        self._guard = threading.Lock()

    @classmethod
    def read(cls, database: str, vfs: str | None) -> Reach | None:
        """Return the latest of the records, or None where none is valid."""
        path = f"{database}-mark"
        if not os.path.exists(path):
            return None
        data = read_start(path, vfs, cls._APART * cls._TURNS)
        size = cls._RECORD.size
        found = []
        for at in range(0, cls._APART * cls._TURNS, cls._APART):
            record, check = data[at : at + size], data[at + size : at + size + 4]
            if len(check) == 4 and crc32(record) == int.from_bytes(check, "little"):
                magic, *fields = cls._RECORD.unpack(record)
                if magic == cls._MAGIC:
                    found.append(Reach(*fields))
        return max(found, key=lambda reach: (reach.commit, reach.emptied), default=None)

    def begin(self, reach: Reach) -> None:
        """Replace all records by `reach`, durably."""
        if self._file is None:
            make_file(self.path, self._database)
            self._file = Synced(self.path, self._vfs)
        for turn in range(self._TURNS):  # one by one, so that there is a valid record at every moment
            self._turn = turn
            self.write(reach)
            self._file.file.xSync(apsw.SQLITE_SYNC_NORMAL)
        sync_folder(self.path)

    def write(self, reach: Reach) -> None:
        assert self._file is not None
        record = self._RECORD.pack(self._MAGIC, *reach)
        with self._guard:
            self._file.file.xWrite(record + crc32(record).to_bytes(4, "little"), self._turn * self._APART)

    def sync(self) -> None:
        """Make what was written durable. It runs on a thread of its own: no commit waits for it."""
        assert self._file is not None
        with self._guard:
            self._turn = (self._turn + 1) % self._TURNS
        try:
            self._file.sync()
        except Exception as error:
            self._failed(error)

    def end(self, reach: Reach) -> None:
        """Record the last progress of a store that is closed, durably if possible."""
        if self._file is None:  # it was not even begun
            return
        with suppress(apsw.Error, OSError):
            if reach.emptied:
                sync_folder(self.path)
            self.write(reach)
            self.sync()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Reserve:
    """Reserved disk space, so that accepted events can be settled when the disk is full."""

    SIZE = 4 << 20

    def __init__(self, database: str, vfs: str | None) -> None:
        self._path = f"{database}-reserve"
        self._database = database
        self._vfs = vfs
        # An earlier run may have reserved it: a full disk must not prevent the start.
        self.held = os.path.exists(self._path) and os.path.getsize(self._path) > 0

    def hold(self) -> bool:
        """Reserve the space, if there is room for it. Return whether it is reserved."""
        try:
            make_file(self._path, self._database)
            file = open_file(self._path, self._vfs, WRITE)
        except (apsw.Error, OSError):
            self.held = False
            return False
        try:
            size = file.xFileSize()
            for at in range(size, self.SIZE, len(_ZEROS)):
                file.xWrite(_ZEROS[: self.SIZE - at], at)
            if size < self.SIZE:
                file.xSync(apsw.SQLITE_SYNC_NORMAL)
            self.held = True
        except apsw.Error:
            self.held = False
            with suppress(apsw.Error):
                file.xTruncate(0)
        finally:
            file.xClose()
        return self.held

    def probe(self, size: int) -> bool:
        """Return whether the disk has room for `size` bytes, up to 8 MiB, and a bit more."""
        size = min(size, _PROBE_BYTES) + (256 << 10)
        try:
            make_file(self._path, self._database)
            file = open_file(self._path, self._vfs, WRITE)
        except (apsw.Error, OSError):
            return False
        try:
            end = file.xFileSize()
            try:
                for at in range(end, end + size, len(_ZEROS)):
                    file.xWrite(_ZEROS, at)
            finally:
                file.xTruncate(end)
        except apsw.Error:
            return False
        finally:
            file.xClose()
        return True

    def release(self) -> bool:
        """Return the space to the disk. Return whether there was any."""
        held, self.held = self.held, False
        if held:
            try:
                file = open_file(self._path, self._vfs, WRITE)
                file.xTruncate(0)
                file.xClose()
            except apsw.Error:
                return False
        return held
