"""How many events a second go from one process through a server to another, beside other message brokers?

Producer, server and consumer are three processes. The payload stays undecoded and the consumer counts. The clock
runs from the first event fired: to the last one accepted, and to the last one handled. Each peer has its own Python
client, used as its documentation advises: pipelined, in batches, pulled, confirmed. Each name says what the server
promises by accepting an event, because the figures mean little without it. What an event costs the processors is of
all processes together, from their start on; memory is the most that the server had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import harness
import rabbit
import servers
from harness import PAYLOAD, Crew, Options, Row, Table
from servers import Server

TOPIC = "bench.fired"
PIPELINE = 500  # of Redis
PULL = 500  # of JetStream
AHEAD = 2_000  # published to JetStream and not yet acknowledged
GOAL = 600_000


class Turn(NamedTuple):
    handled: float  # events/s, to the last one
    accepted: float
    cost: float  # µs of processor time, an event
    memory: float  # MiB


@dataclass
class System:
    """`consume(say, url, events)` says when it is ready, and gives the time of the last event; `produce(say, url,
    events)` gives the times of its first event, and of when the last was accepted."""

    name: str
    serve: Callable[[str], AbstractContextManager[Server]]
    consume: Callable[..., float]
    produce: Callable[..., tuple[float, float]]
    share: int = 1  # of the events: slow ones get less to do
    at_least: float | None = None

    def measure(self, folder: str, events: int) -> Turn:
        events = max(1, events // self.share)
        with self.serve(folder) as server, Crew() as crew:
            server_pids = harness.family(server.pid) if server.pid else []
            spent = harness.cpu_s(*server_pids)
            consumer = crew.start(self.consume, server.url, events)
            consumer.said()
            begun, accepted = crew.start(self.produce, server.url, events).result()
            handled = consumer.result()
            spent = harness.cpu_s(*server_pids) - spent + crew.cpu_s
            memory = sum(map(harness.peak_memory, server_pids))
            return Turn(events / (handled - begun), events / (accepted - begun), spent / events * 1e6, memory)


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_consumes(batches: bool, say: Callable[[object], None], url: str, events: int) -> float:
    return harness.run_loop(_wind_consume(batches, say, url, events))


async def _wind_consume(batches: bool, say: Callable[[object], None], url: str, events: int) -> float:
    from solarwind import SolarWind

    wind = SolarWind(url)
    done, _ = harness.count_events(wind, TOPIC, events, batches=batches)
    async with wind:
        say("ready")
        await done.wait()
        return perf_counter()


def wind_produces(many: bool, say: Callable[[object], None], url: str, events: int) -> tuple[float, float]:
    return harness.run_loop(_wind_produce(many, url, events))


async def _wind_produce(many: bool, url: str, events: int) -> tuple[float, float]:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        begun = perf_counter()
        await harness.fire_all(wind, TOPIC, events, many=many)
        return begun, perf_counter()


# NATS -----------------------------------------------------------------------------------------------------------


def nats_consumes(say: Callable[[object], None], url: str, events: int) -> float:
    return harness.run_loop(_nats_consume(say, url, events))


async def _nats_consume(say: Callable[[object], None], url: str, events: int) -> float:
    import nats

    handled = 0
    done = asyncio.Event()

    async def count(message: Any) -> None:
        nonlocal handled
        handled += 1
        if handled == events:
            done.set()

    client = await nats.connect(url)
    await client.subscribe(TOPIC, cb=count, pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    say("ready")
    await done.wait()
    ended = perf_counter()
    await client.close()
    return ended


def nats_produces(say: Callable[[object], None], url: str, events: int) -> tuple[float, float]:
    return harness.run_loop(_nats_produce(url, events))


async def _nats_produce(url: str, events: int) -> tuple[float, float]:
    import nats

    client = await nats.connect(url)
    begun = perf_counter()
    for _ in range(events):
        await client.publish(TOPIC, PAYLOAD)
    await client.flush(timeout=60)
    ended = perf_counter()
    await client.close()
    return begun, ended


def jetstream_consumes(say: Callable[[object], None], url: str, events: int) -> float:
    return harness.run_loop(_jetstream_consume(say, url, events))


async def _jetstream_consume(say: Callable[[object], None], url: str, events: int) -> float:
    import nats
    from nats.js.api import ConsumerConfig

    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="BENCH", subjects=[TOPIC])
    config = ConsumerConfig(max_ack_pending=20 * PULL)
    subscription = await jetstream.pull_subscribe(TOPIC, durable="count", config=config)
    say("ready")
    handled = 0
    while handled < events:
        try:
            messages = await subscription.fetch(PULL, timeout=1)
        except TimeoutError:
            continue
        for message in messages:
            await message.ack()
        handled += len(messages)
    ended = perf_counter()
    await client.close()
    return ended


def jetstream_produces(say: Callable[[object], None], url: str, events: int) -> tuple[float, float]:
    return harness.run_loop(_jetstream_produce(url, events))


async def _jetstream_produce(url: str, events: int) -> tuple[float, float]:
    import nats

    client = await nats.connect(url)
    jetstream = client.jetstream(publish_async_max_pending=AHEAD)
    begun = perf_counter()
    for _ in range(events):
        await jetstream.publish_async(TOPIC, PAYLOAD)
    await jetstream.publish_async_completed()
    ended = perf_counter()
    await client.close()
    return begun, ended


# Redis ----------------------------------------------------------------------------------------------------------


def redis_consumes(say: Callable[[object], None], url: str, events: int) -> float:
    import redis

    client = redis.Redis.from_url(url)
    client.xgroup_create(TOPIC, "count", mkstream=True)
    say("ready")
    handled = 0
    while handled < events:
        for _, messages in client.xreadgroup("count", "one", {TOPIC: ">"}, count=PIPELINE, block=1000):
            client.xack(TOPIC, "count", *[id for id, _ in messages])
            handled += len(messages)
    return perf_counter()


def redis_produces(say: Callable[[object], None], url: str, events: int) -> tuple[float, float]:
    import redis

    client = redis.Redis.from_url(url)
    client.ping()
    begun = perf_counter()
    for at in range(0, events, PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(PIPELINE, events - at)):
            pipeline.xadd(TOPIC, {"payload": PAYLOAD})
        pipeline.execute()
    return begun, perf_counter()


# ZeroMQ ---------------------------------------------------------------------------------------------------------


def zeromq_consumes(say: Callable[[object], None], url: str, events: int) -> float:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(url)
        say("ready")
        for _ in range(events):
            socket.recv()
        return perf_counter()


def zeromq_produces(say: Callable[[object], None], url: str, events: int) -> tuple[float, float]:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(url)
        begun = perf_counter()
        for _ in range(events):
            socket.send(PAYLOAD)
        return begun, perf_counter()


# ----------------------------------------------------------------------------------------------------------------


def wind(engine: str, many: bool, batches: bool) -> System:
    promise, goal = ("fsynced", GOAL) if engine == "sqlite" else ("not stored", None)
    name = f"ws:// {engine}, {'fire_many' if many else 'fire'}, {'list[bytes]' if batches else 'bytes'}: {promise}"
    serve = partial(servers.wind, engine)
    return System(name, serve, partial(wind_consumes, batches), partial(wind_produces, many), at_least=goal)


def systems() -> list[System]:
    jetstream = partial(servers.nats, jetstream=True)
    synced = partial(servers.nats, jetstream=True, sync_always=True)
    return [
        System("NATS core: not stored", servers.nats, nats_consumes, nats_produces, share=4),
        wind("sqlite", many=False, batches=False),
        wind("sqlite", many=False, batches=True),
        wind("sqlite", many=True, batches=False),
        wind("sqlite", many=True, batches=True),
        wind("memory", many=False, batches=False),
        wind("memory", many=True, batches=True),
        System("NATS JetStream: written", jetstream, jetstream_consumes, jetstream_produces, share=20),
        System("NATS JetStream: fsynced", synced, jetstream_consumes, jetstream_produces, share=200),
        System("Redis Streams: fsynced each second", servers.redis, redis_consumes, redis_produces, share=8),
        System("ZeroMQ: no server", servers.nobody, zeromq_consumes, zeromq_produces),
        rabbitmq("classic", "written"),
        rabbitmq("quorum", "fsynced"),
        rabbitmq("stream", "written"),
    ]


def rabbitmq(kind: str, promise: str) -> System:
    """Return RabbitMQ with one kind of queue, on one node."""
    consume, produce = partial(rabbit.consumes, kind), partial(rabbit.produces, kind)
    return System(f"RabbitMQ {kind}: {promise}", servers.rabbitmq, consume, produce, share=40)


def run(options: Options) -> list[Table]:
    events, contestants, missing = options.events or 1_000_000, systems(), []
    for name, program, serve in (
        ("Redis", "redis-server", servers.redis),
        ("RabbitMQ", servers.RABBITMQ, servers.rabbitmq),
    ):
        if servers.program(program) is None:
            contestants = [each for each in contestants if each.serve is not serve]
            missing.append(name)
    note = f"left out, since it is not here: {', '.join(missing)}" if missing else ""
    measures = {each.name: partial(each.measure, options.folder, events) for each in contestants}
    found = harness.take_turns(measures, options.rounds or 3)
    handled = [
        Row(each.name, "events/s", [turn.handled for turn in found[each.name]], at_least=each.at_least)
        for each in contestants
    ]
    accepted = [Row(name, "events/s", [turn.accepted for turn in turns]) for name, turns in found.items()]
    cost = [Row(name, "µs/event", [turn.cost for turn in turns]) for name, turns in found.items()]
    memory = [Row(name, "MiB", [turn.memory for turn in turns]) for name, turns in found.items()]
    what = f"Three processes, {events:,} events"
    return [
        Table(f"{what}: to the last one handled", harness.to_first(handled), note),
        Table(f"{what}: to the last one accepted", harness.to_first(accepted), note),
        Table(f"{what}: processor time of all three", harness.to_first(cost), note),
        Table(f"{what}: the server's memory, at most", [row for row in memory if any(row.figures)], note),
    ]


if __name__ == "__main__":
    harness.main(run, __doc__)
