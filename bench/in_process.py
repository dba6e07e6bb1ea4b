"""How many events a second does one process fire and handle, beside a bare call by signal?

One direct purpose with an `async def` handler takes the payload undecoded. The clock runs from the first `fire` until
`settled()`; on SQLite every event is fsynced before it is accepted. blinker's `send` stores, queues and awaits nothing:
it calls a function. huey is a task queue on SQLite, here in the same process with its own consumer: by default, which
is an fsync for each task, and with `fsync=False`."""

from __future__ import annotations

import os
import tempfile
import threading
from time import perf_counter

import harness
from harness import PAYLOAD, WINDOW, Contestant, Options, Pace, Table

HUEY_SHARE = 200  # it is slower by about so much, and gets so much less to do


def blinker_sends(events: int) -> float:
    from blinker import signal

    fired = signal("bench.fired")
    handled = 0

    def count(sender: object, payload: bytes) -> None:
        nonlocal handled
        handled += 1

    fired.connect(count)
    begun = perf_counter()
    for _ in range(events):
        fired.send("bench", payload=PAYLOAD)
    assert handled == events
    return events / (perf_counter() - begun)


def huey_executes(folder: str, events: int, fsync: bool | None) -> float:
    from huey import SqliteHuey

    with tempfile.TemporaryDirectory(prefix="solarwind-bench-", dir=folder) as path:
        huey = SqliteHuey(filename=os.path.join(path, "huey.db"), results=False, fsync=fsync)
        handled = 0
        done = threading.Event()

        @huey.task()
        def count(payload: bytes) -> None:
            nonlocal handled
            handled += 1
            if handled == events:
                done.set()

        consumer = huey.create_consumer(workers=1)
        begun = perf_counter()
        for _ in range(events):
            count(PAYLOAD)
        consumer.start()  # only now, which is faster: else the two wait for each other's lock
        done.wait()
        seconds = perf_counter() - begun
        consumer.stop(graceful=True)
        return events / seconds


def solarwind_handles(engine: str, folder: str, events: int, many: bool) -> float:
    return harness.run_loop(_handle(engine, folder, events, many))


async def _handle(engine: str, folder: str, events: int, many: bool) -> float:
    from solarwind import SolarWind

    with harness.place(engine, folder) as url:
        wind = SolarWind(url)
        handled = 0

        @wind.on("bench.fired", purpose="Count")
        async def count(payload: bytes) -> None:
            nonlocal handled
            handled += 1

        async with wind:
            begun = perf_counter()
            pace = Pace()
            for at in range(0, events, WINDOW):
                window = min(WINDOW, events - at)
                if many:
                    receipt = wind.fire_many("bench.fired", [PAYLOAD] * window)
                else:
                    for _ in range(window):
                        receipt = wind.fire("bench.fired", PAYLOAD)
                await pace.next(receipt)
            await wind.settled()
            seconds = perf_counter() - begun
        assert handled == events
        return events / seconds


def run(options: Options) -> list[Table]:
    events, folder = options.events or 1_000_000, options.folder
    wind = solarwind_handles
    contestants = [
        Contestant("blinker send", blinker_sends, (events,)),
        Contestant("memory://, fire", wind, ("memory", folder, events, False), 600_000, 1.0),
        Contestant("memory://, fire_many", wind, ("memory", folder, events, True)),
        Contestant("sqlite://, fire", wind, ("sqlite", folder, events, False), 400_000, 1.0),
        Contestant("sqlite://, fire_many", wind, ("sqlite", folder, events, True)),
        Contestant("huey on SQLite", huey_executes, (folder, max(1, events // HUEY_SHARE), None)),
        Contestant("huey on SQLite, fsync=False", huey_executes, (folder, max(1, events // HUEY_SHARE), False)),
    ]
    rows = harness.compare(contestants, options.rounds or 5)
    return [Table(f"Fired and handled in one process, {events:,} events", rows)]


if __name__ == "__main__":
    harness.main(run, __doc__)
