"""Does a consumer that cannot keep up slow down others? It has a million events pending, on the same topic as they.

Two servers on sqlite:// have had the same events fired: on one of them nobody else listens, on the other a purpose
whose handler takes a second an event has them pending, and handles them. A service on each gets events at a steady
rate, for a moment on one, then on the other, in turns; the first events of each turn do not count. It also measures how
much the server grew, at most, since before the million."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import perf_counter

import harness
import servers
from harness import WINDOW, Crew, Options, Pace, Row, Table

TOPIC = "bench.fired"
RATE = 1_000  # events/s
TURN = 1_000  # events
FIRST = 100  # of each turn, that do not count
WARM = 10_000
SLOW_S = 1.0
GOAL_RATIO = 1.1
GOAL_MIB = 64

Say = Callable[[object], None]


def serve_steadily(say: Say, url: str, turns: int, events: int) -> None:
    """Say when it is ready, and the latencies of all that is fired at a time, once it is handled."""
    harness.run_loop(_serve_steadily(say, url, turns, events))


async def _serve_steadily(say: Say, url: str, turns: int, events: int) -> None:
    from solarwind import SolarWind

    wind = SolarWind(url)
    found: list[float] = []
    done = asyncio.Event()
    wanted = 0

    @wind.on(TOPIC, purpose="Steady")
    async def note(payload: bytes) -> None:
        found.append(harness.age(payload))
        if len(found) == wanted:
            done.set()

    async with wind:
        say("ready")
        for count in (WARM, events, *[TURN] * turns):
            wanted = count
            await done.wait()
            say(found[FIRST:])
            found.clear()
            done.clear()


def serve_slowly(say: Say, url: str, line: Connection) -> None:
    harness.run_loop(_serve_slowly(say, url, line))


async def _serve_slowly(say: Say, url: str, line: Connection) -> None:
    from solarwind import SolarWind

    wind = SolarWind(url)
    over = asyncio.Event()

    @wind.on(TOPIC, purpose="Slow", concurrency=1)
    async def dawdle(payload: bytes) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), SLOW_S)

    async with wind:
        say("ready")
        await asyncio.to_thread(line.recv_bytes)
        say((await wind.statistics()).purposes[(TOPIC, "Slow")].pending)
        over.set()


def fire(say: Say, urls: list[str], line: Connection) -> None:
    """Told a number of events and of a server, fire them: as fast as may be, or steadily."""
    harness.run_loop(_fire(say, urls, line))


async def _fire(say: Say, urls: list[str], line: Connection) -> None:
    from solarwind import SolarWind

    async with SolarWind(urls[0]) as without, SolarWind(urls[1]) as beside:
        say("ready")
        while True:
            which, events, steadily = await asyncio.to_thread(line.recv)
            if not events:
                return
            wind = beside if which else without
            if steadily:
                begun = perf_counter()
                for number in range(events):
                    await asyncio.sleep(max(0.0, begun + number / RATE - perf_counter()))
                    wind.fire(TOPIC, harness.stamped())
            else:
                pace = Pace()
                for at in range(0, events, WINDOW):
                    stamped = harness.stamped()
                    await pace.next(wind.fire_many(TOPIC, [stamped] * min(WINDOW, events - at)))
                await pace.end()


def measure(folder: str, events: int, turns: int) -> tuple[list[list[float]], list[list[float]], list[float], int]:
    """Return the latencies in turns, without and beside the slow one; how much the two servers grew; how many events
    pend."""
    with servers.wind("sqlite", folder) as one, servers.wind("sqlite", folder) as other, Crew() as crew:
        both = (one, other)
        steady = [crew.start(serve_steadily, server.url, turns, events) for server in both]
        (told, tell), (slow_told, tell_slow) = Pipe(duplex=False), Pipe(duplex=False)
        slow = crew.start(serve_slowly, other.url, slow_told)
        producer = crew.start(fire, [server.url for server in both], told)
        for member in (*steady, slow, producer):
            member.said()
        for which in (0, 1):
            tell.send((which, WARM, False))
            steady[which].said()
        before = [harness.memory(server.pid) for server in both]
        for which in (0, 1):
            tell.send((which, events, False))
            steady[which].said()
        found: tuple[list[list[float]], list[list[float]]] = ([], [])
        for turn in range(turns):
            for which in (turn % 2, 1 - turn % 2):
                tell.send((which, TURN, True))
                found[which].append(steady[which].said())
        grown = [harness.peak_memory(server.pid) - its for server, its in zip(both, before, strict=True)]
        tell_slow.send_bytes(b".")
        pending = slow.said()
        tell.send((0, 0, False))
        return *found, grown, pending


def run(options: Options) -> list[Table]:
    events, turns = options.events or 1_000_000, options.rounds or 10
    without, beside, grown, pending = measure(options.folder, events, turns)
    rows = []
    for percent in (50, 99):
        pair = [
            Row(f"{name}, p{percent}", "µs", [harness.percentile(each, percent) for each in found])
            for name, found in (("without it", without), ("beside it", beside))
        ]
        pair[1].ratio_at_most = GOAL_RATIO if percent == 99 else None
        rows += harness.to_first(pair)
    rows.append(Row("the server grew, without it", "MiB", grown[:1]))
    rows.append(Row("the server grew, beside it", "MiB", grown[1:], at_most=GOAL_MIB))
    title = f"Beside a slow consumer with {pending:,} events pending, fire to handler at {RATE:,}/s"
    return [Table(title, rows)]


if __name__ == "__main__":
    harness.main(run, __doc__)
