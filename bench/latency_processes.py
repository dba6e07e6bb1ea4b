"""How long does one event take from `fire` in one process, through a server, to the handler in another, by TCP and by a
Unix socket?

Events go one at a time: the next is fired a moment after the last was handled, so that each finds all processes
idle. The time of firing travels in the payload; both processes read the same clock. Where events are stored, the
producer asks the disk itself between two of them, so that the limit is of the same disk and the same seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import sleep
from typing import Any

import harness
import servers
from harness import Crew, Disk, Limit, Options, Row, Table
from servers import Server

TOPIC = "bench.fired"
PAUSE_S = 0.002  # in which the settle of the last event is stored
FIRST = 100  # that do not count
GOALS = {"ws": 1.25, "unix": 1.0}  # of what is not stored, to NATS core
MORE_US = 200.0  # of what is stored, than one fdatasync

Say = Callable[[object], None]
Times = tuple[list[float], list[float]]  # in µs: of each event, and of the disk between them


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    consume: Callable[..., list[float]],
    produce: Callable[..., list[float]],
    folder: str,
    events: int,
) -> Times:
    handled, fired = Pipe(duplex=False)
    with serve(folder) as server, Crew() as crew:
        consumer = crew.start(consume, server.url, FIRST + events, fired)
        consumer.said()
        synced = crew.start(produce, server.url, FIRST + events, handled).result()
        return consumer.result()[FIRST:], synced


class Turns:
    """For a producer on a loop: wait until the consumer handled the last event, and a moment more. It gives what the
    consumer said of it."""

    def __init__(self, handled: Connection) -> None:
        self._handled = handled
        self._event = asyncio.Event()
        self._said = b""
        asyncio.get_running_loop().add_reader(handled.fileno(), self._read)

    def _read(self) -> None:
        self._said = self._handled.recv_bytes()
        self._event.set()

    async def next(self) -> bytes:
        await self._event.wait()
        self._event.clear()
        await asyncio.sleep(PAUSE_S)
        return self._said


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_consumes(say: Say, url: str, events: int, fired: Connection) -> list[float]:
    return harness.run_loop(_wind_consume(say, url, events, fired))


async def _wind_consume(say: Say, url: str, events: int, fired: Connection) -> list[float]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    found: list[float] = []
    done = asyncio.Event()

    @wind.on(TOPIC, purpose="Count")
    async def note(payload: bytes) -> None:
        found.append(harness.age(payload))
        fired.send_bytes(b".")
        if len(found) == events:
            done.set()

    async with wind:
        say("ready")
        await done.wait()
    return found


def wind_produces(folder: str | None, say: Say, url: str, events: int, handled: Connection) -> list[float]:
    return harness.run_loop(_wind_produce(folder, url, events, handled))


async def _wind_produce(folder: str | None, url: str, events: int, handled: Connection) -> list[float]:
    from solarwind import SolarWind

    synced = []
    with Disk(folder) if folder else nullcontext() as disk:
        async with SolarWind(url) as wind:
            turns = Turns(handled)
            for _ in range(events):
                wind.fire(TOPIC, harness.stamped())
                await turns.next()
                if disk is not None:
                    synced.append(disk.sync())
    return synced


# NATS -----------------------------------------------------------------------------------------------------------


def nats_consumes(say: Say, url: str, events: int, fired: Connection) -> list[float]:
    return harness.run_loop(_nats_consume(say, url, events, fired))


async def _nats_consume(say: Say, url: str, events: int, fired: Connection) -> list[float]:
    import nats

    found: list[float] = []
    done = asyncio.Event()

    async def note(message: Any) -> None:
        found.append(harness.age(message.data))
        fired.send_bytes(b".")
        if len(found) == events:
            done.set()

    client = await nats.connect(url)
    await client.subscribe(TOPIC, cb=note)
    await client.flush()
    say("ready")
    await done.wait()
    await client.close()
    return found


def nats_produces(say: Say, url: str, events: int, handled: Connection) -> list[float]:
    return harness.run_loop(_nats_produce(url, events, handled))


async def _nats_produce(url: str, events: int, handled: Connection) -> list[float]:
    import nats

    client = await nats.connect(url)
    turns = Turns(handled)
    for _ in range(events):
        await client.publish(TOPIC, harness.stamped())
        await turns.next()
    await client.close()
    return []


# Redis ----------------------------------------------------------------------------------------------------------


def redis_consumes(say: Say, url: str, events: int, fired: Connection) -> list[float]:
    import redis

    client = redis.Redis.from_url(url)
    client.xgroup_create(TOPIC, "count", mkstream=True)
    say("ready")
    found: list[float] = []
    while len(found) < events:
        for _, messages in client.xreadgroup("count", "one", {TOPIC: ">"}, count=1, block=1000):
            for id, fields in messages:
                found.append(harness.age(fields[b"payload"]))
                fired.send_bytes(b".")
                client.xack(TOPIC, "count", id)
    return found


def redis_produces(say: Say, url: str, events: int, handled: Connection) -> list[float]:
    import redis

    client = redis.Redis.from_url(url)
    for _ in range(events):
        client.xadd(TOPIC, {"payload": harness.stamped()})
        handled.recv_bytes()
        sleep(PAUSE_S)
    return []


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    events, folder = options.events or 1_000, options.folder
    measures: dict[str, Callable[[], Times]] = {
        "NATS core: not stored": partial(measure, servers.nats, nats_consumes, nats_produces, folder, events),
    }
    for engine, of_disk in (("memory", None), ("sqlite", folder)):
        for scheme in ("ws", "unix"):
            serve, produce = partial(servers.wind, engine, scheme=scheme), partial(wind_produces, of_disk)
            measures[_name(scheme, engine)] = partial(measure, serve, wind_consumes, produce, folder, events)
    note = ""
    if servers.program("redis-server") is None:
        note = "Redis is left out: there is no redis-server here"
    else:
        for name, serve in (("each second", servers.redis), ("always", partial(servers.redis, sync="always"))):
            measures[f"Redis Streams: fsynced {name}"] = partial(
                measure, serve, redis_consumes, redis_produces, folder, events
            )
    found = harness.take_turns(measures, options.rounds or 3)
    rows = [row for percent in (50, 99) for row in _rows(found, percent)]
    title = f"From fire in one process to the handler in another, one at a time, {events:,} events"
    return [Table(title, rows, note)]


def _name(scheme: str, engine: str) -> str:
    return f"{scheme}:// on {engine}://: {'not stored' if engine == 'memory' else 'fsynced'}"


def _rows(found: dict[str, list[Times]], percent: int) -> list[Row]:
    rows = [
        Row(f"{name}, p{percent}", "µs", [harness.percentile(events, percent) for events, _ in rounds])
        for name, rounds in found.items()
    ]
    by_name = dict(zip(found, rows, strict=True))
    disk = [harness.percentile(synced, percent) for _, synced in found[_name("ws", "sqlite")]]
    rows.append(Row(f"fdatasync of 4 KiB, p{percent}", "µs", disk))
    for scheme, goal in GOALS.items():
        by_name[_name(scheme, "memory")].ratio_at_most = goal
        if percent == 50:
            limit = Limit(f"one fdatasync + {MORE_US:.0f} µs", [each + MORE_US for each in disk])
            by_name[_name(scheme, "sqlite")].limit = limit
    return harness.to_first(rows)


if __name__ == "__main__":
    harness.main(run, __doc__)
