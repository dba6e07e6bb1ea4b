"""Do a thousand viewers of `/v1/watch` hold up events?

One producer fires 10,000 events a second, a hundred at a time, on 1,000 topics in turn, and one process handles them
for 1,000 purposes. The server has no viewers and then a thousand, in turns of some seconds, which count once all have
their snapshot. The time from fire to handler is compared, and the server's processor time. Viewers watch everything as
gzip, with plain sockets in one process. They stand for browsers on other machines: what comes in a turn waits in their
buffers, and is read after it. If they read meanwhile, they would take the processors from the server, and that would be
measured.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import zlib
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any, NamedTuple

import harness
import servers
from connections import address, raise_limit
from harness import Crew, Member, Options, Row, Table

PURPOSES = 1_000
VIEWERS = 1_000
RATE = 10_000  # events a second
TOGETHER = 100  # events of a topic, fired at once
TICK_S = 0.01
LINGER_S = 11.0  # for which the server goes on collecting facts without a viewer, who may come back
SETTLE = 2  # seconds of a turn that do not count
SPARE_S = 3  # in which a turn that begins later ends before viewers read
WHOLE = b"data: {}"  # is sent where a snapshot ends
GOAL = 1.10
BUFFER_BYTES = 200 << 10  # of a viewer: for what comes in a turn
REQUEST = b"GET /v1/watch HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n"

Say = Callable[[object], None]


def topic(number: int) -> str:
    return f"bench.t{number % PURPOSES}"


def consume(say: Say, url: str) -> None:
    """Handle events, and say each second how long they took, in µs."""
    harness.run_loop(_consume(say, url))


async def _consume(say: Say, url: str) -> None:
    from solarwind import SolarWind

    wind = SolarWind(url)
    found: list[float] = []

    async def note(payload: bytes) -> None:
        found.append(harness.age(payload))

    for number in range(PURPOSES):
        wind.on(topic(number), purpose="Count")(note)
    async with wind:
        await wind.joined()
        say("ready")
        while True:
            await asyncio.sleep(1.0)
            say(found[:])
            found.clear()


def produce(say: Say, url: str) -> None:
    harness.run_loop(_produce(say, url))


async def _produce(say: Say, url: str) -> None:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        say("ready")
        number, due = 0, perf_counter()
        while True:
            for _ in range(int(RATE * TICK_S) // TOGETHER):
                wind.fire_many(topic(number), [harness.stamped() for _ in range(TOGETHER)])
                number += 1
            due += TICK_S
            await asyncio.sleep(max(0.0, due - perf_counter()))


class Opening:
    """Finds out whether a viewer has its snapshot."""

    def __init__(self) -> None:
        self._rest = b""
        self._body = False
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._last = b""

    def is_whole(self, data: bytes) -> bool:
        """Take what came next."""
        self._rest += data
        while b"\r\n" in self._rest:
            line, _, rest = self._rest.partition(b"\r\n")
            if self._body:  # the length of a chunk
                size = int(line, 16)
                if len(rest) < size + 2:
                    return False
                text = self._last + self._gzip.decompress(rest[:size])
                self._last = text[-len(WHOLE) :]
                if WHOLE in text:
                    return True
                rest = rest[size + 2 :]
            self._body = self._body or not line
            self._rest = rest
        return False


def view(say: Say, port: int, count: int, seconds: int) -> None:
    """Watch everything. Say once all have a snapshot, and after a turn of so many seconds how many bytes came in it."""
    raise_limit()
    selector = selectors.DefaultSelector()
    for number in range(count):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        connection.bind((address(number), 0))
        connection.connect(("127.0.0.1", port))
        connection.sendall(REQUEST)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, connection)
    waiting = {key.data: Opening() for key in selector.get_map().values()}
    while waiting:
        for viewer, came in received(selector, 1.0):
            if viewer in waiting and waiting[viewer].is_whole(came):
                del waiting[viewer]
    say("all have a snapshot")
    for _ in received(selector, 0):
        pass
    began = perf_counter()
    sleep(SETTLE + seconds + SPARE_S)
    took, read = perf_counter() - began, {viewer: len(came) for viewer, came in received(selector, 0)}
    if max(read.values(), default=0) >= BUFFER_BYTES:
        raise RuntimeError(f"expected room for what comes in a turn, got a viewer with {BUFFER_BYTES:,} bytes or more")
    say(sum(read.values()) / took)


def received(selector: selectors.BaseSelector, wait_s: float) -> Iterator[tuple[socket.socket, bytes]]:
    """Yield what there is to read now, or within `wait_s` seconds where that is nothing."""
    for key, _ in selector.select(wait_s):
        came = key.data.recv(BUFFER_BYTES)
        if not came:
            raise ConnectionError("expected a stream without end, got one that the server ended")
        yield key.data, came


class Turn(NamedTuple):
    """What some seconds showed."""

    ages: list[float]  # of events, in µs
    cpu: float  # of the server, in % of a core


def measure(folder: str, engine: str, seconds: int, turns: int) -> tuple[list[Turn], list[Turn], list[float]]:
    """Return the turns without viewers, those with them, and the KiB that each viewer got in a second of each."""
    without: list[Turn] = []
    beside: list[Turn] = []
    came: list[float] = []
    with servers.wind(engine, folder) as server, Crew() as crew:
        consumer = crew.start(consume, server.url)
        consumer.said()
        producer = crew.start(produce, server.url)
        producer.said()
        for _ in range(turns):
            without.append(turn(consumer, server.pid, seconds))
            viewers = crew.start(view, server.port, VIEWERS, seconds)
            viewers.said()
            beside.append(turn(consumer, server.pid, seconds))
            came.append(viewers.said() / 1024 / VIEWERS)
            end(viewers)
            sleep(LINGER_S)
        end(producer)
        end(consumer)
    return without, beside, came


def turn(consumer: Member[Any], server: int, seconds: int) -> Turn:
    """Return what the consumer says in so many seconds, after some that do not count."""
    consumer.pass_over()
    for _ in range(SETTLE):
        consumer.said()
    began, spent = perf_counter(), harness.cpu_s(server)
    ages = [each for _ in range(seconds) for each in consumer.said()]
    return Turn(ages, 100 * (harness.cpu_s(server) - spent) / (perf_counter() - began))


def end(member: Member[Any]) -> None:
    member.process.kill()
    member.process.join()


def run(options: Options) -> list[Table]:
    seconds, turns = max(1, (options.events or 100_000) // RATE), options.rounds or 5
    without, beside, came = measure(options.folder, "sqlite", seconds, turns)
    sides = (("no viewers", without), (f"{VIEWERS:,} viewers", beside))
    rows = []
    for percent in (50, 99):
        pair = [
            Row(f"{name}, p{percent}", "µs", [harness.percentile(each.ages, percent) for each in found])
            for name, found in sides
        ]
        pair[1].ratio_at_most = GOAL if percent == 99 else None
        rows += harness.to_first(pair)
    rows += harness.to_first(
        [Row(f"{name}, the server", "% of a core", [each.cpu for each in found]) for name, found in sides]
    )
    rows.append(Row("what a viewer got in a second", "KiB", came))
    title = f"Fire to handler at {RATE:,}/s, with {PURPOSES:,} purposes that all of the viewers watch"
    return [Table(title, rows)]


if __name__ == "__main__":
    harness.main(run, __doc__)
