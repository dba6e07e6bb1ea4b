"""Find the duplicate files of a folder: a real job on the embedded store.

    file.found  → hash them       direct, one instance a core: whoever is free takes the next file
    file.hashed → compare them    keyed by the hash, in batches
    duplicate.found → report      fan-out: every listener hears of it at once

Interrupt it and start it again: it goes on where it was. Every file is an event with an id of its path, size and time
of change, so a file that was found before is acknowledged and not handled again.

    python examples/duplicates.py [~/Pictures] [--store .duplicates]

Without a folder it looks through the standard library of the Python that runs it: real files, and some of them twice.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shlex
import sqlite3
import stat
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from solarwind import Reject, SolarWind, SolarWindError

MAX_REPORTED = 50
MAX_GROUPS = 20  # in the table
MAX_PATHS = 4  # of a group in it
LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
out = Console(highlight=False, markup=False, emoji=False)
err = Console(highlight=False, markup=False, emoji=False, stderr=True)


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
    """Yield every regular file that is not empty, without following links. Left out are hidden folders such as .git,
    virtual environments, what programs install or cache, and this program's own."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if is_looked_at(Path(root, name), store))
        for name in sorted(names):
            path = os.path.join(root, name)
            try:
                status = os.lstat(path)
                path.encode()
            except (OSError, UnicodeEncodeError):
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                yield path, status


def is_looked_at(folder: Path, store: Path) -> bool:
    if folder.name.startswith(".") or folder.name in LEFT_OUT or folder == store:
        return False
    return not (folder / "pyvenv.cfg").exists()


def build(wind: SolarWind, seen: sqlite3.Connection, folder: Path) -> None:
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
        if number < MAX_REPORTED:
            path, of = shown(err, folder, [duplicate.path, duplicate.of], (err.width - len("    =  ")) // 2)
            err.print(f"  {path}  =  {of}", style="dim", soft_wrap=True)
        elif number == MAX_REPORTED:
            err.print("  … and more; the table at the end is of all of them", style="dim")


async def find(wind: SolarWind, folder: Path, store: Path) -> int:
    """Fire an event for every file that shares its size with another; give how many."""
    found = list(files_below(folder, store))
    sizes = Counter(status.st_size for _, status in found)
    candidates = [(path, status) for path, status in found if sizes[status.st_size] > 1]
    err.print(f"{len(found):,} files in {plain(str(folder))}, {len(candidates):,} share their size with another")
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


def plain(text: str) -> str:
    """Return the text with what would control a terminal escaped: a file may have any name."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown(console: Console, folder: Path, paths: Sequence[str], width: int) -> list[str]:
    """Return the paths from the folder on. On a terminal each is cut in the middle to so many columns; what tells it
    from the others stays."""
    short = [plain(os.path.relpath(path, folder)) for path in paths]
    if not console.is_terminal:
        return short
    differ = next((at for at, there in enumerate(zip(*short, strict=False)) if len(set(there)) > 1), 0)
    return [cut(path, max(width, 12), differ) for path in short]


def cut(path: str, width: int, differ: int) -> str:
    if len(path) <= width:
        return path
    tail = 2 * width // 3
    head = width - tail - 1
    if differ < head or differ >= len(path) - tail:
        return f"{path[:head]}…{path[-tail:]}"
    if differ + width - 2 >= len(path):
        return f"…{path[1 - width :]}"
    return f"…{path[differ : differ + width - 2]}…"


def show(seen: sqlite3.Connection, folder: Path, unread: int) -> None:
    """Print the duplicates there are now, those that waste most first."""
    groups = []
    for (digest,) in seen.execute("SELECT hash FROM seen GROUP BY hash HAVING count(*) > 1").fetchall():
        rows = seen.execute("SELECT path, size FROM seen WHERE hash = ? ORDER BY path", (digest,)).fetchall()
        there = [(path, size) for path, size in rows if os.path.exists(path)]
        if len(there) > 1:
            groups.append((there[0][1] * (len(there) - 1), [path for path, _ in there]))
    groups.sort(key=lambda group: (-group[0], group[1]))
    if groups:
        table = Table(title="Duplicate files", title_justify="left")
        table.add_column("wasted", justify="right", no_wrap=True)
        table.add_column("copies", justify="right", no_wrap=True)
        table.add_column("files", no_wrap=True)
        for wasted, paths in groups[:MAX_GROUPS]:
            files = shown(out, folder, paths[:MAX_PATHS], out.width - len("┃ 1,000,000 B ┃ copies ┃  ┃"))
            files += [f"… and {len(paths) - MAX_PATHS:,} more"] * (len(paths) > MAX_PATHS)
            table.add_row(f"{wasted:,} B", f"{len(paths):,}", Text("\n".join(files)))
        out.print(table, soft_wrap=not out.is_terminal)
    more = len(groups) - MAX_GROUPS
    if more > 0:
        out.print(f"… and {more:,} more, which waste less")
    total = sum(wasted for wasted, _ in groups)
    one = len(groups) == 1
    which = "1 group of duplicates wastes" if one else f"{len(groups):,} groups of duplicates waste"
    out.print(f"{which} {total:,} bytes." if groups else "No duplicates.")
    if unread:
        out.print(f"{unread:,} files could not be read: `solarwind dead list file.found 'Hash the file'` shows why.")


async def run(folder: Path, store: Path) -> None:
    store.mkdir(parents=True, exist_ok=True)
    name = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    seen = sqlite3.connect(store / f"{name}-seen.db", check_same_thread=False)
    seen.execute("CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, hash TEXT, size INTEGER)")
    seen.execute("CREATE INDEX IF NOT EXISTS by_hash ON seen (hash)")
    url = f"sqlite:///{store / f'{name}.db'}"
    wind = SolarWind(url, grace=5)
    build(wind, seen, folder)
    try:
        async with wind:
            await watch(wind, await find(wind, folder, store))
            unread = (await wind.statistics()).purposes["file.found", "Hash the file"].dead
        show(seen, folder, unread)
        command = shlex.join([sys.executable, "-m", "solarwind", "ui", "--url", url])
        err.print(f"To see in the console what it did: {plain(command)}", soft_wrap=True)
    finally:
        seen.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Find the duplicate files of a folder.")
    library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("folder", nargs="?", default=library, type=Path, help="default: this Python's standard library")
    parser.add_argument("--store", default=Path(".duplicates"), type=Path, help="where it keeps how far it is")
    options = parser.parse_args()
    folder = options.folder.expanduser().resolve()
    if not folder.is_dir():
        err.print(f"expected a folder, got {plain(str(options.folder))}: name one that is there", soft_wrap=True)
        return 1
    if options.folder == library:
        err.print("The standard library of this Python. For a folder of your own: make run DIR=~/Pictures")
    try:
        asyncio.run(run(folder, options.store.resolve()))
    except KeyboardInterrupt:
        err.print("Interrupted. Start it again, and it goes on where it was.")
        return 130
    except SolarWindError as error:
        err.print(str(error), soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
