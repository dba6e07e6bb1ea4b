"""Processes of their own that take part in a namespace, for tests that stop, hold up and kill them.

Run as a program, with a JSON object, it is such a process. Line by line and at once it says

    ready                      it has joined
    deadly ATTEMPT             a handler has the payload that kills it
    handled TIME TOPIC PAYLOAD by a handler of `topics`, that returns then; the time is the machine's, in ns
    accepted N                 so many events that it was to fire, all awaited
    here WHERE                 it is about to hold itself up (`stop_at`), for whoever continues it
    ended                      it has left in order

and what it logs, on its standard error. It ends in order when its standard input does or a SIGTERM comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from time import monotonic_ns
from typing import Any, NamedTuple

from solarwind import Event, Retry, SolarWind
from solarwind.cluster.address import NamespaceSettings
from solarwind.cluster.layout import Layout

from .servers import holds_within

SAID_S = 180.0


def one_of_each(streams: int) -> list[str]:
    """Return a topic of each partition, in their order."""
    layout, found = Layout("any", NamespaceSettings(streams=streams)), dict[int, str]()
    number = 0
    while len(found) < streams:
        found.setdefault(layout.partition(f"T{number}"), f"T{number}")
        number += 1
    return [found[each] for each in range(streams)]


class Handled(NamedTuple):
    """A call of a handler. Those of several processes can be put in order."""

    time: int
    topic: str
    payload: str


class Process:
    """One of them, seen from the test. `lines` is what it said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self.log: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(_read(process.stdout, self.lines)),
            asyncio.create_task(_read(process.stderr, self.log)),
        ]

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def pid(self) -> int:
        return self._process.pid

    def handled(self) -> list[Handled]:
        """Return the events in the order in which they were handled."""
        found = [line.split(" ", 3)[1:] for line in self.lines if line.startswith("handled ")]
        return [Handled(int(time), topic, payload) for time, topic, payload in found]

    async def said(self, line: str) -> None:
        def over() -> bool:
            return line in self.lines or self._process.returncode is not None

        await holds_within(SAID_S, over, lambda: f"a process to say {line!r}; it said:\n{self.complaints}")
        assert line in self.lines, f"it ended before it said {line!r}:\n{self.complaints}"

    @property
    def complaints(self) -> str:
        return "\n".join(self.log)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._readers)

    async def stop(self) -> None:
        """Stop it in order."""
        self._process.send_signal(signal.SIGTERM)
        assert await self._process.wait() == 0, self.complaints
        await asyncio.gather(*self._readers)
        assert self.lines[-1] == "ended"

    def usage_s(self) -> float:
        """Return how much of a processor's time it has used so far."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))


@contextlib.asynccontextmanager
async def process(url: str, environment: Mapping[str, str] | None = None, /, **life: Any) -> AsyncIterator[Process]:
    """Start one, see `Life`, and wait until it is ready; whatever becomes of it, it is gone at the end."""
    arguments = json.dumps({"url": url, **life})
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cluster.processes",
        arguments,
        cwd=Path(__file__).parents[1],
        env=os.environ | dict(environment or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    started = Process(made)
    try:
        await started.said("ready")
        yield started
    finally:
        await started.kill()


# The process itself ---------------------------------------------------------------------------------------------


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Life:
    """It handles `topics` for `purpose`, and where `fires` is a topic it fires the payload on that in each handler.
    With `hang` its handlers never end; the payload `deadly` kills it. It fires the numbers from 0 up to `fire` on
    `fire_on`. The first time that it comes to `stop_at` it stops itself: "commit" is right before what handlers fired
    is written, "copy" is right after it, before it is copied on."""

    def __init__(
        self,
        url: str,
        topics: tuple[str, ...] = (),
        purpose: str = "p",
        exchange: str = "direct",
        fires: str = "",
        fire: int = 0,
        fire_on: str = "T",
        stop_at: str = "",
        version: int = 1,
        rollout: float | None = None,
        lease: float = 30.0,
        hang: bool = False,
        attempts: int = 1_000,
        deadly: object = None,
    ) -> None:
        self.wind = SolarWind(url, grace=5.0)
        self._fires = fires
        self._fire = fire
        self._fire_on = fire_on
        retry = Retry(attempts=attempts, wait=0.0)
        self._hang = hang
        self._deadly = deadly
        since = "now" if exchange == "fanout" else "beginning"
        for topic in topics:
            its: dict[str, Any] = {"version": version, "rollout": rollout, "retry": retry, "lease": lease}
            self.wind.on(topic, purpose=purpose, exchange=exchange, since=since, **its)(self._handler(topic))
        if stop_at:
            stop_once(stop_at)

    def _handler(self, topic: str) -> Callable[..., Any]:
        async def handle(payload: object, event: Event) -> None:
            if payload == self._deadly is not None:
                say("deadly", event.attempt)
                os.kill(os.getpid(), signal.SIGKILL)
            if self._hang:
                await asyncio.Event().wait()
            if self._fires:
                self.wind.fire(self._fires, payload)
            say("handled", monotonic_ns(), topic, payload)

        return handle

    async def run(self) -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        loop.add_reader(0, over.set)
        async with self.wind:
            if self._fire:
                await self.wind.fire_many(self._fire_on, range(self._fire))
                say("accepted", self._fire)
            say("ready")
            await over.wait()
        say("ended")


def stop_once(where: str) -> None:
    """Stop this process in the middle of a settle, which cannot be seen from outside."""
    from solarwind.cluster.forward import Forwarder
    from solarwind.cluster.store import JetStreamStore

    left = [where]

    def stop() -> None:
        if left:
            say("here", left.pop())
            os.kill(os.getpid(), signal.SIGSTOP)

    commit, add = JetStreamStore.commit, Forwarder.add

    async def stopping_commit(self: JetStreamStore, batches: Any, *others: Any) -> Any:
        if batches and where == "commit":
            stop()
        return await commit(self, batches, *others)

    def stopping_add(self: Forwarder, number: int, fired: Any) -> None:
        if fired and where == "copy":
            stop()
        add(self, number, fired)

    JetStreamStore.commit = stopping_commit  # type: ignore[method-assign]
    Forwarder.add = stopping_add  # type: ignore[method-assign]


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(message)s")
    asyncio.run(Life(**json.loads(sys.argv[1])).run())
