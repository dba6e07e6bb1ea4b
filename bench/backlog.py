"""Does a backlog cost anything but disk? It measures, with ten and with fifty million pending events, how long a store
takes to open, how much memory it takes to drain it, and whether it drains as fast as a backlog of a hundred thousand.

Each store is filled by one process and drained by another. The small one is drained before and after the large one."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import harness
from harness import PAYLOAD, WINDOW, Options, Pace, Row, Table

SMALL = 100_000
LARGE = (10_000_000, 50_000_000)


def fill(url: str, events: int, then: Callable[[], object] = bool) -> float:
    """Leave so many events pending for a purpose that nobody is there for, and call `then`. Return the seconds."""
    return harness.run_loop(_fill(url, events, then))


async def _fill(url: str, events: int, then: Callable[[], object]) -> float:
    from solarwind import SolarWind

    wind = SolarWind(url)

    @wind.on("bench.fired", purpose="Count")
    async def count(payload: bytes) -> None:
        raise AssertionError("nobody is to handle it yet")

    async with wind:
        await wind.off(count)
        begun = perf_counter()
        pace = Pace()
        for at in range(0, events, WINDOW):
            for _ in range(min(WINDOW, events - at)):
                receipt = wind.fire("bench.fired", PAYLOAD)
            await pace.next(receipt)
        await pace.end()
        seconds = perf_counter() - begun
        then()
        return seconds


def drain(url: str, events: int) -> tuple[float, float, float]:
    """Return the seconds to open, the events/s, and the peak memory in MiB."""
    return harness.run_loop(_drain(url, events))


async def _drain(url: str, events: int) -> tuple[float, float, float]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    handled = 0

    @wind.on("bench.fired", purpose="Count")
    async def count(payload: bytes) -> None:
        nonlocal handled
        handled += 1

    begun = perf_counter()
    async with wind:
        opened = perf_counter()
        await wind.settled()
        seconds = perf_counter() - opened
        peak = harness.peak_memory()
    assert handled == events
    return opened - begun, events / seconds, peak


def measure(folder: str, events: int) -> tuple[float, float, float, float]:
    with harness.store(folder) as url:
        return events / harness.in_child(fill, url, events), *harness.in_child(drain, url, events)


def run(options: Options) -> list[Table]:
    return [compared(options, events) for events in ((options.events,) if options.events else LARGE)]


def compared(options: Options, events: int) -> Table:
    small, large = [], []
    for _ in range(options.rounds or 1):
        before, between, after = (measure(options.folder, count) for count in (SMALL, events, SMALL))
        small.append([(one + other) / 2 for one, other in zip(before, after, strict=True)])
        large.append(between)
    filled, opened, drained, peak = ([each[at] for each in large] for at in range(4))
    few = [each[2] for each in small]
    ratios = [mine / its for mine, its in zip(drained, few, strict=True)]
    rows = [
        Row("time to open", "s", opened, at_most=1.0),
        Row("peak memory while draining", "MiB", peak, at_most=150),
        Row(f"peak memory, {SMALL:,} pending", "MiB", [each[3] for each in small]),
        Row(f"drained, {SMALL:,} pending", "events/s", few, [1.0] * len(few)),
        Row("drained", "events/s", drained, ratios, ratio_at_least=0.9),
        Row("filled, nobody there", "events/s", filled),
    ]
    return Table(f"A backlog of {events:,} events on sqlite://", rows)


if __name__ == "__main__":
    harness.main(run, __doc__)
