"""Which file a store is: one process at a time has it, and no other file, log or mark is taken for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Event, current_thread

import apsw
import pytest

from solarwind.core.spans import Spans
from solarwind.core.state import Change
from solarwind.errors import BadArgument, StoreError
from solarwind.store import inspection, writeahead
from solarwind.store.check import backup, check, restore
from solarwind.store.sqlite import SqliteStore
from solarwind.urls import open_engine, sqlite_path

from .faultyvfs import faulty_disk
from .test_sqlite import batch, kill, nothing, on_store, put, sql

HOLD = """
import asyncio, sys
from solarwind.store.sqlite import SqliteStore
{before}
asyncio.run(SqliteStore(sys.argv[1]).open(0))
{after}
print('open', flush=True)
sys.stdin.read()
"""


def hold(path: Path, before: str = "", after: str = "", *arguments: str) -> subprocess.Popen[str]:
    """Start a process that has the store open until it is killed."""
    program = HOLD.format(before=before, after=after)
    other = subprocess.Popen([sys.executable, "-c", program, str(path), *arguments], stdin=-1, stdout=-1, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    return other


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


# --- names --------------------------------------------------------------------------------------------------


def hard_link(path: Path) -> Path:
    (path.parent / "elsewhere").mkdir()
    os.link(path, path.parent / "elsewhere/other.db")
    return path.parent / "elsewhere/other.db"


def symbolic_link(path: Path) -> Path:
    (path.parent / "link.db").symlink_to("wind.db")
    return path.parent / "link.db"


def through_a_folder(path: Path) -> Path:
    (path.parent / "folder").symlink_to(path.parent)
    return path.parent / "folder/.." / path.parent.name / "folder" / path.name


NAMES = pytest.mark.parametrize("name", [hard_link, symbolic_link, through_a_folder])


@NAMES
def test_another_process_is_refused_under_whatever_name_and_told_who_has_it(
    path: Path, name: Callable[[Path], Path]
) -> None:
    on_store(path, nothing)
    with hold(path, "", "", "--password=secret") as other:
        with pytest.raises(StoreError, match=rf"is in use by process {other.pid} \(python") as refused:
            on_store(name(path), nothing)
        other.kill()
    assert "secret" not in str(refused.value)
    assert not on_store(path, nothing).clean


@NAMES
def test_another_store_in_this_process_is_refused_under_whatever_name(path: Path, name: Callable[[Path], Path]) -> None:
    async def twice(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match="in use by this very process"):
            await SqliteStore(str(name(path))).open(0)
        await put(batch("a"))(store)
        with pytest.raises(StoreError, match="in use by this very process"):  # the first try has let go of nothing
            await SqliteStore(str(path)).open(0)

    on_store(path, twice)
    assert check(str(path)) == []


def test_a_name_in_proc_is_the_file_that_it_names(path: Path) -> None:
    on_store(path, put(batch("a")))
    with open(path, "rb") as file:
        assert on_store(Path(f"/proc/self/fd/{file.fileno()}"), nothing).topics[0].end == 1


def test_a_symbolic_link_works_as_the_file_it_names_and_what_lies_beside_it_lies_beside_that(path: Path) -> None:
    (path.parent / "data").mkdir()
    path.symlink_to("data/real.db")
    (path.parent / "data/real.db").touch()
    on_store(path, put(batch("a")))
    assert on_store(path.parent / "data/real.db", nothing).topics[0].end == 1
    assert on_store(path, nothing).topics[0].end == 1
    assert check(str(path)) == []
    assert sorted(os.listdir(path.parent)) == ["data", "wind.db"]


@pytest.mark.parametrize("target", ["nowhere/real.db", "real.db", "wind.db"])
def test_a_link_to_nothing_is_refused_in_one_sentence(path: Path, target: str) -> None:
    path.symlink_to(target)
    for call in (lambda: on_store(path, nothing), lambda: check(str(path)), lambda: backup(str(path), "copy.db")):
        with pytest.raises(StoreError, match=r"wind\.db is a link to .*, which is not there: remove the link"):
            call()
    assert os.listdir(path.parent) == ["wind.db"]


def test_what_is_no_regular_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(StoreError, match="is not a regular file: name another"):
        on_store(path, nothing)
    with pytest.raises(StoreError, match="is not a regular file: name another"):
        check("/dev/null")


@pytest.mark.parametrize("refuse", [sqlite_path, open_engine])
def test_a_url_of_a_path_that_no_file_can_have_is_refused(refuse: Callable[[str], object]) -> None:
    with pytest.raises(BadArgument, match="expected the path of a file, in Unicode without NUL"):
        refuse("sqlite:///a%00b")


@pytest.mark.parametrize("url", ["sqlite:wind.db", "sqlite:/x.db", "sqlite://wind.db", "sqlite://u:secret@h/x.db"])
def test_a_url_that_names_another_file_than_it_seems_to_is_refused_with_the_right_spelling(url: str) -> None:
    for refuse in (sqlite_path, open_engine):
        with pytest.raises(
            BadArgument, match=r"expected sqlite:///wind\.db for a file here, or sqlite:////"
        ) as refused:
            refuse(url)
        assert "secret" not in str(refused.value)


# --- forks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fork",
    [
        "import os, time\nos.fork() or time.sleep(60)",
        "import multiprocessing, time\n"
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=True).start()",
        "import multiprocessing, time\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "ProcessPoolExecutor(1, multiprocessing.get_context('fork')).submit(time.sleep, 60)",
    ],
)
def test_a_forked_child_holds_nothing_once_the_service_is_killed(path: Path, fork: str) -> None:
    with hold(path, after=fork) as other:
        children = Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text().split()
        try:
            assert children
            other.kill()
            other.wait()
            assert not on_store(path, put(batch("a"))).clean
            assert check(str(path)) == []
        finally:
            for child in children:
                os.kill(int(child), signal.SIGKILL)


def test_a_forked_child_is_refused_and_its_end_takes_no_lock_from_the_parent(path: Path) -> None:
    program = """
