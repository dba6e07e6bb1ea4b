"""What do events cost that must wait for one another? A chain of ten: each handler fires the next event. And ten events
of one key, which are handled one after the other. Both are stored, and nothing else is going on.

Each step waits for the disk. So after each ten the producer writes 4 KiB ten times at the end of a file on the same
disk and calls `fdatasync`, and their sum is what the ten are measured by. On a server the producer, the odd steps of
a chain and the even ones are processes of their own; beside them the same chain on Redis Streams, by hand, synced
before each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from statistics import median
from time import sleep
from typing import Any

import harness
import servers
from harness import Crew, Disk, Limit, Options, Row, Table
from latency_processes import PAUSE_S, Say, Turns
from servers import Server

DEPTH = 10
MORE_US = 2_000.0  # than ten times an fdatasync
FIRST = 5  # chains, or tens, that do not count
TOPIC = "bench.step-{}"
KEYED = "bench.keyed"
GROUP = "count"
WORKERS = 2
Times = tuple[list[float], list[float]]  # in µs: of each ten, and of the disk ten times


def on_disk(disk: Disk) -> float:
    return sum(disk.sync() for _ in range(DEPTH))


# Solar Wind -----------------------------------------------------------------------------------------------------


def add_steps(wind: Any, steps: Sequence[int], told: Callable[[float], object]) -> None:
    """Register the handlers of some steps. The payload, which says when the first was fired, is that of all."""

    def add(step: int) -> None:
        @wind.on(TOPIC.format(step), purpose=f"Step {step}")
        async def handle(payload: bytes) -> None:
            if step == DEPTH - 1:
                told(harness.age(payload))
            else:
                wind.fire(TOPIC.format(step + 1), payload)

    for step in steps:
        add(step)


def add_keyed(wind: Any, told: Callable[[float], object]) -> None:
    handled = 0

    @wind.on(KEYED, purpose="Count in order", exchange="keyed")
    async def handle(payload: bytes) -> None:
        nonlocal handled
        handled += 1
        if handled % DEPTH == 0:
            told(harness.age(payload))


def fire(wind: Any, keyed: bool) -> None:
    payload = harness.stamped()
    if keyed:
        for _ in range(DEPTH):
            wind.fire(KEYED, payload, key="camera-1")
    else:
        wind.fire(TOPIC.format(0), payload)


def alone(folder: str, keyed: bool, times: int) -> Times:
    """Measure it in one process, on a store."""
    return harness.run_loop(_alone(folder, keyed, times))


async def _alone(folder: str, keyed: bool, times: int) -> Times:
    from solarwind import SolarWind

    with harness.store(folder) as url, Disk(folder) as disk:
        wind = SolarWind(url)
        done = asyncio.Event()
        found: list[float] = []
        synced = []

        def told(age: float) -> None:
            found.append(age)
            done.set()

        if keyed:
            add_keyed(wind, told)
        else:
            add_steps(wind, range(DEPTH), told)
        async with wind:
            for _ in range(FIRST + times):
                done.clear()
                fire(wind, keyed)
                await done.wait()
                await wind.settled()
                synced.append(on_disk(disk))
        return found[FIRST:], synced[FIRST:]


def wind_works(keyed: bool, say: Say, url: str, number: int, line: Connection) -> None:
    harness.run_loop(_wind_work(keyed, say, url, number, line))


async def _wind_work(keyed: bool, say: Say, url: str, number: int, line: Connection) -> None:
    from solarwind import SolarWind

    wind = SolarWind(url)

    def told(age: float) -> None:
        line.send_bytes(str(age).encode())

    if not keyed:
        add_steps(wind, range(number, DEPTH, WORKERS), told)
    elif number == 0:
        add_keyed(wind, told)
    async with wind:
        say("ready")
        await asyncio.Event().wait()


def wind_produces(keyed: bool, folder: str, say: Say, url: str, times: int, line: Connection) -> Times:
    return harness.run_loop(_wind_produce(keyed, folder, url, times, line))


async def _wind_produce(keyed: bool, folder: str, url: str, times: int, line: Connection) -> Times:
    from solarwind import SolarWind

    found, synced = [], []
    with Disk(folder) as disk:
        async with SolarWind(url) as wind:
            turns = Turns(line)
            for _ in range(FIRST + times):
                fire(wind, keyed)
                found.append(float(await turns.next()))
                synced.append(on_disk(disk))
    return found[FIRST:], synced[FIRST:]


# Redis ----------------------------------------------------------------------------------------------------------


def redis_works(say: Say, url: str, number: int, line: Connection) -> None:
    """Handle the steps of one worker: the next event is added and this one acknowledged in one transaction."""
    import redis

    client = redis.Redis.from_url(url)
    steps = {TOPIC.format(step): step for step in range(number, DEPTH, WORKERS)}
    for topic in steps:
        client.xgroup_create(topic, GROUP, mkstream=True)
    say("ready")
    while True:
        for name, messages in client.xreadgroup(GROUP, "one", dict.fromkeys(steps, ">"), count=1, block=1000):
            topic = name.decode()
            for id, fields in messages:
                payload, last = fields[b"payload"], steps[topic] == DEPTH - 1
                if last:
                    line.send_bytes(str(harness.age(payload)).encode())
                with client.pipeline() as transaction:
                    if not last:
                        transaction.xadd(TOPIC.format(steps[topic] + 1), {"payload": payload})
                    transaction.xack(topic, GROUP, id)
                    transaction.execute()


def redis_produces(folder: str, say: Say, url: str, times: int, line: Connection) -> Times:
    import redis

    client = redis.Redis.from_url(url)
    found, synced = [], []
    with Disk(folder) as disk:
        for _ in range(FIRST + times):
            client.xadd(TOPIC.format(0), {"payload": harness.stamped()})
            found.append(float(line.recv_bytes()))
            sleep(PAUSE_S)
            synced.append(on_disk(disk))
    return found[FIRST:], synced[FIRST:]


# ----------------------------------------------------------------------------------------------------------------


def measure(
    serve: Callable[[str], AbstractContextManager[Server]],
    work: Callable[..., None],
    produce: Callable[..., Times],
    folder: str,
    times: int,
) -> Times:
    line, theirs = Pipe(duplex=False)
    with serve(folder) as server, Crew(endless=True) as crew:
        for number in range(WORKERS):
            crew.start(work, server.url, number, theirs).said()
        return crew.start(produce, server.url, times, line).result()


def run(options: Options) -> list[Table]:
    times, folder = max(1, (options.events or 2_000) // DEPTH), options.folder
    sqlite, redis = partial(servers.wind, "sqlite"), partial(servers.redis, sync="always")
    note = f"one fdatasync: the mean of {DEPTH}, on the same disk in the same moments"
    if servers.program("redis-server") is None:
        note += "; Redis is left out: there is no redis-server here"
    tables = []
    for keyed in (False, True):
        what = "events of one key, one after the other" if keyed else "events, of which each fires the next"
        produce = partial(wind_produces, keyed, folder)
        measures: dict[str, Callable[[], Times]] = {
            "sqlite://": partial(harness.in_child, alone, folder, keyed, times),
            "ws:// on sqlite://": partial(measure, sqlite, partial(wind_works, keyed), produce, folder, times),
        }
        if not keyed and servers.program("redis-server") is not None:
            measures["Redis Streams: fsynced always"] = partial(
                measure, redis, redis_works, partial(redis_produces, folder), folder, times
            )
        rows = _rows(harness.take_turns(measures, options.rounds or 3))
        tables.append(Table(f"{DEPTH} {what}, stored, {times:,} times", rows, note))
    return tables


def _rows(found: dict[str, list[Times]]) -> list[Row]:
    """Return the rows of each contestant, whose limit is of its own disk in its own seconds."""
    rows = []
    for name, rounds in found.items():
        disk = [median(synced) for _, synced in rounds]
        limit = Limit(f"{DEPTH} fdatasync + {MORE_US / 1e3:.0f} ms", [(each + MORE_US) / 1e3 for each in disk])
        ours = "://" in name
        rows.append(
            Row(
                f"{name}, p50",
                "ms",
                [median(tens) / 1e3 for tens, _ in rounds],
                [median(tens) / its for (tens, _), its in zip(rounds, disk, strict=True)],
                limit=limit if ours else None,
            )
        )
        rows.append(
            Row(f"{DEPTH} fdatasync beside {name}, p50", "ms", [each / 1e3 for each in disk], [1.0] * len(disk))
        )
    return rows


if __name__ == "__main__":
    harness.main(run, __doc__)
