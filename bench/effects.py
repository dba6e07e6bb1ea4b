"""What do effects once cost? `once` in the user's transactions, and the outbox's relay from commit to acceptance, each
beside what one writes by hand. On a PostgreSQL that syncs, and a dispatcher that does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from time import perf_counter
from typing import Any

import psycopg

import harness
import servers
from harness import Contestant, Options, Row, Table

BATCH = 500  # events of a batch handler, and of a transaction
NAIVE = 100  # rows that the relay written by hand looks at together
NAIVE_S = 0.1  # between two looks of it
KEYS = 1_000


@contextmanager
def database(folder: str) -> Iterator[Callable[[], str]]:
    """Yield what makes new databases, with the tables, on a server that ends with the block."""
    from solarwind.outbox import database as tables

    with servers.postgresql(folder) as server:

        def new() -> str:
            url = server.new()
            tables.init(url)
            with psycopg.connect(url) as connection:
                connection.execute("CREATE TABLE effect (event text, sum int)")
                connection.execute("CREATE TABLE seen (purpose text, event text, PRIMARY KEY (purpose, event))")
                connection.execute("CREATE TABLE naive (id bigserial PRIMARY KEY, event text, payload bytea)")
            return url

        yield new


# --- once -----------------------------------------------------------------------------------------------------


def effects(url: str, events: int, how: str) -> float:
    """Return how many effects a second are had, `BATCH` in each transaction."""
    from solarwind import Event, SolarWind
    from solarwind.batch import seal
    from solarwind.event import HandOut

    wind = SolarWind("memory://")
    batches = []
    for first in range(0, events, BATCH):
        count = min(BATCH, events - first)
        batch = seal("t", [harness.PAYLOAD] * count, [first] * count, producer=7, first=first, machine="m", process="p")
        hand_out = HandOut(batch, purpose="Book", version=1)
        batches.append([Event(hand_out, index) for index in range(count)])
    with psycopg.connect(url) as connection:
        begun = perf_counter()
        for batch_ in batches:
            new = _by_hand(connection, batch_) if how == "by hand" else wind.once(connection, batch_)
            ids = [event.id for event in new]
            connection.execute("INSERT INTO effect SELECT unnest(%s::text[]), 1", (ids,))
            connection.commit()
        seconds = perf_counter() - begun
        (found,) = connection.execute("SELECT count(*) FROM effect").fetchone() or (0,)
        assert found == events
        connection.execute("TRUNCATE effect, seen, solarwind_once")
    return events / seconds


def _by_hand(connection: Any, events: Sequence[Any]) -> list[Any]:
    """Ask for one event after the other, as one writes it first."""
    insert = "INSERT INTO seen VALUES (%s, %s) ON CONFLICT DO NOTHING"
    return [event for event in events if connection.execute(insert, (event.purpose, event.id)).rowcount]


# --- the relay ------------------------------------------------------------------------------------------------


async def _naive_relay(url: str, wind: Any) -> None:
    """Look now and then, fire, wait, and delete, as one writes it first."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        while True:
            cursor = await connection.execute(
                f"SELECT id, event, payload FROM naive ORDER BY id LIMIT {NAIVE}".encode()
            )
            rows = await cursor.fetchall()
            for id, event, payload in rows:
                await wind.fire("t", payload, id=event)
                await connection.execute("DELETE FROM naive WHERE id = %s", (id,))
            await connection.commit()
            if not rows:
                await asyncio.sleep(NAIVE_S)


def relayed(url: str, folder: str, rows: int, how: str) -> float:
    """Return how many rows a second come from the database to a dispatcher with a file, which accepts them."""
    return harness.run_loop(_relayed(url, folder, rows, how))


async def _relayed(url: str, folder: str, rows: int, how: str) -> float:
    from solarwind import SolarWind
    from solarwind.testing.contract import until

    with harness.store(folder) as store:
        wind = SolarWind(store)
        _fill(url, wind, rows, how)
        async with wind:
            begun = perf_counter()
            relay = _begin(url, wind, how)
            await until(lambda: _gone(url, how))
            seconds = perf_counter() - begun
            fired = (await wind.statistics()).topics["t"].fired
            if relay is not None:
                relay.cancel()
        assert fired == rows
    return rows / seconds


