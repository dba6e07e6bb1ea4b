"""What do delayed events cost until they are due, and how fast do they enter their topic when they all are?

They become due while nothing runs. The clock runs from the start of the dispatcher until a purpose has handled all of
them. With one time they travel in the batches in which they were fired; with a time each, an event is a batch of its
own. huey is a task queue on SQLite, here in the same process with its own consumer: it schedules tasks, and polls for
those that are due. What waits for next week is measured by the memory of the process, and by how long `await fire`
takes beside it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter

import harness
from harness import PAYLOAD, WINDOW, Contestant, Options, Pace, Row, Table

HUEY_SHARE = 500  # it is slower by about so much, and gets so much less to do
EACH_SHARE = 5  # events with a time each
WAIT = timedelta(days=7)
LATER = 1_000  # of what is fired beside those that wait


async def _fire_later(wind: object, events: int, due: datetime, *, each: bool) -> None:
    pace = Pace()
    for at in range(0, events, WINDOW):
        window = min(WINDOW, events - at)
        if each:
            for number in range(at, at + window):
                receipt = wind.fire("bench.later", PAYLOAD, at=due + timedelta(microseconds=number))  # type: ignore[attr-defined]
        else:
            receipt = wind.fire_many("bench.later", [PAYLOAD] * window, at=due)  # type: ignore[attr-defined]
        await pace.next(receipt)
    await pace.end()


def solarwind_catches_up(folder: str, events: int, each: bool) -> float:
    return harness.run_loop(_catch_up(folder, events, each))


async def _catch_up(folder: str, events: int, each: bool) -> float:
    from solarwind import SolarWind
    from solarwind.engine.clock import SteadyClock
    from solarwind.engine.local import LocalEngine
    from solarwind.store.sqlite import SqliteStore

    class LaterClock(SteadyClock):
        """The clock of a machine that nothing ran on meanwhile."""

        def wall(self) -> int:
            return time.time_ns() + 2 * int(WAIT.total_seconds() * 1e9)

    with harness.place("sqlite", folder) as url:
        async with SolarWind(url) as wind:
            await _fire_later(wind, events, datetime.now(UTC) + WAIT, each=each)
        wind = SolarWind(engine=LocalEngine(SqliteStore(url.removeprefix("sqlite:///")), clock=LaterClock()))
        done, handled = harness.count_events(wind, "bench.later", events, batches=True)
        begun = perf_counter()
        async with wind:
            await done.wait()
            seconds = perf_counter() - begun
        assert handled() == events
        return events / seconds


def huey_catches_up(folder: str, events: int) -> float:
    from huey import SqliteHuey

    with tempfile.TemporaryDirectory(prefix="solarwind-bench-", dir=folder) as path:
        huey = SqliteHuey(filename=os.path.join(path, "huey.db"), results=False)
        handled = 0
        done = threading.Event()

        @huey.task()
        def count(payload: bytes) -> None:
            nonlocal handled
            handled += 1
            if handled == events:
                done.set()

        due = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=2)
        for _ in range(events):
            huey.add_schedule(count.s(PAYLOAD, eta=due))
        time.sleep(2)
        consumer = huey.create_consumer(workers=1)
        begun = perf_counter()
        consumer.start()
        done.wait()
        seconds = perf_counter() - begun
        consumer.stop(graceful=True)
        return events / seconds


def puts(url: str, events: int) -> None:
    harness.run_loop(_put(url, events))


async def _put(url: str, events: int) -> None:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        await _fire_later(wind, events, datetime.now(UTC) + WAIT, each=True)


def waits(folder: str, events: int) -> tuple[float, float]:
    """Return how much memory a process takes with so many delayed events, and how long `await fire` takes, in µs."""
    with harness.place("sqlite", folder) as url:
        harness.in_child(puts, url, events)
        return harness.run_loop(_wait(url))


async def _wait(url: str) -> tuple[float, float]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    _, handled = harness.count_events(wind, "bench.now", 0, batches=False)
    async with wind:
        await harness.fire_all(wind, "bench.now", 10 * WINDOW, many=True)
        times = []
        for number in range(LATER):
            begun = perf_counter()
            await wind.fire("bench.now", PAYLOAD)
            times.append((perf_counter() - begun) * 1e6)
            if not number % 100:  # it is asked, which reads from the due-log
                await wind.delayed(limit=100)
        await wind.settled()
        assert handled() == 10 * WINDOW + LATER
        return harness.memory(), harness.percentile(times, 50)


def _waiting(folder: str, events: int, rounds: int) -> list[Table]:
    counts: Sequence[int] = (0, events)
    measures = {f"{count:,}": partial(harness.in_child, waits, folder, count) for count in counts}
    found = harness.take_turns(measures, rounds)
    without, there = ([memory for memory, _ in figures] for figures in found.values())
    more = Row("more than without", "MB", [two - one for one, two in zip(without, there, strict=True)], at_most=20)
    latency = [Row(f"with {name} delayed", "µs", [each for _, each in figures]) for name, figures in found.items()]
    return [
        Table(f"Memory of a process with {events:,} events that are due next week", [Row("all", "MB", there), more]),
        Table("`await fire` of an event that is not delayed, median", harness.to_first(latency)),
    ]


def run(options: Options) -> list[Table]:
    events, folder, rounds = options.events or 1_000_000, options.folder, options.rounds or 3
    few = max(1, events // EACH_SHARE)
    contestants = [
        Contestant("huey on SQLite", huey_catches_up, (folder, max(1, events // HUEY_SHARE))),
        Contestant("sqlite://, one time", solarwind_catches_up, (folder, events, False), 200_000),
        Contestant("sqlite://, a time each", solarwind_catches_up, (folder, few, True)),
    ]
    rows = harness.compare(contestants, rounds)
    return [Table(f"{events:,} events that became due while nothing ran", rows), *_waiting(folder, events, rounds)]


if __name__ == "__main__":
    harness.main(run, __doc__)
