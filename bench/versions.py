"""What does a second version cost? One version gets all events; or two divide them, and the newer one has a tenth; or
the newer one is a shadow, which gets a copy of each, and is compared."""

from __future__ import annotations

import asyncio
from time import perf_counter

import harness
from harness import PAYLOAD, WINDOW, Contestant, Options, Pace, Table

SHARE = 0.1
KEYS = 10_000


def handles(engine: str, folder: str, events: int, rollout: float | str | None, keys: bool) -> float:
    return harness.run_loop(_handle(engine, folder, events, rollout, keys))


async def _handle(engine: str, folder: str, events: int, rollout: float | str | None, keys: bool) -> float:
    """Return how many events a second are handled. A shadow gets all of them, and is waited for."""
    from solarwind import Limits, SolarWind

    names = [f"video-{number}" for number in range(KEYS)] if keys else None
    with harness.place(engine, folder) as url:
        wind = SolarWind(url, limits=Limits(copies=events, copy_bytes=1 << 30))
        handled = [0, 0]

        def add(version: int) -> None:
            @wind.on("bench.fired", purpose="Count", version=version + 1, rollout=rollout if version else None)
            async def count(payload: bytes) -> None:
                handled[version] += 1

        for version in range(1 + (rollout is not None)):
            add(version)
        async with wind:
            begun = perf_counter()
            pace = Pace()
            for at in range(0, events, WINDOW):
                window = min(WINDOW, events - at)
                some = [names[number % KEYS] for number in range(at, at + window)] if names else None
                await pace.next(wind.fire_many("bench.fired", [PAYLOAD] * window, keys=some))
            await wind.settled()
            while rollout == "shadow":
                its = (await wind.rollout("bench.fired", "Count")).versions[1]
                if its.compared + its.missed == events:
                    break
                await asyncio.sleep(0.001)
            seconds = perf_counter() - begun
        assert handled == [events, events] if rollout == "shadow" else sum(handled) == events
        return events / seconds


def run(options: Options) -> list[Table]:
    events, folder = options.events or 500_000, options.folder
    tables = []
    for engine in ("memory", "sqlite"):
        for keys in (False, True):
            contestants = [
                Contestant("one version", handles, (engine, folder, events, None, keys)),
                Contestant(
                    "two, one of them with a tenth", handles, (engine, folder, events, SHARE, keys), ratio_at_least=0.9
                ),
                Contestant(
                    "two, one of them a shadow", handles, (engine, folder, events, "shadow", keys), ratio_at_least=0.6
                ),
            ]
            rows = harness.compare(contestants, options.rounds or 5)
            what = f"{engine}://, {f'{KEYS:,} keys' if keys else 'no keys'}, {events:,} events"
            tables.append(Table(f"Divided among versions, {what}", rows))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
