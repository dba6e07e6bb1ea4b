"""What does order cost? It is `in_process.py` with 10,000 keys, of each of which one event is handled at a time."""

from __future__ import annotations

import random
from time import perf_counter

import harness
from harness import PAYLOAD, WINDOW, Contestant, Options, Pace, Table

KEYS = 10_000


def handles(engine: str, folder: str, events: int, exchange: str) -> float:
    return harness.run_loop(_handle(engine, folder, events, exchange))


async def _handle(engine: str, folder: str, events: int, exchange: str) -> float:
    from solarwind import SolarWind

    names = [f"video-{number}" for number in range(KEYS)]
    keys = random.Random(1).choices(names, k=events)
    with harness.place(engine, folder) as url:
        wind = SolarWind(url)
        handled = 0

        @wind.on("bench.fired", purpose="Count", exchange=exchange)
        async def count(payload: bytes) -> None:
            nonlocal handled
            handled += 1

        async with wind:
            begun = perf_counter()
            pace = Pace()
            for at in range(0, events, WINDOW):
                for key in keys[at : at + WINDOW]:
                    receipt = wind.fire("bench.fired", PAYLOAD, key=key)
                await pace.next(receipt)
            await wind.settled()
            seconds = perf_counter() - begun
        assert handled == events
        return events / seconds


def run(options: Options) -> list[Table]:
    events, folder = options.events or 300_000, options.folder
    contestants = [
        Contestant("memory://, direct, events with keys", handles, ("memory", folder, events, "direct")),
        Contestant("memory://, keyed", handles, ("memory", folder, events, "keyed"), 150_000),
        Contestant("sqlite://, keyed", handles, ("sqlite", folder, events, "keyed"), 150_000),
    ]
    rows = harness.compare(contestants, options.rounds or 5)
    return [Table(f"Fired and handled in order per key, {KEYS:,} keys, {events:,} events", rows)]


if __name__ == "__main__":
    harness.main(run, __doc__)
