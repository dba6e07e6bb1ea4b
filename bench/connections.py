"""What does an idle connection cost the server? There are ten thousand, each past its `hello`.

They are opened by a few processes with plain sockets, from several addresses of loopback, since the server counts the
connections of each. They send `ping` now and then, as the protocol demands, and are measured after the first time."""

from __future__ import annotations

import base64
import os
import resource
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from time import monotonic, sleep
from typing import Any

import msgspec

import harness
import servers
from harness import Crew, Options, Row, Table
from servers import Server

OPENERS = 4  # processes
TOGETHER = 500  # connections from one address
SPARE = 500  # files that a server has open besides
REST_S = 12.0  # after the last was opened
PING_S = 8.0
GOAL_MIB = 100

Say = Callable[[object], None]


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    enter: Callable[[socket.socket], None],
    ping: bytes,
    folder: str,
    connections: int,
) -> float:
    """Return the MiB that the server grew by."""
    with serve(folder) as server, Crew() as crew:
        crew.start(hold, server.port, enter, ping, 0, 1, 0.0).result()  # what the first one loads is not counted
        before = harness.memory(server.pid)
        share = -(-connections // OPENERS)
        openers = [
            crew.start(hold, server.port, enter, ping, first, min(share, connections - first), REST_S)
            for first in range(0, connections, share)
        ]
        for opener in openers:
            opener.said()
        for opener in openers:
            opener.said()  # they have rested
        grown = harness.memory(server.pid) - before
        for opener in openers:
            opener.result()
        return grown


def hold(
    say: Say, port: int, enter: Callable[[socket.socket], None], ping: bytes, first: int, count: int, rest_s: float
) -> None:
    """Open connections, of which the first has this number among all, and keep them open for so long."""
    raise_limit()
    opened: list[socket.socket] = []
    pinged = monotonic()
    for number in range(first, first + count):
        connection = socket.create_connection(("127.0.0.1", port), source_address=(address(number), 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        enter(connection)
        opened.append(connection)
        if monotonic() - pinged > PING_S:
            say_all(opened, ping)
            pinged = monotonic()
    say("opened")
    until = monotonic() + rest_s
    while (left := until - monotonic()) > 0:
        say_all(opened, ping)
        sleep(min(left, PING_S))
    for connection in opened:
        connection.setblocking(False)
        while heard(connection):
            pass
    say("rested")
    sleep(0.5)
    for connection in opened:
        connection.close()


def say_all(connections: list[socket.socket], ping: bytes) -> None:
    for connection in connections:
        connection.setblocking(False)
        while heard(connection):
            pass
        connection.setblocking(True)
        connection.sendall(ping)


def heard(connection: socket.socket) -> bytes:
    """Return what the server sent, if anything. Raise `ConnectionError` where it closed the connection."""
    try:
        data = connection.recv(1 << 16)
    except BlockingIOError:
        return b""
    if not data:
        raise ConnectionError("expected a connection that stays open, got one that the server ended")
    return data


def address(number: int) -> str:
    return f"127.0.1.{1 + number // TOGETHER}"


def raise_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# Solar Wind -----------------------------------------------------------------------------------------------------


def frame(*messages: Any) -> bytes:
    """Return a short WebSocket message of a client; its mask is zeros, which leave everything as it is."""
    data = msgspec.msgpack.encode(messages)
    assert len(data) < 126
    return bytes((0x82, 0x80 | len(data), 0, 0, 0, 0)) + data


def greet_wind(connection: socket.socket) -> None:
    request = (
        "GET /v1/connect HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{connection.getpeername()[1]}\r\n"
        "Connection: Upgrade\r\n"
        "Upgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
        "Sec-WebSocket-Protocol: solarwind.v1\r\n\r\n"
    )
    connection.sendall(request.encode())
    head = read_until(connection, b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"expected 101, got {head!r}")
    connection.sendall(frame(("hello", "bench")))
    read_until(connection, b"welcome")


# NATS -----------------------------------------------------------------------------------------------------------


def greet_nats(connection: socket.socket) -> None:
    read_until(connection, b"\r\n")
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false,"name":"bench"}\r\nPING\r\n')
    read_until(connection, b"PONG\r\n")


def read_until(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionError(f"expected {end!r}, got an end after {found!r}")
        found += data
    return found


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    connections = options.events or 10_000
    raise_limit()  # for the servers too
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most < connections + SPARE:
        raise OSError(f"expected a limit of {connections + SPARE:,} open files, got {most:,}: raise it, or name fewer")
    wind = partial(servers.wind, "memory")
    measures = {
        "NATS": partial(measure, servers.nats, greet_nats, b"PING\r\n", options.folder, connections),
        "ws://": partial(measure, wind, greet_wind, frame(("ping",)), options.folder, connections),
    }
    found = harness.take_turns(measures, options.rounds or 1)
    rows = [
        Row("NATS core", "MiB", found["NATS"]),
        Row("ws://", "MiB", found["ws://"], at_most=GOAL_MIB),
    ]
    title = f"What the server grows by with {connections:,} connections at rest"
    return [Table(title, harness.to_first(rows))]


if __name__ == "__main__":
    harness.main(run, __doc__)
