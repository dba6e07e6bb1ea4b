"""What a handler fires is there once with its settle, or not at all, wherever a process is killed between the handler's
return and the confirmation.

A row of the table is a point at which one dies: see `points`. A column says who dies, on which engine. The family that
is fired has children of every kind (see `family`), and in the end each is there once, was handled once and at its time,
and has the right cause; all of them are of one and the same call of the handler.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cluster.conftest import server as server
from cluster.place import new_namespace
from cluster.servers import NatsServer, remove
from ports import Port
from sampling import some

from .family import PARENTS, faults, was_again
from .processes import MEMORY, Processes, Role

WITHIN_S = 300.0  # a process has to do what it is to do
SURVIVED = "nobody died"
GUARANTEES = Path(__file__).parents[2] / "docs" / "GUARANTEES.md"


@dataclass(frozen=True)
class Column:
    """Who dies, on which engine; `beside` is a process that the service needs."""

    engine: str
    dies: str
    beside: str = ""

    def __str__(self) -> str:
        return f"{self.engine} {self.dies}"


MEMORY_ENGINE = Column("memory", "engine")
SQLITE = Column("sqlite", "process")
WS_SERVICE, WS_SERVER = Column("ws", "service", "server"), Column("ws", "server", "server")
NATS_ALL, NATS_SERVICE, NATS_OWNER = (
    Column("nats", "process"),  # which is the service and the owner
    Column("nats", "service", "owner"),
    Column("nats", "owner", "owner"),
)
SERVICES = (MEMORY_ENGINE, SQLITE, WS_SERVICE, NATS_ALL, NATS_SERVICE)
DISPATCHERS = (MEMORY_ENGINE, SQLITE, WS_SERVER, NATS_ALL, NATS_OWNER)
FILES, STREAMS = (SQLITE, WS_SERVER), (NATS_ALL, NATS_OWNER)
COLUMNS = (MEMORY_ENGINE, SQLITE, WS_SERVICE, WS_SERVER, NATS_ALL, NATS_SERVICE, NATS_OWNER)
PARTITIONS = 2

AGAIN, THERE, EITHER = "again", "there", "either"
BEGUN = ("after Commits.report", "after Commits.begin")  # the commit that has it


class Step(NamedTuple):
    """A step on the way: what becomes of the family where one dies there, and which point that is for each who may.
    Whose name is a pattern, or several which are reached one after the other."""

    outcome: str  # the parent comes again; it is settled and its children are there; or either
    points: dict[Column, tuple[str, ...]]
    unsure: tuple[Column, ...] = ()  # for whom it is either, since more may be on its way

    def outcome_of(self, column: Column) -> str:
        return EITHER if column in self.unsure else self.outcome


def _of(columns: Iterable[Column], *names: str) -> dict[Column, tuple[str, ...]]:
    return dict.fromkeys(columns, names)


# From the handler's return to the confirmation, in order.
TABLE = {
    "the handler has returned": Step(AGAIN, _of(SERVICES, "before Consumer._report")),
    "its children are sealed": Step(AGAIN, _of(SERVICES, "after Consumer._seal")),
    "the report is not sent yet": Step(
        AGAIN,
        _of([WS_SERVICE], "before sending .*hold") | _of([NATS_SERVICE], "after Consumer._seal", "before Frames._put"),
    ),
    "half of the report is sent": Step(
        AGAIN,
        _of([WS_SERVICE], "in the middle of sending .*hold")
        | _of([NATS_SERVICE], "before Frames._put", r"in the middle of publishing .*\.live\."),
        unsure=(NATS_SERVICE,),
    ),
    "the report is sent": Step(
        EITHER,
        _of([WS_SERVICE], "after sending .*hold")
        | _of([NATS_SERVICE], "before Frames._put", r"after publishing .*\.live\."),
    ),
    "the report has come": Step(AGAIN, _of((WS_SERVER, NATS_OWNER), "before Connection._report")),
    "the report counts, and waits for a commit": Step(AGAIN, _of(DISPATCHERS, "after Commits.report")),
    "the commit begins": Step(
        AGAIN,
        _of([MEMORY_ENGINE], *BEGUN, "before the commit")
        | _of(FILES, *BEGUN, "before SqliteStore._transaction")
        | _of(STREAMS, *BEGUN, "before CommitLog.write"),
    ),
    "the delayed children are written": Step(
        AGAIN,
        _of(FILES, *BEGUN, "before Plan.write") | _of(STREAMS, *BEGUN, "before CommitLog.write", "after Session.tell"),
    ),
    "all children are written": Step(
        AGAIN,
        _of(FILES, *BEGUN, "before Plan._write_commit")
        | _of(STREAMS, *BEGUN, r"in the middle of publishing .*\.state\.0\.log\.commit"),
        unsure=STREAMS,
    ),
    "the settle is written": Step(AGAIN, _of(FILES, *BEGUN, "after Plan._write_commit")),
    "the file has it, and may lose it": Step(EITHER, _of(FILES, *BEGUN, "before syncing wind.db-wal")),
    "it is durable, and nobody knows": Step(
        THERE,
        _of([MEMORY_ENGINE], *BEGUN, "after the commit") | _of(FILES, *BEGUN, "after syncing wind.db-wal"),
    ),
    "it is sent, and nobody knows": Step(EITHER, _of(STREAMS, *BEGUN, r"after publishing .*\.state\.0\.log\.commit")),
    "the store has said so": Step(
        THERE,
        _of(FILES, *BEGUN, "after SqliteStore._commit$")
        | _of(STREAMS, *BEGUN, "before CommitLog.write", "after CommitLog.write"),
    ),
    "the commit is at its end": Step(THERE, _of(DISPATCHERS, *BEGUN, "after Commits.end")),
    "the children are to be copied": Step(THERE, _of(STREAMS, "before _Copier._put")),
    "half of a copy is sent": Step(THERE, _of(STREAMS, r"in the middle of publishing .*\.caused")),
    "a copy is sent to the same partition": Step(THERE, _of(STREAMS, r"after publishing .*\.0\.caused")),
    "a copy is sent to another partition": Step(THERE, _of(STREAMS, r"after publishing .*\.1\.caused")),
    "it is known that a copy is stored": Step(THERE, _of(STREAMS, "after Publisher.put")),
    "the delayed children are to be sorted": Step(THERE, _of(STREAMS, "before StreamDueLog._sort_some")),
    "the delayed children are sorted": Step(THERE, _of(STREAMS, "after StreamDueLog._sort_some")),
    "the answer is not sent yet": Step(
        THERE,
        _of([WS_SERVER], *BEGUN, "after Commits.end", "before sending .*done")
        | _of([NATS_OWNER], *BEGUN, "after Commits.end", "before Frames._put"),
    ),
    "half of the answer is sent": Step(
        THERE, _of([WS_SERVER], *BEGUN, "after Commits.end", "in the middle of sending .*done")
    ),
    "the answer is sent": Step(
        THERE,
        _of([WS_SERVER], *BEGUN, "after Commits.end", "after sending .*done")
        | _of([NATS_OWNER], *BEGUN, "after Commits.end", "after Frames._put"),
    ),
    "the answer has come": Step(THERE, _of((WS_SERVICE, NATS_SERVICE), "after Consumer._seal", "before Client._done")),
}


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


class Story:
    """One life after another in an environment of its own."""

    def __init__(self, processes: Processes, folder: Path, column: Column, nats: NatsServer | None) -> None:
        self._processes = processes
        self._column = column
        self._path = folder / "notes"
        self._store = str(folder / "wind.db")
        self._port = Port() if column.engine == "ws" else None
        self.namespace = new_namespace()
        self._nats = nats
        self._pids: dict[str, int] = {}

    @property
    def notes(self) -> list[dict[str, Any]]:
        whole = self._path.read_text().rpartition("\n")[0] if self._path.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def noted(self, what: str) -> list[dict[str, Any]]:
        return [each for each in self.notes if each["what"] == what]

    def _role(self, begin: str, name: str, **more: Any) -> Role:
        role = Role(begin, str(self._path), name, **more)
        if self._nats is not None:
            role.url = self._nats.url(self.namespace, streams=PARTITIONS)
        elif self._port is not None:
            role.url = f"ws://127.0.0.1:{self._port.number}"
        elif self._column is MEMORY_ENGINE:
            role.url = MEMORY
        if self._column is SQLITE or begin == "server":
            role.path, role.port = self._store, self._port.number if self._port is not None else 0
        return role

    def _begin(self, role: Role) -> None:
        self._pids[role.name] = self._processes.begin(role)

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.notes}\n{self.complaints()}"
            time.sleep(0.002)

    def _has_ended(self, name: str) -> bool:
        return self._processes.has_ended(self._pids[name])

    def _comes_up(self, role: Role) -> None:
        before = len(self.noted("ready"))
        self._begin(role)
        self._until(lambda: len(self.noted("ready")) > before or self._has_ended(role.name), f"{role.name} to be ready")
        assert not self._has_ended(role.name), self.complaints()

    def live(self, grains: tuple[str, ...], at: int | list[str], kind: str) -> None:
        """Have a handler fire its children, and the victim die at that point if it reaches it; go on to the end."""
        column = self._column
        self._processes.disarm()
        victim = column.beside if column.dies == column.beside else "first"
        counting = {"grains": grains, "at": at}
        if column.beside:
            self._comes_up(self._role(column.beside, column.beside, **(counting if victim == column.beside else {})))
        self._begin(self._role("service", "first", kind=kind, **(counting if victim == "first" else {})))
        self._until(lambda: self._has_ended("first") or self.died(), "the service to settle, or somebody to die")
        if victim == "server" and self.died():
            self._until(lambda: self._has_ended("server"), "the server to be gone")
            self._comes_up(self._role("server", "server"))
        self._until(lambda: self._has_ended("first"), "the service to end")
        if column is not MEMORY_ENGINE:  # there the engine that is next has said it
            self._begin(self._role("check", "check"))
            self._until(lambda: self._has_ended("check"), "what is left to be handled")

    def died(self) -> str | None:
        """Return the point at which one died, if one did."""
        return next((each["at"] for each in self.noted("died")), None)

    def complaints(self) -> str:
        errors = Path(f"{self._path}.errors")
        return errors.read_text()[-6_000:] if errors.exists() else ""

    def end(self) -> None:
        for pid in self._pids.values():
            self._processes.end(pid)
        if self._port is not None:
            self._port.close()

    def lived(self, kind: str) -> Lived:
        """Return how it ended."""
        found, confirmed = self.noted("found"), self.noted("confirmed")
        died = self.died() or SURVIVED
        if died == SURVIVED and not confirmed:
            return Lived(died, [f"it was never settled: {self.complaints()}"])
        if not found:
            is_told = died == SURVIVED and self._column is MEMORY_ENGINE  # all is gone with its process
            return Lived(died, [] if is_told else [f"nobody could say what is there: {self.complaints()}"])
        wrong = faults(found[0]["found"], PARENTS.get(kind, 1), confirmed[0]["by"] if confirmed else None)
        return Lived(died, list(wrong), was_again(found[0]["found"]))


class Lived(NamedTuple):
    """How a story ended: at which point somebody died, what is wrong, and whether the parent came again."""

    point: str
    faults: list[str]
    again: bool = False


Live = Callable[..., Lived]


@pytest.fixture
def live(request: pytest.FixtureRequest, processes: Processes, tmp_path: Path) -> Iterator[Live]:
    """Lives stories, each in an environment of its own: `live(column, grains, at)`."""
    numbers, namespaces = itertools.count(), list[str]()

    def live(column: Column, grains: tuple[str, ...], at: int | list[str], kind: str = "async") -> Lived:
        folder = tmp_path / f"{next(numbers)}"
        folder.mkdir()
        nats: NatsServer | None = request.getfixturevalue("server") if column.engine == "nats" else None
        story = Story(processes, folder, column, nats)
        namespaces.extend([story.namespace] if nats is not None else [])
        try:
            story.live(grains, at, kind)
            return story.lived(kind)
        finally:
            story.end()

    yield live
    for each in namespaces:
        asyncio.run(remove(request.getfixturevalue("server").urls, each))


CELLS = [(step, column) for step, of in TABLE.items() for column in of.points]
# Of each engine what shows most: the others take about as long as they are processes, and are long.
QUICK = [
    *(cell for cell in CELLS if cell[1] is MEMORY_ENGINE),
    ("all children are written", SQLITE),
    ("the store has said so", SQLITE),
    ("half of the report is sent", WS_SERVICE),
    ("the report is sent", WS_SERVICE),
    ("the report has come", WS_SERVER),
    ("half of the answer is sent", WS_SERVER),
    ("it is sent, and nobody knows", NATS_ALL),
    ("a copy is sent to another partition", NATS_ALL),
]


@pytest.mark.parametrize(("step", "column"), some(QUICK, CELLS), ids=str)
def test_what_a_handler_fires_is_there_once_with_its_settle_or_not_at_all(
    live: Live, step: str, column: Column
) -> None:
    """Whoever dies at whatever step between."""
    points, outcome = TABLE[step].points[column], TABLE[step].outcome_of(column)
    lived = live(column, ("write", "call"), list(points))
    assert re.search(points[-1], lived.point)
    assert lived.faults == []
    assert outcome == EITHER or lived.again == (outcome == AGAIN)


def test_the_table_of_the_guarantees_is_this_one() -> None:
    def row(step: str, cells: Iterable[object]) -> str:
        return f"| {' | '.join([step, *map(str, cells)])} |"

    lines = [row("somebody dies when", COLUMNS), row("---", ["---"] * len(COLUMNS))]
    for step, of in TABLE.items():
        lines.append(row(step, [of.outcome_of(column) if column in of.points else "–" for column in COLUMNS]))
    assert "\n".join(lines) in GUARANTEES.read_text(), "\n".join(lines)


def sweep(live: Live, column: Column, grain: str, every: int, kind: str = "async") -> None:
    """Have one die at every point, or every so many, until all survive: which ones those are is not known before."""
    table: list[Lived] = []
    while not table or table[-1].point != SURVIVED:
        table.append(live(column, (grain,), 1 + len(table) * every, kind))
    assert [(1 + number * every, *each) for number, each in enumerate(table) if each.faults] == []
    assert len(table) > 2, "it died at too few points to show anything"


# It would take hours to try all of them.
WRITES = {MEMORY_ENGINE: 1, SQLITE: 1, WS_SERVICE: 1, WS_SERVER: 1, NATS_ALL: 2, NATS_SERVICE: 1, NATS_OWNER: 5}
CALLS = {
    MEMORY_ENGINE: 13,
    SQLITE: 29,
    WS_SERVICE: 11,
    WS_SERVER: 53,
    NATS_ALL: 307,
    NATS_SERVICE: 101,
    NATS_OWNER: 997,
}
EVERY = int(os.environ.get("EVERY", "0"))  # EVERY=1 tries all of them


@pytest.mark.parametrize(
    ("column", "every"),
    some([(MEMORY_ENGINE, 1), (SQLITE, 23)], [(SQLITE, 23), *WRITES.items()]),
    ids=str,
)
def test_it_is_so_at_every_write_to_a_file_or_socket(live: Live, column: Column, every: int) -> None:
    sweep(live, column, "write", EVERY or every)


@pytest.mark.long
@pytest.mark.parametrize(("column", "every"), CALLS.items(), ids=str)
def test_it_is_so_at_the_calls_of_functions_and_at_their_returns(live: Live, column: Column, every: int) -> None:
    sweep(live, column, "call", EVERY or every)


ANSWERED = [(column, "answered") for column in (WS_SERVICE, WS_SERVER, NATS_ALL, NATS_OWNER)]
BY_KIND = [
    *((column, kind) for column in (SQLITE, WS_SERVICE, WS_SERVER, NATS_ALL) for kind in ("thread", "batch")),
    *ANSWERED,
]


@pytest.mark.parametrize(("column", "kind"), some([(SQLITE, "thread"), (SQLITE, "batch")], BY_KIND), ids=str)
def test_it_is_so_for_handlers_of_each_kind(live: Live, column: Column, kind: str) -> None:
    sweep(live, column, "write", 2 if column is WS_SERVICE else 29, kind)


@pytest.mark.long
@pytest.mark.parametrize(
    ("column", "every"), [(SQLITE, 401), (WS_SERVICE, 1), (WS_SERVER, 501), (NATS_ALL, 5), (NATS_OWNER, 17)], ids=str
)
def test_it_is_so_for_more_than_goes_into_a_message(live: Live, column: Column, every: int) -> None:
    """The commit is several messages to NATS, and the report several frames."""
    sweep(live, column, "write", every, "large")
