"""A store's newest commits, in a file beside its database, until they are in it.

A transaction of SQLite's writes a page for each table and index that it touches. A small commit that only adds rows is
one short record here, and one fdatasync: the file always has its full size, so the file system has nothing to note of
it. Every transaction begins by inserting what is pending here. Once it is durable, the file is written from its start
again.

    record    header: magic, size of the entry, its sum        at a multiple of 512 bytes
              entry:  the commit before, and the rows

The sum of an entry starts from the store's id and life, so what another store left here, or an earlier life of this
one, is no record. What was inserted is known by its number. So the records that count are those whose commits follow
on the last one in the database, each on the one before. A torn record is a commit that nobody was told of, unless a
later one is there: that is written only after the one before was durable, so then something is lost.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

import apsw
import msgspec

from . import database, files
from .commits import Rows
from .database import CommitRow
from .lock import identity

SIZE = 1 << 20  # of the file
MAX_BYTES = 64 << 10  # of an entry
MAX_COMMITS = 128  # that are pending
MAX_BATCHES = 256  # of those: inserting them holds up the next commit, and may need the room that is reserved
QUICK_S = 0.001  # of a sync: the loop may wait for it
_SLOW_TIMES = 100  # after a slower one it does not for so many times as long, so that it hardly ever stands still
_SECTOR = 512  # which no two records share, so that writing one cannot harm another
_HEADER = struct.Struct("<8sII")
_MAGIC = b"solwindc"
_ZEROS = bytes(64 << 10)
_WAIT_COMMITS = 64  # after which it is tried again to make the file, where there was no room
_LOOKS = 10  # at what another process may be writing
_LOOK_S = 0.01


class _Entry(msgspec.Struct, array_like=True):
    """A commit, and the one that it follows on."""

    before: CommitRow
    rows: Rows

    @property
    def commit(self) -> CommitRow:
        return CommitRow(*self.rows.commits[0][:3])


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class Pending(NamedTuple):
    """What a journal has that is not in the database."""

    rows: Rows
    last: CommitRow  # the last commit, of these or else of the database
    lost: int  # the number of a commit that is there but does not follow on it; 0 for none


def path_of(path: str) -> str:
    return f"{path}-commits"


def _seed(store: bytes, life: int) -> int:
    return crc32(b"%b%d" % (store, life))


def read(path: str, vfs: str | None, connection: apsw.Connection) -> Pending:
    """Return what the journal of the store at `path` has that is not in its database, as `connection` sees it."""
    last = database.last_commit(connection)
    if not os.path.exists(path_of(path)):
        return Pending(Rows(), last, 0)
    data = files.read_start(path_of(path), vfs, SIZE)
    seed = _seed(database.store_id(connection), connection.pragma("user_version"))
    found: dict[int, _Entry] = {}
    at = 0
    while at < len(data):
        size, entry = _read_record(data, at, seed)
        if entry is not None and entry.commit.number > last.number:
            found[entry.commit.number] = entry
        at += size
    rows = Rows()
    while (entry := found.get(last.number + 1)) is not None and entry.before == last:
        rows.add(found.pop(last.number + 1).rows)
        last = entry.commit
    return Pending(rows, last, max(found, default=0))


def begin_to_look(path: str, vfs: str | None, connection: apsw.Connection) -> Pending:
    """Begin a transaction that reads, of one moment between two commits, and return what is pending in it. Another
    process may be writing: what it inserts meanwhile, and writes over, only seems to be lost."""
    for left in reversed(range(_LOOKS)):
        connection.execute("BEGIN")
        pending = read(path, vfs, connection)
        if not pending.lost or not left:
            break
        connection.execute("ROLLBACK")
        time.sleep(_LOOK_S)
    return pending


def _read_record(data: bytes, at: int, seed: int) -> tuple[int, _Entry | None]:
    """Return how long the record at `at` is, and its entry; or one sector and None where there is none."""
    if data.startswith(_MAGIC, at) and len(data) >= at + _HEADER.size:
        _, size, sum = _HEADER.unpack_from(data, at)
        entry = data[at + _HEADER.size : at + _HEADER.size + size]
        if len(entry) == size and crc32(entry, seed) == sum:
            with suppress(msgspec.MsgspecError):
                return _padded(_HEADER.size + size), _decode(entry)
    return _SECTOR, None


def _padded(size: int) -> int:
    return (size + _SECTOR - 1) // _SECTOR * _SECTOR


class Journal:
    """The journal of the store at `path`, called on its write thread, or on the loop while that is idle. `rows` are
    pending: they are in no transaction that is durable yet."""

    def __init__(self, path: str, vfs: str | None) -> None:
        self.path = path_of(path)
        self.rows = Rows()
        self._database = path
        self._vfs = vfs
        self._seed = 0
        self._file: files.Synced | None = None
        self._identity: tuple[int, int] | None = None
        self._first = b""  # the header of the first record
        self._end = 0
        self._patience = 0  # commits until it is tried again to make the file
        self._slow_until = 0.0  # by `monotonic`

    def begin(self, store: bytes, life: int) -> None:
        """Begin a life of the store, with nothing pending."""
        self._seed = _seed(store, life)
        self.clear()

    @property
    def pending(self) -> bool:
        return bool(self.rows.commits)

    @property
    def is_long(self) -> bool:
        """Whether what is pending is to be inserted soon."""
        few = len(self.rows.commits) < MAX_COMMITS and len(self.rows.batches) < MAX_BATCHES
        return not few or self._end + MAX_BYTES > SIZE

    @property
    def is_quick(self) -> bool:
        """Whether writing an entry is no longer than handing it to a thread and hearing of it."""
        return self._file is not None and time.monotonic() >= self._slow_until

    def write(self, before: CommitRow, rows: Rows, *, begin: bool) -> bool:
        """Write the rows of a commit: `sync` makes them durable. With `begin` the disk is told to begin, for
        there is something to be done before. Return False, with nothing written, where they are too large or there is
        no room. Raise `apsw.Error` or `OSError` where the outcome is unknown."""
        entry = _encode(_Entry(before, rows))
        size = _padded(_HEADER.size + len(entry))
        if len(entry) > MAX_BYTES or self._end + size > SIZE or not self._is_there():
            return False
        assert self._file is not None
        header = _HEADER.pack(_MAGIC, len(entry), crc32(entry, self._seed))
        try:
            self._file.file.xWrite(header + entry, self._end)
        except apsw.Error as error:
            if database.result_code(error) in database.NO_ROOM:
                return False
            raise
        if begin:
            self._file.begin(self._end, size)
        self._first = self._first or header
        self._end += size
        self.rows.add(rows)
        return True

    def sync(self) -> None:
        """Make what was written durable, and note where that took long."""
        assert self._file is not None
        began = time.monotonic()
        self._file.sync()
        now = time.monotonic()
        if now - began > QUICK_S:
            self._slow_until = now + _SLOW_TIMES * (now - began)

    def clear(self) -> None:
        """Begin again at the start of the file: all that was pending is durable in the database."""
        self.rows, self._first, self._end = Rows(), b"", 0

    def harmed(self) -> str | None:
        """Return its path where what is pending is not found there any more."""
        if self._file is None or not self._first:
            return None
        try:
            own = identity(self.path) == self._identity and self._file.file.xRead(_HEADER.size, 0) == self._first
        except apsw.IOError:  # it was cut off
            own = False
        return None if own else self.path

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_there(self) -> bool:
        """Return whether the file has its full size, made where there is room."""
        if self._file is not None:
            return True
        if self._patience:
            self._patience -= 1
            return False
        try:
            self._make()
        except (apsw.Error, OSError) as error:
            if isinstance(error, apsw.Error) and database.result_code(error) in database.UNKNOWN:
                raise
            self._patience = _WAIT_COMMITS
        return self._file is not None

    def _make(self) -> None:
        files.make_file(self.path, self._database)
        file = files.Synced(self.path, self._vfs)
        try:
            _fill(file.file)
            file.sync()
            files.sync_folder(self.path)
        except BaseException:
            file.close()
            raise
        self._file, self._identity = file, identity(self.path)


def _fill(file: apsw.VFSFile) -> None:
    """Give the file its full size, all of it really written: where it is not, the file system has more to note."""
    size = file.xFileSize()
    if size >= SIZE:
        return
    try:
        for at in range(size, SIZE, len(_ZEROS)):
            file.xWrite(_ZEROS[: SIZE - at], at)
    except BaseException:
        with suppress(apsw.Error):
            file.xTruncate(size)
        raise
