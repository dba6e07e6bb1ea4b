"""The journal of a store: what is in it counts as what is in the database, for whoever reads, and after any crash."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from sampling import some
from solarwind.batch import Batch, seal
from solarwind.core.facts import Note
from solarwind.core.log import Stored
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Letter
from solarwind.errors import StoreError
from solarwind.event import Cause
from solarwind.store import database, files, inspection, journal, sqlite, writeahead
from solarwind.store.base import Full
from solarwind.store.check import backup, check, restore
from solarwind.store.delays import Delayed
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import until

from .faultyvfs import Disk, Platter, faulty_disk
from .test_sqlite import all_of, batch, kill, nothing, on_store, put, sql

FIRST = 1  # commits that are transactions: the topic is new


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(database, "PAGE_BYTES", 1024)
    monkeypatch.setattr(sqlite, "_MARK_S", 0)
    monkeypatch.setattr(files.Reserve, "SIZE", 256 << 10)
    with faulty_disk() as disk:
        yield disk


def number_in_database(path: Path) -> int:
    """Return the number of the last commit in the database itself, whatever is pending."""
    return int(sql(path, "SELECT max(number) FROM commits")[0][0])


async def fire(store: SqliteStore, first: int, stop: int) -> None:
    """Commit the events `first` to `stop - 1` of topic a, each with the settle of the one before."""
    for number in range(first, stop):
        settled = [Change("a", "p", settled=Spans([number - 1, number]))] if number else []
        await store.commit([batch("a", first=number)], settled, [], now=number)


async def end(store: SqliteStore) -> int:
    return sum(len(each.batch) for each in await all_of(store, "a"))


# --- while it is in use -------------------------------------------------------------------------------------


def test_small_commits_are_no_transactions_and_many_of_them_become_one(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await fire(store, 0, FIRST + 100)
        assert number_in_database(path) == FIRST
        assert os.path.getsize(f"{path}-commits") == journal.SIZE
        await fire(store, FIRST + 100, FIRST + journal.MAX_COMMITS)

        async def all_inserted() -> bool:
            return number_in_database(path) == FIRST + journal.MAX_COMMITS

        await until(all_inserted)
        assert os.path.getsize(f"{path}-commits") == journal.SIZE

    on_store(path, work)
    assert on_store(path, nothing).topics[0].end == FIRST + journal.MAX_COMMITS


def test_a_commit_that_needs_the_database_takes_all_that_is_pending_along_in_order(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await fire(store, 0, 10)
        assert number_in_database(path) == FIRST
        stored = await store.commit([batch("a", ids=["given"], first=10), batch("a", first=3)], [], [], now=5)
        assert (stored[0].start if stored[0] else None, stored[1]) == (10, None), "it finds the ids of what was pending"
        assert number_in_database(path) == 11

    on_store(path, work)
    assert check(str(path)) == []


@pytest.mark.parametrize("question", ["read", "read_at", "seek", "find", "caused", "notes", "trim", "backup", "check"])
def test_whatever_is_asked_finds_what_is_pending(path: Path, tmp_path: Path, question: str) -> None:
    because: list[Cause | None] = [Cause("event", batch("a", first=7).id(0))]
    last = batch("b", producer=2, first=3, time=900, causes=because)
    note = Note("b", "p", "settled", [3, 4], 1, "box/app", 1, 2, 3, [])

    async def answers(store: SqliteStore) -> object:
        if question == "read":
            return [each.start for each in await store.read("b", 0, 1 << 20)]
        if question == "read_at":
            return [each.start for each in await store.read_at("b", Spans([1, 2, 3, 4]), 1 << 20)]
        if question == "seek":
            return await store.seek("b", 900)
        if question == "find":
            return await store.find(last.id(0), "b")
        if question == "caused":
            return [each.start for each in (await store.caused([batch("a", first=7).id(0)], None, 1 << 20))[0]]
        if question == "notes":
            return await store.notes("b", Spans([3, 4]))
        if question == "trim":
            return await store.trim("b", Spans(), 1 << 62, None), await store.history("b")
        if question == "backup":
            await store.backup(str(tmp_path / "copy.db"))
            return number_in_database(tmp_path / "copy.db"), check(str(tmp_path / "copy.db"))
        return check(str(path))

    expected = {
        "read": [0, 1, 2, 3],
        "read_at": [1, 3],
        "seek": 3,
        "find": ("b", 3),
        "caused": [3],
        "notes": [note],
        "trim": (4, (0, 0)),
        "backup": (4, []),
        "check": [],
    }

    async def work(store: SqliteStore) -> None:
        await put(*(batch("b", producer=2, first=number, time=number) for number in range(3)))(store)
        await store.commit([last], [], [], 7, (), [note])
        assert number_in_database(path) == FIRST
        assert await answers(store) == expected[question]

    on_store(path, work)


def test_a_backup_and_a_check_at_any_moment_have_all_that_was_accepted_before(path: Path, tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        fired = 0

        async def fire_on() -> None:
            nonlocal fired
            while True:
                await fire(store, fired, fired + 1)
                fired += 1

        firing = asyncio.create_task(fire_on())
        for number in range(12):
            before, copy = fired, tmp_path / f"copy-{number}.db"
            await asyncio.to_thread(backup, str(path), str(copy))
            assert (await asyncio.to_thread(on_store, copy, nothing)).topics[0].end >= before
            assert await asyncio.to_thread(check, str(path)) == []
        firing.cancel()
        await asyncio.wait([firing])
        assert fired > 12

    on_store(path, put(batch("a", producer=9)))
    on_store(path, work)


def test_a_close_waits_for_what_a_full_journal_has_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is inserted, and then the log is emptied on a thread of its own, when the last commit is reported already."""
    monkeypatch.setattr(journal, "MAX_COMMITS", 1)
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 1)
    for number in range(30):
        on_store(path, put(batch("a", first=2 * number), batch("a", first=2 * number + 1)))
    assert on_store(path, nothing).topics[0].end == 60


