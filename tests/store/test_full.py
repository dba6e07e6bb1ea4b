"""A service on a disk that is full or fails: who waits, who goes on, and what is said. See `faultyvfs`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from solarwind import SolarWind
from solarwind.batch import Batch
from solarwind.core.spans import Spans
from solarwind.core.state import Change
from solarwind.engine.local import LocalEngine
from solarwind.errors import StoreError
from solarwind.store import database, files, journal, lock, sqlite, writeahead
from solarwind.store.base import Full
from solarwind.store.check import backup, check
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import until

from .faultyvfs import Disk, faulty_disk
from .test_sqlite import batch, kill, on_store, put


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(database, "PAGE_BYTES", 1024)
    monkeypatch.setattr(files.Reserve, "SIZE", 256 << 10)
    monkeypatch.setattr(journal, "SIZE", 64 << 10)  # as much less than what is set aside as it is
    monkeypatch.setattr(journal, "MAX_BYTES", 8 << 10)
    monkeypatch.setattr(files, "_PROBE_BYTES", 64 << 10)
    monkeypatch.setattr(sqlite, "_MARK_S", 0)
    with faulty_disk() as disk:
        yield disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


def on_wind(wind: SolarWind, test: Callable[[], Awaitable[Any]]) -> None:
    async def main() -> None:
        async with wind:
            await test()

    asyncio.run(asyncio.wait_for(main(), 300))


def full(disk: Disk) -> None:
    disk.quota = sum(disk.sizes.values())


def test_on_a_full_disk_settles_go_on_and_only_those_wait_whose_handler_fired(disk: Disk, path: Path) -> None:
    store = SqliteStore(str(path), vfs=disk.name)
    wind = SolarWind(engine=LocalEngine(store))
    gate = asyncio.Event()
    followed: list[int] = []

    @wind.on("plain", purpose="p", concurrency=50)
    async def handle(number: int) -> None:
        await gate.wait()

    @wind.on("firing", purpose="p")
    async def fire(number: int) -> None:
        await gate.wait()
        wind.fire("follow", number)
        wind.fire("large", "x" * 500_000)

    @wind.on("follow", purpose="p")
    async def follow(number: int) -> None:
        followed.append(number)

    async def fire_until_refused() -> None:
        while True:
            await wind.fire("other", "x" * 100_000)

    async def settled(topic: str) -> int:
        return (await wind.statistics()).purposes[topic, "p"].settled

    async def test() -> None:
        await wind.fire_many("plain", range(300))
        await wind.fire_many("firing", range(20))
        full(disk)
        with pytest.raises(StoreError, match=r"no room left|the disk is full"):
            await fire_until_refused()
        gate.set()

        async def all_plain() -> bool:
            return await settled("plain") == 300

        await until(all_plain)
        await asyncio.wait_for(wind.engine._committed(), 60)  # type: ignore[attr-defined]
        assert followed == []
        disk.quota = None
        await wind.settled(60)
        assert sorted(followed) == list(range(20))

    on_wind(wind, test)
    assert check(str(path)) == []


async def stored(store: SqliteStore, batch: Batch) -> bool:
    """Store a batch if there is room: there is none while the log is being emptied."""
    try:
        await put(batch)(store)
    except Full:
        return False
    return True


@pytest.mark.long
def test_on_a_full_disk_settles_and_trimming_go_on_and_make_room(
    disk: Disk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 64 << 10)

    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        for number in range(200):
            await put(batch("a", first=number, payload=b"x" * 5000))(store)
        full(disk)
        with pytest.raises(Full):
            await put(*(batch("b", first=number, payload=b"x" * 5000) for number in range(1000)))(store)
        for number in range(400):  # more than the log has room for
            await store.commit([], [Change("a", "p", settled=Spans([number, number + 1]))], [], now=5)
        assert await store.trim("a", Spans(), 1 << 62, None) == 200
        for number in range(100):
            await until(lambda number=number: stored(store, batch("c", first=number, payload=b"x" * 5000)))
        await store.close()

    asyncio.run(work())
    assert check(str(path)) == []


def test_on_a_full_disk_no_event_takes_the_room_that_is_set_aside_for_settles(disk: Disk, path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await put(batch("a"))(store)
        full(disk)
        stored = 0
        for number in range(1, 600):  # producers fire on, and never give up
            change = Change("a", "p", settled=Spans([number, number + 1]))
            await store.commit([], [change], [], now=5)
            try:
                await put(batch("a", first=number, payload=b"x" * 2000))(store)
            except Full:
                continue
            stored += 1
        assert stored < 100
        disk.quota = None
        await put(batch("a", first=1000))(store)
        await store.close()

    asyncio.run(work())
    assert check(str(path)) == []


def starts_on_a_full_disk(disk: Disk, path: Path, missing: str) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        await put(batch("a"))(store)
        await store.close()
        if missing:
            os.unlink(f"{path}{missing}")
            del disk.sizes[f"{path}{missing}"]
        full(disk)
        try:
            await store.open(0)
        finally:
            disk.quota = None
            await store.close()
            await store.open(0)
            await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("missing", ["", "-mark"])
def test_a_store_starts_on_a_full_disk_with_the_room_set_aside(disk: Disk, path: Path, missing: str) -> None:
    starts_on_a_full_disk(disk, path, missing)


def test_a_store_that_cannot_start_on_a_full_disk_says_so_in_one_sentence_and_starts_later(
    disk: Disk, path: Path
) -> None:
    with pytest.raises(StoreError, match=r"^[^\n]*: make room on its disk$"):
        starts_on_a_full_disk(disk, path, "-reserve")


def test_a_disk_without_room_for_a_single_name_is_said_in_one_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_store(path, put(batch("a")))
    for kind in ("-mark", "-reserve"):
        os.unlink(f"{path}{kind}")
    real = os.open

    def refuse(name: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT and not os.path.exists(name):
            raise OSError(28, "No space left on device")
        return real(name, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "open", refuse)
        patch.setattr(lock.os, "open", refuse)
        with pytest.raises(StoreError, match=r"cannot be opened: the disk is full \(No space left on device\): make"):
            on_store(path, put(batch("a", first=1)))
    on_store(path, put(batch("a", first=1)))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (apsw.SQLITE_FULL, "cannot be written to: the disk is full .*: make room on its disk"),
        (apsw.SQLITE_IOERR_WRITE, "cannot be written to: the disk failed .*: see to its disk"),
    ],
)
def test_a_write_that_fails_is_said_to_be_what_it_is(disk: Disk, path: Path, code: int, sentence: str) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        disk.fault = lambda kind, where: code if kind == "write" else 0
        with pytest.raises(Full, match=sentence):
            await put(batch("a"))(store)
        disk.fault = lambda kind, where: 0
        await put(batch("a"))(store)
        await store.close()

    asyncio.run(work())


def test_a_log_that_cannot_be_emptied_is_said_and_grows_no_further_than_a_bound(
    disk: Disk, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 64 << 10)
    monkeypatch.setattr(writeahead, "_LOG_MAX_BYTES", 128 << 10)
    monkeypatch.setattr(writeahead, "_LOG_REFUSE_BYTES", 512 << 10)

    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        disk.fault = lambda kind, where: apsw.SQLITE_IOERR_WRITE if kind == "write" and where == str(path) else 0
        with pytest.raises(Full, match=r"wind\.db-wal, of 0 MiB, cannot be emptied into it \(.*\): see to its disk"):
            await put(*(batch("a", first=number, payload=b"x" * 5000) for number in range(1000)))(store)
        assert os.path.getsize(f"{path}-wal") < 1 << 20
        await store.commit([], [Change("a", "p", settled=Spans([0, 1]))], [], now=5)  # settles go on
        disk.fault = lambda kind, where: 0
        for more in range(200):
            await put(batch("b", first=more, payload=b"x" * 5000))(store)
        assert os.path.getsize(f"{path}-wal") < 1 << 20
        await store.close()

    asyncio.run(work())
    said = [record.message for record in caplog.records]
    assert len([text for text in said if "cannot be emptied" in text]) == 1
    assert len([text for text in said if "is emptied into" in text]) == 1


def test_a_mark_that_cannot_be_synced_stops_an_idle_engine_at_once(disk: Disk, path: Path) -> None:
    wind = SolarWind(engine=LocalEngine(SqliteStore(str(path), vfs=disk.name)))

    async def test() -> None:
        disk.fault = lambda kind, where: apsw.SQLITE_IOERR_FSYNC if kind == "sync" and where.endswith("-mark") else 0
        with suppress(StoreError):  # it may be faster
            await wind.fire("T")
        with pytest.raises(StoreError, match="so how far it has got cannot be noted"):
            await asyncio.wait_for(asyncio.shield(wind.failed), 60)

    on_wind(wind, test)


@pytest.fixture
def nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """As on a read-only mount: the tests may run as root, whom no mode stops."""

    def freeze(folder: Path) -> None:
        real = os.access
        monkeypatch.setattr(
            os,
            "access",
            lambda name, mode: real(name, mode) and not (mode == os.W_OK and str(name).startswith(str(folder))),
        )

    return freeze


def test_check_and_backup_work_and_leave_no_trace_where_nothing_can_be_written(
    path: Path, tmp_path: Path, nothing_can_be_written: Callable[[Path], None]
) -> None:
    (tmp_path / "mounted").mkdir()
    mounted = tmp_path / "mounted/wind.db"
    on_store(mounted, put(batch("a"), batch("a", first=1)))
    before = {each.name: each.stat().st_mtime_ns for each in mounted.parent.iterdir()}
    nothing_can_be_written(mounted.parent)
    assert check(str(mounted)) == []
    backup(str(mounted), str(tmp_path / "copy.db"))
    assert {each.name: each.stat().st_mtime_ns for each in mounted.parent.iterdir()} == before
    assert check(str(tmp_path / "copy.db")) == []


def test_a_store_that_was_killed_is_not_half_read_where_nothing_can_be_written(
    path: Path, tmp_path: Path, nothing_can_be_written: Callable[[Path], None]
) -> None:
    kill(path, put(batch("a"), batch("a", first=1)), tmp_path / "mounted")
    nothing_can_be_written(tmp_path / "mounted")
    with pytest.raises(StoreError, match="copy it with all that lies beside it to where it can be written to"):
        check(str(tmp_path / "mounted/wind.db"))


ON_A_SMALL_DISK = """
import asyncio, sys
import msgspec
from solarwind import SolarWind
from solarwind.errors import StoreError
from solarwind.operations import Internal

