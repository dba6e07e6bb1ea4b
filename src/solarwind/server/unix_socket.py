"""A listening Unix socket: its file, from a look at who has the path already to its removal, and who is at the other
end of a connection."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import BadArgument, Unavailable
from ..names import check_path, check_socket_path, shown
from ..origin import process_of
from ..systems import check_linux

BACKLOG = 2_048  # connections that wait to be accepted
_CREDENTIALS = struct.Struct("3i")  # process, user and group: see unix(7)
_LOCK_S = 2.0  # for another server to look at the path
_PROBE_S = 2.0


def credentials(connected: socket.socket) -> tuple[int, int]:
    """Return the process and the user at the other end: of who connected, or of who began to listen."""
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


class UnixSocket:
    """A socket at a path of the file system, whose mode says who may connect."""

    def __init__(self, path: str, mode: int) -> None:
        """`mode` is that of the file. Raise `BadArgument` for a path that cannot be one."""
        check_linux("a server at a Unix socket", "have it listen on a port")
        scheme = re.match(r"[a-z]*://", path)
        if not path or scheme:
            instead = f"name it without {scheme[0]}, or a port with --port" if scheme else "name one with --socket"
            raise BadArgument(
                f"expected the path of a Unix socket, such as /run/wind.sock, got {shown(path)}: {instead}"
            )
        self.path = check_socket_path(os.path.abspath(check_path(path)))
        self._mode = mode
        self._file: tuple[int, int] | None = None  # device and inode

    def bind(self) -> socket.socket:
        """Return it, listening. A file that a killed process left is replaced. Raise `Unavailable`."""
        folder = os.path.dirname(self.path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _alone(folder):
                self._make_room()
                made.bind(self.path)
                os.chmod(self.path, self._mode)  # nobody can connect yet
                made.listen(BACKLOG)
                found = os.lstat(self.path)
            self._file = found.st_dev, found.st_ino
            made.setblocking(False)
        except BaseException as error:
            made.close()
            if isinstance(error, OSError):
                raise self._refusal(error, folder) from None
            raise
        return made

    def remove(self) -> None:
        """Remove the file, if it is still this socket's."""
        mine, self._file = self._file, None
        if mine is None:
            return
        with suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == mine:
                os.unlink(self.path)

    def _make_room(self) -> None:
        """Remove what a process that is gone left at the path. Raise `Unavailable` for anything else that is there."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise Unavailable(
                f"expected a path for a socket, but at {self.path} there is a {_kind(found.st_mode)}: name another "
                "with --socket"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_S)
            try:
                probe.connect(self.path)
                pid, _ = credentials(probe)
            except (ConnectionRefusedError, FileNotFoundError):
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
                return
            except PermissionError:
                raise
            except OSError:  # somebody is there, but accepts none, or is of another kind
                pid = 0
        who = process_of(pid) if pid else "another process"
        raise Unavailable(
            f"expected a path that no process listens at, but {who} does at {self.path}: stop it, or name another with "
            "--socket"
        )

    def _refusal(self, error: OSError, folder: str) -> Unavailable:
        begin = f"expected to listen at {self.path}, which cannot be"
        if not os.path.isdir(folder) and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return Unavailable(f"{begin}, as there is no folder {folder}: create it, or name another with --socket")
        if error.errno in (errno.EACCES, errno.EPERM):
            return Unavailable(
                f"{begin}, as this user may not do so in {folder}: name a folder of its own with --socket"
            )
        return Unavailable(f"{begin} ({error.strerror}): name another with --socket")


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Let no other server look at a path in the folder meanwhile: what it took for left behind might be ours by then.
    Raise `Unavailable`, and `OSError`."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    patience = time.monotonic() + _LOCK_S
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise Unavailable(
                        f"expected to listen in {folder}, but another process has locked it: name another folder with "
                        "--socket"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(file)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "symbolic link"
    return "file"
