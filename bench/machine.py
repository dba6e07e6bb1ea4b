"""What does this machine allow at best? Its disk, its loopback, and what Python takes for an event that goes nowhere.

Nothing of Solar Wind is in it. The others are read beside these: what is stored waits for the disk, what goes to
another process for the loopback, and no handler is called faster than a loop that encodes a payload, decodes it and
awaits a function."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import harness
from harness import PAYLOAD, Crew, Disk, Options, Row, Table

FDATASYNC = "write and fdatasync of 4 KiB, at the end of a file"
LOOPBACK = "round trip of 122 bytes on loopback, two processes"
BARE = "encode, decode, await a function"


def synced(size: int, folder: str, times: int) -> list[float]:
    with Disk(folder, size) as disk:
        return [disk.sync() for _ in range(times)]


def synced_over(folder: str, times: int) -> list[float]:
    """The same where the file does not grow, so that the file system has nothing to note."""
    with Disk(folder) as disk:
        for _ in range(times):
            disk.sync()
        disk.rewind()
        return [disk.sync() for _ in range(times)]


def echo(say: Callable[[object], None], port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while said := line.recv(4096):
            line.sendall(said)


def round_trips(times: int) -> list[float]:
    """Return the µs of each, of sockets that block."""
    found = []
    with Crew() as crew, socket.create_server(("127.0.0.1", 0)) as server:
        crew.start(echo, server.getsockname()[1])
        line, _ = server.accept()
        with line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(times):
                begun = perf_counter()
                line.sendall(PAYLOAD)
                line.recv(4096)
                found.append((perf_counter() - begun) * 1e6)
    return found


class Echo(asyncio.Protocol):
    """An end of a connection on an event loop. With `found` it is the one that asks."""

    def __init__(self, found: list[float] | None = None, times: int = 0) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._found, self._times, self._begun = found, times, 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._found is not None:
            self._ask()

    def _ask(self) -> None:
        self._begun = perf_counter()
        self._transport.write(PAYLOAD)

    def data_received(self, data: bytes) -> None:
        if self._found is None:
            self._transport.write(data)
            return
        self._found.append((perf_counter() - self._begun) * 1e6)
        if len(self._found) == self._times:
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None)


def loop_echo(say: Callable[[object], None], port: int) -> None:
    async def answer() -> None:
        _, end = await asyncio.get_running_loop().create_connection(Echo, "127.0.0.1", port)
        await end.closed

    harness.run_loop(answer())


def loop_round_trips(times: int) -> list[float]:
    """Return the µs of each, between two event loops."""
    return harness.run_loop(_loop_round_trips(times))


async def _loop_round_trips(times: int) -> list[float]:
    found: list[float] = []
    ends: list[Echo] = []
    arrived = asyncio.Event()

    def end() -> Echo:
        ends.append(Echo(found, times))
        arrived.set()
        return ends[0]

    server = await asyncio.get_running_loop().create_server(end, "127.0.0.1", 0)
    with Crew() as crew:
        crew.start(loop_echo, server.sockets[0].getsockname()[1])
        await arrived.wait()
        await ends[0].closed
    server.close()
    return found


def thread_turns(times: int) -> list[float]:
    """Return the µs to have another thread do something, and to hear of it: a store has a thread of its own."""
    asked, done = threading.Semaphore(0), threading.Semaphore(0)

    def answer() -> None:
        for _ in range(times):
            asked.acquire()
            done.release()

    thread = threading.Thread(target=answer)
    thread.start()
    found = []
    for _ in range(times):
        begun = perf_counter()
        asked.release()
        done.acquire()
        found.append((perf_counter() - begun) * 1e6)
    thread.join()
    return found


def bare(events: int) -> float:
    return harness.run_loop(_bare(events))


async def _bare(events: int) -> float:
    """Return the events a second."""
    from msgspec.json import decode, encode

    payload = decode(PAYLOAD)
    handled = 0

    async def handle(payload: Any) -> None:
        nonlocal handled
        handled += 1

    begun = perf_counter()
    for _ in range(events):
        await handle(decode(encode(payload)))
    return events / (perf_counter() - begun)


def run(options: Options) -> list[Table]:
    times, folder = options.events or 1_000, options.folder
    measures: dict[str, Callable[[], list[float]]] = {
        FDATASYNC: partial(synced, 4 << 10, folder, times),
        "the same over what is there": partial(synced_over, folder, times),
        "the same with 64 KiB, at the end": partial(synced, 64 << 10, folder, times),
        LOOPBACK: partial(round_trips, times),
        "the same between two event loops": partial(loop_round_trips, times),
        "a turn of another thread": partial(thread_turns, times),
    }
    rounds = options.rounds or 5
    found = harness.take_turns(measures, rounds)
    rows = [
        Row(f"{name}, p{percent}", "µs", [harness.percentile(each, percent) for each in figures])
        for name, figures in found.items()
        for percent in (50, 99)
    ]
    rate = [harness.in_child(bare, times * 100) for _ in range(rounds)]
    return [
        Table(f"What this machine takes, {os.cpu_count()} processors", rows),
        Table("The bare loop, in one process", [Row(BARE, "events/s", rate)]),
    ]


if __name__ == "__main__":
    harness.main(run, __doc__)
