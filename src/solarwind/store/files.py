"""The small files beside a database: who has it open, how far it has got, and room for when there is none.

SQLite cannot say that it lost something: one flipped bit in its log, and it drops all commits from there on
without an error. The mark beside the database says how many there must be.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from zlib import crc32

import apsw
import msgspec

from ..errors import StoreError

_OPEN = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
_READ = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
_ZEROS = bytes(64 << 10)  # SQLite's own files take less than 128 KiB at once


def when(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def open_file(path: str, vfs: str | None, flags: int) -> apsw.VFSFile:
    """A file as SQLite itself opens it, so that whatever stands in for the disk stands in for all of it.

    Opening and closing it otherwise would drop SQLite's own locks on it, which belong to the process.
    """
    return apsw.VFSFile(vfs or "", os.path.abspath(path), [flags, 0])


def read_start(path: str, vfs: str | None, size: int) -> bytes:
    """The first bytes of a file, as many as it has."""
    file = open_file(path, vfs, _READ)
    try:
        size = min(size, file.xFileSize())
        return file.xRead(size, 0) if size else b""
    finally:
        file.xClose()


def sync_folder(path: str) -> None:
    """Make the names of new files in the folder of `path` as durable as the files."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _Holder(msgspec.Struct):
    pid: int
    command: str
    since: str


class Lock:
    """Only one process at a time: a file that it holds locked, which says who it is."""

    def __init__(self, database: str, now: int) -> None:
        """Take it; `StoreError` names who else has it."""
        self._path = f"{database}-lock"
        self._file = self._take(database)
        command = " ".join([os.path.basename(sys.orig_argv[0]), *sys.orig_argv[1:]])[:200]
        holder = msgspec.json.encode(_Holder(os.getpid(), command, when(now)))
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, holder, 0)

    def _take(self, database: str) -> int:
        while True:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise StoreError(
                    f"expected a folder to write to for {database}, but {self._path} cannot be made: {error.strerror}"
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                text = os.pread(file, 4096, 0)
                os.close(file)
                raise StoreError(_in_use(database, text)) from error
            if self._is_current(file):
                return file
            os.close(file)  # its last holder removed it between our two steps: what we hold is no one's

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._file >= 0:
            os.unlink(self._path)
            os.close(self._file)
            self._file = -1


def _in_use(database: str, text: bytes) -> str:
    try:
        holder = msgspec.json.decode(text, type=_Holder)
    except msgspec.DecodeError:  # it was only just taken
        who = "another process"
    else:
        who = "this very process" if holder.pid == os.getpid() else f"process {holder.pid}"
        who += f" ({holder.command}) since {holder.since}"
    return f"{database} is in use by {who}: stop it, or share the store with `solarwind serve --data {database}`"


class Reach(NamedTuple):
    """How far a store has got: its last commit, and all events that it has accepted up to then."""

    store: bytes
    commit: int
    events: int
    time: int


class Mark:
    """How far the database has got, noted after each commit: never ahead of what is durable.

    Three records take turns: the one last made durable, the one being made durable, and the one that
    commits go on writing to. So whichever of them a power cut tears, an older one is left.
    """

    _RECORD = struct.Struct("<8s16sqqq")
    _MAGIC = b"solwind1"
    _APART = 4096  # no two in one sector
    _TURNS = 3

    def __init__(self, database: str, vfs: str | None, failed: Callable[[BaseException], None]) -> None:
        """`failed` is called, on the thread that syncs, when a sync failed."""
        self.path = f"{database}-mark"
        self._vfs = vfs
        self._failed = failed
        self._turn = 0
        self._file: apsw.VFSFile | None = None
        self._guard = threading.Lock()

    @classmethod
    def read(cls, database: str, vfs: str | None) -> Reach | None:
        """The furthest of the records, or None where there is no sound one."""
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
        return max(found, key=lambda reach: reach.commit, default=None)

    def begin(self, reach: Reach) -> None:
        """Put `reach` in the place of whatever was there, durably."""
        self._file = open_file(self.path, self._vfs, _OPEN | apsw.SQLITE_OPEN_CREATE)
        for turn in range(self._TURNS):  # one by one: there is a sound record at every moment
            self._turn = turn
            self.write(reach)
            self._file.xSync(apsw.SQLITE_SYNC_NORMAL)
        sync_folder(self.path)

    def write(self, reach: Reach) -> None:
        assert self._file is not None
        record = self._RECORD.pack(self._MAGIC, *reach)
        with self._guard:
            self._file.xWrite(record + crc32(record).to_bytes(4, "little"), self._turn * self._APART)

    def sync(self) -> None:
        """Make what was written durable. On a thread of its own: no commit waits for it."""
        assert self._file is not None
        with self._guard:
            self._turn = (self._turn + 1) % self._TURNS
        try:
            self._file.xSync(apsw.SQLITE_SYNC_DATAONLY | apsw.SQLITE_SYNC_NORMAL)
        except Exception as error:
            self._failed(error)

    def close(self) -> None:
        if self._file is not None:
            self._file.xClose()
            self._file = None


class Reserve:
    """Room set aside, so that work that was accepted can be settled when the disk is full."""

    SIZE = 4 << 20

    def __init__(self, database: str, vfs: str | None) -> None:
        self._path = f"{database}-reserve"
        self._vfs = vfs
        # Set aside by an earlier run, perhaps: a disk that is full is no reason not to start.
        self.held = os.path.exists(self._path) and os.path.getsize(self._path) > 0

    def hold(self) -> None:
        """Set it aside, if there is room for it."""
        try:
            file = open_file(self._path, self._vfs, _OPEN | apsw.SQLITE_OPEN_CREATE)
        except apsw.Error:
            self.held = False
            return
        try:
            size = file.xFileSize()
            for at in range(size, self.SIZE, len(_ZEROS)):
                file.xWrite(_ZEROS[: self.SIZE - at], at)
            if size < self.SIZE:
                file.xSync(apsw.SQLITE_SYNC_NORMAL)
            self.held = True
        except apsw.Error:
            file.xTruncate(0)
            self.held = False
        finally:
            file.xClose()

    def release(self) -> bool:
        """Give the room back to the disk. Says whether there was any."""
        held, self.held = self.held, False
        if held:
            try:
                file = open_file(self._path, self._vfs, _OPEN)
                file.xTruncate(0)
                file.xClose()
            except apsw.Error:
                return False
        return held
