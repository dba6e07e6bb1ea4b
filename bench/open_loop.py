"""How long does an event take from `fire` in one process to the handler in another, at 1,000 and at 10,000 events a
second?

The producer fires at fixed times, whether or not the events before have arrived. The time that an event was due to be
fired travels in it: what is late because something else was slow counts as late. An event that waited for the loop's
next turn is due in the turn, so that all have a millisecond's grain. Redis gets what is due in a turn as one
pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter, perf_counter_ns, sleep
from typing import Any

import harness
import servers
from harness import PAYLOAD, Crew, Options, Row, Table
from servers import Server

TOPIC = "bench.fired"
RATES = (1_000, 10_000)  # events/s
SECONDS = 10
FIRST = 100  # that do not count
TURN_S = 0.001
READ = 500  # entries that Redis gives together
PERCENTS = (50, 99, 99.9)

Say = Callable[[object], None]


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    consume: Callable[..., list[float]],
    produce: Callable[..., None],
    folder: str,
    events: int,
    rate: int,
) -> list[float]:
    """Return the µs of each event."""
    with serve(folder) as server, Crew() as crew:
        consumer = crew.start(consume, server.url, FIRST + events)
        consumer.said()
        crew.start(produce, server.url, FIRST + events, rate)
        return consumer.result()[FIRST:]


def turns(events: int, rate: int) -> Iterator[list[bytes]]:
    """Yield the payloads that are due in each turn, each with when it was due. The caller waits `TURN_S` in between."""
    fired, begun = 0, perf_counter_ns()
    while fired < events:
        now = perf_counter_ns()
        due = min(events, 1 + (now - begun) * rate // 1_000_000_000)
        yield [_payload(begun + number * 1_000_000_000 // rate) for number in range(fired, due)]
        fired = due


def _payload(due_ns: int) -> bytes:
    return b"%020d" % due_ns + PAYLOAD[20:]


async def keep_time(events: int, rate: int, fire: Callable[[list[bytes]], Awaitable[object] | None]) -> None:
    for payloads in turns(events, rate):
        if payloads and (waiting := fire(payloads)) is not None:
            await waiting
        await asyncio.sleep(TURN_S)


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_consumes(say: Say, url: str, events: int) -> list[float]:
    return harness.run_loop(_wind_consume(say, url, events))


async def _wind_consume(say: Say, url: str, events: int) -> list[float]:
    from solarwind import SolarWind

    wind, found, done = SolarWind(url), list[float](), asyncio.Event()

    @wind.on(TOPIC, purpose="Count")
    async def note(payload: bytes) -> None:
        found.append(harness.age(payload))
        if len(found) == events:
            done.set()

    async with wind:
        say("ready")
        await done.wait()
    return found


def wind_produces(say: Say, url: str, events: int, rate: int) -> None:
    harness.run_loop(_wind_produce(url, events, rate))


async def _wind_produce(url: str, events: int, rate: int) -> None:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:

        def fire(payloads: list[bytes]) -> None:
            for payload in payloads:
                wind.fire(TOPIC, payload)

        await keep_time(events, rate, fire)


# NATS -----------------------------------------------------------------------------------------------------------


def nats_consumes(say: Say, url: str, events: int) -> list[float]:
    return harness.run_loop(_nats_consume(say, url, events))


async def _nats_consume(say: Say, url: str, events: int) -> list[float]:
    import nats

    found, done = list[float](), asyncio.Event()

    async def note(message: Any) -> None:
        found.append(harness.age(message.data))
        if len(found) == events:
            done.set()

    client = await nats.connect(url)
    await client.subscribe(TOPIC, cb=note)
    await client.flush()
    say("ready")
    await done.wait()
    await client.close()
    return found


def nats_produces(say: Say, url: str, events: int, rate: int) -> None:
    harness.run_loop(_nats_produce(url, events, rate))


async def _nats_produce(url: str, events: int, rate: int) -> None:
    import nats

    client = await nats.connect(url)

    async def fire(payloads: list[bytes]) -> None:
        for payload in payloads:
            await client.publish(TOPIC, payload)

    await keep_time(events, rate, fire)
    await client.close()


def jetstream_consumes(say: Say, url: str, events: int) -> list[float]:
    return harness.run_loop(_jetstream_consume(say, url, events))


async def _jetstream_consume(say: Say, url: str, events: int) -> list[float]:
    import nats

    found, done = list[float](), asyncio.Event()

    async def note(message: Any) -> None:
        found.append(harness.age(message.data))
        await message.ack()
        if len(found) == events:
            done.set()

    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="BENCH", subjects=[TOPIC])
    await jetstream.subscribe(TOPIC, durable="count", cb=note, manual_ack=True)
    say("ready")
    await done.wait()
    await client.close()
    return found


def jetstream_produces(say: Say, url: str, events: int, rate: int) -> None:
    harness.run_loop(_jetstream_produce(url, events, rate))


async def _jetstream_produce(url: str, events: int, rate: int) -> None:
    import nats

    client = await nats.connect(url)
    jetstream = client.jetstream()

    async def fire(payloads: list[bytes]) -> None:
        for payload in payloads:
            await jetstream.publish_async(TOPIC, payload)

    await keep_time(events, rate, fire)
    await jetstream.publish_async_completed()
    await client.close()


# Redis ----------------------------------------------------------------------------------------------------------


def redis_consumes(say: Say, url: str, events: int) -> list[float]:
    import redis

    client = redis.Redis.from_url(url)
    client.xgroup_create(TOPIC, "count", mkstream=True)
    say("ready")
    found: list[float] = []
    while len(found) < events:
        for _, messages in client.xreadgroup("count", "one", {TOPIC: ">"}, count=READ, block=1000):
            found += [harness.age(fields[b"payload"]) for _, fields in messages]
            client.xack(TOPIC, "count", *[id for id, _ in messages])
    return found


def redis_produces(say: Say, url: str, events: int, rate: int) -> None:
    import redis

    client = redis.Redis.from_url(url)
    client.ping()
    for payloads in turns(events, rate):
        begun = perf_counter()
        if payloads:
            pipeline = client.pipeline(transaction=False)
            for payload in payloads:
                pipeline.xadd(TOPIC, {"payload": payload})
            pipeline.execute()
        sleep(max(0.0, TURN_S - (perf_counter() - begun)))


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    jetstream, always = partial(servers.nats, jetstream=True), partial(servers.redis, sync="always")
    systems: dict[str, tuple[Any, Any, Any]] = {
        "NATS core: not stored": (servers.nats, nats_consumes, nats_produces),
        "ws:// on memory://: not stored": (partial(servers.wind, "memory"), wind_consumes, wind_produces),
        "ws:// on sqlite://: fsynced": (partial(servers.wind, "sqlite"), wind_consumes, wind_produces),
        "NATS JetStream: written": (jetstream, jetstream_consumes, jetstream_produces),
        "Redis Streams: fsynced each second": (servers.redis, redis_consumes, redis_produces),
        "Redis Streams: fsynced always": (always, redis_consumes, redis_produces),
    }
    note = ""
    if servers.program("redis-server") is None:
        systems = {name: each for name, each in systems.items() if not name.startswith("Redis")}
        note = "Redis is left out: there is no redis-server here"
    tables = []
    for rate in RATES:
        events = min(options.events or SECONDS * rate, SECONDS * rate)
        measures = {
            name: partial(measure, serve, consume, produce, options.folder, events, rate)
            for name, (serve, consume, produce) in systems.items()
        }
        found = harness.take_turns(measures, options.rounds or 3)
        rows = []
        for percent in PERCENTS:
            rows += harness.to_first(
                [
                    Row(f"{name}, p{percent:g}", "µs", [harness.percentile(each, percent) for each in rounds])
                    for name, rounds in found.items()
                ]
            )
        tables.append(Table(f"From fire to the handler in another process, {rate:,} events a second", rows, note))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
