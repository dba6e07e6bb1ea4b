"""A program that forks the processes of these tests, so that none of them waits for its imports: `python -m
crashes.processes`, in the folder `tests`. It reads commands from stdin, a JSON object a line, and answers each with a
line:

    {"begin": ROLE, …}   the number of a new process: see `Role`
    {"has_ended": PID}   whether it has
    {"end": PID}         kills it if it has not; its exit code
    {"disarm": true}     points count again only once a handler is about to return
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from solarwind import SolarWind
from solarwind.batch import Batch
from solarwind.cluster import link, owners
from solarwind.core.effects import Report
from solarwind.engine.local import LocalEngine
from solarwind.errors import SolarWindError
from solarwind.server import Server, Settings
from solarwind.server.listener import Listener
from solarwind.store.sqlite import SqliteStore

from .family import LARGE, PARENTS, Family, Topics
from .lasting import LastingStore
from .points import Points, forget_loop

MEMORY = "memory://"
# It is soon known that a process has died, so that nobody has to wait for it: see `owners` and `link`.
QUICK = {
    (owners, "DOUBT_S"): 0.2,
    (owners, "AGAIN_S"): 0.1,
    (owners, "OTHERS_FIRST_S"): 0.2,
    (owners, "SILENT_S"): 1.0,
    (link, "AWAY_S"): 0.3,
}
PATIENT = Settings(authenticate_s=600.0, idle_s=600.0, heartbeat_s=600.0)


class Role(msgspec.Struct):
    """A process. `begin` is what it is:

    service   fires parents and handles them, until they are settled
    server    serves the store at `path`, on `port`
    owner     takes part on NATS, and so owns the partitions of those who come later
    check     handles all that is left, and says what became of the family

    It writes what it has to say to the file `notes`, a JSON object a line. It counts points of these `grains`, "write"
    and "call", and dies at the one that `at` says: see `Points`."""

    begin: str
    notes: str
    name: str
    url: str = ""
    path: str = ""
    port: int = 0
    topics: Topics = Topics()
    kind: str = "async"
    grains: tuple[str, ...] = ()
    at: int | list[str] = 0


class Life:
    """What a forked process does."""

    def __init__(self, role: Role, armed: mmap) -> None:
        self._role = role
        self._armed = armed
        self._notes = os.open(role.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._store: LastingStore | None = None
        self._points = Points(armed, role.at, self._go_on_without if self._is_in_memory else self._die)
        self._points.count(role.grains)

    @property
    def _is_in_memory(self) -> bool:
        return self._role.url == MEMORY

    def note(self, what: str, **more: Any) -> None:
        data = msgspec.json.encode({"what": what, "name": self._role.name, **more})
        os.write(self._notes, data + b"\n")

    def _die(self, at: str) -> NoReturn:
        self.note("died", at=at)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def _go_on_without(self, at: str) -> NoReturn:
        """Leave the engine as it is, for good, and look at what it leaves in the store."""
        self.note("died", at=at)
        sys.setprofile(None)
        self._armed[0] = 0
        forget_loop()
        contextvars.Context().run(asyncio.run, self._check())
        os._exit(0)

    def run(self) -> None:
        asyncio.run(getattr(self, f"_{self._role.begin}")())

    def _wind(self) -> SolarWind:
        role = self._role
        if self._is_in_memory:
            if self._store is None:
                self._store = LastingStore()
                if "write" in role.grains:
                    self._points.count_commits(self._store)
            return SolarWind(engine=LocalEngine(self._store))
        if role.path:
            return SolarWind(engine=LocalEngine(SqliteStore(role.path, vfs=self._vfs())))
        return SolarWind(role.url, grace=10.0)

    def _vfs(self) -> str | None:
        return self._points.disk() if "write" in self._role.grains else None

    def _family(self, name: str, returning: Callable[[], object]) -> Family:
        return Family(self._wind(), name, self._role.topics, returning)

    def _arm(self) -> None:
        self._armed[0] = 1

    async def _service(self) -> None:
        role, family = self._role, self._family(self._role.name, self._arm)
        family.handle_parents(role.kind)
        family.filling = "x" * LARGE if role.kind == "large" else ""
        if role.kind == "answered":
            self._wait_for_answers(family)
        async with family.wind as wind:
            await wind.fire_many(role.topics.parents, list(range(PARENTS.get(role.kind, 1))))
            await wind.settled(120)
            self.note("confirmed", by=role.name)
            await wind.delayed()  # so that on NATS they are sorted
            self._armed[0] = 0

    def _wait_for_answers(self, family: Family) -> None:
        """Report to a dispatcher elsewhere as those clients of the protocol do that wait for the answer that it
        counts."""
        engine: Any = family.wind.engine
        waiting: set[asyncio.Task[None]] = set()

        def report(report: Report, fired: Collection[Batch]) -> bool:
            waiting.add(asyncio.create_task(settle(report, fired, f"{self._role.name} {family.calls}")))
            return True

        async def settle(report: Report, fired: Collection[Batch], call: str) -> None:
            with suppress(SolarWindError):  # then nobody knows
                if await engine.settle(report, fired) and report.done:
                    self.note("confirmed", by=call)

        engine.report = report

    async def _server(self) -> None:
        async with self._wind() as wind:
            server = Server(wind, settings=PATIENT)
            listener = Listener(server, port=self._role.port, grace=1.0)
            await server.start()
            await listener.start()
            self.note("ready")
            await asyncio.Event().wait()

    async def _owner(self) -> None:
        wind = self._wind()

        @wind.on("other", purpose="other")
        async def handle() -> None: ...

        async with wind:
            self.note("ready")
            await asyncio.Event().wait()

    async def _check(self) -> None:
        self.note("found", found=await self._family("check", lambda: None).end())


# The program that forks --------------------------------------------------------------------------------------


def main() -> None:
    for (module, name), value in QUICK.items():
        setattr(module, name, value)
    armed = mmap(-1, 1)
    children: dict[int, int] = {}  # exit codes of those that have ended
    running: set[int] = set()

    def look(pid: int, options: int) -> bool:
        if pid in running:
            ended, status = os.waitpid(pid, options)
            if ended:
                running.discard(pid)
                children[pid] = os.waitstatus_to_exitcode(status)
        return pid not in running

    for line in sys.stdin:
        command = json.loads(line)
        answer: object = None
        if "begin" in command:
            answer = begin(msgspec.convert(command, Role), armed)
            running.add(answer)
        elif "has_ended" in command:
            answer = look(command["has_ended"], os.WNOHANG)
        elif "end" in command:
            if not look(command["end"], os.WNOHANG):
                os.kill(command["end"], signal.SIGKILL)
                look(command["end"], 0)
            answer = children[command["end"]]
        else:
            armed[0] = 0
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def begin(role: Role, armed: mmap) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        errors = os.open(f"{role.notes}.errors", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDWR)
        for new, old in ((nothing, 0), (errors, 1), (errors, 2)):
            os.dup2(new, old)
        logging.basicConfig(level=logging.WARNING, format=f"{role.name}: %(levelname)s %(message)s", force=True)
        Life(role, armed).run()
        code = 0
    except BaseException:
        logging.exception("it ends")
    finally:
        os._exit(code)


class Processes:
    """That program, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crashes.processes"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, role: Role) -> int:
        pid = self._ask(msgspec.to_builtins(role))
        assert isinstance(pid, int)
        return pid

    def has_ended(self, pid: int) -> bool:
        return bool(self._ask({"has_ended": pid}))

    def end(self, pid: int) -> int:
        code = self._ask({"end": pid})
        assert isinstance(code, int)
        return code

    def disarm(self) -> None:
        self._ask({"disarm": True})

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, command: object) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


if __name__ == "__main__":
    main()
