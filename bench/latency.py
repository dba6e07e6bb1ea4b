"""How soon is one event handled? One at a time goes into an idle dispatcher: it measures from `fire` to the handler,
and until `await fire()` returns.

On SQLite both wait for the disk, so the time to write and `fdatasync` 64 KB there stands beside them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from time import perf_counter

import harness
from harness import PAYLOAD, Options, Row, Table


def fired(engine: str, folder: str, events: int) -> tuple[list[float], list[float]]:
    """Return the microseconds from `fire` to the handler, and to acceptance."""
    return harness.run_loop(_fire(engine, folder, events))


async def _fire(engine: str, folder: str, events: int) -> tuple[list[float], list[float]]:
    from solarwind import SolarWind

    with harness.place(engine, folder) as url:
        wind = SolarWind(url)
        begun = 0.0
        handled: list[float] = []
        accepted: list[float] = []
        done = asyncio.Event()

        @wind.on("bench.fired", purpose="Count")
        async def count(payload: bytes) -> None:
            handled.append((perf_counter() - begun) * 1e6)
            done.set()

        async with wind:
            for _ in range(events):
                done.clear()
                begun = perf_counter()
                await wind.fire("bench.fired", PAYLOAD)
                accepted.append((perf_counter() - begun) * 1e6)
                await done.wait()
                await wind.settled()
        return handled, accepted


def synced(folder: str, times: int) -> list[float]:
    """Return the microseconds to write and sync 64 KB at the end of a file."""
    block, found = os.urandom(64 << 10), []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            begun = perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            found.append((perf_counter() - begun) * 1e6)
    return found


def run(options: Options) -> list[Table]:
    events, folder = options.events or 1_000, options.folder
    figures: dict[str, list[float]] = {}
    for _ in range(options.rounds or 3):
        disk = harness.in_child(synced, folder, events)
        memory = harness.in_child(fired, "memory", folder, events)
        sqlite = harness.in_child(fired, "sqlite", folder, events)
        series = {
            "fdatasync of 64 KB": disk,
            "memory://, fire to handler": memory[0],
            "memory://, await fire()": memory[1],
            "sqlite://, fire to handler": sqlite[0],
            "sqlite://, await fire()": sqlite[1],
        }
        for name, found in series.items():
            for percent in (50, 99):
                figures.setdefault(f"{name}, p{percent}", []).append(harness.percentile(found, percent))
    rows = []
    for name, found in figures.items():
        base = figures[f"fdatasync of 64 KB, {name.rpartition(' ')[2]}"]
        rows.append(Row(name, "µs", found, [mine / its for mine, its in zip(found, base, strict=True)]))
    note = "ratio: to the same percentile of fdatasync"
    return [Table(f"Latency, one at a time, {events:,} events", rows, note)]


if __name__ == "__main__":
    harness.main(run, __doc__)
