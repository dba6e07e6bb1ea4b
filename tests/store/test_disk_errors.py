"""What is said when a call of the system fails while a store is opened, checked or copied: why, and what to do."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import apsw
import pytest

from solarwind.errors import StoreError
from solarwind.store.check import check
from solarwind.store.sqlite import SqliteStore

from .faultyvfs import faulty_disk
from .test_sqlite import batch, on_store, put

FULL = "the disk is full .*: make room on its disk$"
FAILED = "the disk failed .*: see to its disk$"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


def refusal(work: Callable[[], object]) -> str | None:
    """Do it, and return the sentence it is refused with. Any other error escapes."""
    try:
        work()
    except StoreError as error:
        return str(error)
    return None


def opened(path: Path, vfs: str | None = None) -> None:
    async def work() -> None:
        store = SqliteStore(str(path), vfs=vfs)
        await store.open(0)
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("code", "kinds", "sentence"),
    [
        (apsw.SQLITE_FULL, {"write"}, FULL),
        (apsw.SQLITE_IOERR_WRITE, {"write", "truncate"}, FAILED),
        (apsw.SQLITE_IOERR_READ, {"read"}, FAILED),
        (
            apsw.SQLITE_IOERR_FSYNC,
            {"sync"},
            "the disk failed .*: see to its disk$|restart it when its disk is in order$",
        ),
        (apsw.SQLITE_CANTOPEN, {"open"}, FAILED),
    ],
)
@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.long)])
def test_a_call_that_fails_while_a_store_is_opened_or_checked_is_said_to_be_what_it_is(
    path: Path, tmp_path: Path, code: int, kinds: set[str], sentence: str, every: int
) -> None:
    on_store(path, put(batch("a", 5)))
    said = []
    for at in range(0, 200, every):
        for work in (opened, lambda where, vfs: check(str(where), vfs=vfs)):
            folder = tmp_path / f"{at}-{work.__name__}"
            folder.mkdir()
            for each in tmp_path.glob("wind.db*"):
                shutil.copy(each, folder)
            text = failing_from(at, kinds, code, partial(work, folder / "wind.db"))
            if text is not None:
                said.append(text)
                assert re.search(sentence, text)
                assert "\n" not in text
    assert said or kinds == {"sync"}


def failing_from(at: int, kinds: set[str], code: int, work: Callable[[str], object]) -> str | None:
    """Do it on a disk where each call of these kinds fails from number `at` on. Return what is said."""
    numbers = count()
    with faulty_disk() as disk:
        disk.fault = lambda kind, where: code if kind in kinds and next(numbers) >= at else 0
        return refusal(lambda: work(disk.name))


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Let this process open so many files and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken[0], 64) + 64, limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)


@pytest.mark.parametrize("left", range(14))
def test_a_process_without_descriptors_is_told_so_and_nothing_is_said_of_damage(path: Path, left: int) -> None:
    on_store(path, put(batch("a", 5)))

    async def open_with_few() -> None:
        store = SqliteStore(str(path))
        try:
            with few_descriptors(left):
                await store.open(0)
        finally:
            await store.close()

    def check_with_few() -> None:
        with few_descriptors(left):
            assert check(str(path)) == []

    for work in (lambda: asyncio.run(open_with_few()), check_with_few):
        text = refusal(work)
        assert left or text is not None
        assert text is None or "has as many files open as it may (Too many open files): raise the limit" in text
    opened(path)
    assert check(str(path)) == []


ON_A_DISK = """
import asyncio, os, subprocess, sys
from solarwind.errors import StoreError
from solarwind.store.check import backup, check
from tests.store.test_disk_errors import opened, refusal
from tests.store.test_sqlite import batch, on_store, put
from pathlib import Path

folder = Path(sys.argv[1])
path = folder / "wind.db"
on_store(path, put(batch("a", 5)))

def fill():
    with open(folder / "fill", "ab", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2

def opened_without_reserve():
    if sys.argv[2] == "full":
        os.unlink(f"{path}-reserve")
        fill()
    opened(path)

if sys.argv[2] == "full":
    fill()
else:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
for work in (
    lambda: check(str(path)),
    lambda: backup(str(path), str(folder / "copy.db")),
    lambda: opened(path),
    opened_without_reserve,
):
    print(refusal(work))
"""


def on_a_disk(folder: Path, how: str) -> list[str]:
    """Return what is said on a file system of its own that is full or read-only."""
    mount = f"mount -t tmpfs -o size=12m none {folder}"
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("nothing can be mounted here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", ON_A_DISK, str(folder), how],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_on_a_full_disk_all_that_has_to_write_says_that_it_is_full(tmp_path: Path) -> None:
    checked, copied, _, started = on_a_disk(tmp_path, "full")
    for text in (checked, copied, started):
        assert re.search(FULL, text)


def test_on_a_read_only_disk_a_store_is_checked_and_what_has_to_write_says_that_it_is_read_only(tmp_path: Path) -> None:
    checked, *others = on_a_disk(tmp_path, "read-only")
    assert checked == "None"
    for text in others:
        assert "read-only" in text.lower()
