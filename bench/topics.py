"""Does an event pay for topics that it is not on? One topic with a purpose is compared with one among 10,000."""

from __future__ import annotations

from time import perf_counter

import harness
from harness import PAYLOAD, WINDOW, Contestant, Options, Pace, Table

TOPICS = 10_000


def handles(engine: str, folder: str, events: int, topics: int) -> float:
    return harness.run_loop(_handle(engine, folder, events, topics))


async def _handle(engine: str, folder: str, events: int, topics: int) -> float:
    from solarwind import SolarWind

    with harness.place(engine, folder) as url:
        wind = SolarWind(url)
        handled = 0

        async def count(payload: bytes) -> None:
            nonlocal handled
            handled += 1

        for number in range(topics):
            wind.on(f"bench.fired.{number}", purpose="Count")(count)
        async with wind:
            topic = f"bench.fired.{topics // 2}"
            await wind.settled()  # all have begun: what 10,000 handlers cost to start is another question
            begun = perf_counter()
            pace = Pace()
            for at in range(0, events, WINDOW):
                for _ in range(min(WINDOW, events - at)):
                    receipt = wind.fire(topic, PAYLOAD)
                await pace.next(receipt)
            await wind.settled()
            seconds = perf_counter() - begun
        assert handled == events
        return events / seconds


def run(options: Options) -> list[Table]:
    events, folder = options.events or 500_000, options.folder
    tables = []
    for engine in ("memory", "sqlite"):
        contestants = [
            Contestant("one topic", handles, (engine, folder, events, 1)),
            Contestant(f"{TOPICS:,} topics", handles, (engine, folder, events, TOPICS), ratio_at_least=0.9),
        ]
        rows = harness.compare(contestants, options.rounds or 3)
        tables.append(Table(f"Fired on one topic and handled, {engine}://, {events:,} events", rows))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
