"""A disk that fails as told: SQLite's access to files, with everything that it did written down.

What was written is on a real disk, too, so that a store runs on it as always. But what a power cut would have left of
it can be drawn from the notes: what was synced, and any part of what was not.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from solarwind.store import files

SECTOR = 512
_numbers = itertools.count()


class Done(NamedTuple):
    """One thing that was done to the disk. `acknowledged` is not: it is when a test was told of a commit."""

    kind: str  # write, truncate, sync, delete, sync_folder, acknowledged
    path: str
    at: int  # where it was written; the new size; how much had been done when a sync began; the number of commits
    data: bytes = b""


class Disk:
    """All that is opened under the VFS `name`. Use it as a context manager."""

    def __init__(self) -> None:
        self.name = f"faulty-{next(_numbers)}"
        self.done: list[Done] = []
        self.sizes: dict[str, int] = {}
        self.quota: int | None = None
        # Asked before each call with its kind and path; it returns an SQLite error code, or 0.
        self.fault: Callable[[str, str], int] = lambda kind, path: 0
        self.guard = threading.RLock()

    def __enter__(self) -> Disk:
        self._vfs = _Vfs(self)
        self._sync_folder, files.sync_folder = files.sync_folder, lambda path: self.note("sync_folder", path, 0)
        return self

    def __exit__(self, *_: object) -> None:
        files.sync_folder = self._sync_folder
        self._vfs.unregister()

    def acknowledged(self, commits: int) -> None:
        with self.guard:
            self.done.append(Done("acknowledged", "", commits))

    def ask(self, kind: str, path: str | None) -> None:
        code = self.fault(kind, path or "")
        if code:
            raise apsw.exception_for(code)

    def note(self, kind: str, path: str, at: int, data: bytes = b"") -> None:
        with self.guard:
            self.done.append(Done(kind, path, at, data))
            if kind == "write":
                self.sizes[path] = max(self.sizes.get(path, 0), at + len(data))
            elif kind in ("truncate", "delete"):
                self.sizes[path] = at

    def refuse_beyond_quota(self, path: str, stop: int) -> None:
        if self.quota is not None and stop > self.sizes.get(path, 0):
            used = sum(self.sizes.values()) - self.sizes.get(path, 0) + stop
            if used > self.quota:
                raise apsw.exception_for(apsw.SQLITE_FULL)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._path = (name if isinstance(name, str) else name.filename()) if name is not None else ""
        super().__init__("", name, flags)
        with disk.guard:
            disk.sizes.setdefault(self._path, self.xFileSize())

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.ask("read", self._path)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.ask("write", self._path)
        with self._disk.guard:
            self._disk.refuse_beyond_quota(self._path, offset + len(data))
            super().xWrite(data, offset)
            self._disk.note("write", self._path, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self._disk.ask("truncate", self._path)
        with self._disk.guard:
            super().xTruncate(newsize)
            self._disk.note("truncate", self._path, newsize)

    def xSync(self, flags: int) -> None:
        begun = len(self._disk.done)
        self._disk.ask("sync", self._path)  # that it is synced is only noted: a real sync would just take time
        self._disk.note("sync", self._path, begun)

    def excepthook(self, *_: object) -> bool:
        return True


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(disk.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:
        self._disk.ask("open", name if isinstance(name, str) or name is None else name.filename())
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._disk.note("delete", filename, 0)
        if syncdir:
            self._disk.note("sync_folder", filename, 0)

    def excepthook(self, *_: object) -> bool:
        return True


@contextmanager
def faulty_disk() -> Iterator[Disk]:
    with Disk() as disk:
        yield disk


class Platter:
    """What is durable of what was done, up to some moment."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.loose: dict[str, list[tuple[int, Done]]] = {}  # done, but not synced
        self.deleted: dict[str, bytearray] = {}  # since the folder was synced, with what was durable of each
        self.acknowledged = 0

    def do(self, index: int, done: Done) -> None:
        if done.kind == "acknowledged":
            self.acknowledged = done.at
        elif done.kind == "delete":
            self.deleted[done.path] = self.files.pop(done.path, bytearray())
            self.loose.pop(done.path, None)
        elif done.kind == "sync_folder":
            self.deleted.clear()
        elif done.kind == "sync":
            loose = self.loose.get(done.path, [])
            content = self.files.setdefault(done.path, bytearray())
            while loose and loose[0][0] < done.at:
                _apply(content, loose.pop(0)[1])
        else:
            self.loose.setdefault(done.path, []).append((index, done))

    def cut(self, folder: Path, chance: random.Random) -> None:
        """Write down what a power cut now may leave, in `folder`: of what was not synced, any sectors, and any file
        that was deleted."""
        for path in sorted(self.deleted.keys() - self.files.keys() - self.loose.keys()):
            if chance.random() < 0.5:
                (folder / os.path.basename(path)).write_bytes(self.deleted[path])
        for path in sorted(self.files.keys() | self.loose.keys()):
            content = bytearray(self.files.get(path, b""))
            kept = chance.choice((0.0, 0.5, 0.9, 1.0))
            for _, done in self.loose.get(path, []):
                for part in _sectors(done):
                    if chance.random() < kept:
                        _apply(content, part)
            (folder / os.path.basename(path)).write_bytes(content)


def _sectors(done: Done) -> Iterator[Done]:
    if done.kind != "write":
        yield done
        return
    at = 0
    while at < len(done.data):
        stop = at + SECTOR - (done.at + at) % SECTOR
        yield Done("write", done.path, done.at + at, done.data[at:stop])
        at = stop


def _apply(content: bytearray, done: Done) -> None:
    if done.kind == "truncate":
        del content[done.at :]
        content.extend(bytes(done.at - len(content)))
        return
    content.extend(bytes(max(0, done.at + len(done.data) - len(content))))
    content[done.at : done.at + len(done.data)] = done.data