async def main():
    wind = SolarWind(f"sqlite:///{sys.argv[1]}/wind.db")
    gate = asyncio.Event()

    @wind.on("plain", purpose="p", concurrency=50)
    async def handle(number):
        await gate.wait()

    async def refused(payload):
        try:
            await wind.fire("fill", payload)
        except StoreError as error:
            text = str(error)
            assert ("no room left" in text or "the disk is full" in text) and chr(10) not in text, text
            return True

    async with wind:
        await wind.fire_many("plain", range(1000))
        while not await refused("x" * 100_000):
            pass
        gate.set()
        while (await wind.statistics()).purposes["plain", "p"].settled < 1000:
            await asyncio.sleep(0.01)
    async with wind:  # it starts, on the full disk
        await Internal.keep(wind.engine, "fill", 0)
        while await refused("y"):
            await asyncio.sleep(0.01)

asyncio.run(asyncio.wait_for(main(), 300))
"""


@pytest.mark.parametrize("size", ["12m", "24m"])
def test_on_a_small_full_disk_settles_go_on_and_trimming_makes_room_for_events_again(tmp_path: Path, size: str) -> None:
    """On a file system of its own. With 24 MiB SQLite's log is longer than what is set aside."""
    mount = f"mount -t tmpfs -o size={size} none {tmp_path}"
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("nothing can be mounted here")
    program = [sys.executable, "-W", "error::RuntimeWarning", "-c", ON_A_SMALL_DISK, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