def test_the_loop_goes_on_while_a_slow_disk_syncs_the_journal_and_the_mark(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may take its time: it is waited for here until the loop has had a turn meanwhile."""
    monkeypatch.setattr(journal, "QUICK_S", 0)
    monkeypatch.setattr(journal, "_SLOW_TIMES", 10**9)
    syncs: list[str] = []
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        syncs.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(path)))
        went_on = threading.Event()
        loop.call_soon_threadsafe(went_on.set)
        assert went_on.wait(60)
        real(descriptor)

    async def work(store: SqliteStore) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        await fire(store, 0, FIRST)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", slow)
            await fire(store, FIRST, FIRST + 5)

            async def both() -> bool:
                return {"-commits", "-mark"} <= set(syncs)

            await until(both)

    loop: asyncio.AbstractEventLoop
    on_store(path, work)


def test_a_small_commit_to_a_quick_disk_is_not_handed_to_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a sync is slow: then the loop waits for none for a while."""
    monkeypatch.setattr(journal, "QUICK_S", 60)
    monkeypatch.setattr(journal, "_SLOW_TIMES", 10**9)
    on_loop: list[bool] = []
    real = os.fdatasync

    def noted(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("-commits"):
            on_loop.append(threading.current_thread() is threading.main_thread())
        real(descriptor)

    async def work(store: SqliteStore) -> None:
        number = FIRST + 2
        await fire(store, 0, number)  # the first of the journal makes its file

        async def quick() -> bool:
            nonlocal number
            await fire(store, number, number + 1)
            number += 1
            return on_loop[-1]

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", noted)
            await until(quick, "a commit once the thread is idle")
            patch.setattr(journal, "QUICK_S", 0)
            await fire(store, number, number + 1)
            del on_loop[:]
            await fire(store, number + 1, number + 6)
            large = batch("a", first=number + 6, payload=b"x" * sqlite.AT_ONCE_BYTES)
            await store.commit([large], [], [], now=number)
        assert on_loop == [False] * 6

    on_store(path, work)
    assert on_store(path, nothing).clean


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system that does not offer it")
@pytest.mark.parametrize("refused", [0, errno.ENOSYS, errno.EPERM])
def test_the_disk_is_told_to_begin_before_what_is_done_meanwhile_and_a_refusal_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """Some kernels do without that call, and some sandboxes forbid it: the sync is what counts."""
    monkeypatch.setattr(journal, "QUICK_S", 60)
    done: list[str] = []
    advise, sync = os.posix_fadvise, os.fdatasync

    def begin(*what: int) -> None:
        done.append("begin")
        if refused:
            raise OSError(refused, os.strerror(refused))
        advise(*what)

    def finish(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("-commits"):
            done.append("sync")
        sync(descriptor)

    async def work(store: SqliteStore) -> None:
        await fire(store, 0, FIRST + 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fadvise", begin)
            patch.setattr(os, "fdatasync", finish)
            number = FIRST + 1

            async def at_once() -> bool:
                nonlocal number
                del done[:]
                one = batch("a", first=number)
                number += 1
                await store.commit([one], [], [], number, meanwhile=lambda stored: done.append("meanwhile"))
                return "begin" in done

            await until(at_once, "a commit once the thread is idle")
        assert done == ["begin", "meanwhile", "sync"]
        assert (await all_of(store, "a"))[-1].stop == number

    on_store(path, work)


def test_what_is_done_meanwhile_is_done_once_with_what_is_returned_however_it_is_committed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "QUICK_S", 60)
    commits: dict[str, tuple[list[Batch], list[Delayed]]] = {
        "of a new topic": ([batch("b")], []),
        "small": ([batch("a", first=100)], []),
        "of two": ([batch("a", first=101), batch("b", first=101)], []),
        "seen before": ([batch("a", first=100), batch("a", first=102)], []),
        "with an id that was given": ([batch("a", first=103, ids=["x"])], []),
        "with an id that is given twice": ([batch("a", 2, first=104, ids=["y", "y"])], []),
        "large": ([batch("a", first=106, payload=b"x" * sqlite.AT_ONCE_BYTES)], []),
        "larger than the journal takes": ([batch("a", first=107, payload=b"x" * journal.MAX_BYTES)], []),
        "with delayed events": ([batch("a", first=108)], [Delayed(10**18, batch("a", first=109))]),
    }

    async def commit_all(store: SqliteStore | MemoryStore) -> dict[str, list[range | None]]:
        places = {}
        for name, (batches, delayed) in commits.items():
            given: list[list[Stored | None]] = []
            returned = await store.commit(batches, [], [], 1, delayed, meanwhile=given.append)
            assert given == [returned], name
            places[name] = [each and range(each.start, each.stop) for each in returned]
        return places

    async def on_disk(store: SqliteStore) -> None:
        await put(batch("a", ids=["x"]))(store)
        await fire(store, 1, 3)
        assert await commit_all(store) == await in_memory()

    async def in_memory() -> dict[str, list[range | None]]:
        store = MemoryStore()
        await store.open(1)
        for number in range(3):
            await store.commit([batch("a", ids=None if number else ["x"], first=number)], [], [], 1)
        return await commit_all(store)

    on_store(path, on_disk)


def test_nothing_is_done_meanwhile_by_a_commit_for_which_there_is_no_room(disk: Disk, path: Path) -> None:
    done: list[object] = []

    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await fire(store, 0, FIRST + 1)
        disk.fault = lambda kind, file: apsw.SQLITE_FULL if kind == "write" else 0
        with pytest.raises(Full):
            await store.commit([batch("a", first=50)], [], [], 1, meanwhile=done.append)
        disk.fault = lambda kind, file: 0
        await store.close()

    asyncio.run(work())
    assert done == []


# --- after a crash ------------------------------------------------------------------------------------------


def killed_with_pending(path: Path, folder: Path, commits: int = 10) -> Path:
    async def work(store: SqliteStore) -> None:
        await fire(store, 0, commits)

    kill(path, work, folder)
    return folder / "wind.db"


def test_what_is_pending_when_a_process_is_killed_is_there_afterwards(path: Path, tmp_path: Path) -> None:
    killed = killed_with_pending(path, tmp_path / "killed")
    assert check(str(killed)) == []
    backup(str(killed), str(tmp_path / "copy.db"))
    assert number_in_database(tmp_path / "copy.db") == 10

    async def go_on(store: SqliteStore) -> None:
        assert number_in_database(killed) >= 10
        assert (await store.commit([batch("a", first=4)], [], [], now=5))[0] is None, "its number is known"
        await fire(store, 10, 20)
        assert await end(store) == 20

    recovered = on_store(killed, go_on)
    settled = Spans()
    for change in recovered.changes:
        settled.update(change.settled)
    assert (recovered.topics[0].end, recovered.clean, settled.edges) == (10, False, [0, 9])
    assert on_store(killed, nothing).topics[0].end == 20
    assert check(str(killed)) == []


def test_one_crash_after_another_loses_nothing(path: Path, tmp_path: Path) -> None:
    at = path
    for life in range(4):

        async def work(store: SqliteStore, life: int = life) -> None:
            await fire(store, 7 * life, 7 * life + 7)

        kill(at, work, tmp_path / f"killed-{life}")
        at = tmp_path / f"killed-{life}/wind.db"
    assert on_store(at, nothing).topics[0].end == 28
    assert check(str(at)) == []


def test_a_journal_that_is_gone_after_a_crash_is_a_loss_that_is_named(path: Path, tmp_path: Path) -> None:
    killed = killed_with_pending(path, tmp_path / "killed")
    os.unlink(f"{killed}-commits")
    with pytest.raises(StoreError, match="has lost its last 9 commits with 9 events since"):
        on_store(killed, nothing)
    assert check(str(killed), accept_loss=True)
    assert on_store(killed, nothing).topics[0].end == FIRST


def test_the_journal_of_another_store_or_of_an_earlier_life_is_none_of_its_own(path: Path, tmp_path: Path) -> None:
    other = killed_with_pending(tmp_path / "other.db", tmp_path / "other")
    on_store(path, put(*(batch("a", first=number) for number in range(FIRST))))  # the same commits, of another store
    shutil.copy(tmp_path / "other/other.db-commits", f"{path}-commits")
    assert other.parent.is_dir()
    assert on_store(path, nothing).topics[0].end == FIRST
    assert check(str(path)) == []

    earlier = tmp_path / "earlier.db"
    on_store(path, put(batch("a", first=FIRST)))
    shutil.copy(path, earlier)
    shutil.copy(f"{path}-mark", f"{earlier}-mark")
    shutil.copy(tmp_path / "other/other.db-commits", f"{earlier}-commits")
    assert on_store(earlier, nothing).topics[0].end == FIRST + 1


def test_the_journal_of_a_copy_that_went_on_otherwise_is_refused(path: Path, tmp_path: Path) -> None:
    """It is of the same store and life, and its numbers follow."""
    killed = killed_with_pending(path, tmp_path / "killed", 5)
    shutil.copytree(killed.parent, tmp_path / "copy")
    kill(killed, lambda store: fire(store, 5, 8), tmp_path / "one")
    kill(tmp_path / "copy/wind.db", put(batch("a", 3, first=5)), tmp_path / "other")
    other = tmp_path / "other/wind.db"
    shutil.copy(tmp_path / "one/wind.db-commits", f"{other}-commits")
    with pytest.raises(StoreError, match=r"has lost commits after number 6: .*wind\.db-commits holds commit 8"):
        on_store(other, nothing)
    assert check(str(other), accept_loss=True)
    assert on_store(other, nothing).topics[0].end == 8


@pytest.mark.parametrize("force", [True, False])
def test_a_restored_store_has_nothing_of_the_former_journal_and_what_is_kept_has_all(
    path: Path, tmp_path: Path, force: bool
) -> None:
    killed = killed_with_pending(path, tmp_path / "killed")
    on_store(tmp_path / "good.db", put(batch("a")))
    backup(str(tmp_path / "good.db"), str(tmp_path / "backup.db"))
    kept = restore(str(tmp_path / "backup.db"), str(killed), now=5, force=force)
    assert on_store(killed, nothing).topics[0].end == 1
    assert (kept is None) == force
    if kept is not None:
        assert on_store(Path(kept), nothing).topics[0].end == 10


async def live(disk: Disk, path: Path, first: int, chance: random.Random) -> int:
    """Commit events of topic a from number `first` on, most of them through the journal. Return how many there are."""
    store = SqliteStore(str(path), vfs=disk.name)
    await store.open(0)
    payloads = [each.batch.payload(index) for each in await all_of(store, "a") for index in range(len(each.batch))]
    assert len(payloads) >= first, "no accepted commit is lost"
    assert payloads == [b"%d" % number for number in range(len(payloads))]
    number = len(payloads)
    for _ in range(chance.randrange(5, 30)):
        size = chance.choice((1, 1, 1, 5))
        change = Change("a", "p", settled=Spans([number, number + size]))
        if chance.random() < 0.1:
            change.dead = [Letter(number, 1, 1, "no", 1)]
        ids = [f"{number} {index}" for index in range(size)] if chance.random() < 0.1 else None
        numbers = [b"%d" % each for each in range(number, number + size)]
        one = seal("a", numbers, [number] * size, producer=1, first=number, machine="", process="", ids=ids)
        await store.commit([one], [change], [], now=number)
        number += size
        disk.acknowledged(number)
        if chance.random() < 0.05:
            await store.read("a", 0, 1)
    if chance.random() < 0.3:
        await store.close()
    done = list(disk.done)
    await store.close()
    disk.done = done
    return number


@pytest.mark.parametrize("seed", some([0, 1], range(20)))
def test_lives_that_each_end_in_a_power_cut_lose_nothing_that_was_accepted(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier life left in the journal, also torn, is never taken for that of a later one."""
    monkeypatch.setattr(database, "PAGE_BYTES", 1024)
    monkeypatch.setattr(files.Reserve, "SIZE", 16 << 10)
    monkeypatch.setattr(journal, "SIZE", 24 << 10)
    monkeypatch.setattr(journal, "MAX_BYTES", 2 << 10)
    monkeypatch.setattr(sqlite, "_MARK_S", 0)
    chance = random.Random(seed)
    folder, accepted = tmp_path / "0", 0
    folder.mkdir()
    for life in range(1, 9):
        platter, after = Platter(), tmp_path / f"{life}"
        platter.files = {str(each): bytearray(each.read_bytes()) for each in folder.iterdir()}
        with faulty_disk() as disk:
            asyncio.run(live(disk, folder / "wind.db", accepted, chance))
            for index, done in enumerate(disk.done[: chance.randrange(len(disk.done))]):
                platter.do(index, done)
        accepted = max(accepted, platter.acknowledged)
        after.mkdir()
        platter.cut(after, chance)
        folder = after
    assert check(str(folder / "wind.db")) == []


# --- torn and damaged ---------------------------------------------------------------------------------------


class Cut:
    """A store that was killed after ten commits, eight of them in its journal, and how to put it back otherwise."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._kept: dict[str, bytes] = {}
        self._target = folder / "wind.db"
        folder.mkdir()

        async def work(store: SqliteStore) -> None:
            for number, name in ((9, "before"), (10, "after")):
                await fire(store, number - 1 if name == "after" else 0, number)
                for kind in ("", "-wal", "-mark", "-commits"):
                    self._kept[name + kind] = Path(f"{path}{kind}").read_bytes()

        on_store(path, work)
        self.journal = self._kept["after-commits"]
        before = self._kept["before-commits"]
        self.last = next(at for at in range(len(before)) if before[at] != self.journal[at])  # where its last record is
        self.stop = len(self.journal.rstrip(b"\0"))

    def put_back(self, journal: bytes, mark: str = "after") -> Path:
        for each in self._target.parent.iterdir():
            each.unlink()
        for kind in ("", "-wal"):
            Path(f"{self._target}{kind}").write_bytes(self._kept[f"after{kind}"])
        Path(f"{self._target}-mark").write_bytes(self._kept[f"{mark}-mark"])
        Path(f"{self._target}-commits").write_bytes(journal)
        return self._target

    def flipped(self, at: int) -> bytes:
        damaged = bytearray(self.journal)
        damaged[at] ^= 1 << at % 8
        return bytes(damaged)


@pytest.fixture
def cut(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cut:
    monkeypatch.setattr(database, "PAGE_BYTES", 512)
    monkeypatch.setattr(files.Reserve, "SIZE", 4096)
    return Cut(path, tmp_path / "cut")


def verified(path: Path) -> int:
    """Return how many commits it opens with, by what every start goes through. Raise `StoreError` where it would."""
    connection = database.connect(str(path), None)
    try:
        _, last, rows = inspection.verify(str(path), None, connection)
        return rows.commits[-1][0] if rows.commits else last.number
    finally:
        connection.close()


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.long)])
def test_a_record_torn_at_any_byte_is_no_false_alarm_and_no_silent_loss(cut: Cut, every: int) -> None:
    assert verified(cut.put_back(cut.journal)) == 10
    for stop in range(cut.last, cut.stop, every):
        for torn in (cut.journal[:stop], cut.journal[:stop] + bytes(len(cut.journal) - stop)):
            assert verified(cut.put_back(torn, "before")) == 9
            with pytest.raises(StoreError, match="has lost its last 1 commits with 1 events"):
                verified(cut.put_back(torn))


@pytest.mark.parametrize("every", [97, pytest.param(3, marks=pytest.mark.long)])
def test_a_bit_flipped_in_any_byte_of_the_journal_is_never_a_silent_loss(cut: Cut, every: int) -> None:
    found = 0
    for at in range(0, cut.stop, every):
        for mark in ("before", "after"):
            path = cut.put_back(cut.flipped(at), mark)
            try:
                assert verified(path) >= (9 if mark == "before" and at >= cut.last else 10), at
            except StoreError as error:
                said = str(error)
            else:
                continue
            found += 1
            assert "has lost" in said
            assert check(str(path)) == [said]
    assert found > 10


def test_a_damaged_record_before_others_is_a_loss_that_can_be_accepted_even_if_the_mark_is_as_far_back(
    cut: Cut, tmp_path: Path
) -> None:
    path = cut.put_back(cut.flipped(cut.journal.index(b"solwindc", 1024) + 30))
    Path(f"{path}-mark").unlink()
    sql(path, "UPDATE meta SET value = 1 WHERE name = 'clean'")  # so that no mark is missed
    left = int(check(str(path))[0].split("has lost commits after number ")[1].split(":")[0])
    assert FIRST < left < 9
    with pytest.raises(
        StoreError, match=rf"after number {left}: .*wind\.db-commits holds commit 10, and not those betw"
    ):
        on_store(path, nothing)
    with pytest.raises(StoreError, match="is damaged: see `solarwind check"):
        backup(str(path), str(tmp_path / "copy.db"))
    assert len(check(str(path), accept_loss=True)) == 1
    assert not os.path.exists(f"{path}-commits")
    assert check(str(path)) == []
    assert on_store(path, nothing).topics[0].end == left


# --- a full disk --------------------------------------------------------------------------------------------


def test_without_room_for_the_journal_commits_are_transactions(disk: Disk, path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        disk.fault = lambda kind, where: 13 if kind == "write" and where.endswith("-commits") else 0
        await fire(store, 0, 100)
        assert number_in_database(path) == 100
        disk.fault = lambda kind, where: 0
        await fire(store, 100, 200)  # it is tried again
        assert number_in_database(path) < 200
        await store.close()

    asyncio.run(work())
    assert check(str(path)) == []


def test_on_a_disk_that_becomes_full_what_is_pending_is_read_and_kept(disk: Disk, path: Path) -> None:
    async def work() -> int:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await fire(store, 0, 50)
        disk.quota = sum(disk.sizes.values())
        assert await end(store) == 50
        fired = 50
        for number in range(50, 500):
            try:
                await fire(store, number, number + 1)
            except Full:
                break
            fired += 1
        await store.commit([], [Change("a", "p", settled=Spans([0, 1]))], [], now=5)
        assert await end(store) == fired
        await store.close()
        return fired

    fired = asyncio.run(work())
    assert on_store(path, nothing).topics[0].end == fired
    assert check(str(path)) == []


def test_while_the_room_that_was_set_aside_is_given_up_commits_are_transactions(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await fire(store, 0, 5)
        assert number_in_database(path) == FIRST
        assert await store.make_room()
        for number in range(5, 8):
            await store.commit([], [Change("a", "p", settled=Spans([number, number + 1]))], [], now=5)
            assert number_in_database(path) == number + 1

    on_store(path, work)


def test_what_is_pending_and_finds_no_room_at_all_waits_in_the_journal(disk: Disk, path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await fire(store, 0, 20)
        disk.fault = lambda kind, where: 13 if kind == "write" and not where.endswith(("-commits", "-mark")) else 0
        with pytest.raises(Full):
            await put(batch("b"))(store)
        reading = asyncio.create_task(end(store))
        await asyncio.sleep(0)
        disk.fault = lambda kind, where: 0
        assert await reading == 20
        await fire(store, 20, 40)
        await store.close()

    asyncio.run(work())
    assert on_store(path, nothing).topics[0].end == 40


def test_a_close_that_finds_no_room_leaves_what_is_pending_in_the_journal(disk: Disk, path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await fire(store, 0, 20)
        disk.fault = lambda kind, where: 13 if kind == "write" else 0
        await store.close()
        disk.fault = lambda kind, where: 0

    asyncio.run(work())
    assert number_in_database(path) == FIRST
    assert on_store(path, nothing).topics[0].end == 20


def test_a_store_whose_journal_has_commits_starts_on_a_full_disk_with_the_room_set_aside(
    disk: Disk, path: Path, tmp_path: Path
) -> None:
    killed = killed_with_pending(path, tmp_path / "killed", 100)
    assert os.path.getsize(f"{killed}-reserve") == files.Reserve.SIZE
    disk.sizes = {str(each): each.stat().st_size for each in killed.parent.iterdir()}

    async def work() -> None:
        store = SqliteStore(str(killed), vfs=disk.name)
        disk.quota = sum(disk.sizes.values())
        assert (await store.open(0)).topics[0].end == 100
        await store.commit([], [Change("a", "p", settled=Spans([99, 100]))], [], now=5)
        await store.close()

    asyncio.run(work())
    assert on_store(killed, nothing).topics[0].end == 100
    assert check(str(killed)) == []


# --- what goes into it --------------------------------------------------------------------------------------


def a_large_one() -> Batch:
    return batch("a", first=FIRST, payload=b"x" * journal.MAX_BYTES)


def test_a_large_commit_is_a_transaction(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await fire(store, 0, FIRST)
        await put(a_large_one())(store)
        assert number_in_database(path) == FIRST + 1

    on_store(path, work)