import asyncio, os, sys
from solarwind.errors import StoreError
from solarwind.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open(0)
    child = os.fork()
    if not child:
        try:
            store._usable()
        except StoreError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("open", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert "is open in the process that this one was forked from" in other.stdout.readline()
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"in use by process {other.pid}"):
            on_store(path, nothing)
        # SQLite's own locks, which belong to the process: nobody else may empty its log and remove it.
        subprocess.run([sys.executable, "-c", EMPTY_LOG, str(path)], check=True)
        assert os.path.getsize(f"{path}-wal") > 0
        other.kill()


EMPTY_LOG = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM meta'); c.close()"


def test_a_note_of_a_process_that_is_dead_is_not_believed(path: Path) -> None:
    on_store(path, nothing)
    with hold(path) as other:
        note = Path(f"{path}-lock").read_text()
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        Path(f"{path}-lock").write_text(note.replace(str(other.pid), str(ended.pid)))
        with pytest.raises(StoreError, match=f"in use by process {other.pid}"):
            on_store(path, nothing)
        other.kill()


# --- another file in its place ------------------------------------------------------------------------------


async def many(store: SqliteStore) -> None:
    for number in range(20):
        change = Change("a", "p", settled=Spans([10 * number, 10 * number + 5]))
        await store.commit([batch("a", 10, first=10 * number)], [change], [], now=5)


def test_a_backup_put_over_a_killed_store_is_refused_while_the_old_log_lies_there(path: Path, tmp_path: Path) -> None:
    on_store(path, put(batch("a", 5, producer=3)))
    backup(str(path), str(tmp_path / "copy.db"))
    kill(path, many, tmp_path / "killed")
    killed = tmp_path / "killed/wind.db"
    shutil.copy(tmp_path / "copy.db", killed)
    log = Path(f"{killed}-wal").read_bytes()
    for call in (
        lambda: on_store(killed, nothing),
        lambda: backup(str(killed), str(tmp_path / "no.db")),
    ):
        with pytest.raises(
            StoreError, match=r"wind\.db-wal does not belong to .*: restore a backup with `solarwind re"
        ):
            call()
    assert ["does not belong to" in finding for finding in check(str(killed))] == [True]
    assert (killed.read_bytes(), Path(f"{killed}-wal").read_bytes()) == ((tmp_path / "copy.db").read_bytes(), log)
    assert len(check(str(killed), accept_loss=True)) == 1
    assert check(str(killed)) == []
    assert on_store(killed, nothing).topics[0].end == 5
    assert [each.read_bytes() for each in killed.parent.glob("*-aside-*-wal")] == [log]


