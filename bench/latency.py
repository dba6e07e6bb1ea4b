"""How soon is one event handled? One at a time goes into an idle dispatcher: it measures from `fire` to the handler,
and until `await fire()` returns.

On SQLite both wait for the disk. So between two events the same process writes 4 KiB at the end of a file there and
calls `fdatasync`: the two take turns, and meet the same disk.

An event that comes after a quiet moment is slower, since a processor that others use as well has forgotten the program
and its data. That is measured too, beside a loop that looks at some records of many, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from random import Random
from time import perf_counter

import harness
from harness import PAYLOAD, Disk, Options, Row, Table

GOAL = 1.6  # of `await fire()` on SQLite, to an fdatasync
QUIET_MS = (0, 1, 2, 5, 10)
RECORDS, LOOKS = 200_000, 600


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


def after_quiet(ms: int, events: int) -> tuple[list[float], list[float]]:
    """Return the µs of each event from `fire` to its handler, and of looking at some records."""
    return harness.run_loop(_after_quiet(ms / 1000, events))


async def _after_quiet(quiet_s: float, events: int) -> tuple[list[float], list[float]]:
    from solarwind import SolarWind

    wind, handled, looked, done = SolarWind("memory://"), list[float](), list[float](), asyncio.Event()
    records = [{"number": [number]} for number in range(RECORDS)]
    some = [records[number] for number in Random(1).sample(range(RECORDS), LOOKS)]

    @wind.on("bench.fired", purpose="Count")
    async def count(payload: bytes) -> None:
        handled.append((perf_counter() - begun) * 1e6)
        done.set()

    async with wind:
        for _ in range(events):
            await asyncio.sleep(quiet_s)
            done.clear()
            begun = perf_counter()
            wind.fire("bench.fired", PAYLOAD)
            await done.wait()
            await asyncio.sleep(quiet_s)
            begun = perf_counter()
            sum([record["number"][0] for record in some])
            looked.append((perf_counter() - begun) * 1e6)
    return handled, looked


def run(options: Options) -> list[Table]:
    return [*_latencies(options), _after(options)]


def _after(options: Options) -> Table:
    events = min(options.events or 500, 500)
    measures = {ms: partial(harness.in_child, after_quiet, ms, events) for ms in QUIET_MS}
    found = harness.take_turns({str(ms): each for ms, each in measures.items()}, options.rounds or 3)
    rows = []
    for at, what in enumerate(("fire to handler", f"{LOOKS} of {RECORDS:,} records looked at")):
        rows += harness.to_first(
            [
                Row(f"{what}, after {ms} ms", "µs", [harness.percentile(each[at], 50) for each in rounds])
                for ms, rounds in found.items()
            ]
        )
    return Table("After a quiet moment, memory://, p50", rows)


def _latencies(options: Options) -> list[Table]:
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
