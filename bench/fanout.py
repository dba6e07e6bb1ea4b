"""How many deliveries a second are there when each event goes to a thousand instances?

They are in ten processes, a hundred in each, which share its one connection. The producer never gets so far ahead that
an instance has to drop something: it sees in shared memory how far the slowest process is. NATS core has a thousand
subscriptions on ten connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing.sharedctypes import RawArray
from time import perf_counter
from typing import Any

import harness
import servers
from harness import PAYLOAD, Crew, Options, Row, Table
from servers import Server

TOPIC = "bench.fired"
PROCESSES = 10
INSTANCES = 100  # in each of them
WINDOW = 250
AHEAD = 2_000  # events; a fan-out buffer holds 10,000
LOOK_S = 0.005
SILENT_S = 5.0  # after which what is missing will not come
GOAL = 2_000_000

Say = Callable[[object], None]


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    consume: Callable[..., tuple[int, float]],
    produce: Callable[..., float],
    folder: str,
    events: int,
) -> tuple[float, int]:
    """Return all deliveries/s together, and how many are missing."""
    counts = RawArray("Q", PROCESSES)
    with serve(folder) as server, Crew() as crew:
        consumers = [crew.start(consume, server.url, events, counts, number) for number in range(PROCESSES)]
        for consumer in consumers:
            consumer.said()
        begun = crew.start(produce, server.url, events, counts).result()
        found = [consumer.result() for consumer in consumers]
    delivered = sum(count for count, _ in found)
    ended = max(last for _, last in found)
    return delivered / (ended - begun), events * INSTANCES * PROCESSES - delivered


async def count_up(handled: Callable[[], int], events: int, counts: Any, number: int) -> tuple[int, float]:
    """Show how far this process is, until it is through or nothing comes any more; and give when the last came."""
    last, at = 0, perf_counter()
    while last < events * INSTANCES and (not last or perf_counter() - at < SILENT_S):
        if (now := handled()) != last:
            last, at = now, perf_counter()
            counts[number] = now
        await asyncio.sleep(LOOK_S)
    return last, at


async def keep_pace(fired: int, counts: Any) -> None:
    while min(counts) < (fired - AHEAD) * INSTANCES:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(LOOK_S)


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_consumes(batches: bool, say: Say, url: str, events: int, counts: Any, number: int) -> tuple[int, float]:
    return harness.run_loop(_wind_consume(batches, say, url, events, counts, number))


async def _wind_consume(batches: bool, say: Say, url: str, events: int, counts: Any, number: int) -> tuple[int, float]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    handled = 0

    async def count(payload: bytes) -> None:
        nonlocal handled
        handled += 1

    async def count_all(payloads: list[bytes]) -> None:
        nonlocal handled
        handled += len(payloads)

    for _ in range(INSTANCES):
        wind.on(TOPIC, purpose="Live page", exchange="fanout")(count_all if batches else count)
    async with wind:
        say("ready")
        return await count_up(lambda: handled, events, counts, number)


def wind_produces(say: Say, url: str, events: int, counts: Any) -> float:
    return harness.run_loop(_wind_produce(url, events, counts))


async def _wind_produce(url: str, events: int, counts: Any) -> float:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        begun = perf_counter()
        for at in range(0, events, WINDOW):
            await wind.fire_many(TOPIC, [PAYLOAD] * min(WINDOW, events - at))
            await keep_pace(at + WINDOW, counts)
        return begun


# NATS -----------------------------------------------------------------------------------------------------------


def nats_consumes(say: Say, url: str, events: int, counts: Any, number: int) -> tuple[int, float]:
    return harness.run_loop(_nats_consume(say, url, events, counts, number))


async def _nats_consume(say: Say, url: str, events: int, counts: Any, number: int) -> tuple[int, float]:
    import nats

    handled = 0

    async def count(message: Any) -> None:
        nonlocal handled
        handled += 1

    client = await nats.connect(url)
    for _ in range(INSTANCES):
        await client.subscribe(TOPIC, cb=count, pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    say("ready")
    found = await count_up(lambda: handled, events, counts, number)
    await client.close()
    return found


def nats_produces(say: Say, url: str, events: int, counts: Any) -> float:
    return harness.run_loop(_nats_produce(url, events, counts))


async def _nats_produce(url: str, events: int, counts: Any) -> float:
    import nats

    client = await nats.connect(url)
    begun = perf_counter()
    for at in range(0, events, WINDOW):
        for _ in range(min(WINDOW, events - at)):
            await client.publish(TOPIC, PAYLOAD)
        await client.flush()
        await keep_pace(at + WINDOW, counts)
    await client.close()
    return begun


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    events, folder = options.events or 2_000, options.folder
    nats, wind = servers.nats, partial(servers.wind, "memory")
    single, batch = partial(wind_consumes, False), partial(wind_consumes, True)
    measures = {
        "NATS core": partial(measure, nats, nats_consumes, nats_produces, folder, events),
        "ws:// on memory://, bytes": partial(measure, wind, single, wind_produces, folder, events),
        "ws:// on memory://, list[bytes]": partial(measure, wind, batch, wind_produces, folder, events),
    }
    found = harness.take_turns(measures, options.rounds or 3)
    rows, notes = [], []
    for name, rounds in found.items():
        goal = GOAL if name.startswith("ws://") else None
        rows.append(Row(name, "events/s", [rate for rate, _ in rounds], at_least=goal))
        missing = sum(count for _, count in rounds)
        if missing:
            notes.append(f"{name}: {missing:,} deliveries did not come")
    title = f"Deliveries to {PROCESSES * INSTANCES:,} instances in {PROCESSES} processes, {events:,} events"
    return [Table(title, harness.to_first(rows), "; ".join(notes))]


if __name__ == "__main__":
    harness.main(run, __doc__)