def test_an_older_copy_of_the_same_store_put_over_it_is_refused_too(path: Path, tmp_path: Path) -> None:
    on_store(path, put(batch("a", 5, producer=3)))
    shutil.copy(path, tmp_path / "older.db")
    kill(path, many, tmp_path / "killed")
    shutil.copy(tmp_path / "older.db", tmp_path / "killed/wind.db")
    with pytest.raises(StoreError, match=r"wind\.db-wal does not belong to"):
        on_store(tmp_path / "killed/wind.db", nothing)


@pytest.mark.parametrize("size", [10, 20_000])
def test_all_files_of_a_closed_store_put_back_over_it_after_a_kill_are_refused_while_its_log_lies_there(
    path: Path, tmp_path: Path, size: int
) -> None:
    """As from an archive, which has no log, since it was closed in order: the mark is the file's own."""
    on_store(path, put(batch("a", 5, producer=3)))
    shutil.copytree(path.parent, tmp_path / "archive")
    kill(path, put(batch("a", producer=4, payload=b"x" * size)), tmp_path / "killed")
    killed = tmp_path / "killed/wind.db"
    assert Path(f"{killed}-wal").stat().st_size > size
    for each in (tmp_path / "archive").iterdir():
        shutil.copy(each, killed.parent)
    with pytest.raises(StoreError, match=r"wind\.db-wal does not belong to"):
        on_store(killed, nothing)
    assert ["does not belong to" in finding for finding in check(str(killed))] == [True]
    assert len(check(str(killed), accept_loss=True)) == 1
    assert on_store(killed, nothing).topics[0].end == 5


@pytest.mark.parametrize("mark", [True, False])
def test_the_log_of_another_store_beside_a_closed_one_is_refused(path: Path, tmp_path: Path, mark: bool) -> None:
    (tmp_path / "other").mkdir()
    kill(tmp_path / "other/wind.db", many, tmp_path / "killed")
    on_store(path, put(batch("a", 5)))
    if not mark:
        os.unlink(f"{path}-mark")
    shutil.copy(tmp_path / "killed/wind.db-wal", path.parent)
    with pytest.raises(StoreError, match=r"wind\.db-wal does not belong to"):
        on_store(path, nothing)
    assert len(check(str(path), accept_loss=True)) == 1
    assert on_store(path, nothing).topics[0].end == 5


def test_a_loss_that_is_accepted_in_a_closed_store_leaves_a_log_of_its_own_where_it_is_killed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_store(path, many)
    sql(path, "DELETE FROM batches WHERE start = 100")
    (tmp_path / "killed").mkdir()
    copied = inspection.recount

    def recount(connection: apsw.Connection) -> None:
        copied(connection)
        connection.set_commit_hook(None)
        connection.set_wal_hook(
            lambda *_: [shutil.copy(each, tmp_path / "killed") for each in path.parent.glob("w*")] and 0
        )

    monkeypatch.setattr(inspection, "recount", recount)
    assert check(str(path), accept_loss=True)
    monkeypatch.undo()
    for each in (path, tmp_path / "killed/wind.db"):
        assert check(str(each)) == []
        on_store(each, nothing)


def test_a_log_without_its_store_is_not_thrown_away(path: Path, tmp_path: Path) -> None:
    kill(path, many, tmp_path / "killed")
    killed = tmp_path / "killed/wind.db"
    log = Path(f"{killed}-wal").read_bytes()
    killed.unlink()
    with pytest.raises(StoreError, match=r"wind\.db is not there, but .*wind\.db-wal holds commits to it: put it back"):
        on_store(killed, nothing)
    assert Path(f"{killed}-wal").read_bytes() == log
    assert not killed.exists()


@pytest.mark.parametrize("commits", [0, 1, 20])
def test_a_copy_of_the_file_alone_while_it_is_in_use_is_refused(path: Path, tmp_path: Path, commits: int) -> None:
    async def copying(store: SqliteStore) -> None:
        for number in range(commits):
            await put(batch("a", first=number))(store)
        shutil.copy(path, tmp_path / "copy.db")

    on_store(path, copying)
    with pytest.raises(StoreError, match=r"or was copied while it was in use, which `solarwind backup` does"):
        on_store(tmp_path / "copy.db", nothing)
    assert len(check(str(tmp_path / "copy.db"))) == 1


def removed(path: Path) -> None:
    for each in path.parent.glob("wind.db*"):
        each.unlink()


def replaced(path: Path) -> None:
    shutil.copy(path, path.parent / "new")
    os.replace(path.parent / "new", path)


