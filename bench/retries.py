"""What do handlers cost that fail now and then? One event in a hundred fails at its first attempt and succeeds at its
second, at most 10 ms later.

Fired and handled in one process; the clock runs from the first event fired until `settled()`. Beside it huey on
SQLite, with a task that fails likewise and is retried after 0 s. A failure is logged, with its traceback, to a file
that nobody reads."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from time import perf_counter

import harness
from harness import PAYLOAD, Contestant, Options, Table
from solarwind import Event, Retry, SolarWind

EACH = 100  # so many events, one of them fails
HUEY_SHARE = 100  # it is slower by about so much, and gets so much less to do
WAIT_S = 0.01


class Failed(Exception):
    pass


def handles(engine: str, folder: str, events: int, failing: bool) -> float:
    logging.basicConfig(filename=os.devnull)
    return harness.run_loop(_handle(engine, folder, events, failing))


async def _handle(engine: str, folder: str, events: int, failing: bool) -> float:
    with harness.place(engine, folder) as url:
        wind = SolarWind(url)
        seen = done = 0

        @wind.on("bench.fired", purpose="Count", retry=Retry(wait=WAIT_S))
        async def count(event: Event) -> None:
            nonlocal seen, done
            if event.attempt == 1:
                seen += 1
                if failing and seen % EACH == 0:
                    raise Failed("it will do the next time")
            done += 1

        async with wind:
            begun = perf_counter()
            await harness.fire_all(wind, "bench.fired", events, many=False)
            await wind.settled()
            seconds = perf_counter() - begun
        assert done == events
        return events / seconds


def huey_executes(folder: str, events: int, failing: bool) -> float:
    from huey import SqliteHuey

    logging.basicConfig(filename=os.devnull)
    with tempfile.TemporaryDirectory(prefix="solarwind-bench-", dir=folder) as path:
        huey = SqliteHuey(filename=os.path.join(path, "huey.db"), results=False, fsync=False)
        tried: set[int] = set()
        handled = 0
        done = threading.Event()

        @huey.task(retries=1)
        def count(number: int, payload: bytes) -> None:
            nonlocal handled
            if failing and number % EACH == 0 and number not in tried:
                tried.add(number)
                raise Failed("it will do the next time")
            handled += 1
            if handled == events:
                done.set()

        consumer = huey.create_consumer(workers=1)
        begun = perf_counter()
        for number in range(events):
            count(number, PAYLOAD)
        consumer.start()
        done.wait()
        seconds = perf_counter() - begun
        consumer.stop(graceful=True)
        return events / seconds


def run(options: Options) -> list[Table]:
    events, folder = options.events or 300_000, options.folder
    few = max(1, events // HUEY_SHARE)
    tables = []
    for name, measure, arguments in (
        ("memory://", handles, ("memory", folder, events)),
        ("sqlite://", handles, ("sqlite", folder, events)),
        ("huey on SQLite, fsync=False", huey_executes, (folder, few)),
    ):
        contestants = [
            Contestant(f"{name}, none fails", measure, (*arguments, False)),
            Contestant(f"{name}, one in {EACH} fails once", measure, (*arguments, True)),
        ]
        rows = harness.compare(contestants, options.rounds or 3)
        tables.append(Table(f"Fired and handled, {arguments[-1]:,} events", rows))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
