"""What does it cost to ask about a large store? It measures how long each question of an operator takes over a store
with five million events and, of a purpose, more than a million dead letters; and the same over a NATS JetStream node
with a tenth of them.

The store is built by its own commits: batches of 100 events, of which one in ten was caused by another, one in
fifty has an id that was given and one in a thousand a key. Each question is asked over and over, of one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from time import perf_counter, time_ns
from typing import Any

import harness
import servers
from harness import PAYLOAD, Options, Row, Table

EVENTS = 5_000_000
NATS_EVENTS = 500_000
BATCH = 100
TOGETHER = 100  # batches of a commit
LETTERS = 4  # events for each dead letter
CAUSED = 10  # events for each that was caused by another
CHILDREN = 5_000  # of the event that caused the most, at most
AUTHOR = b"of the bench"
TOPIC, EFFECTS, PURPOSE = "bench.fired", "bench.caused", "Give up"
STEP_NS = 100_000  # between two events
GOAL_MS = 50.0
LATE = timedelta(seconds=2)
ASKED = 20  # times each
Ask = Callable[[Any], Awaitable[Any]]


def build(url: str, events: int) -> float:
    """Build the store. Return the seconds it took."""
    return harness.run_loop(_build(url.removeprefix("sqlite:///"), events))


async def _build(path: str, events: int) -> float:
    from solarwind.core.facts import Note
    from solarwind.core.state import Change, Creation, State, Statement
    from solarwind.store.sqlite import SqliteStore

    begun, now = perf_counter(), time_ns() - events * STEP_NS - 10**9
    store = SqliteStore(path)
    await store.open(now)
    state = State(TOPIC, PURPOSE)
    fired = events - events // CAUSED
    created = Change(TOPIC, PURPOSE, created=Creation(0), stated=[Statement(1, "direct")])
    state.apply(created)
    await store.commit([], [created], [], now)
    note = Note(TOPIC, PURPOSE, "settled", [], 1, "bench/build:1", now, now, 1_000_000)
    causes: list[str] = []
    for at in range(0, fired, BATCH * TOGETHER):
        batches = []
        for start in range(at, min(fired, at + BATCH * TOGETHER), BATCH):
            batch = _fired(now, start, min(BATCH, fired - start))
            batches.append(batch)
            causes += [batch.id(index) for index in range(0, len(batch), CAUSED - 1)]
            if len(causes) >= BATCH:
                batches.append(_caused(now, start, causes[:BATCH]))
                del causes[:BATCH]
        stop = min(fired, at + BATCH * TOGETHER)
        change = _given_up(now, at, stop)
        state.apply(change)
        await store.commit(batches, [change], [], now, notes=_noted(note, change))
    await store.commit([], [], [state.snapshot()], now)
    await store.close()
    return perf_counter() - begun


def _fired(now: int, start: int, count: int) -> Any:
    from solarwind.batch import seal

    numbers = range(start, start + count)
    return seal(
        TOPIC,
        [PAYLOAD] * count,
        [now + number * STEP_NS for number in numbers],
        producer=1,
        first=start,
        machine="bench",
        process="build",
        author=AUTHOR,
        ids=[f"upload-{number}" if number % 100 < 2 else None for number in numbers],
        keys=[f"camera-{number // 1000}" if number % 1000 == 0 else None for number in numbers],
    )


def _caused(now: int, start: int, causes: list[str]) -> Any:
    """Return events that were caused one by one; of the first ones, one event caused all."""
    from solarwind.batch import seal
    from solarwind.event import Cause

    if start < CHILDREN * (CAUSED - 1):
        causes = ["upload-0"] * len(causes)
    return seal(
        EFFECTS,
        [PAYLOAD] * len(causes),
        [now + start * STEP_NS + STEP_NS * BATCH] * len(causes),
        producer=2,
        first=start,
        machine="bench",
        process="build",
        author=AUTHOR,
        causes=[Cause("event", id, PURPOSE, 1, id) for id in causes],
    )


def _given_up(now: int, start: int, stop: int) -> Any:
    from solarwind.core.spans import Spans
    from solarwind.core.state import Change, Letter

    dead = [Letter(at, 1, now + at * STEP_NS, "RuntimeError: no such camera", 1) for at in range(start, stop, LETTERS)]
    settled = Spans([edge for at in range(start, stop, LETTERS) for edge in (at + 1, min(stop, at + LETTERS))])
    return Change(TOPIC, PURPOSE, settled=settled, reach=stop, dead=dead)


def _noted(note: Any, change: Any) -> list[Any]:
    """Return what instances noted with that change: a report for each batch, of what is settled and of what is dead."""
    from msgspec.structs import replace

    from solarwind.core.spans import Spans

    dead = Spans.of(letter.position for letter in change.dead)
    notes = []
    for start in range(change.settled.edges[0] // BATCH * BATCH, change.settled.edges[-1], BATCH):
        for verdict, spans in (("settled", change.settled), ("dead", dead)):
            edges = spans.within(start, start + BATCH).edges
            notes.append(replace(note, verdict=verdict, edges=edges))
    return notes


def questions(events: int) -> Iterator[tuple[str, Ask]]:
    """Yield each question, and how it is asked."""
    from solarwind.operations import Internal

    fired = events - events // CAUSED
    middle = str(fired // 2)
    dead, settled = f"upload-{fired // 200 * 100}", f"upload-{fired // 200 * 100 + 1}"
    yield "topics", lambda wind: wind.topics()
    yield "purposes", lambda wind: wind.purposes()
    yield "dead, the first page", lambda wind: wind.dead(TOPIC, PURPOSE)
    yield "dead, a page in the middle", lambda wind: wind.dead(TOPIC, PURPOSE, middle)
    yield "one dead letter", lambda wind: Internal.letter(wind, TOPIC, PURPOSE, dead)
    yield "events, the first page", lambda wind: wind.events(TOPIC)
    yield "events, a page in the middle", lambda wind: wind.events(TOPIC, after=middle)
    yield "events, by a key, from the middle", lambda wind: wind.events(TOPIC, after=middle, key="camera-1")
    yield "events, since two seconds ago", lambda wind: wind.events(TOPIC, since=LATE)
    yield "one event that is settled, and what became of it", lambda wind: wind.event(TOPIC, settled)
    yield "one event that is dead, and what became of it", lambda wind: wind.event(TOPIC, dead)
    yield "an event that is nowhere", lambda wind: _refused(wind.event(TOPIC, "upload-"))
    yield "trace of the event that caused most", lambda wind: wind.trace("upload-0")
    yield "trace of an event in the middle", lambda wind: wind.trace(dead)
    yield "trace of the last event with an id", lambda wind: wind.trace(f"upload-{(fired - 1) // 100 * 100}")


async def _refused(asked: Awaitable[Any]) -> None:
    from solarwind.errors import NotFound

    with suppress(NotFound):
        await asked


def ask(url: str, events: int) -> dict[str, list[float]]:
    """Return how long each question took, in ms, and how long it took to open the store."""
    return harness.run_loop(_ask(url, events))


async def _ask(url: str, events: int) -> dict[str, list[float]]:
    from solarwind import SolarWind

    begun = perf_counter()
    found: dict[str, list[float]] = {}
    async with SolarWind(url) as wind:
        found["to open the store"] = [(perf_counter() - begun) * 1e3]
        for name, question in questions(events):
            took = found[name] = []
            while len(took) < ASKED and sum(took) < 10_000:
                begun = perf_counter()
                await question(wind)
                took.append((perf_counter() - begun) * 1e3)
                await asyncio.sleep(0)
    return found


def copy(source: str, target: str) -> float:
    """Copy the store to a namespace. Return the seconds it took."""
    from solarwind.copying import copy as copied
    from solarwind.copying import open_end

    begun = perf_counter()
    harness.run_loop(copied(open_end(source, writes=False), open_end(target, writes=True)))
    return perf_counter() - begun


def run(options: Options) -> list[Table]:
    return [_on_sqlite(options), _on_nats(options)]


def _on_sqlite(options: Options) -> Table:
    events = options.events or EVENTS
    with harness.store(options.folder) as url:
        seconds = harness.in_child(build, url, events)
        return _table("sqlite://", events, seconds, harness.in_child(ask, url, events))


def _on_nats(options: Options) -> Table:
    events = options.events or NATS_EVENTS
    with harness.store(options.folder) as source, servers.nats(options.folder, jetstream=True) as server:
        seconds = harness.in_child(build, source, events) + harness.in_child(copy, source, server.url)
        return _table("nats://, one node", events, seconds, harness.in_child(ask, server.url, events))


def _table(engine: str, events: int, seconds: float, found: dict[str, list[float]]) -> Table:
    rows = [Row(name, "ms", took, at_most=None if name.startswith("to ") else GOAL_MS) for name, took in found.items()]
    letters = (events - events // CAUSED) // LETTERS
    title = f"Asked of a store of {events:,} events, {letters:,} dead letters, {engine}"
    return Table(title, rows, note=f"The store was built in {seconds:.0f} s.")


if __name__ == "__main__":
    harness.main(run, __doc__)
