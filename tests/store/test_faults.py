"""What a store keeps of its promise when the disk does not keep its own: no accepted commit lost, and no false alarm.

Each test runs a store on a disk that fails as told (see `faultyvfs`), then opens what is left on a sound one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from sampling import some
from solarwind.batch import Batch, seal
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Letter, State
from solarwind.errors import StoreError
from solarwind.store import commits, database, files, inspection, sqlite, writeahead
from solarwind.store.base import Full, Recovered
from solarwind.store.check import check
from solarwind.store.files import Mark
from solarwind.store.sqlite import SqliteStore

from .faultyvfs import Disk, Platter, faulty_disk

FRAME_HEADER = 24


@pytest.fixture(autouse=True)
def small_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is emptied every few commits, a mark that is always being synced: all that can go wrong, soon."""
    monkeypatch.setattr(database, "PAGE_BYTES", 1024)
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 32 << 10)
    monkeypatch.setattr(writeahead, "_LOG_MAX_BYTES", 128 << 10)
    monkeypatch.setattr(sqlite, "_MARK_S", 0)
    monkeypatch.setattr(commits, "_COMMITS_KEPT", 4)
    monkeypatch.setattr(files.Reserve, "SIZE", 64 << 10)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with faulty_disk() as disk:
        yield disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


def batch(number: int, size: int = 300) -> Batch:
    """Return the only batch of commit `number`, which counts from 0: two events that say so."""
    payload = b"%d" % number
    return seal(
        "a",
        [payload, payload + b" " * size],
        [number, number],
        producer=1,
        first=2 * number,
        machine="box",
        process="app",
    )


class Load:
    """Commits, one after another, each with a batch and a change of a purpose that only counts it. Where one of its
    events `dies`, each commit is a transaction of its own; else most of them go through the journal."""

    def __init__(self, dies: bool = True) -> None:
        self.state = State("a", "p")
        self.number = 0  # commits that are known to be stored
        self.dies = dies

    async def commit(self, store: SqliteStore, size: int = 300) -> None:
        number = self.number
        change = Change("a", "p", settled=Spans([2 * number, 2 * number + 2]))
        if self.dies:
            dead = [Letter(2 * number + 1, 1, 1, "no", 1)]
            change = Change("a", "p", settled=Spans([2 * number, 2 * number + 1]), dead=dead)
        after = State.restore(self.state.snapshot())
        after.apply(change)
        snapshots = [after.snapshot()] if self.dies and number % 5 == 4 else []
        await store.commit([batch(number, size)], [change], snapshots, now=number)
        self.state, self.number = after, number + 1


def look(path: Path) -> int:
    """Open the store on a sound disk and see that it holds the first so many commits, all of each. Return how many."""

    async def work() -> tuple[Recovered, list[bytes], int]:
        store = SqliteStore(str(path))
        recovered = await store.open(0)
        try:
            stored = await store.read("a", 0, 1 << 30)
            payloads = [each.batch.payload(index).strip() for each in stored for index in range(len(each.batch))]
            return recovered, payloads, len(await store.dead("a", "p", 0, Spans((0, 1 << 60))))
        finally:
            await store.close()

    recovered, payloads, dead = asyncio.run(work())
    number = len(payloads) // 2
    assert payloads == [b"%d" % (index // 2) for index in range(2 * number)]
    state = State("a", "p")
    for snapshot in recovered.snapshots:
        state = State.restore(snapshot)
    for change in recovered.changes:
        state.apply(change)
    settled = 2 * number - dead  # of each commit one event is dead, or both are settled
    assert (state.settled, len(state.dead), state.floor) == (settled, dead, 2 * number)
    assert dead in (0, number)
    return number


# --- (a) power cuts -----------------------------------------------------------------------------------------


DIES = pytest.mark.parametrize("dies", [True, False], ids=["in a transaction", "in the journal"])


def run_load(disk: Disk, path: Path, lives: int, commits: int, dies: bool) -> None:
    async def work() -> None:
        load = Load(dies)
        for _ in range(lives):
            store = SqliteStore(str(path), vfs=disk.name)
            await store.open(0)
            for _ in range(commits):
                await load.commit(store, size=random.Random(load.number).choice((10, 300, 3000)))
                disk.acknowledged(load.number)
            await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 8))])
