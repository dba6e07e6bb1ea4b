"""How fast are producers that wait? In two processes 1, 10, 100 or 1,000 coroutines each fire an event, await that it
is accepted, and fire the next, on one server that syncs what it accepts. A third process handles and settles them.

It measures the events a second, from the first one fired to the last one settled, and how long one `await` took.
Beside it Redis Streams with `appendfsync always`, which syncs before it answers, as its client's documents advise:
coroutines share a client, which has a connection for each that waits. And with what one writes by hand if that is
too slow: what waits is sent together, as one pipeline at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier as Start
from time import perf_counter
from typing import Any

import harness
import servers
from harness import PATIENCE_S, PAYLOAD, Crew, Options, Row, Table
from servers import Server

TOPIC = "bench.fired"
GROUP = "count"
PRODUCERS = 2
EVENTS = {1: 2_000, 10: 10_000, 100: 40_000, 1_000: 200_000}  # by how many coroutines a process has
GOALS = {1: 0.9, 10: 1.5, 100: 4.0, 1_000: 15.0}  # × Redis
REDIS_SHARE = {100: 4, 1_000: 10}  # of the events: where there are many it is slower, and gets less to do
READ = 1_000  # entries that Redis gives together

Say = Callable[[object], None]
Fire = Callable[[], Awaitable[object]]


@dataclass
class Loop:
    """What one process found: when it began, and the µs of each `await`."""

    begun: float
    waited: list[float]


async def close_loop(start: Start, fire: Fire, coroutines: int, events: int) -> Loop:
    """Let so many coroutines fire, each one event at a time, until all are accepted. All processes begin together."""
    await asyncio.to_thread(start.wait, PATIENCE_S)
    left = events
    waited: list[float] = []

    async def go_on() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            begun = perf_counter()
            await fire()
            waited.append((perf_counter() - begun) * 1e6)

    begun = perf_counter()
    await asyncio.gather(*(go_on() for _ in range(coroutines)))
    return Loop(begun, waited)


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_consumes(say: Say, url: str, events: int) -> float:
    return harness.run_loop(_wind_consume(say, url, events))


async def _wind_consume(say: Say, url: str, events: int) -> float:
    from solarwind import SolarWind

    wind = SolarWind(url)
    done, _ = harness.count_events(wind, TOPIC, events, batches=False)
    async with wind:
        say("ready")
        await done.wait()
        await wind.settled()
        return perf_counter()


def wind_produces(say: Say, url: str, start: Start, coroutines: int, events: int) -> Loop:
    return harness.run_loop(_wind_produce(url, start, coroutines, events))


async def _wind_produce(url: str, start: Start, coroutines: int, events: int) -> Loop:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        return await close_loop(start, lambda: wind.fire(TOPIC, PAYLOAD), coroutines, events)


# Redis ----------------------------------------------------------------------------------------------------------


def redis_consumes(say: Say, url: str, events: int) -> float:
    import redis

    client = redis.Redis.from_url(url)
    client.xgroup_create(TOPIC, GROUP, mkstream=True)
    say("ready")
    handled = 0
    while handled < events:
        for _, messages in client.xreadgroup(GROUP, "one", {TOPIC: ">"}, count=READ, block=1000):
            client.xack(TOPIC, GROUP, *[id for id, _ in messages])
            handled += len(messages)
    return perf_counter()


def redis_produces(piped: bool, say: Say, url: str, start: Start, coroutines: int, events: int) -> Loop:
    return harness.run_loop(_redis_produce(piped, url, start, coroutines, events))


async def _redis_produce(piped: bool, url: str, start: Start, coroutines: int, events: int) -> Loop:
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(url, max_connections=coroutines) as client:
        await asyncio.gather(*(client.ping() for _ in range(1 if piped else coroutines)))  # so all are connected
        fire = Pipe(client).fire if piped else lambda: client.xadd(TOPIC, {"payload": PAYLOAD})
        return await close_loop(start, fire, coroutines, events)


class Pipe:
    """What coroutines add while one pipeline is under way goes into the next."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: list[asyncio.Future[None]] = []
        self._sender: asyncio.Task[None] | None = None

    async def fire(self) -> None:
        added = asyncio.get_running_loop().create_future()
        self._waiting.append(added)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        await added

    async def _send(self) -> None:
        while self._waiting:
            sent, self._waiting = self._waiting, []
            pipeline = self._client.pipeline(transaction=False)
            for _ in sent:
                pipeline.xadd(TOPIC, {"payload": PAYLOAD})
            try:
                await pipeline.execute()
            except Exception as error:
                for added in sent:
                    added.set_exception(error)
            else:
                for added in sent:
                    added.set_result(None)
        self._sender = None


# ----------------------------------------------------------------------------------------------------------------


@dataclass
class System:
    name: str
    serve: Callable[[str], AbstractContextManager[Server]]
    consume: Callable[..., float]
    produce: Callable[..., Loop]
    shares: Mapping[int, int] = field(default_factory=dict)  # of the events that it gets, by how many coroutines

    def measure(self, folder: str, coroutines: int, events: int) -> tuple[float, float]:
        """Return the events/s to the last one settled, and the median µs of an `await`."""
        each = max(1, events // self.shares.get(coroutines, 1) // PRODUCERS)
        with self.serve(folder) as server, Crew() as crew:
            consumer = crew.start(self.consume, server.url, each * PRODUCERS)
            consumer.said()
            start = get_context("spawn").Barrier(PRODUCERS)
            producers = [crew.start(self.produce, server.url, start, coroutines, each) for _ in range(PRODUCERS)]
            loops = [producer.result() for producer in producers]
            begun = min(loop.begun for loop in loops)
            waited = [each for loop in loops for each in loop.waited]
            return each * PRODUCERS / (consumer.result() - begun), harness.percentile(waited, 50)


def systems() -> list[System]:
    """Return the contestants; the first is what the others are compared with."""
    redis = partial(servers.redis, sync="always")
    ours = System("ws:// on sqlite://: fsynced", partial(servers.wind, "sqlite"), wind_consumes, wind_produces)
    if servers.program("redis-server") is None:
        return [ours]
    return [
        System("Redis Streams: fsynced always", redis, redis_consumes, partial(redis_produces, False), REDIS_SHARE),
        ours,
        System(
            "Redis Streams, pipelined by hand: fsynced always", redis, redis_consumes, partial(redis_produces, True)
        ),
    ]


def run(options: Options) -> list[Table]:
    contestants = systems()
    left_out = "" if len(contestants) > 1 else "Redis is left out: there is no redis-server here"
    tables = []
    for coroutines, events in EVENTS.items():
        events = min(events, options.events or events)
        measures = {each.name: partial(each.measure, options.folder, coroutines, events) for each in contestants}
        found = harness.take_turns(measures, options.rounds or 3)
        rates = [Row(name, "events/s", [rate for rate, _ in rounds]) for name, rounds in found.items()]
        waits = [Row(f"{name}: await, p50", "µs", [wait for _, wait in rounds]) for name, rounds in found.items()]
        if len(contestants) > 1:
            rates[1].ratio_at_least = GOALS[coroutines]
        fewer = [f"{each.name}, a {each.shares[coroutines]}th" for each in contestants if coroutines in each.shares]
        note = left_out or (f"{', '.join(fewer)} of the events" if fewer else "")
        title = f"{PRODUCERS} processes of {coroutines:,} coroutines that wait for each event, {events:,} events"
        tables.append(Table(title, harness.to_first(rates) + harness.to_first(waits), note))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
