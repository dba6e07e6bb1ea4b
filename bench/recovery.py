"""How soon is all at work again after a `kill -9`, by how much is stored? A process with a store of so many pending
events is killed, and another opens it.

Measured are the seconds until the store is open, and until a handler has the first event. Beside it Redis, which reads
its file of appended commands, and NATS with JetStream, both killed with as many messages pending for a group or
consumer: until their server has handed out the first. A server's own start is in its figure, and Python's in none."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import backlog
import harness
import servers
from harness import PAYLOAD, Crew, Options, Row, Table

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)  # pending events
PEERS_TO = 1_000_000  # filling them takes long
TOPIC = "bench.fired"
TOGETHER = 500
AHEAD = 2_000

Say = Callable[[object], None]


# Solar Wind -----------------------------------------------------------------------------------------------------


def fill(say: Say, url: str, events: int) -> None:
    """Leave so many events pending, and wait to be killed."""
    backlog.fill(url, events, lambda: _wait(say))


def _wait(say: Say) -> None:
    say("filled")
    signal.pause()


def reopen(url: str) -> tuple[float, float]:
    return harness.run_loop(_reopen(url))


async def _reopen(url: str) -> tuple[float, float]:
    """Return the seconds until it is open, and until a handler has the first event."""
    from solarwind import SolarWind

    wind, first = SolarWind(url), asyncio.Event()

    @wind.on(TOPIC, purpose="Count")
    async def handle(payload: bytes) -> None:
        first.set()

    begun = perf_counter()
    await wind.start()
    opened = perf_counter()
    await first.wait()
    came = perf_counter()
    await wind.stop(grace=0.1)
    return opened - begun, came - begun


def wind_recovers(folder: str, events: int) -> tuple[float, float]:
    with harness.store(folder) as url:
        with Crew(endless=True) as crew:
            filler = crew.start(fill, url, events)
            filler.said()
            filler.process.kill()
            filler.process.join()
        return harness.in_child(reopen, url)


# Redis ----------------------------------------------------------------------------------------------------------


def redis_recovers(folder: str, events: int) -> tuple[float, float]:
    import redis

    with servers.new_folder(folder) as path:
        with servers.redis(folder, there=path) as server:
            client = redis.Redis.from_url(server.url)
            client.xgroup_create(TOPIC, "count", mkstream=True)
            for at in range(0, events, TOGETHER):
                pipeline = client.pipeline(transaction=False)
                for _ in range(min(TOGETHER, events - at)):
                    pipeline.xadd(TOPIC, {"payload": PAYLOAD})
                pipeline.execute()
            sleep(1.5)  # until it has synced, as it does each second
            os.kill(server.pid, signal.SIGKILL)
        begun = perf_counter()
        with servers.redis(folder, there=path) as server:
            client = redis.Redis.from_url(server.url)
            while True:
                try:
                    client.ping()
                    break
                except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                    sleep(0.002)
            opened = perf_counter()
            assert client.xreadgroup("count", "one", {TOPIC: ">"}, count=1)
            return opened - begun, perf_counter() - begun


# JetStream ------------------------------------------------------------------------------------------------------


def jetstream_recovers(folder: str, events: int) -> tuple[float, float]:
    with servers.new_folder(folder) as path:
        with servers.nats(folder, jetstream=True, there=path) as server:
            harness.in_child(_fill_jetstream, server.url, events)
            os.kill(server.pid, signal.SIGKILL)
        for ports in Path(path).glob("*.ports"):
            ports.unlink()
        begun = perf_counter()
        with servers.nats(folder, jetstream=True, there=path) as server:
            opened = perf_counter()
            harness.run_loop(_first(server.url))
            return opened - begun, perf_counter() - begun


def _fill_jetstream(url: str, events: int) -> None:
    harness.run_loop(_fill(url, events))


async def _fill(url: str, events: int) -> None:
    import nats
    from nats.js.api import ConsumerConfig

    client = await nats.connect(url)
    jetstream = client.jetstream(publish_async_max_pending=AHEAD)
    await jetstream.add_stream(name="BENCH", subjects=[TOPIC])
    await jetstream.add_consumer("BENCH", ConsumerConfig(durable_name="count"))
    for _ in range(events):
        await jetstream.publish_async(TOPIC, PAYLOAD)
    await jetstream.publish_async_completed()
    await client.close()


async def _first(url: str) -> None:
    import nats
    from nats.js.errors import Error

    client = await nats.connect(url)
    while True:
        try:
            subscription = await client.jetstream().pull_subscribe(TOPIC, durable="count", stream="BENCH")
            await subscription.fetch(1, timeout=1)
            break
        except (TimeoutError, Error):  # it is not ready
            await asyncio.sleep(0.002)
    await client.close()


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    peers: dict[str, Any] = {"NATS JetStream": jetstream_recovers}
    note = f"peers to {PEERS_TO:,} events: filling them takes long"
    if servers.program("redis-server") is None:
        note += "; Redis is left out: there is no redis-server here"
    else:
        peers["Redis Streams"] = redis_recovers
    opened, first = [], []
    for events in SIZES if options.events is None else (options.events,):
        measures = {f"sqlite://, {events:,} events": partial(wind_recovers, options.folder, events)}
        if events <= PEERS_TO:
            measures |= {
                f"{name}, {events:,} events": partial(each, options.folder, events) for name, each in peers.items()
            }
        found = harness.take_turns(measures, options.rounds or 3)
        opened += [Row(name, "s", [seconds for seconds, _ in rounds]) for name, rounds in found.items()]
        first += [Row(name, "s", [seconds for _, seconds in rounds]) for name, rounds in found.items()]
    return [
        Table("After kill -9, until it is open", opened, note),
        Table("After kill -9, until a handler or consumer has the first event", first, note),
    ]


if __name__ == "__main__":
    harness.main(run, __doc__)
