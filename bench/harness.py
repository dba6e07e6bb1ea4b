"""The part that all benchmarks share, so that each file states only its question.

A machine is never quiet, so contestants are measured in turns (A B C, then C B A, …), each in a process of its own, and
compared within a round: the ratio of a contestant is the median of its ratios to the first one, round by round.
A benchmark of several processes uses a `Crew`; the servers are in `servers.py`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter_ns, process_time
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PAYLOAD = (
    b'{"video_id":"b1946ac92492d2347c6235b4d2611184","user":"alice","bytes":104857600,'
    b'"at":"my-camera","tags":["new","hd","en"]}'
)
assert len(PAYLOAD) == 122
WINDOW = 4_000  # events that a producer fires before it lets the loop go on
AHEAD = 8  # windows it is ahead of what is accepted, at most, so that its buffer never fills
PATIENCE_S = 120.0  # after which a process of a crew that says nothing has failed
_STAMP = 20  # digits


def stamped() -> bytes:
    """Return a payload of 122 bytes that says when it was made. The clock is the same for all processes of a
    machine."""
    return b"%020d" % perf_counter_ns() + PAYLOAD[_STAMP:]


def age(payload: bytes) -> float:
    """Return the microseconds since a `stamped` payload was made."""
    return (perf_counter_ns() - int(payload[:_STAMP])) / 1000


class Pace:
    """A producer that is as fast as it may be: it goes on firing while what it fired before is being stored."""

    def __init__(self) -> None:
        self._windows: deque[Awaitable[object]] = deque()

    async def next(self, last: Awaitable[object]) -> None:
        """Note that a window was fired; `last` is the receipt of its last event."""
        self._windows.append(last)
        await asyncio.sleep(0)
        if len(self._windows) > AHEAD:
            await self._windows.popleft()

    async def end(self) -> None:
        """Wait until all that was fired is accepted."""
        while self._windows:
            await self._windows.popleft()


async def fire_all(wind: Any, topic: str, events: int, *, many: bool) -> None:
    """Fire so many, and wait until all are accepted."""
    pace = Pace()
    for at in range(0, events, WINDOW):
        window = min(WINDOW, events - at)
        if many:
            receipt = wind.fire_many(topic, [PAYLOAD] * window)
        else:
            for _ in range(window):
                receipt = wind.fire(topic, PAYLOAD)
        await pace.next(receipt)
    await pace.end()


def count_events(wind: Any, topic: str, events: int, *, batches: bool) -> tuple[asyncio.Event, Callable[[], int]]:
    """Register a purpose that counts. Return what is set once so many were handled, and how many it is so far."""
    handled = 0
    done = asyncio.Event()

    async def count(payload: bytes) -> None:
        nonlocal handled
        handled += 1
        if handled == events:
            done.set()

    async def count_all(payloads: list[bytes]) -> None:
        nonlocal handled
        handled += len(payloads)
        if handled >= events:
            done.set()

    wind.on(topic, purpose="Count")(count_all if batches else count)
    return done, lambda: handled


@dataclass
class Options:
    """The command line's options. `events` and `rounds` are None where a benchmark uses its own, and `replicas` where
    it runs with each number of them."""

    events: int | None
    rounds: int | None
    replicas: int | None
    folder: str
    json: bool


@dataclass
class Limit:
    """A goal that the machine sets, measured beside a row round by round: as of one fdatasync and 200 µs more."""

    words: str
    figures: list[float]


@dataclass
class Row:
    """One line of a table: the figures of all rounds, and their ratios to the first contestant's."""

    name: str
    unit: str
    figures: list[float]
    ratios: list[float] = field(default_factory=list)
    at_least: float | None = None
    at_most: float | None = None
    ratio_at_least: float | None = None
    ratio_at_most: float | None = None
    limit: Limit | None = None

    @property
    def goals(self) -> list[tuple[str, bool]]:
        """Return each goal in words, and whether it is met."""
        found = []
        if self.at_least is not None:
            found.append((f"≥ {shown(self.at_least, self.unit)}", median(self.figures) >= self.at_least))
        if self.at_most is not None:
            found.append((f"≤ {shown(self.at_most, self.unit)}", median(self.figures) <= self.at_most))
        if self.ratio_at_least is not None and self.ratios:
            found.append((f"≥ {self.ratio_at_least:.2f} ×", median(self.ratios) >= self.ratio_at_least))
        if self.ratio_at_most is not None and self.ratios:
            found.append((f"≤ {self.ratio_at_most:.2f} ×", median(self.ratios) <= self.ratio_at_most))
        if self.limit is not None:
            words = f"≤ {self.limit.words}, {shown(median(self.limit.figures), self.unit)}"
            over = median(mine - its for mine, its in zip(self.figures, self.limit.figures, strict=True))
            found.append((words, over <= 0))
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
    figures = take_turns({each.name: partial(in_child, each.measure, *each.arguments) for each in contestants}, rounds)
    return to_first(
        [
            Row(each.name, unit, figures[each.name], at_least=each.at_least, ratio_at_least=each.ratio_at_least)
            for each in contestants
        ]
    )