def _begin(url: str, wind: Any, how: str) -> asyncio.Task[None] | None:
    if how == "by hand":
        return asyncio.get_running_loop().create_task(_naive_relay(url, wind))
    wind.relay(url)
    return None


def _fill(url: str, wind: Any, rows: int, how: str) -> None:
    with psycopg.connect(url) as connection:
        if how == "by hand":
            insert = "INSERT INTO naive (event, payload) SELECT 'e' || n, %s FROM generate_series(1, %s) n"
            connection.execute(insert, (harness.PAYLOAD, rows))
        else:
            keys = [f"k{number % KEYS}" for number in range(rows)]
            wind.outbox(connection).fire_many("t", [harness.PAYLOAD] * rows, keys=keys)


async def _gone(url: str, how: str) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        table = "naive" if how == "by hand" else "solarwind_outbox"
        return await (await connection.execute(f"SELECT FROM {table} LIMIT 1".encode())).fetchone() is None


def latency(url: str, folder: str, events: int, how: str) -> float:
    """Return the median milliseconds from a commit to the handler, of one event at a time."""
    return harness.run_loop(_latency(url, folder, events, how))


async def _latency(url: str, folder: str, events: int, how: str) -> float:
    from solarwind import SolarWind

    with harness.store(folder) as store:
        wind = SolarWind(store)
        came = asyncio.Event()

        @wind.on("t", purpose="Look")
        async def look(payload: bytes) -> None:
            came.set()

        async with wind, await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute("TRUNCATE naive")  # its relay was cancelled before its last commit
            await connection.commit()
            relay = _begin(url, wind, how)
            taken, random = [], Random(0)
            for number in range(events):
                await asyncio.sleep(random.uniform(NAIVE_S, 2 * NAIVE_S))  # at any time between two looks
                if how == "by hand":
                    row = (f"l{number}", harness.PAYLOAD)
                    await connection.execute("INSERT INTO naive (event, payload) VALUES (%s, %s)", row)
                else:
                    await wind.outbox(connection).fire("t", harness.PAYLOAD)
                came.clear()
                await connection.commit()
                committed = perf_counter()
                await came.wait()
                taken.append((perf_counter() - committed) * 1_000)
            if relay is not None:
                relay.cancel()
    return harness.percentile(taken, 50)


def run(options: Options) -> list[Table]:
    events, rounds, folder = options.events or 100_000, options.rounds or 3, options.folder
    few = max(20, min(100, events // 10))
    with database(folder) as new:
        urls = [new() for _ in range(6)]
        asked = [
            Contestant("by hand: INSERT … ON CONFLICT for each", effects, (urls[0], events, "by hand")),
            Contestant("wind.once", effects, (urls[1], events, "once"), 20_000),
        ]
        moved = [
            Contestant("by hand: select, fire, delete", relayed, (urls[2], folder, max(20, events // 20), "by hand")),
            Contestant("wind.relay", relayed, (urls[3], folder, events, "relay"), 20_000),
        ]
        waited = [
            Contestant("by hand: looks every 0.1 s", latency, (urls[4], folder, few, "by hand")),
            Contestant("wind.relay", latency, (urls[5], folder, few, "relay")),
        ]
        once = harness.compare(asked, rounds)
        rows = harness.compare(moved, rounds)
        times: list[Row] = harness.compare(waited, rounds, "ms")
        times[1].at_most = 10.0
    return [
        Table(f"Effects once, {BATCH} in a transaction of PostgreSQL, {events:,} events", once),
        Table(f"Rows of the outbox in PostgreSQL, accepted by sqlite://, {events:,} events of {KEYS:,} keys", rows),
        Table(f"From the commit to the handler, one event at a time, median of {few}", times),
    ]


if __name__ == "__main__":
    harness.main(run, __doc__)
