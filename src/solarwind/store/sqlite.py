"""A store in one SQLite file: what was committed survives the process, the machine and a power cut.

    the loop        calls, and waits for the disk only where a small commit is sooner done than handed over
    write thread    commits, trims, sets topics: one transaction after another on one connection
    read thread     reads a consistent past, on a connection of its own
    upkeep thread   empties the log into the database: no commit waits for it
    mark thread     makes the mark durable, now and then

A commit is one transaction with a number, or one entry of a journal which the next transaction inserts: a small one
that only adds rows. A failure either rolls it back, so that nothing of it is stored and memory is unchanged (`Full`),
or leaves the outcome unknown, and then the store stops.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import apsw
import msgspec
from msgspec import UnsetType

from ..batch import Batch
from ..core.facts import Note
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Snapshot
from ..errors import SolarWindError, StoreError
from ..threads import Pool
from . import database, inspection, journal
from .base import FOREVER, Full, Keep, Meanwhile, Recovered, Space, TopicRecord
from .check import backup
from .commits import AlreadyWritten, CommitCache, Content, NeedsDatabase, Plan
from .database import TopicLog, in_one_line, result_code
from .definitions import Definition, Definitions, StoredDefinitions
from .delayed import StoredDueLog, add, counted
from .delays import Delayed, DueLog, check_delayed
from .faults import explain, note_cause
from .files import Mark, Reach, Reserve, space_around
from .journal import Journal
from .lock import Lock
from .paths import refuse_beside, refuse_path
from .queries import Queries
from .reading import Reading, Row, TrimSearch, trim
from .threads import on_thread
from .watch import Watch
from .writeahead import WriteAheadLog

T = TypeVar("T")
log = logging.getLogger("solarwind")
_DAY_NS = 24 * 3600 * 1_000_000_000

_FREE_BYTES = 16 << 20  # so much may be free in the file, or an eighth of it, for what comes next
_SHRINK_PAGES = 64
AT_ONCE_BYTES = 16 << 10  # of the batches of a commit that the loop waits for
_MARK_S = 0.1  # a sync lasts as long as a commit's own, so one for each would slow all of them down


class SqliteStore(Queries):
    """The store at `path`, created where there is none. See `Store` for its methods."""

    durable = True

    def __init__(self, path: str, *, vfs: str | None = None, keep_ns: int = 7 * _DAY_NS) -> None:
        """`vfs` names a replacement for SQLite's file access, in tests."""
        self.path = self.name = str(path)
        self.keep_ns = keep_ns
        self._vfs = vfs
        self._closed: str | None = f"{self.path} is not open"  # why it refuses all calls
        self._broken = False
        self._lock: Lock | None = None
        self._connections: list[apsw.Connection] = []
        self._known = CommitCache()
        self.id, self._store_id = "", b""
        self._life = self._former_life = 0
        self._page_bytes = database.PAGE_BYTES
        self._marking = False
        self._shrinking = False
        self._closing = threading.Event()
        self._trimming = asyncio.Lock()
        self.failed: Callable[[StoreError], None] = lambda error: None
        self.definitions: Definitions = StoredDefinitions(self._define, self._defined, lasting=True)
        self.delays: DueLog = StoredDueLog(self, self._alone)

    # --- opening and closing --------------------------------------------------------------------------------

    async def open(self, now: int) -> Recovered:
        if self._closed is None:
            raise StoreError(f"{self.path} is open already: close it first")
        self._write_thread = Pool("solarwind-write", 1)
        self._read_thread = Pool("solarwind-read", 1)
        self._upkeep_thread = Pool("solarwind-upkeep", 1)
        self._mark_thread = Pool("solarwind-mark", 1)
        self._closing.clear()
        self._trimming = asyncio.Lock()  # of this loop
        try:
            return await on_thread(self._write_thread, self._open, now)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):  # its thread opens it anyway
                await on_thread(self._write_thread, self._give_up)
            self._stop_threads()
            raise

    def _open(self, now: int) -> Recovered:
        try:
            self.path = database.resolve(self.path)
            refuse_path(self.path)
            refuse_beside(self.path, write=True)
            known = database.exists(self.path, self._vfs)
            for finding in inspection.inspect_log(self.path, self._vfs):
                raise StoreError(finding.text)
            self._lock = Lock(self.path, now, self._forked)
            self._watch = Watch(self.path, self._lock.descriptor)
            self._mark = Mark(self.path, self._vfs, self._mark_failed)
            self._journal = Journal(self.path, self._vfs)
            self._reserve = Reserve(self.path, self._vfs)
            return self._recover_with_reserve(known)
        except SolarWindError:
            self._give_up()
            raise
        except (Full, OSError, *database.UNREADABLE) as error:
            note_cause(error, *self._connections)
            refused = self._refused("opened", error)  # before it gives up what may be too much
            self._give_up()
            raise refused from error
        except BaseException:
            self._give_up()
            raise

    def _recover_with_reserve(self, known: bool) -> Recovered:
        try:
            return self._recover(known)
        except (Full, apsw.Error) as error:
            note_cause(error, *self._connections)
            short = isinstance(error, Full) or result_code(error) in database.NO_ROOM | {apsw.SQLITE_CANTOPEN}
            if not short or not self._reserve.release():
                raise
            self._disconnect()
            return self._recover(known)

    def _recover(self, known: bool) -> Recovered:
        self._writer = self._connect(create=not known)
        self._writer.pragma("journal_mode", "WAL")
        topics, last, pending = inspection.verify(self.path, self._vfs, self._writer)
        if pending.commits:
            with self._writer:
                pending.insert(self._writer)
            topics, last, _ = inspection.verify(self.path, self._vfs, self._writer)
        snapshots, changes, since = database.read_purposes(self._writer)
        self._known = CommitCache({log.name: log for log in topics}, since, last, counted(self._writer))
        clean = bool(database.meta(self._writer, "clean"))
        self._store_id = database.store_id(self._writer)
        self.id = self._store_id.hex()
        self._page_bytes = self._writer.pragma("page_size")
        self._reading, self._keeper = Reading(self.path, self._connect(), self._known), self._connect()
        self._closed, self._broken = None, False
        self._marking = False
        self._log = WriteAheadLog(
            self.path, self._writer, self._keeper, self._upkeep_thread, self._reserve, self._watch, self._stop
        )
        self._begin_life(clean)
        self._journal.begin(self._store_id, self._writer.pragma("user_version"))
        self._reserve.hold()
        self._log.count()
        for connection in self._connections:
            database.keep_tidy(connection, True)
        records = [TopicRecord(log.name, log.next, log.keep_ns, log.keep_bytes) for log in topics]
        return Recovered(clean, last.time, records, snapshots, changes)

    def _begin_life(self, clean: bool) -> None:
        """Record in the file itself, not only in its log, that it is in use. Then a copy of the file without its log is
        not mistaken for the whole, and another log not for its own."""
        self._former_life = database.read_life(self.path, self._vfs)
        self._life = database.new_life() if clean else self._former_life
        self._mark.begin(self._reach())  # the mark first, then the record that there has to be one

        def work() -> None:
            database.set_meta(self._writer, "clean", 0)
            self._writer.execute(f"PRAGMA user_version = {self._life}")

        self._write(work)
        self._log.empty()
        if database.read_life(self.path, self._vfs) == self._life != self._former_life:
            self._former_life = self._life
            self._mark.begin(self._reach())
        self._watch.begin()

    def _refused(self, what: str, error: BaseException) -> StoreError:
        if isinstance(error, Full):
            return StoreError(str(error))
        told = explain(error, self.path)
        if told is not None:
            return StoreError(f"{self.path} cannot be {what}: {told}")
        return StoreError(
            f"{self.path} cannot be {what} ({in_one_line(error)}): see `solarwind check --url sqlite:///{self.path}`, "
            "or restore a backup"
        )

    def _forked(self) -> None:
        self._closed = f"{self.path} is open in the process that this one was forked from: open it there alone"

    def _connect(self, create: bool = False) -> apsw.Connection:
        connection = database.connect(self.path, self._vfs, create=create)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        if self._lock is None:
            return
        try:
            self._closing.set()
            for thread in (self._write_thread, self._mark_thread, self._upkeep_thread, self._read_thread):
                await on_thread(thread, bool)  # waits until the thread is idle, and gives the next ones no more to do
            await on_thread(self._write_thread, self._close)
        finally:
            self._stop_threads()

    def _close(self) -> None:
        try:
            if self._closed is None:
                self._write(lambda: database.set_meta(self._writer, "clean", 1))
                if not self._log.may_be_emptied(self._writer):  # by SQLite: the next start needs the room
                    for connection in self._connections:
                        database.keep_tidy(connection, False)
        except (Full, StoreError):
            pass  # then the next opening finds it interrupted
        finally:
            self._let_go()

    def _give_up(self) -> None:
        """Close it after its opening failed, or was cancelled."""
        if self._lock is not None:
            self._let_go()

    def _let_go(self) -> None:
        was_open = self._closed is None
        if not self._broken:
            self._closed = f"{self.path} is not open"
        self._disconnect()
        if was_open:
            self._mark.end(self._reach(emptied=not database.has_log(self.path)))
        self._mark.close()
        self._journal.close()
        self._watch.end()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _disconnect(self) -> None:
        while self._connections:  # the writer last, because the last one empties the log
            connection = self._connections.pop()
            if self._broken:
                database.keep_tidy(connection, False)
            try:
                connection.close()
            except apsw.Error:  # the log stays, and is read when it is opened next
                connection.close(True)

    def _stop_threads(self) -> None:
        for thread in (self._write_thread, self._read_thread, self._upkeep_thread, self._mark_thread):
            thread.shutdown(wait=False)

    # --- committing -----------------------------------------------------------------------------------------

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        delayed: Sequence[Delayed] = (),
        notes: Sequence[Note] = (),
        accepted_at: int | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> list[Stored | None]:
        self._usable()
        check_delayed(delayed)
        content = Content(batches, changes, snapshots, now, delayed, notes, accepted_at)
        quick = self._journal.is_quick and self._reserve.held and content.is_small(AT_ONCE_BYTES)
        if quick and self._write_thread.idle:
            stored = self._commit(content, meanwhile or bool)
            if stored is not None:
                return stored
        stored = await on_thread(self._write_thread, self._commit_on_thread, content)
        if meanwhile is not None:
            meanwhile(stored)
        return stored

    def _commit_on_thread(self, content: Content) -> list[Stored | None]:
        stored = self._commit(content)
        assert stored is not None
        self._log.bound()
        return stored

    def _commit(self, content: Content, meanwhile: Meanwhile | None = None) -> list[Stored | None] | None:
        """Commit it. On the loop, which has something to do `meanwhile`, return None where it takes a transaction: then
        nothing is written, and nothing was done."""
        batches, changes, snapshots, now, delayed, notes, accepted_at = content
        events = [*batches, *[each.batch for each in delayed]] if delayed else batches
        if not (events or changes or snapshots or notes):
            return []

        def work(plan: Plan) -> list[Stored | None]:
            plan.accepted_at = accepted_at
            if delayed:
                add(plan, delayed)
            return plan.write(batches, changes, snapshots, notes)

        if None in [batch.header.causes for batch in events]:
            self._refuse_events()
        small = meanwhile is not None or content.is_small(journal.MAX_BYTES)
        written = self._write_to_journal(now, work, meanwhile) if small else None
        if written is None and meanwhile is not None:
            return None
        plan, stored = written or self._write_plan(now, work, spare=not events)
        self._known.apply(plan, changes, snapshots)
        self._after_commit(bool(events))
        return stored

    def _write_plan(self, now: int, work: Callable[[Plan], T], spare: bool = True) -> tuple[Plan, T]:
        def plan_and_write() -> tuple[Plan, T]:
            plan = Plan(self._writer, self._known, now)
            result = work(plan)
            plan.insert()
            return plan, result

        try:
            return self._write(plan_and_write, spare)
        except StoreError as error:
            raise error if self._broken else self._end(str(error)) from error

    def _write_to_journal(
        self, now: int, work: Callable[[Plan], T], meanwhile: Callable[[T], object] | None
    ) -> tuple[Plan, T] | None:
        """Write a commit to the journal. Return None, with nothing written, where it has to be a transaction."""
        self._usable()
        self._refuse_harmed(self._log.harmed())
        if not self._reserve.held:  # else what is pending would need the room that is gone
            return None
        plan = Plan(None, self._known, now)
        try:
            result = work(plan)
            if not self._journal.write(self._known.last, plan.rows, begin=meanwhile is not None):
                return None
            if meanwhile is not None:
                self._check_files()
                meanwhile(result)
            self._journal.sync()
        except NeedsDatabase:
            return None
        except (apsw.Error, OSError) as error:
            raise self._stop("what was being written may be stored or not", error) from error
        if meanwhile is None:  # nothing is done while the disk is at work: the later the better
            self._check_files()
        return plan, result

    def _check_files(self) -> None:
        self._refuse_harmed(self._watch.harmed() or self._journal.harmed())

    def _insert_soon(self) -> None:
        """Insert what is pending in the journal, where there is room, while nobody waits for it."""
        try:
            self._insert_pending()
        except (Full, StoreError):
            pass  # the next commit tries it again, or the store has said what failed
        except Exception as error:
            log.exception("what is in %s could not be inserted into %s", self._journal.path, self.path)
            self._stop("so what its journal holds is not in it", error)

    def _insert_pending(self) -> None:
        if self._journal.pending:
            self._write(bool)
            self._log.bound()

    async def _define(self, kind: str, name: str, value: bytes | None, before: int | None) -> Definition | None:
        try:
            return await self._alone(lambda plan: plan.define(kind, name, value, before))
        except Full as full:
            raise StoreError(str(full)) from full

    async def _alone(self, work: Callable[[Plan], T]) -> T:
        """Commit what `work` writes, if it writes."""
        self._usable()
        return await on_thread(self._write_thread, self._commit_alone, work)

    def _commit_alone(self, work: Callable[[Plan], T]) -> T:
        plan, result = self._write_plan(0, work)
        if plan.is_written:
            self._known.apply(plan, [], [])
            self._after_commit(False)
            self._log.bound()
        return result

    @property
    def delayed_events(self) -> Mapping[str, int]:
        """How many events the due-log has of each topic."""
        return self._known.delayed

    async def has_room(self, size: int) -> bool:
        self._usable()
        return await on_thread(self._write_thread, self._reserve.probe, size)

    def space(self) -> Space | None:
        return space_around(self.path)

    async def make_room(self) -> bool:
        self._usable()
        return await on_thread(self._write_thread, self._make_room)

    def _make_room(self) -> bool:
        released = self._reserve.release()
        self._log.empty()  # before the log fills the room that the database needs for its content
        return released

    def _after_commit(self, had_batches: bool) -> None:
        try:
            self._mark.write(self._reach())
        except apsw.Error:
            pass  # it is behind, never ahead; the next commit writes it again
        if not self._marking:
            self._marking = True
            self._mark_thread.submit(self._sync_mark)
        if had_batches and not self._reserve.held and self._known.last.number % 64 == 0:
            self._reserve.hold()
        if self._journal.is_long:
            self._write_thread.submit(self._insert_soon)  # once this commit is reported

    def _reach(self, emptied: bool = False) -> Reach:
        last = self._known.last
        return Reach(self._store_id, self._life, self._former_life, last.number, last.events, last.time, emptied)

    # --- transactions, and what may go wrong with them ------------------------------------------------------

    def _write(self, work: Callable[[], T], spare: bool = True) -> T:
        """Run `work` as one transaction. With `spare` it may use the reserved space."""
        self._usable()
        try:
            return self._transaction(work)
        except Full:
            if not spare:
                raise
        self._log.empty()  # an empty log is written from its beginning again, where it has room
        try:
            return self._transaction(work)
        except Full:
            if not self._make_room():
                raise
        return self._transaction(work)

    def _transaction(self, work: Callable[[], T]) -> T:
        self._refuse_harmed(self._log.harmed())
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._journal.rows.insert(self._writer)
            result = work()
            self._writer.execute("COMMIT")
        except apsw.Error as error:
            rolled_back = self._roll_back()
            if rolled_back and result_code(error) in database.NO_ROOM:
                note_cause(error, self._writer)
                raise Full(f"{self.path} cannot be written to: {explain(error, self.path)}") from error
            raise self._stop("what was being written may be stored or not", error) from error
        except database.UNREADABLE as error:
            self._roll_back()
            raise self._stop("what was looked up for a commit is damaged", error) from error
        except AlreadyWritten as error:
            self._roll_back()
            raise self._stop("somebody else has written to it", error) from error
        except BaseException:
            self._roll_back()
            raise
        if self._journal.pending:
            self._log.note_commits(len(self._journal.rows.commits))
            self._journal.clear()
        self._refuse_harmed(self._watch.harmed())
        return result

    def _refuse_harmed(self, path: str | None) -> None:
        """Raise `StoreError` where a file is not the store's own: the next opening would not find what was written."""
        if path is not None:
            raise self._end(
                f"{path} was removed, replaced or overwritten while it was in use, so what is written is in no file "
                "that anybody finds: put it back, or restore a backup with `solarwind restore`, and start again"
            )

    def _roll_back(self) -> bool:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except apsw.Error:
            return False
        return True

    def _stop(self, what: str, error: BaseException) -> StoreError:
        return self._end(f"{self.path} failed ({error}), {what}: restart it when its disk is in order")

    def _end(self, text: str) -> StoreError:
        self._broken = True
        self._closed = text
        error = StoreError(text)
        self.failed(error)
        return error

    def _mark_failed(self, error: BaseException) -> None:
        self._stop("so how far it has got cannot be noted", error)

    def _usable(self) -> None:
        if self._closed is not None:
            raise StoreError(self._closed)

    # --- upkeep ---------------------------------------------------------------------------------------------

    def _sync_mark(self) -> None:
        self._closing.wait(_MARK_S)
        self._marking = False  # first, so that later writes are synced next time
        self._mark.sync()

    def _refuse_events(self) -> None:
        """Refuse new events, so that settles have room, and a log that cannot be emptied does not grow."""
        if not self._reserve.held and self._free_bytes() < self._reserve.SIZE and not self._reserve.hold():
            raise Full(
                f"{self.path} has no room left for {self.path}-reserve, of {self._reserve.SIZE >> 10:,} KiB, which "
                "settles may need: make room on its disk"
            )
        if told := self._log.why_refuse():
            raise Full(told)

    async def backup(self, path: str) -> None:
        self._usable()
        await asyncio.to_thread(backup, self.path, str(path), vfs=self._vfs)

    # --- topics and their history ---------------------------------------------------------------------------

    async def topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        self._usable()
        await on_thread(self._write_thread, self._set_topic, name, keep_ns, keep_bytes)

    def _set_topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        log = self._known.topics.get(name) or TopicLog(len(self._known.topics) + 1, name)
        keep_ns = log.keep_ns if isinstance(keep_ns, UnsetType) else keep_ns
        keep_bytes = log.keep_bytes if isinstance(keep_bytes, UnsetType) else keep_bytes
        after = msgspec.structs.replace(log, keep_ns=keep_ns, keep_bytes=keep_bytes)
        self._write(lambda: database.save_topic(self._writer, after))
        log.keep_ns, log.keep_bytes = keep_ns, keep_bytes
        self._known.topics[name] = log

    async def trim(
        self, topic: str, pinned: Spans, before: int | None, max_bytes: int | None, now: int = FOREVER
    ) -> int:
        self._usable()
        log = self._known.topics.get(topic)
        if log is None:
            return 0
        pinned = pinned.copy()
        if self._journal.pending:
            await self._insert_if_room()
        async with self._trimming:
            old = partial(self._questions.old, now=now)
            for find, limit in ((old, before), (self._questions.oldest, max_bytes)):
                search = TrimSearch(log, pinned)
                while limit is not None and search.position is not None:  # a piece at a time, so that others can read
                    if rows := await self._ask(find, search, limit):
                        return await on_thread(self._write_thread, self._trim, log, rows)
        return 0

    def _trim(self, log: TopicLog, rows: list[Row]) -> int:
        before, after = log.events, self._write(lambda: trim(self._writer, log, rows))
        log.trimmed, log.gone = after.trimmed, after.gone
        self._log.bound()
        return before - log.events

    async def shrink(self) -> bool:
        self._usable()
        more = await on_thread(self._write_thread, self._shrink)
        if self._shrinking and not more:  # the file is truncated when the log is emptied into it
            self._shrinking = False
            await on_thread(self._upkeep_thread, self._log.empty_in_parallel)
            await on_thread(self._write_thread, self._log.empty)
        return more

    def _free_bytes(self) -> int:
        """Return the free space inside the file."""
        return int(self._writer.pragma("freelist_count")) * self._page_bytes

    def _shrink(self) -> bool:
        """Move the last pages of the file to free space, in a transaction as short as a commit."""
        free, size = self._free_bytes(), self._writer.pragma("page_count") * self._page_bytes
        able = self._writer.pragma("auto_vacuum") == database.INCREMENTAL
        if able and free > _FREE_BYTES and free > size // 8:
            self._write(lambda: self._writer.execute(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})").fetchall())
            self._shrinking = True
            self._log.bound()
            return True
        return False
