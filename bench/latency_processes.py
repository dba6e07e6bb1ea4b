"""How long does one event take from `fire` in one process, through a server, to the handler in another, by TCP and by a
Unix socket?

Events go one at a time: the next is fired a moment after the last was handled, so that each finds all processes idle.
The time of firing travels in the payload; both processes read the same clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import sleep
from typing import Any

import harness
import servers
from harness import Crew, Options, Row, Table
from latency import synced
from servers import Server

TOPIC = "bench.fired"
PAUSE_S = 0.002  # in which the settle of the last event is stored
FIRST = 100  # that do not count
GOAL = 1.5

Say = Callable[[object], None]


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    consume: Callable[..., list[float]],
    produce: Callable[..., None],
    folder: str,
    events: int,
) -> list[float]:
    """Return the microseconds of each event."""
    handled, fired = Pipe(duplex=False)
    with serve(folder) as server, Crew() as crew:
        consumer = crew.start(consume, server.url, FIRST + events, fired)
        consumer.said()
        crew.start(produce, server.url, FIRST + events, handled).result()
        return consumer.result()[FIRST:]


class Turns:
    """For a producer on a loop: wait until the consumer handled the last event, and a moment more."""

    def __init__(self, handled: Connection) -> None:
        self._handled = handled
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(handled.fileno(), self._read)

    def _read(self) -> None:
        self._handled.recv_bytes()
        self._event.set()

    async def next(self) -> None:
        await self._event.wait()
        self._event.clear()
        await asyncio.sleep(PAUSE_S)


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


def wind_produces(say: Say, url: str, events: int, handled: Connection) -> None:
    harness.run_loop(_wind_produce(url, events, handled))


async def _wind_produce(url: str, events: int, handled: Connection) -> None:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        turns = Turns(handled)
        for _ in range(events):
            wind.fire(TOPIC, harness.stamped())
            await turns.next()


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


def nats_produces(say: Say, url: str, events: int, handled: Connection) -> None:
    harness.run_loop(_nats_produce(url, events, handled))


async def _nats_produce(url: str, events: int, handled: Connection) -> None:
    import nats

    client = await nats.connect(url)
    turns = Turns(handled)
    for _ in range(events):
        await client.publish(TOPIC, harness.stamped())
        await turns.next()
    await client.close()


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


def redis_produces(say: Say, url: str, events: int, handled: Connection) -> None:
    import redis

    client = redis.Redis.from_url(url)
    for _ in range(events):
        client.xadd(TOPIC, {"payload": harness.stamped()})
        handled.recv_bytes()
        sleep(PAUSE_S)


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    events, folder = options.events or 1_000, options.folder
    measures: dict[str, Callable[[], list[float]]] = {
        "NATS core": partial(measure, servers.nats, nats_consumes, nats_produces, folder, events),
        "fdatasync of 64 KB": partial(harness.in_child, synced, folder, events),
    }
    for engine in ("memory", "sqlite"):
        for scheme in ("ws", "unix"):
            serve = partial(servers.wind, engine, scheme=scheme)
            name = f"{scheme}:// on {engine}://"
            measures[name] = partial(measure, serve, wind_consumes, wind_produces, folder, events)
    note = f"sqlite:// is to be within {GOAL:.1f} × NATS core and one fdatasync more"
    if servers.program("redis-server") is None:
        note += "; Redis is left out: there is no redis-server here"
    else:
        measures["Redis Streams"] = partial(measure, servers.redis, redis_consumes, redis_produces, folder, events)
    found = harness.take_turns(measures, options.rounds or 3)
    rows = []
    for percent in (50, 99):
        figures = {name: [harness.percentile(each, percent) for each in rounds] for name, rounds in found.items()}
        sqlite, disk = figures["ws:// on sqlite://"], figures["fdatasync of 64 KB"]
        figures["ws:// on sqlite:// less the fdatasync"] = [its - one for its, one in zip(sqlite, disk, strict=True)]
        goals = ("ws:// on memory://", "ws:// on sqlite:// less the fdatasync") if percent == 50 else ()
        rows += harness.to_first(
            [
                Row(f"{name}, p{percent}", "µs", each, ratio_at_most=GOAL if name in goals else None)
                for name, each in figures.items()
            ]
        )
    title = f"From fire in one process to the handler in another, one at a time, {events:,} events"
    return [Table(title, rows, note)]


if __name__ == "__main__":
    harness.main(run, __doc__)
