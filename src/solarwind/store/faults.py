"""What a failed system call means for a store, in words that say what to do."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import NamedTuple

import apsw


class _Fault(NamedTuple):
    reason: str
    way_out: str


_FULL = _Fault("the disk is full", "make room on its disk")
_READ_ONLY = _Fault("the disk is read-only", "make it writable, or move the store to one that is")
_FAILED = _Fault("the disk failed", "see to its disk")
_REFUSED = _Fault("the system refuses it", "see to the file and its folder")
_FORBIDDEN = _Fault("this process may not do that", "allow it, or run it as another user")
_NO_MEMORY = _Fault("there is no memory left", "free some, and try again")
_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _Fault("the disk's quota is used up", "make room on its disk"),
    errno.EFBIG: _Fault("a file may not become so large", "raise the limit (`ulimit -f`)"),
    errno.EROFS: _READ_ONLY,
    errno.EMFILE: _Fault("this process has as many files open as it may", "raise the limit (`ulimit -n`)"),
    errno.ENFILE: _Fault("the system has as many files open as it may", "raise the limit, or end other processes"),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: _FAILED,
    errno.ENOMEM: _NO_MEMORY,
}
_BY_CODE = {
    apsw.SQLITE_FULL: _FULL,
    apsw.SQLITE_READONLY: _READ_ONLY,
    apsw.SQLITE_IOERR: _FAILED,
    apsw.SQLITE_CANTOPEN: _FAILED,
    apsw.SQLITE_PERM: _FORBIDDEN,
    apsw.SQLITE_NOMEM: _NO_MEMORY,
    apsw.SQLITE_BUSY: _Fault("another program has locked it", "end that program, and try again"),
    apsw.SQLITE_LOCKED: _Fault("another program has locked it", "end that program, and try again"),
}
_DESCRIPTORS = 4  # as many as SQLite has closed again at most where it could not open one more
_BY_SYSTEM = {apsw.SQLITE_IOERR, apsw.SQLITE_CANTOPEN}  # codes that tell only together with the system's


def note_cause(error: BaseException, *connections: apsw.Connection) -> None:
    """Keep with an error what the system told SQLite, before the connection where it happened is closed."""
    if isinstance(error, apsw.Error) and not hasattr(error, "errno"):
        for connection in connections:
            if connection.system_errno in _BY_ERRNO:
                error.errno = connection.system_errno  # type: ignore[attr-defined]


def cause_of(error: BaseException) -> BaseException:
    """Return the error by which SQLite gave a transaction up, where apsw then failed to roll it back another time."""
    masked = isinstance(error, apsw.SQLError) and isinstance(error.__context__, apsw.Error)
    return error.__context__ if masked and error.__context__ is not None else error


def explain(error: BaseException, path: str) -> str | None:
    """Return why a call failed, and what to do; None where no call failed, so that what was read is damaged."""
    number = getattr(error, "errno", None)
    error = cause_of(error)
    code = getattr(error, "result", None) if isinstance(error, apsw.Error) else None
    if number is None and code in _BY_SYSTEM:
        number = _try(path)
    fault = _BY_ERRNO.get(number or 0)
    said = os.strerror(number or 0) if fault is not None else " ".join(str(error).split())
    fault = fault or _BY_CODE.get(code or 0) or (_REFUSED if isinstance(error, OSError) else None)
    return f"{fault.reason} ({said}): {fault.way_out}" if fault is not None else None


def _try(path: str) -> int:
    """Return the operating system's error for using a file beside `path` now, or 0."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        with ExitStack() as stack:
            for _ in range(_DESCRIPTORS):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        disk = os.statvfs(folder)
    except OSError as error:
        return error.errno or 0
    if disk.f_flag & os.ST_RDONLY:
        return errno.EROFS
    if not disk.f_bavail or (disk.f_files and not disk.f_favail):
        return errno.ENOSPC
    return 0 if os.access(folder, os.W_OK | os.X_OK) and os.access(path, os.R_OK | os.W_OK) else errno.EACCES
