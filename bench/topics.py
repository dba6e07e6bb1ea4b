"""Does an event pay for topics that it is not on? One topic with a purpose is compared with one among 10,000 and one
among 100,000."""

from __future__ import annotations

import asyncio
from time import perf_counter

import harness
from harness import Contestant, Options, Table

TOPICS = (10_000, 100_000)


def handles(engine: str, folder: str, events: int, topics: int) -> float:
    return harness.run_loop(_handle(engine, folder, events, topics))


async def _handle(engine: str, folder: str, events: int, topics: int) -> float:
    from solarwind import SolarWind

    with harness.place(engine, folder) as url:
        wind = SolarWind(url)
        handled, done = 0, asyncio.Event()

        async def count(payload: bytes) -> None:
            nonlocal handled
            handled += 1
            if handled == events:
                done.set()

        for number in range(topics):
            wind.on(f"bench.fired.{number}", purpose="Count")(count)
        async with wind:
            topic = f"bench.fired.{topics // 2}"
            await wind.settled()  # all have begun: what so many handlers cost to start is another question
            begun = perf_counter()
            await harness.fire_all(wind, topic, events, many=False)
            await done.wait()
            return events / (perf_counter() - begun)


def run(options: Options) -> list[Table]:
    events, folder = options.events or 500_000, options.folder
    several = [topics for topics in TOPICS if topics <= 100 * events]  # a quick look waits for no more to start
    tables = []
    for engine in ("memory", "sqlite"):
        contestants = [
            Contestant("one topic", handles, (engine, folder, events, 1)),
            *[
                Contestant(f"{topics:,} topics", handles, (engine, folder, events, topics), ratio_at_least=0.9)
                for topics in several
            ],
        ]
        rows = harness.compare(contestants, options.rounds or 3)
        tables.append(Table(f"Fired on one topic and handled, {engine}://, {events:,} events", rows))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