def without_its_log(path: Path) -> None:
    os.unlink(f"{path}-wal")


def overwritten(path: Path) -> None:
    """Write another store's content, of the same length, into the same file, as `cp` does."""
    content = bytearray(path.read_bytes())
    life = slice(12, 24) if path.name.endswith("-wal") else slice(60, 63)
    content[life] = os.urandom(life.stop - life.start)
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def log_overwritten(path: Path) -> None:
    overwritten(Path(f"{path}-wal"))


def log_emptied(path: Path) -> None:
    emptied(Path(f"{path}-wal"))


def log_cut_off(path: Path) -> None:
    cut_off(Path(f"{path}-wal"))


def without_its_journal(path: Path) -> None:
    os.unlink(f"{path}-commits")


def journal_replaced(path: Path) -> None:
    replaced(Path(f"{path}-commits"))


def journal_overwritten(path: Path) -> None:
    Path(f"{path}-commits").write_bytes(os.urandom(1 << 20))


def journal_emptied(path: Path) -> None:
    emptied(Path(f"{path}-commits"))


@pytest.mark.parametrize(
    "harm",
    [
        *(removed, replaced, without_its_log, overwritten, emptied, cut_off),
        *(log_overwritten, log_emptied, log_cut_off),
        *(without_its_journal, journal_replaced, journal_overwritten, journal_emptied),
    ],
)
def test_nothing_is_accepted_into_a_file_that_was_removed_replaced_or_overwritten(
    path: Path, harm: Callable[[Path], None]
) -> None:
    async def work(store: SqliteStore) -> None:
        await put(batch("a"), batch("a", 1000, first=1), batch("a", first=1001), batch("a", first=1002))(store)
        harm(path)
        for number in (1, 2):
            with pytest.raises(StoreError, match="was removed, replaced or overwritten while it was in use"):
                await store.commit([batch("a", first=2000 + number)], [], [], now=5)
        with pytest.raises(StoreError, match="was removed, replaced or overwritten while it was in use"):
            await store.topic("a", 1, 1)

    on_store(path, work)


@pytest.mark.parametrize("harm", [removed, replaced, without_its_log, without_its_journal, journal_emptied])
def test_what_happens_to_a_file_while_a_commit_waits_for_the_disk_is_noticed_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    real, harmed = os.fdatasync, False

    def sync(descriptor: int) -> None:
        nonlocal harmed
        if not harmed and os.readlink(f"/proc/self/fd/{descriptor}").endswith("-commits"):
            harm(path)
            harmed = True
        real(descriptor)

    async def work(store: SqliteStore) -> None:
        await put(*(batch("a", first=number) for number in range(5)))(store)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", sync)
            with pytest.raises(StoreError, match="was removed, replaced or overwritten while it was in use"):
                await put(batch("a", first=5), batch("a", first=6))(store)
        assert harmed

    on_store(path, work)


