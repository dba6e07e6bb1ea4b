"""What all benchmarks share, so that each of them is only its question.

A machine is never quiet, so figures are taken in turns (A B C, then C B A, …), each in a process of its own, and
compared within a round: the ratio of a contestant is the median of its ratios to the first one, round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")

PAYLOAD = (
    b'{"video_id":"b1946ac92492d2347c6235b4d2611184","user":"alice","bytes":104857600,'
    b'"at":"my-camera","tags":["new","hd","en"]}'
)
assert len(PAYLOAD) == 122
WINDOW = 4_000  # events that a producer fires before it lets the loop go on
AHEAD = 8  # windows it is ahead of what is accepted, at most, so that its buffer never fills


class Pace:
    """A producer that is as fast as it may be: it goes on firing while what it fired before is being stored."""

    def __init__(self) -> None:
        self._windows: deque[Awaitable[object]] = deque()

    async def next(self, last: Awaitable[object]) -> None:
        """A window was fired; `last` is the receipt of its last event."""
        self._windows.append(last)
        await asyncio.sleep(0)
        if len(self._windows) > AHEAD:
            await self._windows.popleft()


@dataclass
class Options:
    """What the command line says. `events` and `rounds` are None where a benchmark is to use its own."""

    events: int | None
    rounds: int | None
    folder: str
    json: bool


@dataclass
class Row:
    """One line of a table: the figures of all rounds, and of those the ratios to the first contestant's."""

    name: str
    unit: str
    figures: list[float]
    ratios: list[float] = field(default_factory=list)
    at_least: float | None = None
    at_most: float | None = None
    ratio_at_least: float | None = None

    @property
    def goals(self) -> list[tuple[str, bool]]:
        """Each goal in words, and whether it is met."""
        found = []
        if self.at_least is not None:
            found.append((f"≥ {shown(self.at_least, self.unit)}", median(self.figures) >= self.at_least))
        if self.at_most is not None:
            found.append((f"≤ {shown(self.at_most, self.unit)}", median(self.figures) <= self.at_most))
        if self.ratio_at_least is not None and self.ratios:
            found.append((f"≥ {self.ratio_at_least:.2f} ×", median(self.ratios) >= self.ratio_at_least))
        return found


@dataclass
class Table:
    title: str
    rows: list[Row]
    note: str = ""


@dataclass
class Contestant:
    """`measure` is called in a process of its own and gives one figure. (So it must be a function of a module.)"""

    name: str
    measure: Callable[..., float]
    arguments: tuple[Any, ...] = ()
    at_least: float | None = None
    ratio_at_least: float | None = None


def compare(contestants: Sequence[Contestant], rounds: int, unit: str = "events/s") -> list[Row]:
    """Let them take turns. The first is what the others are compared with."""
    figures: dict[str, list[float]] = {each.name: [] for each in contestants}
    for number in range(rounds):
        for each in contestants if number % 2 == 0 else list(reversed(contestants)):
            figures[each.name].append(in_child(each.measure, *each.arguments))
    first = figures[contestants[0].name]
    rows = []
    for each in contestants:
        ratios = [mine / its for mine, its in zip(figures[each.name], first, strict=True)]
        row = Row(each.name, unit, figures[each.name], ratios, each.at_least, ratio_at_least=each.ratio_at_least)
        rows.append(row)
    return rows


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """Call it in a new process, and give what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """As `wind.run()` does: on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


@contextmanager
def store(folder: str) -> Iterator[str]:
    """The URL of a store in a new folder on a real disk, removed afterwards."""
    path = tempfile.mkdtemp(prefix="solarwind-bench-", dir=folder)
    try:
        yield f"sqlite:///{path}/wind.db"
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def place(engine: str, folder: str) -> Iterator[str]:
    """A URL for the engine `memory` or `sqlite`."""
    if engine == "memory":
        yield "memory://"
    else:
        with store(folder) as url:
            yield url


def peak_memory() -> float:
    """The most resident memory this process has had, in MiB. (`ru_maxrss` would count its parent's, too.)"""
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return kib / 1024


def percentile(figures: Sequence[float], percent: float) -> float:
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main(run: Callable[[Options], list[Table]], doc: str | None) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = Options(**vars(parser.parse_args()))
    if _file_system(options.folder) in ("tmpfs", "ramfs"):
        parser.error(f"expected a folder on a real disk, got {options.folder} in memory: name one with --folder")
    tables = run(options)
    if options.json:
        print(json.dumps([_as_json(table) for table in tables], indent=2))
    else:
        show(tables)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=int, help="how many events a figure is taken of")
    parser.add_argument("--rounds", type=int, help="how many figures are taken")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where stores are put: on a real disk")
    parser.add_argument("--json", action="store_true", help="for programs")


def _file_system(folder: str) -> str:
    """The type of the file system that a folder is on; empty where the system does not say."""
    found = ("", "")
    try:
        with open("/proc/mounts") as mounts:
            for line in mounts:
                point, kind = line.split()[1:3]
                if f"{os.path.realpath(folder)}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(found[0]):
                    found = (point, kind)
    except OSError:
        pass
    return found[1]


def show(tables: Sequence[Table]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables:
        rich = RichTable(title=table.title, caption=table.note or None, title_justify="left", caption_justify="left")
        for column in ("", "ratio", "median", "min", "max", "goal"):
            rich.add_column(column, justify="left" if column in ("", "goal") else "right")
        for row in table.rows:
            ratio = f"{median(row.ratios):.{2 if median(row.ratios) >= 0.1 else 4}f} ×" if row.ratios else ""
            figures = [shown(pick(row.figures), row.unit) for pick in (median, min, max)]
            goals = ", ".join(f"{goal} {'[green]met' if met else '[red]missed'}[/]" for goal, met in row.goals)
            rich.add_row(row.name, ratio, *figures, goals)
        console.print(rich)


def shown(figure: float, unit: str) -> str:
    digits = 0 if figure >= 1000 else 1 if figure >= 10 else 3
    return f"{figure:,.{digits}f} {unit}".removesuffix(" events/s") + ("/s" if unit == "events/s" else "")


def _as_json(table: Table) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "unit": row.unit,
            "min": min(row.figures),
            "median": median(row.figures),
            "max": max(row.figures),
            "ratio": median(row.ratios) if row.ratios else None,
            "goals": [{"goal": goal, "met": met} for goal, met in row.goals],
        }
        for row in table.rows
    ]
    return {"title": table.title, "rows": rows, "note": table.note}
