"""How many events a second go to three purposes that handle each of them four times together? One of the purposes is
direct with one instance, one is a fan-out with two, one is direct with two.

Producer, server and two consumers are processes; the instances of a purpose that has two are in both. Handlers take
lists of undecoded payloads, and count. The clock runs from the first event fired to the last one handled. What a
fan-out instance's full buffer dropped is shown. On NATS core the same are plain subscriptions and queue groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event as Flag
from time import perf_counter
from typing import Any, NamedTuple

import harness
import servers
from harness import Crew, Options, Row, Table
from processes import nats_produces, wind_produces
from servers import Server

TOPIC = "bench.fired"  # where the producers of `processes.py` fire
GOAL = 500_000
TIMES = 4  # that each event is handled
NATS_SHARE = 10  # of the events: it is slower by about so much
SILENT_S = 1.0  # after which nothing more comes

Say = Callable[[object], None]
Found = tuple[int, float]  # how many events a process has handled, and when the last one


class Turn(NamedTuple):
    fired: float  # events/s
    handled: float  # events/s, of all four
    missing: float  # % of what was to be handled


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    consume: Callable[..., Found],
    produce: Callable[..., tuple[float, float]],
    folder: str,
    events: int,
) -> Turn:
    over = get_context("spawn").Event()  # once all was accepted
    with serve(folder) as server, Crew() as crew:
        consumers = [crew.start(consume, server.url, first, over) for first in (True, False)]
        for consumer in consumers:
            consumer.said()
        begun, _ = crew.start(produce, server.url, events).result()
        over.set()
        found = [consumer.result() for consumer in consumers]
    seconds = max(last for _, last in found) - begun
    handled = sum(count for count, _ in found)
    return Turn(events / seconds, handled / seconds, 100 * (1 - handled / (TIMES * events)))


def wind_consumes(say: Say, url: str, first: bool, over: Flag) -> Found:
    return harness.run_loop(_wind_consume(say, url, first, over))


async def _wind_consume(say: Say, url: str, first: bool, over: Flag) -> Found:
    from solarwind import SolarWind

    wind, count, last = SolarWind(url), 0, 0.0

    async def note(payloads: list[bytes]) -> None:
        nonlocal count, last
        count += len(payloads)
        last = perf_counter()

    if first:
        wind.on(TOPIC, purpose="Bill")(note)
    wind.on(TOPIC, purpose="Show", exchange="fanout")(_another(note))
    wind.on(TOPIC, purpose="Index")(_another(note))
    async with wind:
        say("ready")
        await asyncio.to_thread(over.wait, harness.PATIENCE_S)
        await wind.settled(harness.PATIENCE_S)
        await _silence(lambda: last)
    return count, last


def _another(note: Callable[[list[bytes]], Any]) -> Callable[[list[bytes]], Any]:
    """Return a handler of its own: a function handles for one purpose."""

    async def handle(payloads: list[bytes]) -> None:
        await note(payloads)

    return handle


async def _silence(last: Callable[[], float]) -> None:
    """Wait until nothing more comes: a fan-out is never through."""
    while perf_counter() - last() < SILENT_S:  # noqa: ASYNC110 – there is nothing that could tell
        await asyncio.sleep(SILENT_S / 10)


def nats_consumes(say: Say, url: str, first: bool, over: Flag) -> Found:
    return harness.run_loop(_nats_consume(say, url, first, over))


async def _nats_consume(say: Say, url: str, first: bool, over: Flag) -> Found:
    import nats

    count, last = 0, 0.0

    async def note(message: Any) -> None:
        nonlocal count, last
        count += 1
        last = perf_counter()

    client = await nats.connect(url)
    for queue in ("bill", "", "index") if first else ("", "index"):
        await client.subscribe(TOPIC, queue=queue, cb=note, pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    say("ready")
    await asyncio.to_thread(over.wait, harness.PATIENCE_S)
    await _silence(lambda: last)
    await client.close()
    return count, last


def run(options: Options) -> list[Table]:
    events = options.events or 1_000_000
    measures: dict[str, Callable[[], Turn]] = {
        "NATS core: not stored": partial(
            measure, servers.nats, nats_consumes, nats_produces, options.folder, max(1, events // NATS_SHARE)
        )
    }
    for engine, promise in (("sqlite", "fsynced"), ("memory", "not stored")):
        for many in (False, True):
            name = f"ws:// {engine}, {'fire_many' if many else 'fire'}: {promise}"
            serve, produce = partial(servers.wind, engine), partial(wind_produces, many)
            measures[name] = partial(measure, serve, wind_consumes, produce, options.folder, events)
    found = harness.take_turns(measures, options.rounds or 3)
    goals = {"ws:// sqlite, fire_many: fsynced": GOAL}
    fired = [
        Row(name, "events/s", [turn.fired for turn in turns], at_least=goals.get(name)) for name, turns in found.items()
    ]
    handled = [Row(name, "events/s", [turn.handled for turn in turns]) for name, turns in found.items()]
    missing = [Row(name, "%", [turn.missing for turn in turns]) for name, turns in found.items()]
    what = f"{events:,} events, each for four instances"
    note = f"NATS core, a {NATS_SHARE}th of the events"
    return [
        Table(f"{what}: fired", harness.to_first(fired), note),
        Table(f"{what}: handled, all together", harness.to_first(handled), note),
        Table(f"{what}: what a full buffer dropped, of all", missing, note),
    ]


if __name__ == "__main__":
    harness.main(run, __doc__)