def take_turns(measures: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Return the results of each contestant, round by round."""
    found: dict[str, list[T]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures) if number % 2 == 0 else reversed(measures):
            found[name].append(measures[name]())
    return found


def to_first(rows: list[Row]) -> list[Row]:
    """Fill in the ratios to the first of them, round by round."""
    for row in rows:
        row.ratios = [mine / its for mine, its in zip(row.figures, rows[0].figures, strict=True)]
    return rows


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """Call it in a new process, and give what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class Member(Generic[T]):
    """A function that runs in a process of its own. It is called with a `say` to tell things meanwhile."""

    cpu_s = 0.0  # of processor time that the function took, once there is its result

    def __init__(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        context = get_context("spawn")
        self._line, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_serve, args=(theirs, function, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def said(self) -> Any:
        """Wait for the next thing it says."""
        return self._next()[1]

    def pass_over(self) -> None:
        """Forget what it has said until now."""
        while self._line.poll():
            self.said()

    def result(self) -> T:
        """Wait for what it returns, passing over what else it says."""
        while True:
            over, found = self._next()
            if over:
                return found

    def _next(self) -> tuple[bool, Any]:
        if not self._line.poll(PATIENCE_S):
            raise TimeoutError(f"expected a word from {self.process.name} within {PATIENCE_S:.0f} s, got none")
        try:
            over, found, error, self.cpu_s = self._line.recv()
        except EOFError:
            raise RuntimeError(f"{self.process.name} ended without a result") from None
        if isinstance(found, ModuleNotFoundError):
            raise found
        if error:
            raise RuntimeError(f"{self.process.name} failed:\n{error}")
        return over, found


def _serve(line: Connection, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    begun = process_time()
    try:
        found = function(lambda word: line.send((False, word, "", 0.0)), *arguments)
        line.send((True, found, "", process_time() - begun))
    except BaseException as error:
        missing = error if isinstance(error, ModuleNotFoundError) else None
        line.send((True, missing, traceback.format_exc(), 0.0))


class Crew:
    """Processes that work together, ended with the `with`. Where they are `endless` it does not wait for them then."""

    def __init__(self, endless: bool = False) -> None:
        self._members: list[Member[Any]] = []
        self._grace_s = 0.0 if endless else 1.0

    def start(self, function: Callable[..., T], *arguments: Any) -> Member[T]:
        """Call `function(say, *arguments)` in a new process. (So it must be a function of a module.)"""
        member = Member(function, arguments)
        self._members.append(member)
        return member

    @property
    def cpu_s(self) -> float:
        """The seconds of processor time of all whose results there are."""
        return sum(member.cpu_s for member in self._members)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._members:
            member.process.join(self._grace_s if error[0] is None else 0.0)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run it as `wind.run()` does: on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


@contextmanager
def store(folder: str) -> Iterator[str]:
    """Yield the URL of a store in a new folder on a real disk, removed afterwards."""
    path = tempfile.mkdtemp(prefix="solarwind-bench-", dir=folder)
    try:
        yield f"sqlite:///{path}/wind.db"
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def place(engine: str, folder: str) -> Iterator[str]:
    """Yield a URL for the engine `memory` or `sqlite`."""
    if engine == "memory":
        yield "memory://"
    else:
        with store(folder) as url:
            yield url


class Disk:
    """How long the disk takes to make 4 KiB durable at the end of a file, as the log of a database does.

    A disk that others use is fast in one second and slow in the next: so it is asked between the events that wait
    for it, and not before or after them."""

    def __init__(self, folder: str, size: int = 4 << 10) -> None:
        self._number, path = tempfile.mkstemp(prefix="solarwind-bench-", dir=folder)
        os.unlink(path)
        self._block = os.urandom(size)

    def sync(self) -> float:
        """Write and `fdatasync`. Return the microseconds it took."""
        begun = perf_counter_ns()
        os.write(self._number, self._block)
        os.fdatasync(self._number)
        return (perf_counter_ns() - begun) / 1000

    def rewind(self) -> None:
        """Go on at the start of the file."""
        os.lseek(self._number, 0, os.SEEK_SET)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._number)


def peak_memory(pid: int | None = None) -> float:
    """Return the most resident memory a process, or this one, has had, in MiB. (`ru_maxrss` would count its parent's,
    too.)"""
    return _memory("VmHWM", pid)


def memory(pid: int | None = None) -> float:
    """Return the resident memory of a process, or of this one, in MiB."""
    return _memory("VmRSS", pid)


def _memory(name: str, pid: int | None) -> float:
    with open(f"/proc/{pid or 'self'}/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith(name))
    return kib / 1024


def family(pid: int) -> list[int]:
    """Return the process and those that it started, which are there now: some servers are a program that starts
    another."""
    found = [pid]
    for each in found:
        for task in os.listdir(f"/proc/{each}/task"):
            with open(f"/proc/{each}/task/{task}/children") as children:
                found += map(int, children.read().split())
    return found


def cpu_s(*pids: int | None) -> float:
    """Return the seconds of processor time that processes have taken."""
    spent = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def percentile(figures: Sequence[float], percent: float) -> float:
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main(run: Callable[[Options], list[Table]], doc: str | None) -> None:
    """Run the command line of one benchmark."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = Options(**vars(parser.parse_args()))
    try:
        tables = run(options)
    except ModuleNotFoundError as error:
        peers = Path(__file__).with_name("requirements.txt")
        parser.error(f"expected the module {error.name}, got none: pip install -r {peers}")
    if options.json:
        print(json.dumps([_as_json(table) for table in tables], indent=2))
    else:
        show(tables)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=_count, help="how many events a figure is taken of")
    parser.add_argument("--rounds", type=_count, help="how many figures are taken")
    parser.add_argument("--replicas", type=int, choices=(1, 3), help="of JetStream, each a node: only so many")
    parser.add_argument(
        "--folder", type=_folder, default=tempfile.gettempdir(), help="where stores are put: on a real disk"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, such as 1000, got {text!r}")
    return int(text)


def _folder(path: str) -> str:
    if not os.path.isdir(path):
        words = "create it, or name another with --folder"
        raise argparse.ArgumentTypeError(f"expected a folder that is there, got {path}: {words}")
    if _file_system(path) in ("tmpfs", "ramfs"):
        words = "name one with --folder"
        raise argparse.ArgumentTypeError(f"expected a folder on a real disk, got {path} in memory: {words}")
    return path


def _file_system(folder: str) -> str:
    """Return the type of the file system that a folder is on; empty where the system does not say."""
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
    from rich.markup import escape
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
            rich.add_row(escape(row.name), ratio, *figures, goals)
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