def test_a_file_that_is_overwritten_is_not_written_to_by_upkeep_either(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is overwritten at the end of a checkpoint, when a commit has given the next one something to copy."""
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 64 << 10)
    committed, overwritten = Event(), Event()

    def overwrite(kind: str, at: str) -> int:
        upkeep = current_thread().name.startswith("solarwind-upkeep")
        if upkeep and (kind, at) == ("sync", str(path)) and not overwritten.is_set():
            for _ in range(2):  # the first may have been written before
                committed.clear()
                assert committed.wait(60)
            path.write_bytes(b"someone else's")
            overwritten.set()
        return 0

    async def fill(store: SqliteStore) -> None:
        for number in range(300):
            await put(batch("a", first=number, payload=b"x" * 50_000))(store)
            committed.set()

    async def work() -> None:
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open(0)
        with pytest.raises(StoreError, match="was removed, replaced or overwritten while it was in use"):
            await fill(store)
        await store.close()

    with faulty_disk() as disk:
        disk.fault = overwrite
        asyncio.run(work())
    assert overwritten.is_set()
    with path.open("rb") as file:
        assert file.read(20) == b"someone else's"


def test_a_store_that_empties_its_log_and_starts_it_anew_is_not_taken_for_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 64 << 10)

    async def work(store: SqliteStore) -> None:
        for number in range(300):
            await put(batch("a", first=number, payload=b"x" * 20_000))(store)
            os.utime(path)
            if number % 50 == 20:
                await store.trim("a", Spans(), 1 << 62, None)
                while await store.shrink():
                    pass

    on_store(path, work)
    assert check(str(path)) == []


# --- restoring ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_restore_puts_a_backup_in_the_place_of_a_killed_store(path: Path, tmp_path: Path, force: bool) -> None:
    on_store(path, put(batch("a", 5, producer=3)))
    copy = tmp_path / "copy.db"
    backup(str(path), str(copy))
    kill(path, many, tmp_path / "killed")
    killed = tmp_path / "killed/wind.db"
    kept = restore(str(copy), str(killed), now=5, force=force)
    assert on_store(killed, nothing).topics[0].end == 5
    assert check(str(killed)) == []
    assert copy.exists()
    if force:
        assert (kept, [*killed.parent.glob("*aside*")]) == (None, [])
    else:
        assert kept is not None
        assert on_store(Path(kept), nothing).topics[0].end == 205  # whole, with its log


@pytest.mark.parametrize("force", [False, True])
def test_a_restore_that_is_killed_at_any_step_can_be_repeated_and_loses_nothing_that_is_kept(
    path: Path, tmp_path: Path, force: bool
) -> None:
    on_store(path, put(batch("a", 5, producer=3)))
    copy = tmp_path / "copy.db"
    backup(str(path), str(copy))
    kill(path, many, tmp_path / "killed")

    def is_killed(target: Path, step: int) -> bool:
        """Return whether a process that restores to `target` came to that step, before which it was killed."""
        child = os.fork()
        if not child:
            steps = count()

            def dying(do: Callable[..., None]) -> Callable[..., None]:
                return lambda *names: os._exit(9) if next(steps) == step else do(*names)

            for name in ("link", "unlink", "replace", "rename"):
                setattr(os, name, dying(getattr(os, name)))
            restore(str(copy), str(target), now=5, force=force)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    for step in count():
        target = tmp_path / f"killed-{step}/wind.db"
        shutil.copytree(tmp_path / "killed", target.parent)
        if not is_killed(target, step):
            break
        restore(str(copy), str(target), now=6, force=force)
        assert on_store(target, nothing).topics[0].end == 5
        assert check(str(target)) == []
        kept = [each for each in target.parent.glob("wind.db-aside-*") if each.name[-1] in "Z1"]
        assert force or 205 in [on_store(each, nothing).topics[0].end for each in kept if not check(str(each))]
    assert step > 5


def test_restore_refuses_a_store_in_use_an_unsound_backup_and_what_is_no_store(path: Path, tmp_path: Path) -> None:
    on_store(path, many)
    copy = tmp_path / "copy.db"
    backup(str(path), str(copy))

    async def in_use(_: SqliteStore) -> None:
        with pytest.raises(StoreError, match="in use by this very process"):
            restore(str(copy), str(path), now=5)

    on_store(path, in_use)
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    for source, target, sentence in (
        (copy, diary, "is not an SQLite database"),
        (diary, path, "is not an SQLite database"),
        (path, path, "which is the store itself: name the backup"),
        (tmp_path / "no.db", path, "there is none at"),
    ):
        with pytest.raises(StoreError, match=sentence):
            restore(str(source), str(target), now=5, force=True)
    data = bytearray(copy.read_bytes())
    at = data.rindex(b"app 7")
    data[at] ^= 1
    copy.write_bytes(data)
    with pytest.raises(StoreError, match=r"expected a sound backup, but .* is damaged"):
        restore(str(copy), str(path), now=5)
    assert diary.read_text() == "dear diary"
    assert on_store(path, nothing).topics[0].end == 200
    assert not [each for each in os.listdir(tmp_path) if "part" in each or "aside" in each]


def test_restore_to_a_new_place_makes_a_store_there(path: Path, tmp_path: Path) -> None:
    on_store(path, many)
    assert restore(str(path), str(tmp_path / "new.db"), now=5) is None
    assert on_store(tmp_path / "new.db", nothing).topics[0].end == 200


# --- who may read it ----------------------------------------------------------------------------------------


def modes(path: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}


def test_a_store_and_what_lies_beside_it_are_for_its_owner_alone_and_what_was_widened_stays(path: Path) -> None:
    seen: list[dict[str, int]] = []

    async def look(store: SqliteStore) -> None:
        await put(*(batch("a", producer=len(seen) + 1, first=number) for number in range(3)))(store)
        seen.append(modes(path))

    old = os.umask(0)
    try:
        on_store(path, look)
        backup(str(path), f"{path}-copy")
        seen.append(modes(path))
        os.chmod(path, 0o640)
        for kind in ("-mark", "-commits", "-reserve"):
            os.unlink(f"{path}{kind}")
        on_store(path, look)
    finally:
        os.umask(old)
    names = {"", "-wal", "-shm", "-lock", "-mark", "-commits", "-reserve"}
    assert seen[0] == {f"wind.db{kind}": 0o600 for kind in names}
    assert seen[1]["wind.db-copy"] == 0o600
    assert seen[2] == {f"wind.db{kind}": 0o640 for kind in names} | {"wind.db-copy": 0o600}


def test_a_backup_follows_no_link_in_the_place_of_its_part(path: Path, tmp_path: Path) -> None:
    on_store(path, many)
    (tmp_path / "copy.db-part").symlink_to(tmp_path / "victim")
    backup(str(path), str(tmp_path / "copy.db"))
    assert not (tmp_path / "victim").exists()
    assert check(str(tmp_path / "copy.db")) == []
    (tmp_path / "link.db").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError, match="exists: name another"):
        backup(str(path), str(tmp_path / "link.db"))


# --- names and files that belong to a store -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["-wal", "-shm", "-journal", "-lock", "-mark", "-commits", "-reserve", "-part"])
def test_the_name_of_another_stores_file_is_refused_for_a_store_and_for_a_backup(path: Path, kind: str) -> None:
    on_store(path, put(batch("a")))
    taken = Path(f"{path}{kind}")
    backup(str(path), f"{path}.copy")
    taken.unlink(missing_ok=True)
    for call in (
        lambda: on_store(taken, nothing),
        lambda: check(str(taken)),
        lambda: backup(str(path), str(taken)),
        lambda: restore(f"{path}.copy", str(taken), now=5),
    ):
        with pytest.raises(StoreError, match=rf"but .*{kind} is that of a file of .*wind\.db: choose another$"):
            call()
    assert not taken.exists()


@pytest.mark.parametrize("other", [True, False], ids=["another process", "this process"])
def test_check_and_backup_by_a_hard_link_to_a_store_in_use_say_that_it_is_in_use(path: Path, other: bool) -> None:
    on_store(path, put(batch("a")))
    link = hard_link(path)

    async def refused(_: SqliteStore | None) -> None:
        for call in (lambda: check(str(link)), lambda: backup(str(link), f"{path}-copy")):
            with pytest.raises(StoreError, match=r"other\.db is in use by .* under another name"):
                call()
        assert check(str(path)) == []

    if other:
        with hold(path) as holder:
            asyncio.run(refused(None))
            holder.kill()
    else:
        on_store(path, refused)


def folder_at(path: Path) -> None:
    path.mkdir()


def fifo_at(path: Path) -> None:
    os.mkfifo(path)


def link_to_nothing_at(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize("make", [folder_at, fifo_at, link_to_nothing_at])
@pytest.mark.parametrize("kind", ["-wal", "-mark", "-commits", "-reserve", "-lock", "-journal"])
def test_what_is_no_file_where_a_file_of_the_store_belongs_is_refused_in_one_sentence(
    path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    on_store(path, put(batch("a")))
    backup(str(path), f"{path}.copy")
    beside = Path(f"{path}{kind}")
    beside.unlink(missing_ok=True)
    make(beside)
    with pytest.raises(StoreError, match=rf"^expected a file of .*wind\.db at .*wind\.db{kind}, but it is "):
        on_store(path, nothing)
    with pytest.raises(StoreError, match=rf"at .*wind\.db{kind}, but it is "):
        restore(f"{path}.copy", str(path), now=5)
    if kind in ("-wal", "-mark", "-commits", "-journal"):
        with pytest.raises(StoreError, match=rf"at .*wind\.db{kind}, but it is "):
            check(str(path))
    else:
        assert check(str(path)) == []


@pytest.mark.parametrize("kind", ["-mark", "-commits", "-reserve"])
def test_a_file_of_the_store_that_cannot_be_read_is_said_in_one_sentence(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_store(path, put(*(batch("a", first=number) for number in range(3))))
    real = os.access
    monkeypatch.setattr(os, "access", lambda name, mode: not str(name).endswith(kind) and real(name, mode))
    with pytest.raises(StoreError, match=rf"at .*wind\.db{kind}, but it cannot be read and written to: allow it$"):
        on_store(path, nothing)