@DIES
def test_no_power_cut_loses_an_accepted_commit_or_raises_a_false_alarm(
    disk: Disk, tmp_path: Path, path: Path, seed: int, dies: bool
) -> None:
    """Cut at any moment, also while it is created, emptied or closed, with any part left of what was not synced."""
    run_load(disk, path, lives=3, commits=25, dies=dies)
    assert any(done.kind == "sync" and done.path == str(path) for done in disk.done)  # the log was emptied
    assert sum(done.kind == "sync" and done.path == f"{path}-commits" for done in disk.done) >= 30 * (not dies)
    chance = random.Random(seed)
    cuts = set(chance.sample(range(len(disk.done)), 60)) | set(range(20 * seed, 20 * seed + 20))
    platter = Platter()
    for index, done in enumerate(disk.done):
        platter.do(index, done)
        if index in cuts:
            folder = tmp_path / f"cut-{index}"
            folder.mkdir()
            platter.cut(folder, chance)
            assert look(folder / "wind.db") >= platter.acknowledged, f"cut after {index} of {len(disk.done)}"
            assert check(str(folder / "wind.db")) == []


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
@DIES
def test_no_power_cut_while_it_is_closed_makes_its_own_log_a_foreign_one(
    disk: Disk, tmp_path: Path, path: Path, rounds: int, dies: bool
) -> None:
    run_load(disk, path, lives=2, commits=3, dies=dies)
    chance = random.Random()
    platter = Platter()
    ends = [index for index, done in enumerate(disk.done) if done.kind == "delete" and done.path.endswith("-wal")]
    assert len(ends) == 2
    for index, done in enumerate(disk.done):
        platter.do(index, done)
        for number in range(rounds if any(-8 <= index - end <= 3 for end in ends) else 0):
            folder = tmp_path / f"cut-{index}-{number}"
            folder.mkdir()
            platter.cut(folder, chance)
            assert look(folder / "wind.db") >= platter.acknowledged, f"cut after {index} of {len(disk.done)}"


@DIES
def test_a_disk_that_does_not_sync_is_caught_by_these_tests(disk: Disk, tmp_path: Path, path: Path, dies: bool) -> None:
    """The test above can fail: the same cuts, with every sync of the log, or of the journal, forgotten, lose accepted
    commits."""
    run_load(disk, path, lives=1, commits=25, dies=dies)
    chance = random.Random(0)
    platter = Platter()
    lost = 0
    for index, done in enumerate(disk.done):
        if done.kind == "sync" and done.path.endswith("-wal" if dies else "-commits"):
            continue
        platter.do(index, done)
        if done.kind == "acknowledged":
            folder = tmp_path / f"cut-{index}"
            folder.mkdir()
            platter.cut(folder, chance)
            try:
                lost += look(folder / "wind.db") < platter.acknowledged
            except (StoreError, AssertionError):
                lost += 1
    assert lost


# --- (b) torn and damaged writes ----------------------------------------------------------------------------


@pytest.fixture
def cut_off(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, bytes], Path]:
    """A store killed after ten commits, and how to put it back with another log and mark."""
    monkeypatch.setattr(database, "PAGE_BYTES", 512)
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 1 << 30)
    kept: dict[str, bytes] = {}

    def keep(name: str) -> None:
        for kind in ("", "-wal", "-mark"):
            kept[name + kind] = Path(f"{path}{kind}").read_bytes()

    async def work() -> None:
        store = SqliteStore(str(path))
        await store.open(0)
        load = Load()
        for _ in range(9):
            await load.commit(store, size=10)
        keep("before")
        await load.commit(store, size=10)
        keep("after")
        await store.close()

    asyncio.run(work())
    folder = tmp_path / "cut"
    folder.mkdir()

    def restore(log: bytes, mark: bytes) -> Path:
        target = folder / "wind.db"
        for each in folder.iterdir():
            each.unlink()
        target.write_bytes(kept["after"])
        Path(f"{target}-wal").write_bytes(log)
        Path(f"{target}-mark").write_bytes(mark)
        return target

    restore.kept = kept  # type: ignore[attr-defined]
    return restore


