"""How soon is one event handled? One at a time goes into an idle dispatcher: it measures from `fire` to the handler,
and until `await fire()` returns.

On SQLite both wait for the disk. So between two events the same process writes 4 KiB at the end of a file there and
calls `fdatasync`: the two take turns, and meet the same disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import harness
from harness import PAYLOAD, Disk, Options, Row, Table

GOAL = 1.6  # of `await fire()` on SQLite, to an fdatasync


@dataclass
class Times:
    """In µs, of each event."""

    handled: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    synced: list[float] = field(default_factory=list)


def fired(engine: str, folder: str, events: int) -> Times:
    return harness.run_loop(_fire(engine, folder, events))


async def _fire(engine: str, folder: str, events: int) -> Times:
    from solarwind import SolarWind

    with harness.place(engine, folder) as url, Disk(folder) as disk:
        wind = SolarWind(url)
        begun = 0.0
        times = Times()
        done = asyncio.Event()

        @wind.on("bench.fired", purpose="Count")
        async def count(payload: bytes) -> None:
            times.handled.append((perf_counter() - begun) * 1e6)
            done.set()

        async with wind:
            for _ in range(events):
                done.clear()
                begun = perf_counter()
                await wind.fire("bench.fired", PAYLOAD)
                times.accepted.append((perf_counter() - begun) * 1e6)
                await done.wait()
                await wind.settled()
                if engine == "sqlite":
                    times.synced.append(disk.sync())
        return times


def run(options: Options) -> list[Table]:
    events, folder = options.events or 1_000, options.folder
    engines = {engine: partial(harness.in_child, fired, engine, folder, events) for engine in ("memory", "sqlite")}
    found = harness.take_turns(engines, options.rounds or 3)
    tables = []
    for engine, rounds in found.items():
        rows = []
        for percent in (50, 99):
            names = {"fire to handler": "handled", "await fire()": "accepted"}
            if engine == "sqlite":
                names = {"fdatasync of 4 KiB": "synced"} | names
            figures = {
                name: [harness.percentile(getattr(times, kind), percent) for times in rounds]
                for name, kind in names.items()
            }
            rows += _rows(engine, percent, figures)
        note = "ratio: to the same percentile of fdatasync" if engine == "sqlite" else ""
        tables.append(Table(f"Latency on {engine}://, one at a time, {events:,} events", rows, note))
    return tables


def _rows(engine: str, percent: int, figures: dict[str, list[float]]) -> list[Row]:
    wanted = GOAL if (engine, percent) == ("sqlite", 50) else None
    rows = [
        Row(f"{name}, p{percent}", "µs", each, ratio_at_most=wanted if name == "await fire()" else None)
        for name, each in figures.items()
    ]
    return harness.to_first(rows) if engine == "sqlite" else rows


if __name__ == "__main__":
    harness.main(run, __doc__)
