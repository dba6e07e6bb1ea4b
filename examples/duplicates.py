"""Find the duplicate files of a folder: a real job on the embedded store.

    file.found  → hash them       direct, one instance a core: whoever is free takes the next file
    file.hashed → compare them    keyed by the hash, in batches
    duplicate.found → report      fan-out: every listener hears of it at once

Interrupt it and start it again: it goes on where it was. Every file is an event with an id of its path, size and time
of change, so a file that was found before is acknowledged and not handled again.

    python examples/duplicates.py ~/Pictures [--store .duplicates]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from solarwind import Reject, SolarWind, SolarWindError

MOST_REPORTED = 50
out, err = Console(highlight=False), Console(stderr=True, highlight=False)


@dataclass
class File:
    path: str
    size: int


@dataclass
class Hashed:
    path: str
    size: int
    hash: str


@dataclass
class Duplicate:
    path: str
    of: str
    size: int


def files_below(folder: Path, store: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file that is not empty, without following links; git's and this program's own are left out."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git" and Path(root, name) != store)
        for name in sorted(names):
            path = os.path.join(root, name)
            try:
                status = os.lstat(path)
                path.encode()
            except (OSError, UnicodeEncodeError):
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                yield path, status


def build(wind: SolarWind, seen: sqlite3.Connection) -> None:
    """Register what is done with files, for which purpose."""

    def hash_file(file: File) -> None:
        try:
            with open(file.path, "rb") as data:
                digest = hashlib.file_digest(data, "blake2b").hexdigest()[:32]
        except OSError as error:
            raise Reject(f"cannot read {file.path}: {error.strerror}") from error
        wind.fire("file.hashed", Hashed(file.path, file.size, digest), key=digest)

    for _ in range(os.cpu_count() or 1):
        wind.on("file.found", purpose="Hash the file")(hash_file)

    @wind.on("file.hashed", purpose="Compare with the files seen", exchange="keyed")
    def compare(files: list[Hashed]) -> None:
        with seen:
            for file in files:
                first = seen.execute("SELECT min(path) FROM seen WHERE hash = ?", (file.hash,)).fetchone()[0]
                new = seen.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (file.path, file.hash, file.size))
                if first is not None and first != file.path and new.rowcount:
                    wind.fire("duplicate.found", Duplicate(file.path, first, file.size))

    reported = count()

    @wind.on("duplicate.found", purpose="Report as they are found", exchange="fanout")
    async def report(duplicate: Duplicate) -> None:
        number = next(reported)
        if number < MOST_REPORTED:
            err.print(f"  {duplicate.path}  =  {duplicate.of}", style="dim", soft_wrap=True, markup=False)
        elif number == MOST_REPORTED:
            err.print("  … and more; the table at the end is of all of them", style="dim")


async def find(wind: SolarWind, folder: Path, store: Path) -> int:
    """Fire an event for every file that shares its size with another; give how many."""
    found = list(files_below(folder, store))
    sizes = Counter(status.st_size for _, status in found)
    candidates = [(path, status) for path, status in found if sizes[status.st_size] > 1]
    err.print(f"{len(found):,} files in {folder}, {len(candidates):,} of them share their size with another")
    for number, (path, status) in enumerate(candidates):
        name = f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode()
        fired = wind.fire(
            "file.found", File(path, status.st_size), id=hashlib.blake2b(name, digest_size=20).hexdigest()
        )
        if number % 1000 == 0:
            await fired
    return len(candidates)


async def watch(wind: SolarWind, candidates: int) -> None:
    """Show how far it is until everything is settled."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        hashed = progress.add_task("hashed", total=candidates)
        while True:
            try:
                await wind.settled(timeout=0.5)
                progress.update(hashed, completed=candidates)
                return
            except TimeoutError:
                left = (await wind.statistics()).purposes["file.found", "Hash the file"]
                progress.update(hashed, completed=max(0, candidates - left.pending - left.in_flight))


def show(seen: sqlite3.Connection, unread: int) -> None:
    """The duplicates there are now, those that waste most first."""
    groups = []
    for (digest,) in seen.execute("SELECT hash FROM seen GROUP BY hash HAVING count(*) > 1").fetchall():
        rows = seen.execute("SELECT path, size FROM seen WHERE hash = ? ORDER BY path", (digest,)).fetchall()
        there = [(path, size) for path, size in rows if os.path.exists(path)]
        if len(there) > 1:
            groups.append((there[0][1] * (len(there) - 1), [path for path, _ in there]))
    groups.sort(key=lambda group: (-group[0], group[1]))
    if groups:
        table = Table("wasted", "copies", "files", title="Duplicate files", title_justify="left")
        for wasted, paths in groups[:20]:
            table.add_row(f"{wasted:,} B", str(len(paths)), "\n".join(paths[:4] + ["…"] * (len(paths) > 4)))
        out.print(table)
    total = sum(wasted for wasted, _ in groups)
    out.print(f"{len(groups):,} groups of duplicates waste {total:,} bytes." if groups else "No duplicates.")
    if unread:
        out.print(f"{unread:,} files could not be read: `solarwind dead list file.found 'Hash the file'` shows why.")


async def run(folder: Path, store: Path) -> None:
    store.mkdir(parents=True, exist_ok=True)
    name = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    seen = sqlite3.connect(store / f"{name}-seen.db", check_same_thread=False)
    seen.execute("CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, hash TEXT, size INTEGER)")
    seen.execute("CREATE INDEX IF NOT EXISTS by_hash ON seen (hash)")
    wind = SolarWind(f"sqlite:///{store / f'{name}.db'}", grace=5)
    build(wind, seen)
    try:
        async with wind:
            await watch(wind, await find(wind, folder, store))
            unread = (await wind.statistics()).purposes["file.found", "Hash the file"].dead
        show(seen, unread)
    finally:
        seen.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Find the duplicate files of a folder.")
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument("--store", default=Path(".duplicates"), type=Path, help="where it keeps how far it is")
    options = parser.parse_args()
    folder = options.folder.expanduser().resolve()
    if not folder.is_dir():
        err.print(f"expected a folder, got {options.folder}: name one that is there", soft_wrap=True, markup=False)
        return 1
    try:
        asyncio.run(run(folder, options.store.resolve()))
    except KeyboardInterrupt:
        err.print("Interrupted. Start it again, and it goes on where it was.")
        return 130
    except SolarWindError as error:
        err.print(str(error), soft_wrap=True, markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