def verified(path: Path) -> int:
    """Return how many commits it opens with, by what every start goes through. Raise `StoreError` where it would."""
    connection = database.connect(str(path), None)
    try:
        return inspection.verify(str(path), None, connection)[1].number
    finally:
        connection.close()


@pytest.mark.parametrize("every", [19, pytest.param(1, marks=pytest.mark.long)])
def test_a_write_torn_at_any_byte_of_the_last_frame_is_no_false_alarm_and_no_silent_loss(
    cut_off: Callable[[bytes, bytes], Path], every: int
) -> None:
    """A commit that was never acknowledged may be missing. One that was may not, and its loss is named."""
    kept: dict[str, bytes] = cut_off.kept  # type: ignore[attr-defined]
    log = kept["after-wal"]
    last = len(log) - (512 + FRAME_HEADER)
    assert verified(cut_off(log, kept["after-mark"])) == 10
    for stop in range(last, len(log), every):
        for torn in (log[:stop], log[:stop] + bytes(len(log) - stop)):
            if torn == log:
                continue  # what is missing is zero anyway
            assert verified(cut_off(torn, kept["before-mark"])) == 9
            with pytest.raises(StoreError, match="has lost its last 1 commits with 2 events"):
                verified(cut_off(torn, kept["after-mark"]))


@pytest.mark.long
@pytest.mark.parametrize("every", [61, 5])
def test_a_bit_flipped_in_any_byte_of_the_log_is_never_a_silent_loss(
    cut_off: Callable[[bytes, bytes], Path], every: int
) -> None:
    kept: dict[str, bytes] = cut_off.kept  # type: ignore[attr-defined]
    log = kept["after-wal"]
    for at in range(0, len(log), every):
        damaged = bytearray(log)
        damaged[at] ^= 1 << at % 8
        try:
            assert verified(cut_off(bytes(damaged), kept["after-mark"])) == 10
        except (StoreError, apsw.Error):
            continue


def test_a_mark_torn_at_any_byte_gives_the_one_before(path: Path) -> None:
    """Each record is written over an older one; whatever is left of it, one that was durable before is sound."""
    path.touch()
    mark = Mark(str(path), None, lambda error: None)
    reaches = [files.Reach(b"s" * 16, 1, 1, number, 2 * number, number, False) for number in range(5)]
    mark.begin(reaches[0])
    images = []
    for reach in reaches[1:]:
        before = Path(mark.path).read_bytes()
        mark.write(reach)
        images.append((before, Path(mark.path).read_bytes(), reach.commit))
        mark.sync()
    mark.close()
    for before, after, commit in images:
        changed = [at for at in range(len(after)) if before[at] != after[at]]
        for stop in range(changed[0], changed[-1] + 1):
            Path(mark.path).write_bytes(after[:stop] + before[stop:])
            found = Mark.read(str(path), None)
            assert found is not None
            assert found.commit in (commit - 1, commit)


# --- (c) errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"),
    [("write", apsw.SQLITE_IOERR_WRITE), ("write", apsw.SQLITE_FULL), ("sync", apsw.SQLITE_IOERR_FSYNC)],
)
@pytest.mark.parametrize("lasting", some([True], [False, True]))
@pytest.mark.parametrize("every", [61, pytest.param(1, marks=pytest.mark.long)])
@DIES
def test_an_error_at_any_call_is_either_nothing_stored_or_the_end(
    tmp_path: Path, kind: str, code: int, lasting: bool, every: int, dies: bool
) -> None:
    """`Full`: it was not stored, and the next may be. `StoreError`: it may be stored, and nothing is any more."""
    at, reached = 0, True
    while reached:
        folder = tmp_path / str(at)
        folder.mkdir()
        with faulty_disk() as disk:
            reached = fail_once(disk, folder / "wind.db", kind, code, at, lasting, dies)
        at += every if at < 60 else max(every, 7)
    assert at > 40


