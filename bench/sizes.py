"""What do events of 16 bytes up to a megabyte cost? They go from one process through a server to another, in bytes a
second too, beside NATS core and Redis Streams.

The clock runs from the first event fired to the last one handled. Payloads stay undecoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import Any

import harness
import servers
from harness import Crew, Options, Row, Table
from processes import TOPIC, nats_consumes, redis_consumes, wind_consumes
from servers import Server

SIZES = {"16 B": 16, "256 B": 256, "4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MB": 1_000_000}
EVENTS = 200_000
MOST_BYTES = 400 << 20  # of all payloads together
AHEAD_BYTES = 8 << 20  # fired and not yet accepted, at most, or sent together
MOST_AHEAD = 4_000  # events
MB = 1e6

Say = Callable[[object], None]


def ahead(size: int) -> int:
    """Return how many events go together."""
    return max(1, min(MOST_AHEAD, AHEAD_BYTES // size))


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    consume: Callable[..., float],
    produce: Callable[..., float],
    folder: str,
    events: int,
    size: int,
) -> float:
    """Return the events/s."""
    with serve(folder) as server, Crew() as crew:
        consumer = crew.start(consume, server.url, events)
        consumer.said()
        begun = crew.start(produce, server.url, events, size).result()
        return events / (consumer.result() - begun)


def wind_produces(say: Say, url: str, events: int, size: int) -> float:
    return harness.run_loop(_wind_produce(url, events, size))


async def _wind_produce(url: str, events: int, size: int) -> float:
    from solarwind import SolarWind

    payload, window, before = bytes(size), ahead(size), None
    async with SolarWind(url) as wind:
        begun = perf_counter()
        for at in range(0, events, window):
            for _ in range(min(window, events - at)):
                receipt = wind.fire(TOPIC, payload)
            await asyncio.sleep(0)
            if before is not None:
                await before
            before = receipt
        await receipt
        return begun


def nats_produces(say: Say, url: str, events: int, size: int) -> float:
    return harness.run_loop(_nats_produce(url, events, size))


async def _nats_produce(url: str, events: int, size: int) -> float:
    import nats

    payload, window = bytes(size), ahead(size)
    client = await nats.connect(url)
    begun = perf_counter()
    for at in range(0, events, window):
        for _ in range(min(window, events - at)):
            await client.publish(TOPIC, payload)
        await client.flush(timeout=60)
    await client.close()
    return begun


def redis_produces(say: Say, url: str, events: int, size: int) -> float:
    import redis

    payload, window = bytes(size), min(500, ahead(size))
    client = redis.Redis.from_url(url)
    client.ping()
    begun = perf_counter()
    for at in range(0, events, window):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(window, events - at)):
            pipeline.xadd(TOPIC, {"payload": payload})
        pipeline.execute()
    return begun


def run(options: Options) -> list[Table]:
    consume = partial(wind_consumes, False)
    systems: dict[str, tuple[Any, Any, Any]] = {
        "NATS core: not stored": (servers.nats, nats_consumes, nats_produces),
        "ws:// on memory://: not stored": (partial(servers.wind, "memory"), consume, wind_produces),
        "ws:// on sqlite://: fsynced": (partial(servers.wind, "sqlite"), consume, wind_produces),
        "Redis Streams: fsynced each second": (servers.redis, redis_consumes, redis_produces),
    }
    note = ""
    if servers.program("redis-server") is None:
        systems = {name: each for name, each in systems.items() if not name.startswith("Redis")}
        note = "Redis is left out: there is no redis-server here"
    tables = []
    for words, size in SIZES.items():
        events = max(1, min(options.events or EVENTS, MOST_BYTES // size))
        measures = {
            name: partial(measure, serve, consume, produce, options.folder, events, size)
            for name, (serve, consume, produce) in systems.items()
        }
        found = harness.take_turns(measures, options.rounds or 3)
        rates = [Row(name, "events/s", rounds) for name, rounds in found.items()]
        rows = harness.to_first(rates)
        if size >= 4 << 10:
            rows += [
                Row(f"{name}, bytes", "MB/s", [rate * size / MB for rate in rounds]) for name, rounds in found.items()
            ]
        tables.append(Table(f"{events:,} events of {words}, three processes", rows, note))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
