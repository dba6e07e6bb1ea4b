"""A lock on a store's file: one process at a time, by the file itself, whatever name it is opened under."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ..errors import StoreError
from ..origin import process_of, program_name
from ..systems import after_fork
from ..text import time_text
from .faults import explain

_CHILDREN_S = 2.0
_Identity = tuple[int, int]  # device and inode

_held: dict[_Identity, Lock] = {}  # the locks of this process
_guard = threading.Lock()


def identity(path: str) -> _Identity | None:
    """Return the device and inode of the file at `path`, or None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Holder(msgspec.Struct):
    pid: int
    program: str
    since: str


class Lock:
    """A lock on the file at `path`; a hard link to it, or a mount elsewhere, is the same file.

    `flock` on Linux does not interfere with SQLite's own locks, but closing a file releases those of its process. So a
    file is never opened here that this process has open as a store.
    """

    def __init__(self, path: str, now: int, forked: Callable[[], None] = lambda: None) -> None:
        """Acquire the lock, and create the file if there is none. Raise `StoreError`, naming the process that holds it.

        `forked` is called in each forked child, where the lock is not held."""
        self.path = path
        self._forked = forked
        self._file, self.identity = self._acquire()
        program = program_name(sys.argv[0] if sys.argv else "")[:100]
        holder = msgspec.json.encode(_Holder(os.getpid(), program, time_text(now)))
        with suppress(OSError):  # on a full disk, for example: /proc/locks knows too
            note = os.open(f"{path}-lock", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(note, os.fstat(self._file).st_mode & 0o666)
                os.write(note, holder)
            finally:
                os.close(note)

    def _acquire(self) -> tuple[int, _Identity]:
        patience = time.monotonic() + _CHILDREN_S
        while True:
            with _guard:
                found = identity(self.path)
                if found in _held:
                    raise StoreError(_in_use(self.path, "this very process"))
                file = self._open()
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(file)
                    who = _who(self.path, identity(self.path))
                    if who or time.monotonic() > patience:
                        raise StoreError(_in_use(self.path, who)) from None
                except OSError:
                    os.close(file)
                    raise
                else:
                    status = os.fstat(file)
                    if identity(self.path) == (status.st_dev, status.st_ino):
                        _held[status.st_dev, status.st_ino] = self
                        return file, (status.st_dev, status.st_ino)
                    os.close(file)  # the file was replaced between the two steps
                    continue
            time.sleep(0.01)  # a child that was forked just before its parent died is about to let go

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be opened: {explain(error, self.path)}") from error

    @property
    def descriptor(self) -> int:
        """The descriptor by which it is held; it must not be closed elsewhere."""
        return self._file

    def release(self) -> None:
        if self._file < 0:
            return
        with _guard:
            _held.pop(self.identity, None)
            holder = _read_holder(self.path)
            with suppress(OSError):
                if holder is not None and holder.pid == os.getpid():
                    os.unlink(f"{self.path}-lock")
            os.close(self._file)
            self._file = -1

    def leave_to_parent(self) -> None:
        """Give up the lock in a forked child: the parent still holds it, until it ends."""
        os.close(self._file)
        self._file = -1
        self._forked()


def _forget() -> None:
    global _guard
    _guard = threading.Lock()  # its holder is not a thread of the child
    for lock in _held.values():
        lock.leave_to_parent()
    _held.clear()


after_fork(_forget)


def _read_holder(path: str) -> _Holder | None:
    try:
        with open(f"{path}-lock", "rb") as file:
            return msgspec.json.decode(file.read(4096), type=_Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def _owner(found: _Identity | None) -> int | None:
    """Return the process that holds a file's lock, according to Linux."""
    if found is None:
        return None
    device, inode = found
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                words = line.split()
                if len(words) > 5 and words[1] == "FLOCK" and words[5] == place:
                    return int(words[4])
    except (OSError, ValueError):
        pass
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _who(path: str, found: _Identity | None) -> str:
    """Return a description of the process that holds it, if it can be seen and lives."""
    holder, owner = _read_holder(path), _owner(found)
    if holder is not None and (holder.pid == owner or owner is None) and _lives(holder.pid):
        return f"process {holder.pid} ({holder.program}) since {holder.since}"
    if owner is not None and _lives(owner):
        return process_of(owner)
    return ""


def holder_elsewhere(path: str) -> str:
    """Return a description of the process that has the file at `path` open under another name; nothing if none has."""
    for _ in range(2):  # one that is just opening it has yet to note that
        found = identity(path)
        held = _held.get(found) if found is not None else None
        if held is not None:
            return "" if held.path == path else "this very process"
        who = "" if os.path.lexists(f"{path}-lock") or os.path.lexists(f"{path}-wal") else _who(path, found)
        if not who:
            return ""
        time.sleep(0.05)
    return who


def _in_use(path: str, who: str) -> str:
    return (
        f"{path} is in use by {who or 'another process'}: stop it, or share the store with "
        f"`solarwind serve --data {shlex.quote(path)}`; if it is one, name its URL, such as ws://127.0.0.1:7400 (what "
        "`solarwind run --workers` starts is for its workers alone)"
    )