def fail_once(disk: Disk, path: Path, kind: str, code: int, at: int, lasting: bool, dies: bool) -> bool:
    """Return whether there was a call number `at` of this kind that could fail."""
    calls = 0

    def fault(called: str, where: str) -> int:
        nonlocal calls
        if called != kind:
            return 0
        calls += 1
        return code if calls == at + 1 or (lasting and calls > at) else 0

    async def work() -> tuple[int, bool]:
        load = Load(dies)
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        disk.fault = fault
        unknown = False
        for _ in range(30):
            try:
                await load.commit(store)
            except Full:
                assert not unknown
                assert kind == "write"
            except StoreError:
                assert kind == "sync"
                unknown = True
            else:
                assert not unknown
        disk.fault = lambda called, where: 0
        if kind == "write":
            before = load.number
            await load.commit(store)
            assert load.number == before + 1
        await store.close()
        return load.number, unknown

    stored, unknown = asyncio.run(work())
    found = look(path)
    assert found == stored or (unknown and found == stored + 1)
    assert check(str(path)) == []
    return calls > at


@pytest.mark.parametrize(("dies", "file"), [(True, "-wal"), (False, "-commits")])
def test_after_a_failed_sync_every_call_says_to_restart(disk: Disk, path: Path, dies: bool, file: str) -> None:
    async def work() -> None:
        load = Load(dies)
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await load.commit(store)
        disk.fault = lambda kind, where: apsw.SQLITE_IOERR_FSYNC if kind == "sync" and where.endswith(file) else 0
        for call in (load.commit(store), load.commit(store), store.read("a", 0, 1), store.topic("a", 1, 1)):
            with pytest.raises(StoreError, match="restart it"):
                await call
        await store.close()

    asyncio.run(work())
    assert look(path) in (1, 2)


# --- (d) a full disk ----------------------------------------------------------------------------------------


def test_a_full_disk_refuses_events_and_settles_on_and_recovers_by_itself(disk: Disk, path: Path) -> None:
    async def work() -> None:
        load = Load()
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        for _ in range(10):
            await load.commit(store)
        disk.quota = sum(disk.sizes.values()) + 2000
        refused = 0
        while refused < 5:
            try:
                await load.commit(store)
            except Full:
                refused += 1
        before = [each.start for each in await store.read("a", 0, 1 << 30)]
        for number in range(20):  # the purpose settles on: nothing that was accepted waits for the disk
            await store.commit([], [Change("b", "q", settled=Spans([number, number + 1]))], [], now=5)
        assert [each.start for each in await store.read("a", 0, 1 << 30)] == before
        for _ in range(5):  # what is set aside is for them: events get none of it, however small they are
            with pytest.raises(Full, match=r"no room left for .*-reserve, of 64 KiB, which settles may need"):
                await load.commit(store, size=1)
        disk.quota = None
        for _ in range(70):
            await load.commit(store)
        assert Path(f"{path}-reserve").stat().st_size == files.Reserve.SIZE  # set aside again for the next time
        await store.close()

    asyncio.run(work())
    assert check(str(path)) == []


def test_a_store_starts_on_a_full_disk(disk: Disk, path: Path) -> None:
    async def work() -> None:
        load = Load()
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await load.commit(store)
        await store.close()
        disk.quota = sum(disk.sizes.values())
        await store.open(0)
        with pytest.raises(Full):
            await load.commit(store, size=100_000)
        await store.close()

    asyncio.run(work())
    assert look(path) == 1
